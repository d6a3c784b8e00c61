"""Bytes that are written to memory or to a file without a name are the same, and leave nothing behind."""

import errno
import tempfile

import pytest

from pipeline.publish.spill import in_memory, on_disk, on_disk_if_it_can


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def write(sink):
    for part in (b"\xff\x00", b"abc" * 1000):
        sink.write(part)


def full():
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", [in_memory, on_disk, on_disk_if_it_can])
def test_what_is_written_is_there_and_no_name_for_it(folder, place):
    buffer = place(write)
    assert buffer.to_pybytes() == b"\xff\x00" + b"abc" * 1000
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_said_or_memory_takes_its_place(monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match="No space left"):
        on_disk(write)
    assert on_disk_if_it_can(write).equals(in_memory(write))
    assert "scratch.full" in caplog.text
