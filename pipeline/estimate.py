"""What a planned run will take, from the headers of a sample of its images and the last report over the same output."""

import json
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from model.config import PVTv2Config
from model.cost import count_macs
from pipeline.config import InputConfig
from pipeline.decode import probe_size
from pipeline.layout import REPORT_FILE, RUNS
from pipeline.plan import Member, PlannedShard
from pipeline.prepare import Run
from pipeline.shards.parquet import num_rows, read_parquet
from pipeline.shards.record import Record
from pipeline.shards.tar import read_tar
from pipeline.sizes import NetSize, SizePolicy, net_size
from pipeline.storage import StoreConfig, list_objects, open_reader, read, read_range
from pipeline.store_errors import StoreError
from pipeline.uris import join_uri, name_of

logger = logging.getLogger(__name__)

NUM_SHARDS = 24
NUM_IMAGES = 600  # in all shards that are drawn
_HEADER_BYTES = 64 * 1024  # in which nearly every image says its size
_TAR_BLOCK = 512


@dataclass(frozen=True, slots=True)
class _Sampled:
    """What the images of one shard whose headers were read come to.

    Attributes:
        images: how many of them the network will take.
        weight: how often they go into what is to be done of the shard.
    """

    images: int
    pixels: int
    macs: int
    weight: float


def estimate_run(run: Run) -> dict[str, Any] | None:
    """What the planned run will take, for the last line of a dry run; None if there is nothing to read.

    `images`, `mpix` and `gmac` are of the whole plan. `seconds` and `cost` are None before the first run over an
    output; `like_run` is the one whose start and pace they go by.
    """
    config = run.config
    shards = _drawn(iter(run.plan.rows), NUM_SHARDS)
    if not shards:
        return None
    most = -(-NUM_IMAGES // len(shards))
    found = [_sample(shard, most, config.input, run.checkpoint.network, config.sizes) for shard in shards]
    parts = [part for part in found if part is not None]
    # The other shards of the plan, and drawn ones that cannot be read, are taken to be like these, byte by byte.
    seen_bytes = sum(shard.size for shard, part in zip(shards, found, strict=True) if part is not None)
    scale = run.plan.bytes / max(1, seen_bytes)
    gmac = scale * sum(part.macs * part.weight for part in parts) / 1e9
    pace = _last_pace(run)
    seconds = None if pace is None else pace["fixed_s"] + gmac / pace["gmac_per_s"]
    price = config.compute.price_per_hour
    hours = None if pace is None or seconds is None else seconds / 3600 * (pace["num_actors"] or 1)
    return {
        "images_sampled": sum(part.images for part in parts),
        "images": round(scale * sum(part.images * part.weight for part in parts)),
        "mpix": round(scale * sum(part.pixels * part.weight for part in parts) / 1e6, 3),
        "gmac": round(gmac, 3),
        "seconds": None if seconds is None else round(seconds, 1),
        "cost": None if price is None or hours is None else round(price * hours, 4),
        "like_run": None if pace is None else pace["run_id"],
    }


def _drawn(shards: Iterator[PlannedShard], count: int) -> list[PlannedShard]:
    """That many of the shards, each with the same chance; the same ones every time."""
    rng = random.Random(0)
    kept: list[PlannedShard] = []
    for index, shard in enumerate(shards):
        if len(kept) < count:
            kept.append(shard)
        elif (place := rng.randrange(index + 1)) < count:
            kept[place] = shard
    return kept


def _sample(
    shard: PlannedShard, most: int, config: InputConfig, network: PVTv2Config, policy: SizePolicy
) -> _Sampled | None:
    """What some images of a shard come to; None if it cannot be read."""
    try:
        found, total = _some_records(shard, most, config)
    except (StoreError, ValueError) as error:
        logger.warning("estimate.shard_left_out shard=%s error=%s", shard.shard, error)
        return None
    done = sum(slice.last_row - slice.first_row + 1 for slice in shard.done)
    todo = max(0.0, total - done) if shard.num_todo is None else shard.num_todo
    images = pixels = macs = 0
    for record in found:
        size = None if record.data is None else probe_size(record.data)
        net = None if size is None else net_size(*size, policy)
        if isinstance(net, NetSize):
            images += 1
            pixels += net.width * net.height
            macs += count_macs(network, net.height, net.width)
    return _Sampled(images, pixels, macs, todo / max(1, len(found)))


def _some_records(shard: PlannedShard, most: int, config: InputConfig) -> tuple[list[Record], float]:
    """Some records of a shard, and how many there are, of a tar by its bytes.

    Raises:
        StoreError, ValueError: it cannot be read.
    """
    if shard.format == "files":
        present = [member for member in shard.members if member.etag is not None]
        drawn = random.Random(shard.hash16).sample(present, min(most, len(present)))
        return [Record(key=member.key, data=_header(member, config.store)) for member in drawn], len(present)
    with open_reader(shard.shard, config.store, size=shard.size, etag=shard.etag) as file:
        if shard.format == "parquet":
            total = num_rows(file)
            rows = read_parquet(file, image_column=config.image_column, keep_columns=(), start_row=0)
            return [item for item in islice(rows, most) if isinstance(item, Record)], total
        members = read_tar(file, names=config.names, keep_columns=())
        found = [item for item in islice(members, most) if isinstance(item, Record)]
        is_all = len(found) < most
        in_tar = sum(_bytes_in_tar(record) for record in found)
        return found, len(found) if is_all else len(found) * max(1.0, shard.size / in_tar)


def _header(member: Member, store: StoreConfig) -> bytes:
    """As much of a file as says its size, mostly."""
    data = read_range(member.uri, store, 0, min(_HEADER_BYTES, member.size), member.etag)
    if probe_size(data) is None and member.size > _HEADER_BYTES:
        return read(member.uri, store, member.etag)
    return data


def _bytes_in_tar(record: Record) -> int:
    """What a record takes in a tar: a header and its data in whole blocks, and as much again for a sidecar."""
    members = [len(record.data or b"")] + ([1] if record.true_label is not None else [])
    return sum(_TAR_BLOCK + -(-size // _TAR_BLOCK) * _TAR_BLOCK for size in members)


def _last_pace(run: Run) -> dict[str, Any] | None:
    """How fast the last run over this output was that says so: its start and end, and what it did while steady."""
    output, store = run.config.output.uri, run.config.output.store
    reports = [info.uri for info in list_objects(join_uri(output, RUNS), store) if name_of(info.uri) == REPORT_FILE]
    for uri in sorted(reports, reverse=True):
        try:
            report = json.loads(read(uri, store))
            steady, seconds = report["rates"]["steady"], report["seconds"]
            if steady and steady["gmac_per_s"] > 0:
                return {
                    "run_id": report["run_id"],
                    "gmac_per_s": steady["gmac_per_s"],
                    "fixed_s": (seconds["first_row"] or 0.0) + (seconds["drain"] or 0.0),
                    "num_actors": report["actors"].get("max"),
                }
        except (KeyError, TypeError, ValueError, StoreError) as error:
            logger.debug("estimate.report_left_out uri=%s error=%s", uri, error)  # written by an older version, mostly
    return None
