"""Shards to read, and stores that fail."""

import io

import pytest

from pipeline.store.store_path import StorePath
from tests.support.shards import write_shard


@pytest.fixture
def no_window(monkeypatch):
    """Images of a tar leave the window, in which their labels may meet them, at once."""
    monkeypatch.setattr("pipeline.inputs.tar_sidecars.WINDOW_MEMBERS", 1)


@pytest.fixture
def make_shard(tmp_path, make_tar):
    """(format, {name: encoded image}, ...) -> a planned shard of these images, in their order."""
    return lambda *args, **changes: write_shard(tmp_path, make_tar, *args, **changes)


@pytest.fixture
def breaks_off(monkeypatch):
    """(bytes, error): from now on an object's reader raises the error once so many bytes were read."""

    def install(num_bytes, error):
        real_open = StorePath.open

        def open_broken(*args, **options):
            with real_open(*args, **options) as file:
                return Breaking(file.read(), num_bytes, error)

        monkeypatch.setattr(StorePath, "open", open_broken)

    return install


class Breaking(io.BytesIO):
    """A file whose store fails behind some bytes."""

    def __init__(self, data, num_bytes, error):
        super().__init__(data)
        self.end, self.error = num_bytes, error

    def read(self, size=-1):
        if self.tell() >= self.end:
            raise self.error
        return super().read(min(size, self.end - self.tell()))
