"""Before each write: only the holder of the lease passes."""

import pickle

import pytest

from pipeline.errors import LeaseLostError
from pipeline.lease.lease import Lease
from pipeline.store.store_path import StorePath
from tests.support.leases import CONFIG, LIVE, QUIET, record
from tests.support.waiting import eventually


def test_a_fence_lets_nobody_write_but_the_holder(root: str) -> None:
    with Lease(StorePath(root, CONFIG), "run-1", QUIET) as lease:
        fence = pickle.loads(pickle.dumps(lease.fence))
        with pytest.raises(LeaseLostError, match="was removed"):
            fence.check()
        lease.take()
        fence.check()
    with pytest.raises(LeaseLostError, match="was given back"):
        fence.check()
    with Lease(StorePath(root, CONFIG), "run-2", QUIET) as other:
        other.take()
        other.fence.check()
        with pytest.raises(LeaseLostError, match=r"went to run run-2 .* the same command continues"):
            fence.check()


def test_a_fence_holds_over_renewals(root: str) -> None:
    with Lease(StorePath(root, CONFIG), "run-1", LIVE) as lease:
        lease.take()
        nonce = record(root).nonce
        for _ in range(20):
            lease.fence.check()
        eventually(lambda: record(root).nonce != nonce)
        lease.fence.check()
