"""The compiled code is found, can be turned off, and is not called if it is of another version."""

from pathlib import Path

import pytest
import torch

from model.cpu import compiled as library


@pytest.fixture(autouse=True)
def _loaded_anew():
    library._library.cache_clear()
    yield
    library._library.cache_clear()


def test_it_takes_whole_vectors_of_two_types_on_a_cpu():
    assert library.is_compiled()
    for dtype in (torch.float32, torch.bfloat16):
        assert library.compiled(torch.zeros(3, 32, dtype=dtype)) is not None
        assert library.compiled(torch.zeros(3, 24, dtype=dtype)) is None
    assert library.compiled(torch.zeros(3, 32, dtype=torch.float16)) is None
    assert library.compiled(torch.zeros(3, 32, device="meta")) is None


def test_it_multiplies_tiles_of_bfloat16_where_the_processor_does():
    has_tiles = {"amx_bf16", "avx512_bf16"} <= set(Path("/proc/cpuinfo").read_text().split())
    cpu = torch.device("cpu")
    assert (library.tiled(torch.bfloat16, cpu) is not None) == has_tiles
    assert library.tiled(torch.float32, cpu) is None
    assert library.tiled(torch.bfloat16, torch.device("meta")) is None


def test_it_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("PVTV2_KERNELS", "off")
    assert not library.is_compiled()


def test_one_of_another_version_is_not_used(monkeypatch, caplog):
    arguments = {name.replace("_1", "_0"): types for name, types in library._ARGUMENTS.items()}
    monkeypatch.setattr(library, "_ARGUMENTS", arguments)
    assert not library.is_compiled()
    assert "kernels.unusable" in caplog.text
