"""The output of a classification, read back for an evaluation or a comparison."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.output.layout import DATA, JOB_FILE
from pipeline.store.errors import NotFoundError, StoreError
from pipeline.store.store_path import StorePath

_READ_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The output of a classification.

    Attributes:
        output: Folder of the output.
        labels: Names of the classes; None if the classes have no names.
        num_classes: Number of the network's classes.
        top_k: Number of classes that each row lists.
        policy: Preprocessing: `native` or `imagenet`.
        files: Files with rows.
        has_class_numbers: True if true labels from Parquet files may be numbers of the file's own classes. Outputs that
            name no version of the rules of reading hold such numbers where later outputs hold names.
    """

    output: StorePath
    labels: tuple[str, ...] | None
    num_classes: int
    top_k: int
    policy: str
    files: tuple[StorePath, ...]
    has_class_numbers: bool = False

    def true_labels(self) -> tuple[set[str], set[str]]:
        """Returns (all true labels, those of rows that come from Parquet files).

        Raises:
            InputError: A file cannot be read.
        """
        every, parquet = set[str](), set[str]()
        for table in self.tables(["true_label", "shard"]):
            pairs = table.group_by(["true_label", "shard"]).aggregate([])
            for label, shard in zip(*(pairs.column(name).to_pylist() for name in ("true_label", "shard")), strict=True):
                if label is not None:
                    every.add(label)
                    if shard.lower().endswith(".parquet"):
                        parquet.add(label)
        return every, parquet

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yields a table with some columns of each file; reads a few files at a time.

        Raises:
            InputError: A file cannot be read.
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
    """Opens the output of a classification: reads the job's identity, and lists the files with rows.

    Raises:
        InputError: The folder has no output of a classification, or the output cannot be read.
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
        policy=_policy(identity),
        files=tuple(map(output.at, files)),
        has_class_numbers="rules" not in identity.get("records", {}),
    )


def _policy(identity: Mapping[str, Any]) -> str:
    """Returns the name of the size policy of an output, in the form of `--preprocess` or `--size`."""
    rule = identity.get("sizes", {}).get("resize")
    if rule is None:
        return str(identity["preprocess"]["policy"])
    if rule["crop"] is not None:
        return f"{'square' if rule['to'] == 'shorter' else rule['to']}:{_side(*rule['crop'])}"
    return f"{rule['to']}:{_side(rule['width'], rule['height'])}"


def _side(width: int, height: int) -> str:
    return str(width) if width == height else f"{width}x{height}"
