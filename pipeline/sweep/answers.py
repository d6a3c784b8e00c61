"""Reads what only a pass has: the logits of each image at one size, and the seconds that the network took."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.chunks.columns import AT_SIZES
from pipeline.errors import InputError
from pipeline.output.layout import DATA
from pipeline.output.published import published_files
from pipeline.output.slice_chain import by_shard, chain_of
from pipeline.store.errors import StoreError
from pipeline.sweep.passes import Place


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of a pass at one size.

    Attributes:
        is_found: True for each image, of those that were asked for, that the pass has an answer for.
        logits: Logits of the images that were found, (images, classes), float32.
        seconds: Seconds that the network took for an image, in the mean over all images of the pass that have an
            answer, in one actor; 0 if no image has one.
    """

    is_found: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float32]
    seconds: float


def read_answers(place: Place, image_ids: npt.NDArray[np.str_], num_classes: int) -> Answers:
    """Reads the answers of a pass at one size.

    Args:
        image_ids: Ids of the images whose logits are returned, sorted. The output of a size may have images that the
            pass lacks, since other jobs may continue such an output.

    Raises:
        InputError: The pass cannot be read.
    """
    logits_NC = np.full((len(image_ids), num_classes), np.nan, np.float32)
    seconds, num = 0.0, 0
    for rows in _tables(place):
        answers = rows.column(AT_SIZES).combine_chunks().flatten()
        num_sizes = len(answers) // max(1, rows.num_rows)
        at_size = answers.take(pa.array(np.arange(rows.num_rows) * num_sizes + place.index))
        is_ok = np.array(at_size.field("status").to_pylist()) == "ok"
        seconds += float(at_size.field("compute_s").to_numpy()[is_ok].sum())
        num += int(is_ok.sum())
        ids = np.array(rows.column("image_id").to_pylist(), np.str_)
        places = np.searchsorted(image_ids, ids)
        is_wanted = np.zeros(len(ids), bool)
        inside = places < len(image_ids)
        is_wanted[inside] = image_ids[places[inside]] == ids[inside]
        taken = at_size.take(pa.array(np.flatnonzero(is_wanted & is_ok))).field("logits")
        logits_NC[places[is_wanted & is_ok]] = taken.flatten().to_numpy().reshape(-1, num_classes)
    is_found = np.asarray(~np.isnan(logits_NC).any(axis=1), bool)
    return Answers(is_found=is_found, logits=logits_NC[is_found], seconds=seconds / num if num else 0.0)


def _tables(place: Place) -> Iterator[pa.Table]:
    names = [f"{AT_SIZES}.list.element.{name}" for name in ("status", "compute_s", "logits")]
    try:
        for of_shard in by_shard(published_files(place.folder)).values():
            for file in chain_of(of_shard).files:
                if file.rows:
                    body = place.folder.join(DATA, file.file).read(file.etag)
                    yield pq.ParquetFile(pa.BufferReader(body)).read(columns=["image_id", *names])
    except (StoreError, pa.ArrowException, OSError) as error:
        raise InputError(f"{place.folder.shown} cannot be read: {error}") from error
