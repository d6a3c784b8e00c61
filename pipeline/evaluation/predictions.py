"""A classification output as it is read back."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.output.layout import DATA, JOB_FILE
from pipeline.store.errors import NotFoundError, StoreError
from pipeline.store.store_path import StorePath

_READ_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Where a classification output lies, and what it says of itself.

    Attributes:
        output: The output folder.
        labels: names of the classes; None where they have none.
        top_k: how many classes each row lists.
        policy: `native` or `imagenet`.
        files: The files with rows.
    """

    output: StorePath
    labels: tuple[str, ...] | None
    num_classes: int
    top_k: int
    policy: str
    files: tuple[StorePath, ...]

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns of each file, a few files at a time.

        Raises:
            InputError: a file cannot be read.
        """
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            for start in range(0, len(self.files), _READ_THREADS):
                yield from pool.map(lambda file: _read(file, columns), self.files[start : start + _READ_THREADS])


def _read(file: StorePath, columns: Sequence[str]) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(file.read()), columns=list(columns))
    except (StoreError, pa.ArrowInvalid) as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def open_predictions(output: StorePath) -> Predictions:
    """The output of a classification.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        identity = json.loads(output.join(JOB_FILE).read())
        files = sorted(info.uri for info in output.join(DATA).list() if info.uri.endswith(".parquet"))
    except NotFoundError as error:
        raise InputError(f"{output} holds no output of a job: give the --output of jobs/classify.py") from error
    except (StoreError, ValueError) as error:
        raise InputError(f"{output} cannot be read: {error}") from error
    if identity.get("job") != "classify":
        raise InputError(f"{output} holds no labels but those of a job {identity.get('job')!r}")
    labels = identity["labels"]
    return Predictions(
        output=output,
        labels=None if labels is None else tuple(labels),
        num_classes=identity["model"]["num_classes"],
        top_k=min(identity["top_k"], identity["model"]["num_classes"]),
        policy=identity["preprocess"]["policy"],
        files=tuple(map(output.at, files)),
    )
