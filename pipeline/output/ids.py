"""Finds image ids that stand in more than one row of an output, in bounded memory.

Every id is hashed. The hashes go to temporary files, one for each range of values, and each range is sorted by itself.
If two hashes are equal, the ids are read again and compared, so that two ids with one hash are no mistake.
"""

import hashlib
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.output.layout import DATA
from pipeline.output.published import PublishedFile, list_files
from pipeline.store.errors import ChangedError, NotFoundError, StoreError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.store_path import StorePath

_HASHED = np.dtype([("hash", "<i8"), ("file", "<u4")])
# Number of hashes in a range, which are sorted at once, and the largest number of temporary files.
_RANGE_HASHES = 2**20
_MAX_RANGES = 2**8
_READ_THREADS = 16


@dataclass(frozen=True, slots=True)
class DoubledIds:
    """Image ids that stand in several rows.

    Attributes:
        rows: number of rows beyond the first row of each id.
        image_id: the id of the first example.
        files: the names of the two output files that have the id; one name twice if one file has both rows.
        shards: the shards of these two files.
    """

    rows: int
    image_id: str
    files: tuple[str, str]
    shards: tuple[str, str]


def state_of_files(files: Iterable[PublishedFile]) -> str:
    """Returns a digest that differs if the output files or their contents differ."""
    lines = sorted(f"{file.file}\n{file.etag}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_doubled_ids(output: StorePath, files: Iterable[PublishedFile]) -> DoubledIds | None:
    """Returns what is known of ids that several rows have; None if every row has an id of its own.

    Args:
        output: the output folder.
        files: all output files; files without rows are passed over.

    Raises:
        OutputError: a file changed meanwhile or cannot be read, or the folder for temporary files is full.
    """
    infos = list_files(output)
    there = [file for file in files if file.rows]
    first, num_rows = None, 0
    with _comparing(output):
        for hashed, numbers in _equal_hashes(output, there, infos):
            # After one example was read again, the hashes alone are counted.
            first = first or _example(output, [there[number] for number in numbers], infos, hashed)
            num_rows += len(numbers) - 1 if first else 0
    return None if first is None else replace(first, rows=num_rows)


def doubled_ids(output: StorePath, files: Iterable[PublishedFile]) -> set[str]:
    """Returns every id that several rows have; beside the memory of `find_doubled_ids`, memory holds these ids.

    Raises:
        OutputError: as `find_doubled_ids` raises it.
    """
    infos = list_files(output)
    there = [file for file in files if file.rows]
    hashes, times = defaultdict[int, set[int]](set), Counter[str]()
    with _comparing(output):
        for hashed, numbers in _equal_hashes(output, there, infos):
            for number in numbers:
                hashes[number].add(hashed)
        for number, wanted in hashes.items():
            times.update(it for it in _read_ids(output, there[number], infos) if hash(it) in wanted)
    return {image_id for image_id, number in times.items() if number > 1}


@contextmanager
def _comparing(output: StorePath) -> Iterator[None]:
    """Turns errors of a store, and of the folder for temporary files, into an `OutputError` that says what to do."""
    try:
        yield
    except (NotFoundError, ChangedError, KeyError) as error:
        raise OutputError(f"{output} changed while its ids were compared ({error}); is another run writing?") from error
    except StoreError as error:
        raise OutputError(f"output {output} cannot be read: {error}") from error
    except OSError as error:
        raise OutputError(f"the ids cannot be compared in {tempfile.gettempdir()}: {error}; set TMPDIR") from error


def _equal_hashes(
    output: StorePath, files: Sequence[PublishedFile], infos: Mapping[str, ObjectInfo]
) -> Iterator[tuple[int, list[int]]]:
    """Yields each hash that several ids have, with the numbers of the files they come from, one number for each id."""
    num_ranges = min(_MAX_RANGES, -(-sum(file.rows for file in files) // _RANGE_HASHES))
    with ExitStack() as until_read:
        ranges = [until_read.enter_context(tempfile.TemporaryFile()) for _ in range(num_ranges)]
        for number, ids in _ids_of_each(output, files, infos):
            _spill(ranges, number, ids)
        for spilled in ranges:
            yield from _equal(spilled)


def _ids_of_each(
    output: StorePath, files: Sequence[PublishedFile], infos: Mapping[str, ObjectInfo]
) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of each file and its ids; as many files as there are threads are in memory."""
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        for start in range(0, len(files), _READ_THREADS):
            part = files[start : start + _READ_THREADS]
            yield from enumerate(pool.map(lambda file: _read_ids(output, file, infos), part), start)


def _read_ids(output: StorePath, file: PublishedFile, infos: Mapping[str, ObjectInfo]) -> list[str]:
    path = output.join(DATA, file.file)
    with path.open(size=infos[file.file].size, etag=file.etag, read_ahead=False) as source:
        return pq.read_table(pa.PythonFile(source, mode="r"), columns=["image_id"]).column(0).to_pylist()


def _spill(ranges: Sequence[IO[bytes]], number: int, ids: Sequence[str]) -> None:
    """Appends the hashes of the ids of one file to the temporary file of their range."""
    # Python's hash of a text has a secret of the process, so that nobody can choose ids with equal hashes.
    found = np.empty(len(ids), _HASHED)
    found["hash"] = np.fromiter(map(hash, ids), np.int64, len(ids))
    found["file"] = number
    range_of = found["hash"] % len(ranges)
    for at, spilled in enumerate(ranges):
        spilled.write(found[range_of == at].tobytes())


def _equal(spilled: IO[bytes]) -> Iterator[tuple[int, list[int]]]:
    """Yields each hash that comes several times, with the numbers of the files it comes from."""
    spilled.seek(0)
    hashed = np.frombuffer(spilled.read(), _HASHED)
    hashed = hashed[np.argsort(hashed["hash"], kind="stable")]
    values, starts, times = np.unique(hashed["hash"], return_index=True, return_counts=True)
    for at in np.flatnonzero(times > 1):
        yield int(values[at]), hashed["file"][starts[at] : starts[at] + times[at]].tolist()


def _example(
    output: StorePath, files: Sequence[PublishedFile], infos: Mapping[str, ObjectInfo], hashed: int
) -> DoubledIds | None:
    """Returns an id with this hash that two rows of these files have; None if all ids with this hash differ."""
    seen: dict[str, PublishedFile] = {}
    for file in dict.fromkeys(files):
        for image_id in _read_ids(output, file, infos):
            if hash(image_id) != hashed:
                continue
            if (other := seen.get(image_id)) is not None:
                return DoubledIds(1, image_id, (other.file, file.file), (other.shard, file.shard))
            seen[image_id] = file
    return None
