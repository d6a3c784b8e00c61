"""The proof that an output can be written: on the local disk, on a real S3 server, and on stores that lie."""

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import OutputError
from pipeline.store.clients import forget_clients
from pipeline.store.config import StoreConfig
from pipeline.store.preflight import preflight
from pipeline.store.store_path import StorePath

CONFIG = StoreConfig(deadline_s=1, timeout_s=10)


def test_a_preflight_leaves_nothing_behind(root: str) -> None:
    preflight(StorePath(root, CONFIG))
    preflight(StorePath(root, CONFIG))
    assert list(StorePath(root, CONFIG).list()) == []


def test_wrong_credentials_are_told(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_SECRET_ACCESS_KEY", "wrongsecretvalue"), ("AWS_ACCESS_KEY_ID", "AKIAWRONGKEYVALUE")):
        monkeypatch.setenv(name, value)
        forget_clients()
        with pytest.raises(OutputError, match="check the credentials"):
            preflight(StorePath(s3_root, CONFIG))


def test_who_may_only_read_cannot_have_an_output(s3_env: Any, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_env.reader_env.items():
        monkeypatch.setenv(name, value)
    forget_clients()
    with pytest.raises(OutputError, match="may not be written"):
        preflight(StorePath(s3_root, CONFIG))


def test_a_wrong_endpoint_is_told(s3_root: str) -> None:
    with pytest.raises(OutputError, match="check the endpoint"):
        preflight(StorePath(s3_root, StoreConfig(endpoint_url="http://127.0.0.1:9", deadline_s=0.5)))


def test_a_missing_bucket_is_named(s3_env: Any) -> None:
    with pytest.raises(OutputError, match="create the bucket"):
        preflight(StorePath("s3://no-such-bucket/a", CONFIG))


@pytest.mark.parametrize(
    ("ignored", "reason"),
    [
        (("If-None-Match",), "ignores If-None-Match, so that two writers"),
        (("If-Match",), "ignores If-Match, so that a rewrite"),
        (("reads",), "ignores If-Match of reads"),
    ],
)
def test_a_store_that_ignores_conditions_is_refused_as_output(
    stub_store: Callable[..., Any], keeper: Callable[..., Any], ignored: tuple[str, ...], reason: str
) -> None:
    store = keeper(ignored=ignored)
    with stub_store(store) as (config, _):
        with pytest.raises(OutputError, match=reason):
            preflight(StorePath("s3://bucket/out", config))
        assert store.body is None
