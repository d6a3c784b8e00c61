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
from pipeline.inputs.ids import loose_uri
from pipeline.inputs.names import LABELS_TAR_ENDING, METADATA_FILE
from pipeline.store.uris import is_inside, join_uri, name_of, shown

logger = logging.getLogger(__name__)


class Sidecar(NamedTuple):
    """An object that holds the labels of the images in one folder or tar.

    Attributes:
        uri: URI of the sidecar beside the images.
        of: URI of the folder or tar that the sidecar describes.
        body: Content of the sidecar.
    """

    uri: str
    of: str
    body: memoryview


# A function from (rows, classes, the job's inputs) to the sidecars, one after the other.
MakeSidecars = Callable[[Rows, Sequence[str], Sequence[str]], Iterator[Sidecar]]


def make_imagefolder(rows: Rows, classes: Sequence[str], roots: Sequence[str]) -> Iterator[Sidecar]:
    """Yields one `metadata.jsonl` for each input: its accepted loose images, for `load_dataset("imagefolder")`."""
    numbers = {label: number for number, label in enumerate(classes)}
    folders = list(dict.fromkeys(roots))

    def write(folder: str, sink: Any) -> None:
        for row in accepted(rows()):
            uri, label = loose_uri(row["image_id"]), row["label"]
            if row["shard"].startswith(FILES_SCHEME) and _folder_of(uri, folders) == folder:
                name = uri[len(folder) :].lstrip("/")
                entry = {"file_name": name, "label": label, "label_id": numbers[label], "score": row["score"]}
                sink.write(json.dumps({**entry, "label_source": row["label_source"]}).encode() + b"\n")

    for folder in folders:
        yield Sidecar(join_uri(folder, METADATA_FILE), folder, in_file(partial(write, folder)))


def _folder_of(uri: str, folders: Sequence[str]) -> str | None:
    """Returns the first input that an image lies in; None if the image lies in no input."""
    return next((folder for folder in folders if is_inside(uri, folder) and uri != folder), None)


def make_webdataset(rows: Rows, classes: Sequence[str], roots: Sequence[str]) -> Iterator[Sidecar]:
    """Yields a sidecar `x.labels.tar` for each tar: a `.json` for every record, and a `.cls` for every accepted record.

    The members have the order of the shard, so that both tars can be read side by side. `.cls` holds the number of the
    class in the data set, and `.json` holds the label, the decision and the score. A name such as `../../a.png` leads
    out of the folder that a tar is unpacked in. Records with such names are left out, and their labels remain in the
    output.
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
    """Returns the sidecar tar, and the number of records that are left out because of their names."""
    body = io.BytesIO()
    seen: set[str] = set()
    num_left_out = 0
    with tarfile.open(fileobj=body, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for row in records:
            # A row without a key stands for the lost rest of a broken tar, and is no record.
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
                # Members have no times or owners, so that equal labels give equal bytes.
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return body.getvalue(), num_left_out


def leads_out(name: str) -> bool:
    """Returns True for a name that a program might unpack outside its folder: an absolute name, or a name with `..`."""
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or parts[0].endswith(":") or ".." in parts


def sample_key(member: str) -> str:
    """Returns the key of a member's sample in WebDataset: the path, with the file name cut at the first dot."""
    folder, name = posixpath.split(member)
    return posixpath.join(folder, name.partition(".")[0])


BESIDE: Mapping[str, MakeSidecars] = {"imagefolder": make_imagefolder, "webdataset": make_webdataset}
