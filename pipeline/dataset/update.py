"""Updates a data set: makes new rows from predictions, corrections and policy, and compares old and new rows.

The update writes the change log into the run's folder, then the data set, then its exports; each write is whole. A run
that dies before it replaces the data set has changed nothing, and nothing refers to its change log. The next run finds
the same changes and logs them itself. An export that is out of date is recognised by the digest of its sources.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.chunks.columns import BASE_COLUMNS, CLASSIFY_COLUMNS
from pipeline.dataset.changes import CHANGE_SCHEMA, Changes, change_rows, find_changes
from pipeline.dataset.database import Database, open_database
from pipeline.dataset.dataset_file import (
    DatasetFooter,
    Published,
    dataset_version,
    find_published,
    publish,
    published_rows,
    to_parquet,
)
from pipeline.dataset.drift import MAX_DRIFT, Drift, DriftWithinSizes
from pipeline.dataset.labels import (
    LABEL_SCHEMA,
    ORDER,
    PREDICTION_COLUMNS,
    SHARD_SCHEMA,
    Corrections,
    all_labels,
    make_labels,
)
from pipeline.dataset.not_finite import fail_not_finite, forget_not_finite
from pipeline.dataset.overrides import OVERRIDE_SCHEMA, find_overrides, read_overrides
from pipeline.dataset.policy import Policy
from pipeline.errors import ConfigError, OutputError
from pipeline.output.layout import DATA, RUNS
from pipeline.output.published import PublishedFile
from pipeline.output.slice_chain import by_shard, chain_of
from pipeline.store.errors import ExistsError
from pipeline.store.store_path import StorePath

logger = logging.getLogger(__name__)

CHANGES_FILE = "changes.parquet"
CHANGES_SUMMARY_FILE = "changes.json"
_READ_THREADS = 8
_PREDICTION_SCHEMA = pa.schema(
    [field for field in (*BASE_COLUMNS, *CLASSIFY_COLUMNS) if field.name in PREDICTION_COLUMNS]
)


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """The settings of a data set.

    Attributes:
        policy: Rules by which predictions become rows.
        overrides: URIs of corrections; if empty, corrections are looked for in the output.
        max_drift: Stability index above which a difference counts as drift (`pipeline.dataset.drift`).
    """

    policy: Policy = field(default_factory=Policy)
    overrides: tuple[str, ...] = ()
    max_drift: float = MAX_DRIFT

    def __post_init__(self) -> None:
        if not 0 < self.max_drift < float("inf"):
            raise ConfigError(f"--max-drift must be positive, not {self.max_drift:g}")


@dataclass(frozen=True, kw_only=True)
class Update:
    """The result of an update.

    Attributes:
        published: The data set after the update.
        changes: Changes of the update; None if the data set was up to date.
        corrections: Counts of the corrections; None if the data set was up to date.
        not_finite: Number of rows that the output calls `ok` although their score is not finite. In the data set these
            rows have failed. 0 if the data set was up to date.
    """

    published: Published
    changes: Changes | None = None
    corrections: Corrections | None = None
    not_finite: int = 0


def update_dataset(
    output: StorePath,
    files: Sequence[PublishedFile],
    model_labels: Sequence[str],
    config: DatasetConfig,
    run_id: str,
    check_right: Callable[[], None],
) -> Update:
    """Brings the data set of an output up to date.

    Args:
        files: Published files of the output.
        model_labels: Name of each class of the network.
        check_right: Function that raises if the run may no longer write to the output.

    Raises:
        ConfigError: The policy names a class that does not exist.
        InputError: A file of corrections is invalid.
        OutputError: Another kind of file has the name of the data set.
        StoreError: The store refuses a request.
    """
    config.policy.check(model_labels)
    corrections = find_overrides(output, config.overrides)
    half_read = shards_half_read(files)
    # Two attempts at a shard may have published different files; the chain holds the files whose rows count.
    there = [file for of_shard in by_shard(files).values() for file in chain_of(of_shard).files if file.rows]
    version = dataset_version(there, corrections, config.policy.digest(), half_read)
    before = find_published(output)
    if before is not None and before.footer.version == version:
        return Update(published=before)
    with open_database() as database:
        database.load_images("before", LABEL_SCHEMA, published_rows(before))
        database.load_images("predictions", _PREDICTION_SCHEMA, _predictions(there, output))
        database.load("overrides", OVERRIDE_SCHEMA, read_overrides(output, corrections))
        shards = pa.RecordBatch.from_arrays([pa.array(half_read, pa.string())], schema=SHARD_SCHEMA)
        database.load("half_read", SHARD_SCHEMA, [shards])
        not_finite = fail_not_finite(database, "predictions")
        forget_not_finite(database)
        used = make_labels(database, config.policy, model_labels, run_id)
        changes = find_changes(database, config.max_drift)
        earlier = () if before is None else before.footer.classes
        footer = DatasetFooter(
            version=version,
            run_id=run_id,
            previous_run_id=None if before is None else before.footer.run_id,
            classes=tuple(all_labels(database, earlier, config.policy.labels(model_labels))),
            counts=changes.now,
        )
        check_right()
        if before is not None and changes.is_empty and footer.classes == before.footer.classes:
            # Some files were written again with equal rows: only the version in the footer changes.
            footer = replace(before.footer, version=version)
            published = publish(output, lambda: label_rows(database), footer, before)
            return Update(published=published, not_finite=not_finite)
        _write_changes(database, output, footer, changes, used, not_finite)
        check_right()
        published = publish(output, lambda: label_rows(database), footer, before)
    logger.info("dataset.published rows=%d changes=%s", changes.now["rows"], dict(changes.counts))
    if used.unused:
        logger.warning("overrides.unused images=%d: no row of the output has their image_id", used.unused)
    return Update(published=published, changes=changes, corrections=used, not_finite=not_finite)


def shards_half_read(files: Iterable[PublishedFile]) -> list[str]:
    """Returns the tar and Parquet shards whose old rows were removed and whose new rows are not complete yet."""
    found = []
    for of_shard in by_shard(files).values():
        awaited = {file.source_etag for file in of_shard if file.emptied and file.source_etag is not None}
        current = [file for file in of_shard if not file.emptied and file.source_etag in awaited]
        if awaited and not chain_of(current).complete:
            found.append(of_shard[0].shard)
    return found


def label_rows(database: Database) -> Iterator[pa.RecordBatch]:
    """Yields the rows of the table `labels` with the columns and in the order of a data set."""
    names = ", ".join(f'"{name}"' for name in LABEL_SCHEMA.names)
    return database.batches(f"SELECT {names} FROM labels ORDER BY {ORDER}", LABEL_SCHEMA)


def _predictions(files: Sequence[PublishedFile], output: StorePath) -> Iterator[pa.RecordBatch]:
    """Yields the rows of the output's files; a few files are read at a time."""

    def load(file: PublishedFile) -> pa.Table:
        body = output.join(DATA, file.file).read(file.etag)
        return pq.read_table(pa.BufferReader(body), columns=list(_PREDICTION_SCHEMA.names))

    rest = iter(files)
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        while some := list(islice(rest, _READ_THREADS)):
            for table in pool.map(load, some):
                yield from table.replace_schema_metadata(None).cast(_PREDICTION_SCHEMA).to_batches()


def _write_changes(
    database: Database, output: StorePath, footer: DatasetFooter, changes: Changes, used: Corrections, not_finite: int
) -> None:
    """Writes the change log into the folder of the run: first the rows, then the sums.

    Raises:
        OutputError: An earlier run had the same id.
    """
    folder = output.join(RUNS, footer.run_id)
    try:
        folder.join(CHANGES_FILE).put(to_parquet(lambda: change_rows(database), CHANGE_SCHEMA, {}), if_absent=True)
    except ExistsError as error:
        raise OutputError(f"--run-id {footer.run_id} was used before in this output; choose another") from error
    summary = {
        "run_id": footer.run_id,
        "previous_run_id": footer.previous_run_id,
        "version": footer.version,
        "before": dict(changes.before),
        "now": dict(changes.now),
        **changes.counts,
        "classes": changes.classes,
        "drift": describe_drift(changes.drift),
        "drift_within_sizes": describe_within_sizes(changes.within_sizes),
        "overrides": asdict(used),
        "not_finite": not_finite,
    }
    folder.join(CHANGES_SUMMARY_FILE).put(json.dumps(summary, indent=1).encode())


def describe_within_sizes(found: Mapping[str, DriftWithinSizes | None]) -> dict[str, Any]:
    """Returns the drift between images of similar size as a value for JSON."""
    drifts = describe_drift({name: None if within is None else within.drift for name, within in found.items()})
    return {
        name: None if within is None else {**(drifts[name] or {"psi": None}), "compared": round(within.compared, 4)}
        for name, within in found.items()
    }


def describe_drift(drifts: Mapping[str, Drift | None]) -> dict[str, Any]:
    """Returns the drift of each distribution as a value for JSON."""
    return {
        name: None
        if drift is None
        else {
            "psi": round(drift.psi, 4),
            "noise": round(drift.noise, 4),
            "limit": round(drift.limit, 4),
            "over": drift.is_over,
            "moved": [
                {"class": label, "earlier": round(then, 4), "new": round(now, 4)} for label, then, now in drift.moved
            ],
        }
        for name, drift in drifts.items()
    }
