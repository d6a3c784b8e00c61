"""Weights, means, standard deviations and epsilons that are no finite numbers are refused, by the name of each."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from model.checkpoints.checkpoint import inspect_checkpoint
from model.checkpoints.load import load_checkpoint, parse_checkpoint, save_checkpoint
from model.checkpoints.magnitude import FLOAT_TYPES, largest_magnitude
from model.checkpoints.random_weights import random_weights
from model.errors import CheckpointError
from model.network.config import PVTv2Config
from tests.support.renaming import as_timm

HEAD, NORM = "classifier.weight", "pvt_v2.encoder.layers.2.layer_norm.bias"
CONV = "pvt_v2.encoder.layers.0.patch_embedding.proj.weight"
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


@pytest.fixture
def folder(narrow, tmp_path):
    config = narrow("b0")
    save_checkpoint(random_weights(config, 0), config, None, tmp_path)
    return tmp_path


@pytest.fixture
def planted(folder):
    """(tensor, value, type) -> the folder, whose tensor of that name holds the value at its last place."""

    def plant(name, value, dtype=torch.float32, pickled=False):
        tensors = {each: tensor.to(dtype) for each, tensor in load_tensors(folder).items()}
        tensors[name].view(-1)[-1] = value
        if pickled:
            (folder / "model.safetensors").unlink()
            torch.save(tensors, folder / "pytorch_model.bin")
        else:
            safetensors.torch.save_file(tensors, folder / "model.safetensors")
        return folder

    return plant


def load_tensors(folder):
    return safetensors.torch.load_file(folder / "model.safetensors")


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [(HEAD, math.nan, "NaN"), (NORM, math.nan, "NaN"), (CONV, math.inf, "infinity"), (CONV, -math.inf, "infinity")],
)
def test_a_weight_that_is_not_finite_is_named(planted, name, value, said, dtype, pickled):
    with pytest.raises(CheckpointError, match=rf"1 of the 194 tensors are not finite \({name} holds {said}\)"):
        load_checkpoint(planted(name, value, dtype, pickled))


def test_a_weight_that_float32_cannot_hold_is_named_with_its_value(planted):
    with pytest.raises(CheckpointError, match=rf"{CONV} holds 1e\+300, which float32 cannot hold"):
        load_checkpoint(planted(CONV, 1e300, torch.float64))


def test_the_first_of_many_such_tensors_are_named(folder):
    safetensors.torch.save_file(
        {name: tensor * math.nan for name, tensor in load_tensors(folder).items()}, folder / "model.safetensors"
    )
    with pytest.raises(
        CheckpointError, match=r"194 of the 194 tensors .* holds NaN, .* holds NaN, .* holds NaN, \.\.\."
    ):
        load_checkpoint(folder)


def test_a_head_that_is_left_out_may_hold_anything(planted):
    weights = (planted(HEAD, math.nan) / "model.safetensors").read_bytes()
    config_json = (planted(HEAD, math.nan) / "config.json").read_text()
    loaded = parse_checkpoint(weights, config_json, with_head=False)
    assert (loaded.config.num_classes, loaded.model.head, loaded.labels) == (0, None, None)
    with pytest.raises(CheckpointError, match=HEAD):
        parse_checkpoint(weights, config_json)
    weights = (planted(NORM, math.nan) / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=NORM):
        inspect_checkpoint(weights, config_json, with_head=False)


def test_the_largest_weight_is_told(planted):
    assert load_checkpoint(planted(CONV, -70000.0)).largest == (CONV, 70000.0)


@pytest.mark.parametrize("dtype", sorted(FLOAT_TYPES))
def test_the_largest_magnitude_of_any_bytes_is_that_of_the_numbers(dtype):
    rng = np.random.default_rng(0)
    for length in (0, 1, 7, 1000, 70_000):
        data = rng.integers(0, 256, 8 * length, np.uint8).tobytes()
        finite = torch.frombuffer(bytearray(data), dtype=TYPES[dtype]) if length else torch.zeros(1)
        values = finite.double()
        values[~values.isfinite()] = 0.0
        data = values.to(finite.dtype).view(torch.uint8).numpy().tobytes() if length else b""
        assert largest_magnitude(dtype, data) == values.abs().max().item()


@pytest.mark.parametrize("dtype", sorted(FLOAT_TYPES))
def test_nan_comes_before_infinity_and_infinity_before_all_numbers(dtype):
    def largest(*values):
        return largest_magnitude(dtype, torch.tensor(values).to(TYPES[dtype]).view(torch.uint8).numpy().tobytes())

    assert math.isnan(largest(1.0, -math.nan, 2.0))
    if dtype != "F8_E4M3":  # has no infinity
        assert largest(1.0, -math.inf, 2.0) == math.inf
        assert math.isnan(largest(math.inf, math.nan))


@pytest.mark.parametrize("eps", [math.nan, math.inf, 0, -1e-6, 1e-50, 1e39, 10**400])
def test_an_epsilon_that_is_no_positive_finite_number_is_refused(folder, eps):
    change_json(folder / "config.json", layer_norm_eps=eps)
    with pytest.raises(CheckpointError, match=r"layer_norm_eps .*, which must be above 0 and finite as float32"):
        load_checkpoint(folder)


@pytest.mark.parametrize("eps", [{"block_eps": math.inf}, {"embed_eps": math.nan}, {"embed_eps": 0.0}])
def test_a_network_of_such_an_epsilon_cannot_be_described(narrow, eps):
    with pytest.raises(ValueError, match="block_eps and embed_eps must be above 0 and finite"):
        replace(narrow("b0"), **eps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_mean": [math.nan, 0.5, 0.5]}, r"image_mean \[nan, 0.5, 0.5\]; each must be finite"),
        ({"image_mean": [0.5, -math.inf, 0.5]}, r"image_mean .*; each must be finite"),
        ({"image_mean": [0.5, 10**400, 0.5]}, r"image_mean .*; each must be finite"),
        ({"image_mean": [0.5, True, 0.5]}, r"image_mean .*; it must be three numbers"),
        ({"image_std": [0.5, math.nan, 0.5]}, r"image_std .*; each must be above 0 and finite"),
        ({"image_std": [0.5, math.inf, 0.5]}, r"image_std .*; each must be above 0 and finite"),
        ({"image_std": [0.5, -0.5, 0.5]}, r"image_std .*; each must be above 0 and finite"),
        ({"image_std": [0.5, 1e-60, 0.5]}, r"image_std .*; each must be above 0 and finite"),
        ({"rescale_factor": math.nan}, "only 1/255 can be loaded"),
    ],
)
def test_a_normalisation_that_is_not_finite_is_refused(folder, changes, message):
    change_json(folder / "preprocessor_config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "values", [{"std": [0.2, 0.0, 0.2]}, {"std": [0.2, math.nan, 0.2]}, {"mean": [math.inf, 0, 0]}]
)
def test_timms_normalisation_must_be_finite_too(narrow, tmp_path, monkeypatch, values):
    config: PVTv2Config = narrow("b0")
    monkeypatch.setattr("model.checkpoints.timm_config.VARIANTS", {"b0": config})
    monkeypatch.setattr("model.checkpoints.timm_config._ARCHITECTURES", {"pvt_v2_b0": "b0"})
    save_checkpoint(random_weights(config, 0), config, None, tmp_path)
    safetensors.torch.save_file(as_timm(load_tensors(tmp_path)), tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").unlink()
    described = {"architecture": "pvt_v2_b0", "num_classes": 11, "pretrained_cfg": values}
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match=r"The configuration has (std|mean) .*; each must be"):
        load_checkpoint(tmp_path)
