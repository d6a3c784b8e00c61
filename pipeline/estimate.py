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
class Sampled:
    """Images of one shard whose headers were read.

    Attributes:
        images: how many of them the network will take.
        weight: how often the sample goes into what the shard has to do: by rows, or by bytes where a tar hides them.
    """

    images: int
    pixels: int
    macs: int
    weight: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run is expected to do.

    Attributes:
        sampled: images whose headers were looked at.
        images, pixels, macs: of the whole plan.
        seconds: of the run; None where no run over this output tells how fast it is.
        like_run: the run whose start and pace are taken.
    """

    sampled: int
    images: float
    pixels: float
    macs: float
    seconds: float | None
    like_run: str | None

    def to_dict(self, price_per_hour: float | None, num_actors: int | None) -> dict[str, Any]:
        """As the last line of a dry run has it."""
        cost = None
        if price_per_hour is not None and num_actors and self.seconds is not None:
            cost = round(price_per_hour * num_actors * self.seconds / 3600, 4)
        return {
            "images_sampled": self.sampled,
            "images": round(self.images),
            "mpix": round(self.pixels / 1e6, 3),
            "gmac": round(self.macs / 1e9, 3),
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "cost": cost,
            "like_run": self.like_run,
        }


def estimate_run(run: Run) -> dict[str, Any] | None:
    """What the planned run will take, None if there is nothing to read.

    `seconds` and `cost` are None before the first run over an output.
    """
    config = run.config
    shards = _drawn(iter(run.plan.rows), NUM_SHARDS)
    if not shards:
        return None
    most = -(-NUM_IMAGES // len(shards))
    samples = [_sample(shard, most, config.input, run.checkpoint.network, config.sizes) for shard in shards]
    parts = [part for part in samples if part is not None]
    scale = _scale(run, shards)
    pace = _last_pace(run)
    macs = scale * sum(part.macs * part.weight for part in parts)
    return Estimate(
        sampled=sum(part.images for part in parts),
        images=scale * sum(part.images * part.weight for part in parts),
        pixels=scale * sum(part.pixels * part.weight for part in parts),
        macs=macs,
        seconds=None if pace is None else pace["fixed_s"] + macs / 1e9 / pace["gmac_per_s"],
        like_run=None if pace is None else pace["run_id"],
    ).to_dict(config.compute.price_per_hour, None if pace is None else pace["num_actors"])


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


def _scale(run: Run, shards: list[PlannedShard]) -> float:
    """How often the drawn shards go into the plan, by their bytes."""
    return run.plan.bytes / max(1, sum(shard.size for shard in shards))


def _sample(
    shard: PlannedShard, most: int, config: InputConfig, network: PVTv2Config, policy: SizePolicy
) -> Sampled | None:
    """What some images of a shard come to, and how often they go into it; None if it cannot be read."""
    try:
        if shard.format == "files":
            present = [member for member in shard.members if member.etag is not None]
            drawn = random.Random(shard.hash16).sample(present, min(most, len(present)))
            found = [Record(key=member.key, data=_header(member, config.store)) for member in drawn]
            return _sampled(found, len(present) / max(1, len(found)), network, policy)
        with open_reader(shard.shard, config.store, size=shard.size, etag=shard.etag) as file:
            total = num_rows(file) if shard.format == "parquet" else None
            if shard.format == "parquet":
                records = read_parquet(file, image_column=config.image_column, keep_columns=(), start_row=0)
            else:
                records = read_tar(file, names=config.names, keep_columns=())
            found = [item for item in islice(records, most) if isinstance(item, Record)]
            if total is None:
                in_tar = sum(_bytes_in_tar(record) for record in found)
                weight = 1.0 if len(found) < most else max(1.0, shard.size / max(1, in_tar))
            else:
                weight = total / max(1, len(found))
            return _sampled(found, weight, network, policy)
    except (StoreError, ValueError) as error:
        logger.warning("estimate.shard_left_out shard=%s error=%s", shard.shard, error)
        return None


def _header(member: Member, store: StoreConfig) -> bytes:
    """As much of a file as says its size, mostly."""
    data = read_range(member.uri, store, 0, min(_HEADER_BYTES, member.size), member.etag)
    if probe_size(data) is None and member.size > _HEADER_BYTES:
        return read(member.uri, store, member.etag)
    return data


def _sampled(records: list[Record], weight: float, network: PVTv2Config, policy: SizePolicy) -> Sampled:
    images = pixels = macs = 0
    for record in records:
        size = None if record.data is None else probe_size(record.data)
        net = None if size is None else net_size(*size, policy)
        if isinstance(net, NetSize):
            images += 1
            pixels += net.width * net.height
            macs += count_macs(network, net.height, net.width)
    return Sampled(images, pixels, macs, weight)


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
        except (KeyError, TypeError, ValueError):
            continue  # written by an older version
    return None
