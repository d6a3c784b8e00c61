"""Makes thumbnails of some rows of a data set; images are fetched and decoded as in the job that labelled the rows."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_image import FailedImage, decode_image
from pipeline.decode.thumbnail import thumbnail
from pipeline.inputs.ids import loose_uri
from pipeline.inputs.loose_files import Member, read_files
from pipeline.inputs.names import NameFilter
from pipeline.inputs.parquet import read_parquet
from pipeline.inputs.record import ReaderOptions, Record, ShardEnd
from pipeline.inputs.tar import read_tar
from pipeline.store.config import StoreConfig
from pipeline.store.errors import ChangedError, StoreError
from pipeline.store.store_path import StorePath

SIDE_PX = 256

Row = Mapping[str, Any]
"""`image_id`, `shard`, `key`, `row`, `source_etag` and `error_code` of an image in a data set."""

# An image that could not be read or decoded has no thumbnail. An image that crashed a process of the job would crash
# this process, too.
_HOPELESS = ("source.", "decode.")


@dataclass(frozen=True, kw_only=True)
class ShardRules:
    """Settings by which the job read its shards.

    The keys of images whose name occurs more than once in a tar depend on these settings.

    Attributes:
        names: Globs that chose images and shards.
        image_column: Parquet column with the encoded images; None means that the reader finds the column.
    """

    names: NameFilter = field(default_factory=NameFilter)
    image_column: str | None = None


def pictures(rows: Sequence[Row], store: StoreConfig, rules: ShardRules) -> dict[str, bytes | str]:
    """Returns a JPEG for each image id, or a sentence that says why the image has no thumbnail.

    Every shard is read once, from its start to its last wanted image.

    Args:
        store: Store of the inputs.
    """
    found: dict[str, bytes | str] = {}
    loose: list[Row] = []
    shards: defaultdict[tuple[str, str | None], list[Row]] = defaultdict(list)
    for row in rows:
        if (row["error_code"] or "").startswith(_HOPELESS):
            found[row["image_id"]] = f"it could not be read: {row['error_code']}"
        elif row["shard"].startswith("files:"):
            loose.append(row)
        else:
            shards[row["shard"], row["source_etag"]].append(row)
    # The sizes of loose images are unknown here, so the number of images bounds how many images are fetched ahead.
    members = [Member(loose_uri(row["image_id"]), row["key"] or "", 0, row["source_etag"], None) for row in loose]
    for row, record in zip(loose, read_files(members, store, give_up_failed=True), strict=True):
        found[row["image_id"]] = _picture(record)
    for (shard, etag), wanted in shards.items():
        found |= _of_shard(StorePath(shard, store), etag, wanted, rules)
    return found


def _of_shard(shard: StorePath, etag: str | None, wanted: Sequence[Row], rules: ShardRules) -> dict[str, bytes | str]:
    ids = {row["key"]: row["image_id"] for row in wanted}
    found: dict[str, bytes | str] = {}
    reason = "it is not in its shard any more"
    try:
        info = shard.head()
        if info is None:
            return dict.fromkeys(ids.values(), "its shard is gone")
        with shard.open(size=info.size, etag=etag) as file:
            for record in _records(file, min(row["row"] for row in wanted), rules):
                if record.key is None and record.failure is not None:
                    reason = record.failure.message
                elif record.key in ids:
                    found[ids[record.key]] = _picture(record)
                    if len(found) == len(ids):
                        break
    except ChangedError:
        reason = "its shard changed after it was labelled"
    except StoreError as error:
        reason = f"its shard could not be read ({type(error).__name__})"
    return dict.fromkeys(ids.values(), reason) | found


def _records(file: BinaryIO, start_row: int, rules: ShardRules) -> Iterator[Record]:
    is_parquet = file.read(4) == b"PAR1"
    file.seek(0)
    names = rules.names
    options = ReaderOptions(takes_image=names.takes_image, image_column=rules.image_column, rules=names.rules)
    items = read_parquet(file, options, start_row) if is_parquet else read_tar(file, options)
    return (item for item in items if not isinstance(item, ShardEnd))


def _picture(record: Record) -> bytes | str:
    if record.data is None:
        return record.failure.message if record.failure is not None else "it has no bytes"
    decoded = decode_image(record.data, SizePolicy())
    return decoded.failure.message if isinstance(decoded, FailedImage) else thumbnail(decoded.pixels, SIDE_PX)
