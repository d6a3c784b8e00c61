from pathlib import Path

import pytest

from pipeline.store.config import StoreConfig
from pipeline.store.errors import TransientError
from pipeline.store.meter import store_use
from pipeline.store.retry import retrying
from pipeline.store.store_path import StorePath

STORE = StoreConfig()


@pytest.fixture
def used():
    """What is used from here on."""
    before = store_use()
    return lambda: store_use().since(before)


def test_a_files_bytes_and_requests_are_counted_however_it_is_read(tmp_path: Path, used) -> None:
    (tmp_path / "x").write_bytes(b"a" * 1000)
    uri = f"file://{tmp_path}/x"
    StorePath(uri, STORE).read()
    with StorePath(uri, STORE).open(size=1000, etag=None) as file:
        file.read()
    assert used()["bytes_in"] == 2000
    assert used()["requests"] >= 2
    assert used()["fetch_s"] > 0


def test_a_file_that_the_system_has_in_memory_is_counted_too(tmp_path: Path, used) -> None:
    (tmp_path / "x").write_bytes(b"a" * 1000)
    at_once = StorePath(f"file://{tmp_path}/x").read_at_once("")
    assert (used()["requests"], used()["bytes_in"]) == ((0, 0) if at_once is None else (1, 1000))


def test_a_request_that_is_repeated_is_counted_as_a_retry(used) -> None:
    answers = [TransientError("busy"), TransientError("busy"), b"there"]

    def request() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retrying("s3://b/k", 60.0, request) == b"there"
    assert (used()["requests"], used()["retries"]) == (2, 2)  # who has the bytes counts their request


def test_bytes_from_a_store_and_the_time_until_they_begin_are_counted(s3_root, used) -> None:
    from pipeline.store.uris import join_uri

    uri = join_uri(s3_root, "x")
    StorePath(uri, STORE).put(b"a" * 5000)
    StorePath(uri, STORE).read()
    assert (used()["requests"], used()["bytes_in"]) == (1, 5000)
    assert 0 < used()["first_byte_s"] <= used()["fetch_s"]
