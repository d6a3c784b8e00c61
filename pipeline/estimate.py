"""What a planned run will take: work by the headers of a sample of its images, time by the pace of a run like it."""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from model.config import PVTv2Config
from model.cost import count_macs
from pipeline.calibrate import calibrate
from pipeline.config import InputConfig
from pipeline.decode import probe_size
from pipeline.pace import Pace, last_pace
from pipeline.plan import Member, PlannedShard
from pipeline.prepare import Run
from pipeline.sample import drawn
from pipeline.shards.parquet import num_rows, read_parquet
from pipeline.shards.record import Record
from pipeline.shards.tar import read_tar
from pipeline.sizes import NetSize, SizePolicy, net_size
from pipeline.storage import StoreConfig, open_reader, read, read_range
from pipeline.store_errors import StoreError
from pipeline.watch import Progress

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


def estimate_run(run: Run, on_progress: Callable[[Progress], None]) -> dict[str, Any] | None:
    """What the planned run will take, for the last line of a dry run; None if there is nothing to read.

    `images`, `mpix` and `gmac` are of the whole plan. `seconds` and `cost` go by the start and the pace of an earlier
    run, `like_run`; or where there is none, of a calibration, if one is asked for. Else they are None.

    Args:
        on_progress: told how a calibration goes.
    """
    config = run.config
    shards = drawn(run.plan.rows, NUM_SHARDS)
    if not shards:
        return None
    most = -(-NUM_IMAGES // len(shards))
    found = [_sample(shard, most, config.input, run.checkpoint.network, config.sizes) for shard in shards]
    parts = [part for part in found if part is not None]
    # The other shards of the plan, and drawn ones that cannot be read, are taken to be like these, byte by byte.
    seen_bytes = sum(shard.size for shard, part in zip(shards, found, strict=True) if part is not None)
    scale = run.plan.bytes / max(1, seen_bytes)
    images = scale * sum(part.images * part.weight for part in parts)
    pixels = scale * sum(part.pixels * part.weight for part in parts)
    gmac = scale * sum(part.macs * part.weight for part in parts) / 1e9
    pace, is_calibrated = last_pace(run), False
    if config.calibrate and pace is not None:
        logger.info("calibration.not_needed like_run=%s", pace.run_id)
    elif config.calibrate and not images:
        logger.warning("calibration.no_pace reason=%r", "no image of the sample reaches the network")
    elif config.calibrate:
        pace = calibrate(run, pixels / images, gmac / images, on_progress)
        is_calibrated = pace is not None
    return {
        "images_sampled": sum(part.images for part in parts),
        "images": round(images),
        "mpix": round(pixels / 1e6, 3),
        "gmac": round(gmac, 3),
        **_time_and_cost(gmac, pace, config.compute.price_per_hour),
        "like_run": None if pace is None or is_calibrated else pace.run_id,
        "calibrated": is_calibrated,
        "calibration_seconds": round(pace.steady_s, 1) if pace is not None and is_calibrated else None,
    }


def _time_and_cost(gmac: float, pace: Pace | None, price_per_hour: float | None) -> dict[str, float | None]:
    """What so many giga-MACs take at a pace, and what the actors of that time cost."""
    if pace is None:
        return {"seconds": None, "cost": None}
    seconds = pace.seconds(gmac)
    hours = seconds / 3600 * pace.num_actors
    return {
        "seconds": round(seconds, 1),
        "cost": None if price_per_hour is None else round(price_per_hour * hours, 4),
    }


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
