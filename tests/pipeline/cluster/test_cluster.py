"""Signals and errors while Ray starts, and the use of the object stores; the tests of the jobs run the rest."""

import os
import re
import signal
import sys

import pytest
import ray

from pipeline.cluster.cluster import NO_ROOM, joined_cluster, object_store_use, put_object
from pipeline.cluster.config import ComputeConfig
from pipeline.errors import IncompleteError


def test_a_signal_while_ray_starts_ends_a_run_as_at_any_other_time(monkeypatch, signal_handlers):
    """Ray puts a handler of its own in place of the job's, which ends the process with 15."""

    def init(**options):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(KeyboardInterrupt), joined_cluster(ComputeConfig(), []):
        pass


def test_weights_that_find_no_room_are_no_internal_error(monkeypatch):
    def put(value):
        raise ray.exceptions.OutOfDiskError("Local disk is full")

    monkeypatch.setattr(ray, "put", put)
    with pytest.raises(IncompleteError, match=re.escape(f"{NO_ROOM} (Local disk is full)")):
        put_object(b"weights")


@pytest.mark.parametrize(
    ("has", "is_free", "expected"),
    [
        ({"object_store_memory": 200.0}, {"object_store_memory": 50.0}, 0.75),
        ({"object_store_memory": 200.0}, {"CPU": 1.0}, 1.0),
        ({"CPU": 1.0}, {"CPU": 1.0}, 0.0),
    ],
)
def test_the_use_of_the_object_stores_is_what_is_not_available(monkeypatch, has, is_free, expected):
    monkeypatch.setattr(ray, "cluster_resources", lambda: has)
    monkeypatch.setattr(ray, "available_resources", lambda: is_free)
    assert object_store_use() == expected
