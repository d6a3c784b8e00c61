"""Fixtures that several test folders share."""

import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.run.stopper import SIGNALS
from pipeline.store.clients import forget_clients
from tests.support.s3_server import S3Server, running_s3

# CI may skip a test that needs what its machine has not: one with one of these markers.
HARDWARE = {"gpu", "avx512"}


def needlessly_skipped(reporter: pytest.TerminalReporter) -> list[str]:
    """The tests that were skipped although any machine can run them."""
    return [report.nodeid for report in reporter.stats.get("skipped", []) if HARDWARE.isdisjoint(report.keywords)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names, on CI, the skipped tests that any machine can run."""
    skipped = needlessly_skipped(terminalreporter)
    if os.environ.get("CI") and skipped:
        terminalreporter.section("skipped on CI", red=True)
        for name in skipped:
            terminalreporter.line(name)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a run on CI that skipped a test which any machine can run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and needlessly_skipped(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """What handles this process' signals after a test is what did so before it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real photos and odd files that PVTV2_TEST_DATA names."""
    folder = os.environ.get("PVTV2_TEST_DATA")
    if not folder:
        pytest.skip("PVTV2_TEST_DATA is not set: no real photos and odd files to test with")
    return Path(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on the PATH (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as client:
        # Without its sandbox, which root may not have; what it shows is made here.
        found = client.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the whole session; see also `s3_env` and `s3_root`."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_env(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server, with its address and credentials in the environment of this test."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    forget_clients()
    yield s3
    forget_clients()


@pytest.fixture
def s3_root(s3_env: S3Server) -> str:
    """A URI below which there is nothing yet, with credentials in the environment."""
    return f"s3://{s3_env.bucket}/{secrets.token_hex(6)}"
