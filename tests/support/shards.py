"""Planned shards of small images, in every format of the inputs."""

import gzip
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.inputs.loose_files import Member
from pipeline.output.layout import hash16
from pipeline.plan.planned_shard import PlannedShard
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri

STORE = StoreConfig()


def shard_at(uri: str, shard_format: str = "tar", **changes: Any) -> PlannedShard:
    """Returns the plan of an object that is there."""
    info = StorePath(uri, STORE).head()
    plan = {"num_records": None, "done": (), "action": "new"} | changes
    return PlannedShard(
        shard=uri, name="x", hash16=hash16(uri), format=shard_format, etag=info.etag, size=info.size, **plan
    )


def write_shard(
    folder: Path,
    make_tar: Callable[[dict[str, bytes]], bytes],
    shard_format: str,
    images: Mapping[str, bytes],
    ignored: Sequence[int] = (),
    **changes: Any,
) -> PlannedShard:
    """Writes a shard of images to the disk, and returns its plan.

    Args:
        ignored: numbers of members of a tar that are no images: before each image, then behind the last.
    """
    if shard_format == "files":
        infos = []
        for name, data in images.items():
            uri = canonical_uri(str(folder / name))
            StorePath(uri, STORE).put(data)
            infos.append(StorePath(uri, STORE).head())
        members = tuple(
            Member(info.uri, name, info.size, info.etag, "cat") for name, info in zip(images, infos, strict=True)
        )
        plan = {"num_records": len(members), "done": (), "action": "new"} | changes
        return PlannedShard(
            shard="files:ab", name="x", hash16="ab", format="files", etag=None, size=0, members=members, **plan
        )
    if shard_format == "parquet":
        body = io.BytesIO()
        table = pa.table({"jpg": pa.array(images.values(), pa.binary()), "label": ["cat"] * len(images)})
        pq.write_table(table, body, row_group_size=3)
        data, name = body.getvalue(), "x.parquet"
    else:
        members = {}
        for at in range(len(images) + 1):
            members |= {f"{at}-{i}.bin": b"" for i in range(ignored[at] if at < len(ignored) else 0)}
            for image in list(images)[at : at + 1]:
                members |= {image: images[image], image.partition(".")[0] + ".cls": b"cat"}
        data = make_tar(members)
        data, name = (gzip.compress(data, mtime=0), "x.tar.gz") if shard_format == "tgz" else (data, "x.tar")
    uri = canonical_uri(str(folder / name))
    StorePath(uri, STORE).put(data)
    return shard_at(uri, "parquet" if shard_format == "parquet" else "tar", **changes)


def upset(uri: str, how: str) -> None:
    """Deletes an object if `how` is `missing`, else replaces it by another one."""
    if how == "missing":
        StorePath(uri, STORE).delete()
    else:
        StorePath(uri, STORE).put(b"another")
