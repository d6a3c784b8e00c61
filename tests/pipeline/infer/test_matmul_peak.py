import json

import pytest
import torch

from pipeline.infer import matmul_peak
from pipeline.infer.matmul_peak import peak_gflops


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(matmul_peak._SIDES, "cpu", 128)
    return tmp_path / "pvtv2-batch" / "matmul-peaks.json"


def test_it_is_measured_once_for_each_type_and_remembered(cache, monkeypatch):
    found = peak_gflops("cpu", torch.float32)
    assert found > 0.01
    monkeypatch.setattr(matmul_peak, "_measure", lambda device, dtype: 7.0)
    assert peak_gflops("cpu", torch.float32) == found
    assert peak_gflops("cpu", torch.float64) == 7.0
    assert sorted(json.loads(cache.read_text()).values()) == sorted([found, 7.0])


@pytest.mark.parametrize("content", ["", "[]", '{"x": "y"}', "\x00"])
def test_a_broken_memory_is_measured_over(cache, content):
    cache.parent.mkdir()
    cache.write_text(content)
    assert peak_gflops("cpu", torch.float32) > 0
    assert json.loads(cache.read_text())


def test_a_home_that_cannot_be_written_to_stops_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert peak_gflops("cpu", torch.float32) > 0


def test_a_device_without_room_for_it_has_none_and_is_asked_again(cache, monkeypatch):
    def no_room(device, dtype):
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(matmul_peak, "_measure", no_room)
        assert peak_gflops("cpu", torch.float32) == 0.0
    assert not cache.exists()
    assert peak_gflops("cpu", torch.float32) > 0


def test_a_slow_device_is_measured_by_one_turn(monkeypatch):
    monkeypatch.setattr(matmul_peak, "_MOST_S", 0.0)
    monkeypatch.setattr(matmul_peak, "_TURNS", 10**9)
    assert peak_gflops("cpu", torch.float32) > 0
