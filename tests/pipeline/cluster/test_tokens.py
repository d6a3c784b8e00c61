"""Clusters that count as open to others; tests/jobs/test_submit.py shows that real ones are refused."""

import os
import socket

import pytest
from ray._raylet import AuthenticationTokenLoader

from pipeline.cluster.tokens import check_not_open, check_sends_token, is_loopback, open_node, sends_token
from pipeline.errors import ConfigError

ELSEWHERE = "192.0.2.7"  # kept for documentation: nobody has it


@pytest.fixture(autouse=True)
def no_token(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("RAY_AUTH")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"])
def test_the_loopback_is_this_machine_s(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", [ELSEWHERE, "0.0.0.0", "10.0.0.1", "2001:db8::1", "no-such-host.invalid", "a..b"])
def test_everything_else_may_be_another_machine_s(host):
    assert not is_loopback(host)


def test_a_name_is_what_all_of_its_addresses_are(monkeypatch):
    found = [(None, None, None, "", (address, 0)) for address in ("127.0.0.1", ELSEWHERE)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert not is_loopback("both.example")
    del found[1]
    assert is_loopback("here.example")


@pytest.mark.parametrize("place", ["variable", "file", "home"])
def test_a_token_is_found_where_ray_finds_it(place, monkeypatch, tmp_path):
    loader = AuthenticationTokenLoader.instance()
    try:
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        loader.reset_cache()
        assert not sends_token() and not loader.has_token(ignore_auth_mode=True)
        path = tmp_path / (".ray/auth_token" if place == "home" else "token")
        path.parent.mkdir(exist_ok=True)
        if place == "variable":
            monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef")
        else:
            path.write_text("0123456789abcdef\n")
        if place == "file":
            monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
        loader.reset_cache()
        assert sends_token() and loader.has_token(ignore_auth_mode=True)
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        assert not sends_token()
        monkeypatch.delenv("RAY_AUTH_MODE")
        assert not sends_token()
    finally:
        monkeypatch.undo()
        loader.reset_cache()


def test_a_cluster_elsewhere_wants_a_token_before_anything_is_sent_there(monkeypatch):
    check_sends_token("127.0.0.1:6379", "127.0.0.1")
    with pytest.raises(
        ConfigError, match=r"192\.0\.2\.7:6379 is no loopback .* RAY_AUTH_MODE=token .* --allow-no-token"
    ):
        check_sends_token(f"{ELSEWHERE}:6379", ELSEWHERE)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef")
    check_sends_token(f"{ELSEWHERE}:6379", ELSEWHERE)


def test_one_node_without_a_token_opens_a_cluster(caplog):
    assert open_node({"127.0.0.1": False, "10.0.0.2": True}) is None
    asks = {"10.0.0.2": True, ELSEWHERE: False}
    assert open_node(asks) == ELSEWHERE
    with pytest.raises(ConfigError, match=r"node 192\.0\.2\.7 asks for no token"):
        check_not_open(asks, submitted=False)


def test_a_submitted_job_on_an_open_cluster_says_so_and_goes_on(caplog):
    check_not_open({ELSEWHERE: False}, submitted=True)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and f"cluster.open node={ELSEWHERE}" in record.getMessage()
