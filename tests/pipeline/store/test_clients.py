"""Credentials and endpoints, with a real S3 server, and buckets that need boto3's listing."""

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.store.clients import _s3_address, forget_clients
from pipeline.store.config import StoreConfig
from pipeline.store.errors import DeniedError, NotFoundError, StoreError, TransientError
from pipeline.store.store_path import StorePath

CONFIG = StoreConfig(deadline_s=1, timeout_s=10)


def uris(root: str, config: StoreConfig = CONFIG) -> list[str]:
    return [info.uri for info in StorePath(root, config).list()]


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause of this thread; threads of other libraries pause, too."""
    pause, seconds_of, here = time.sleep, list[float](), threading.get_ident()

    def noted(seconds: float) -> None:
        if threading.get_ident() == here:
            seconds_of.append(seconds)
        pause(seconds)

    monkeypatch.setattr(time, "sleep", noted)
    return seconds_of


def test_wrong_credentials_are_denied_and_not_repeated(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    StorePath(s3_root, CONFIG).join("a").put(b"x")
    for name, value in (("AWS_SECRET_ACCESS_KEY", "wrongsecretvalue"), ("AWS_ACCESS_KEY_ID", "AKIAWRONGKEYVALUE")):
        monkeypatch.setenv(name, value)
        forget_clients()
        for request in (
            lambda: uris(s3_root),
            lambda: StorePath(s3_root, CONFIG).join("a").read(),
            lambda: StorePath(s3_root, CONFIG).join("b").put(b"x"),
            lambda: StorePath(s3_root, CONFIG).join("a").delete(),
        ):
            with pytest.raises(DeniedError, match="403") as caught:
                request()
            text = "".join([str(caught.value), repr(caught.value.__cause__)])
            assert "wrongsecretvalue" not in text and "AKIAWRONG" not in text and len(text) < 400


def test_who_may_only_read_cannot_delete(s3_env: Any, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    StorePath(s3_root, CONFIG).join("a").put(b"x")
    for name, value in s3_env.reader_env.items():
        monkeypatch.setenv(name, value)
    forget_clients()
    assert uris(s3_root) == [f"{s3_root}/a"] and StorePath(f"{s3_root}/a", CONFIG).read() == b"x"
    with pytest.raises(DeniedError):
        StorePath(f"{s3_root}/a", CONFIG).delete()


def test_missing_credentials_are_told_at_once(
    s3_root: str, monkeypatch: pytest.MonkeyPatch, paused: list[float]
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget_clients()
    with pytest.raises(DeniedError, match="no AWS credentials found"):
        uris(s3_root)
    assert paused == []


def test_public_buckets_are_read_without_credentials(s3_env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"s3://{s3_env.public_bucket}/a b/c"
    StorePath(uri, CONFIG).put(b"body")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget_clients()
    anonymous = StoreConfig(anonymous=True, deadline_s=1)
    assert uris(f"s3://{s3_env.public_bucket}/a b", anonymous) == [uri]
    assert StorePath(uri, anonymous).read() == b"body"
    with pytest.raises(DeniedError):
        StorePath(uri, anonymous).put(b"other")


def test_a_profile_gives_credentials_and_endpoint(
    s3_env: Any, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    StorePath(f"{s3_root}/a", CONFIG).put(b"x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text(
        f"[profile lab]\naws_access_key_id = {s3_env.access_key}\naws_secret_access_key = {s3_env.secret_key}\n"
        f"region = eu-north-1\nservices = lab\n[services lab]\ns3 =\n  endpoint_url = {s3_env.endpoint_url}\n"
    )
    forget_clients()
    assert StorePath(f"{s3_root}/a", StoreConfig(profile="lab", deadline_s=1)).read() == b"x"
    with pytest.raises(ConfigError, match="no-such-profile"):
        StorePath(f"{s3_root}/a", StoreConfig(profile="no-such-profile")).read()


def test_a_given_endpoint_wins_over_the_environment(s3_env: Any, s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    forget_clients()
    assert uris(s3_root, StoreConfig(endpoint_url=s3_env.endpoint_url, deadline_s=0)) == []
    with pytest.raises(TransientError, match=r"the connection to http://127\.0\.0\.1:9 failed: Connection refused"):
        uris(s3_root, StoreConfig(deadline_s=0))


def test_a_wrong_endpoint_fails_in_bounded_time(s3_root: str, paused: list[float]) -> None:
    """The time is that of our own pauses, which end at the deadline: nothing below our loop repeats a request."""
    config = StoreConfig(endpoint_url="http://127.0.0.1:9", deadline_s=0.5)
    for request in (lambda: uris(s3_root, config), lambda: StorePath(f"{s3_root}/a", config).put(b"x", if_absent=True)):
        paused.clear()
        with pytest.raises(TransientError, match="gave up after") as raised:
            request()
        assert 0 < sum(paused) <= config.deadline_s
        assert f"gave up after {len(paused) + 1} attempts" in str(raised.value)


def test_a_missing_bucket_is_named(s3_env: Any) -> None:
    for request in (
        lambda: uris("s3://no-such-bucket/a"),
        lambda: StorePath("s3://no-such-bucket/a", CONFIG).read(),
        lambda: StorePath("s3://no-such-bucket/a", CONFIG).put(b"x", if_absent=True),
    ):
        with pytest.raises(NotFoundError, match="the bucket does not exist"):
            request()


def test_only_aws_itself_has_buckets_in_host_names() -> None:
    def address(bucket: str, endpoint: str) -> tuple[str, bool]:
        options = _s3_address(bucket, endpoint, "eu-west-1")
        return options["endpoint"], options["virtual_hosted_style_request"]

    assert address("b", "https://s3.amazonaws.com") == ("https://b.s3.eu-west-1.amazonaws.com", True)
    assert address("b", "https://s3.eu-west-1.amazonaws.com") == ("https://b.s3.eu-west-1.amazonaws.com", True)
    assert address("b.c", "https://s3.eu-west-1.amazonaws.com") == ("https://s3.eu-west-1.amazonaws.com", False)
    assert address("b", "http://minio:9000/") == ("http://minio:9000", False)


def test_a_forked_process_is_told_instead_of_waiting_for_ever(s3_root: str) -> None:
    StorePath(f"{s3_root}/a", CONFIG).put(b"x")
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        with suppress(StoreError):
            StorePath(f"{s3_root}/a", CONFIG).read()
            return
        sender.send("told")

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert receiver.poll(10) and receiver.recv() == "told"
    process.join(10)


def test_one_key_with_a_control_character_does_not_hide_the_others(
    s3_env: Any, s3_root: str, caplog: pytest.LogCaptureFixture
) -> None:
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")
    with closing(s3_env.client()) as client:
        for key in ("a.jpg", "new\nline.jpg", "b/c.jpg", "b/"):
            client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=b"" if key == "b/" else b"x")
    skipped: list[str] = []
    with caplog.at_level(logging.WARNING):
        found = list(StorePath(s3_root, CONFIG).list(on_skipped=skipped.append))
    assert [info.uri for info in found] == [f"{s3_root}/a.jpg", f"{s3_root}/b/c.jpg"]
    assert found[0] == StorePath(found[0].uri, CONFIG).head()
    assert skipped == [f"{prefix}/new\nline.jpg"]
    assert "names=1" in caplog.text
    for uri in (f"{s3_root}/new\nline.jpg", f"{s3_root}/../a", f"{s3_root}/../a//b"):
        with pytest.raises(StoreError, match="cannot be addressed"):
            StorePath(uri, CONFIG).read()


@pytest.mark.parametrize("setting", [None, "when_supported", "when_required"])
def test_uploads_have_no_checksums_that_older_stores_do_not_know(
    s3_env: Any, stub_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, setting: str | None
) -> None:
    """Newer AWS tools add them, unless this variable says otherwise; of nothing that the job sends."""
    if setting:
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", setting)
    forget_clients()
    seen: list[dict[str, str]] = []

    def answer(exchange: Any) -> None:
        seen.append({name.lower(): value.lower() for name, value in exchange.headers.items()})
        exchange.reply(200)

    with stub_store(answer) as (anonymous, requests):
        signed = replace(anonymous, anonymous=False)
        StorePath("s3://bucket/a", signed).put(b"body", if_absent=True)
        StorePath("s3://bucket/a", signed).put(b"x" * (6 * 2**20), if_match='"1"')
        StorePath("s3://bucket/a", signed).delete()
    assert requests == ["PUT", "PUT", "DELETE"]
    for headers in seen:
        assert not [name for name in headers if "checksum" in name or "trailer" in name or "sdk" in name]
        assert "aws-chunked" not in headers.get("content-encoding", "")
        assert "streaming" not in headers["x-amz-content-sha256"]
