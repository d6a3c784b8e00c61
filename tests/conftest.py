"""Fixtures that several test folders share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real photos and odd files that PVTV2_TEST_DATA names."""
    folder = os.environ.get("PVTV2_TEST_DATA")
    if not folder:
        pytest.skip("PVTV2_TEST_DATA is not set: no real photos and odd files to test with")
    return Path(folder)
