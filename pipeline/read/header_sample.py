"""Reads the headers of a sample of a plan's images: their sizes, and from these the work of the whole plan."""

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from model.network.config import PVTv2Config
from model.network.cost import count_macs
from pipeline.chunks.size_policy import NetSize, SizePolicy, net_size
from pipeline.decode.decode_image import probe_size
from pipeline.inputs.config import InputConfig
from pipeline.inputs.formats import FORMATS
from pipeline.inputs.record import Record
from pipeline.plan.planned_shard import PlannedShard
from pipeline.store.errors import StoreError
from pipeline.store.store_path import StorePath

logger = logging.getLogger(__name__)

_HEADER_BYTES = 64 * 1024  # nearly every image states its size within these bytes


@dataclass(frozen=True, kw_only=True)
class PlannedWork:
    """Estimated work of a whole plan.

    Attributes:
        images_sampled: number of images whose headers were read and that the network will take.
        images: estimated number of images of the plan that the network will take.
        pixels, macs: estimated numbers of pixels of these images, and of multiply-accumulates of the network for them.
    """

    images_sampled: int
    images: float
    pixels: float
    macs: float


@dataclass(frozen=True, slots=True)
class _Sampled:
    """Work of those images of one shard whose headers were read.

    Attributes:
        images: number of sampled images that the network will take.
        pixels, macs: numbers of pixels of these images, and of multiply-accumulates of the network for them.
        weight: number of the shard's records that are still to be read, divided by the number of sampled records.
    """

    images: int
    pixels: int
    macs: int
    weight: float


def planned_work(
    shards: Sequence[PlannedShard],
    num_images: int,
    *,
    plan_bytes: int,
    config: InputConfig,
    network: PVTv2Config,
    sizes: Sequence[SizePolicy],
) -> PlannedWork | None:
    """Estimates the work of a whole plan from the headers of some images; None if `shards` is empty.

    Args:
        shards: a sample of the plan's shards.
        num_images: approximate number of images whose headers are read.
        plan_bytes: number of bytes of all shards of the plan.
        config: settings of the inputs.
        network: the network that the images will go through.
        sizes: the policies at whose sizes the network sees each image.
    """
    if not shards:
        return None
    most = -(-num_images // len(shards))
    found = [_sample(shard, most, config, network, sizes) for shard in shards]
    parts = [part for part in found if part is not None]
    # Other shards of the plan, and sampled shards that cannot be read, count in proportion to their bytes.
    seen_bytes = sum(shard.size for shard, part in zip(shards, found, strict=True) if part is not None)
    scale = plan_bytes / max(1, seen_bytes)
    return PlannedWork(
        images_sampled=sum(part.images for part in parts),
        images=scale * sum(part.images * part.weight for part in parts),
        pixels=scale * sum(part.pixels * part.weight for part in parts),
        macs=scale * sum(part.macs * part.weight for part in parts),
    )


def shorter_sides(shards: Sequence[PlannedShard], num_images: int, config: InputConfig) -> list[int]:
    """Returns the shorter sides in pixels of some images, upright as EXIF says; broken images are left out.

    Args:
        shards: a sample of the plan's shards.
        num_images: approximate number of images whose headers are read.
        config: settings of the inputs.
    """
    sides = list[int]()
    for shard in shards:
        try:
            found, _ = _some_records(shard, -(-num_images // len(shards)), config)
        except (StoreError, ValueError) as error:
            logger.warning("sample.shard_left_out shard=%s error=%s", shard.shard, error)
            continue
        sizes = [None if record.data is None else probe_size(record.data) for record in found]
        sides += [min(size) for size in sizes if size is not None]
    return sides


def _sample(
    shard: PlannedShard, most: int, config: InputConfig, network: PVTv2Config, policies: Sequence[SizePolicy]
) -> _Sampled | None:
    """Returns the work of some images of a shard; None if the shard cannot be read."""
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
        nets = [] if size is None else [net_size(*size, policy) for policy in policies]
        taken = [net for net in nets if isinstance(net, NetSize)]
        images += bool(taken)
        pixels += sum(net.width * net.height for net in taken)
        macs += sum(count_macs(network, net.height, net.width) for net in taken)
    return _Sampled(images, pixels, macs, todo / max(1, len(found)))


def _some_records(shard: PlannedShard, most: int, config: InputConfig) -> tuple[list[Record], float]:
    """Returns some records of a shard, and the number of all records in the shard.

    The number is estimated from bytes if the format has no count.

    Raises:
        StoreError, ValueError: the shard cannot be read.
    """
    if shard.is_group:
        present = [member for member in shard.members if member.etag is not None]
        sampled = random.Random(shard.hash16).sample(present, min(most, len(present)))
        headers = [_header(config.place(member.uri), member.size, member.etag) for member in sampled]
        records = [Record(key=member.key, data=data) for member, data in zip(sampled, headers, strict=True)]
        return records, len(present)
    with config.place(shard.shard).open(size=shard.size, etag=shard.etag) as file:
        shard_format = FORMATS[shard.format]
        total = None if shard_format.count is None else shard_format.count(file, config.reader_options)
        items = shard_format.read(file, replace(config.reader_options, keep_columns=()), 0)
        found = [item for item in islice(items, most) if isinstance(item, Record)]
    if total is not None or len(found) < most:
        return found, len(found) if total is None else total
    return found, len(found) * max(1.0, shard.size / max(1, sum(map(shard_format.stored_bytes, found))))


def _header(file: StorePath, size: int, etag: str | None) -> bytes:
    """Returns the first bytes of an image, or the whole image if its first bytes do not state its width and height."""
    data = file.read_range(0, min(_HEADER_BYTES, size), etag)
    if probe_size(data) is None and size > _HEADER_BYTES:
        return file.read(etag)
    return data
