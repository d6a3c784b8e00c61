"""Exports that lie beside the images: `metadata.jsonl` for image folders, sidecar tars for WebDataset shards."""

import io
import json
import logging
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from pipeline.dataset.file_exports import Rows, accepted, in_file, member_name
from pipeline.inputs.formats import FILES_SCHEME, TAR, format_of
from pipeline.inputs.names import LABELS_TAR_ENDING, METADATA_FILE
from pipeline.store.uris import is_inside, join_uri, name_of, shown

logger = logging.getLogger(__name__)


class Sidecar(NamedTuple):
    """One object that belongs beside images: where, the folder or tar that it is of, and its content."""

    uri: str
    of: str
    body: memoryview


# (rows, classes, the job's inputs) -> the sidecars, one after the other.
MakeSidecars = Callable[[Rows, Sequence[str], Sequence[str]], Iterator[Sidecar]]


def make_imagefolder(rows: Rows, classes: Sequence[str], roots: Sequence[str]) -> Iterator[Sidecar]:
    """For each input a `metadata.jsonl` with its accepted loose images, as `load_dataset("imagefolder")` reads it."""
    numbers = {label: number for number, label in enumerate(classes)}
    folders = list(dict.fromkeys(roots))

    def write(folder: str, sink: Any) -> None:
        for row in accepted(rows()):
            uri, label = row["image_id"], row["label"]
            if row["shard"].startswith(FILES_SCHEME) and _folder_of(uri, folders) == folder:
                name = uri[len(folder) :].lstrip("/")
                entry = {"file_name": name, "label": label, "label_id": numbers[label], "score": row["score"]}
                sink.write(json.dumps({**entry, "label_source": row["label_source"]}).encode() + b"\n")

    for folder in folders:
        yield Sidecar(join_uri(folder, METADATA_FILE), folder, in_file(partial(write, folder)))


def _folder_of(uri: str, folders: Sequence[str]) -> str | None:
    """The input that an image lies in: the first of them, as in the job."""
    return next((folder for folder in folders if is_inside(uri, folder) and uri != folder), None)


def make_webdataset(rows: Rows, classes: Sequence[str], roots: Sequence[str]) -> Iterator[Sidecar]:
    """For each tar a sidecar `x.labels.tar`: every record's key with `.json`, and `.cls` where it is accepted.

    Keys stand in the order of the shard, so that both can be read side by side. `.cls` is the number of the class in
    the data set; `.json` has its name. Records whose names lead out of the folder that a tar is unpacked in, such as
    `../../a.png`, are left out: their labels are in the output.
    """
    numbers = {label: number for number, label in enumerate(classes)}
    all_rows = (row for batch in rows() for row in batch.to_pylist())
    for shard, records in groupby(all_rows, lambda row: row["shard"]):
        if shard.startswith(FILES_SCHEME) or format_of(shard) not in (TAR, None):
            continue
        body, num_left_out = _sidecar_tar(records, numbers)
        if num_left_out:
            logger.warning("export.names_lead_out shard=%s records=%d: not in the sidecar", shown(shard), num_left_out)
        yield Sidecar(_sidecar_uri(shard), shard, memoryview(body))


def _sidecar_uri(shard: str) -> str:
    name = name_of(shard)
    ending = next((ending for ending in TAR.endings if name.lower().endswith(ending)), "")
    return shard[: len(shard) - len(ending)] + LABELS_TAR_ENDING


def _sidecar_tar(records: Iterator[Mapping[str, Any]], numbers: Mapping[str, int]) -> tuple[bytes, int]:
    """(the tar, how many records are left out for their names)"""
    body = io.BytesIO()
    seen: set[str] = set()
    num_left_out = 0
    with tarfile.open(fileobj=body, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for row in records:
            # What stands for the lost rest of a tar is no record.
            if row["key"] is None or (key := sample_key(member_name(row))) in seen:
                continue
            seen.add(key)
            if leads_out(member_name(row)):
                num_left_out += 1
                continue
            said = {name: row[name] for name in ("label", "decision", "score", "label_source", "error_code")}
            contents = {"json": json.dumps(said).encode()}
            if row["decision"] == "accepted":
                contents["cls"] = str(numbers[row["label"]]).encode()
            for ending, content in contents.items():
                # Without times or owners: the same labels are the same bytes.
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return body.getvalue(), num_left_out


def leads_out(name: str) -> bool:
    """True for a name that some program may unpack outside the folder it was told to: absolute, or with `..` in it."""
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or parts[0].endswith(":") or ".." in parts


def sample_key(member: str) -> str:
    """What WebDataset calls a sample by: the member's name up to the first dot of its last part."""
    folder, name = posixpath.split(member)
    return posixpath.join(folder, name.partition(".")[0])


BESIDE: Mapping[str, MakeSidecars] = {"imagefolder": make_imagefolder, "webdataset": make_webdataset}
