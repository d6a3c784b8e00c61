"""What the runs of an output left in their folders: reports and timelines, read back."""

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
from pipeline.store.storage import StoreConfig, list_objects, read
from pipeline.store.uris import join_uri, name_of

logger = logging.getLogger(__name__)

_READ_THREADS = 8


def files_of_runs(output: str, store: StoreConfig, name: str) -> list[ObjectInfo]:
    """Lists the file of this name in the folder of every run that has one, the oldest run first.

    Raises:
        StoreError: the output cannot be listed.
    """
    found = [info for info in list_objects(join_uri(output, RUNS), store) if name_of(info.uri) == name]
    return sorted(found, key=lambda info: info.uri)


def run_ids(output: str, store: StoreConfig) -> list[str]:
    """Names of the runs of an output that have a report, in order.

    Raises:
        InputError: the output cannot be listed, or no run has a report.
    """
    try:
        found = files_of_runs(output, store, REPORT_FILE)
    except StoreError as error:
        raise InputError(f"{join_uri(output, RUNS)} cannot be listed: {error}") from error
    ids = sorted(name_of(info.uri.removesuffix(f"/{REPORT_FILE}")) for info in found)
    if not ids:
        raise InputError(f"{output} holds no report of a run: give the --output of a job that ended")
    return ids


def read_reports(output: str, ids: Iterable[str], store: StoreConfig) -> list[Mapping[str, Any]]:
    """The reports of some runs, in the same order.

    Raises:
        InputError: one is not there, or cannot be read.
    """
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        return list(pool.map(lambda id: read_report(join_uri(output, RUNS, id, REPORT_FILE), store), ids))


def read_timeline(output: str, run_id: str, store: StoreConfig) -> list[dict[str, Any]]:
    """The rows of a run's timeline; none if it has no timeline that can be read."""
    uri = join_uri(output, RUNS, run_id, TIMELINE_FILE)
    try:
        return pq.read_table(pa.BufferReader(read(uri, store))).to_pylist()
    except NotFoundError:
        return []
    except (StoreError, pa.ArrowException) as error:
        logger.warning("timeline.unreadable uri=%s error=%s", uri, error)
        return []


def read_report(uri: str, store: StoreConfig) -> Mapping[str, Any]:
    """Reads one report.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        report = json.loads(read(uri, store))
    except NotFoundError as error:
        raise InputError(f"{uri}: there is no such report; leave --run-id out for all that there are") from error
    except (StoreError, ValueError) as error:
        raise InputError(f"{uri} cannot be read: {error}") from error
    if not isinstance(report, dict):
        raise InputError(f"{uri} is no report of a run")
    return report
