"""Reports and timelines of the past runs of an output, read back from the folders of the runs."""

import json
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.output.layout import REPORT_FILE, RUNS, TIMELINE_FILE
from pipeline.store.errors import NotFoundError, StoreError
from pipeline.store.object_info import ObjectInfo
from pipeline.store.store_path import StorePath
from pipeline.store.uris import name_of

logger = logging.getLogger(__name__)

_READ_THREADS = 8


def files_of_runs(output: StorePath, name: str) -> list[ObjectInfo]:
    """Returns the files of this name in the folders of all runs, in the order of the runs' names.

    Raises:
        StoreError: The output cannot be listed.
    """
    found = [info for info in output.join(RUNS).list() if name_of(info.uri) == name]
    return sorted(found, key=lambda info: info.uri)


def run_ids(output: StorePath) -> list[str]:
    """Returns the names of the runs of an output that have a report, in order.

    Raises:
        InputError: The output cannot be listed, or no run has a report.
    """
    try:
        found = files_of_runs(output, REPORT_FILE)
    except StoreError as error:
        raise InputError(f"{output.join(RUNS)} cannot be listed: {error}") from error
    ids = sorted(name_of(info.uri.removesuffix(f"/{REPORT_FILE}")) for info in found)
    if not ids:
        raise InputError(f"{output} holds no report of a run: give the --output of a job that ended")
    return ids


def read_reports(output: StorePath, ids: Iterable[str]) -> list[Mapping[str, Any]]:
    """Returns the reports of some runs, in the same order.

    Raises:
        InputError: A report is missing or cannot be read.
    """
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        return list(pool.map(lambda id: read_report(output.join(RUNS, id, REPORT_FILE)), ids))


def read_timeline(output: StorePath, run_id: str) -> list[dict[str, Any]]:
    """Returns the rows of the timeline of a run; no rows if the run has no readable timeline."""
    path = output.join(RUNS, run_id, TIMELINE_FILE)
    try:
        return pq.read_table(pa.BufferReader(path.read())).to_pylist()
    except NotFoundError:
        return []
    except (StoreError, pa.ArrowException) as error:
        logger.warning("timeline.unreadable uri=%s error=%s", path, error)
        return []


def read_report(path: StorePath) -> Mapping[str, Any]:
    """Returns the report at a path.

    Raises:
        InputError: There is no report, or the report cannot be read.
    """
    try:
        report = json.loads(path.read())
    except NotFoundError as error:
        raise InputError(f"{path}: there is no such report; leave --run-id out for all that there are") from error
    except (StoreError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(report, dict):
        raise InputError(f"{path} is no report of a run")
    return report
