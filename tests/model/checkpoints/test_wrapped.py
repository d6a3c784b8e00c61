"""Weights are found under every prefix and in every wrapper that training scripts put around them."""

import itertools
import json
import logging

import pytest
import safetensors.torch
import torch

from model.checkpoints.files import WEIGHTS_ENDINGS
from model.checkpoints.load import load_checkpoint, parse_checkpoint, save_checkpoint
from model.checkpoints.pickled import WRAPPERS
from model.checkpoints.random_weights import random_weights
from model.errors import CheckpointError
from model.network.config import VARIANTS
from tests.support.renaming import as_original, as_timm

SOURCES = {"transformers": dict, "timm": as_timm, "original": as_original}
PREFIXES = [
    "".join(parts) for n in range(4) for parts in itertools.permutations(("module.", "_orig_mod.", "model."), n)
]


@pytest.fixture(scope="module")
def small(request):
    """A narrow b0 that its shapes identify, as all variants are narrowed for these tests."""
    narrow = request.getfixturevalue("narrow")
    with pytest.MonkeyPatch.context() as patch:
        variants = {name: narrow(name) for name in VARIANTS}
        for module in ("network.config", "checkpoints.matching", "checkpoints.checkpoint"):
            patch.setattr(f"model.{module}.VARIANTS", variants)
        yield variants["b0"]


@pytest.fixture(scope="module")
def tensors(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_checkpoint(random_weights(small, 0), small, None, folder)
    return safetensors.torch.load_file(folder / "model.safetensors")


def head_of(path):
    return load_checkpoint(path).model.head.bias


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("prefix", [*PREFIXES, "module.module.", "backbone.net."])
def test_any_prefix_before_all_names_is_left_out(prefix, source, tensors, tmp_path):
    state = {prefix + name: tensor for name, tensor in SOURCES[source](tensors).items()}
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    loaded = load_checkpoint(tmp_path / "x.safetensors")
    assert (loaded.source_format, loaded.config.num_classes) == (source, 11)
    assert loaded.model.head.bias.equal(tensors["classifier.bias"])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod."])
def test_a_backbone_that_was_compiled_inside_its_classifier_loads(prefix, tensors, tmp_path):
    inside = {name.replace("pvt_v2.", f"pvt_v2.{prefix}"): tensor for name, tensor in tensors.items()}
    safetensors.torch.save_file({f"module.{name}": value for name, value in inside.items()}, tmp_path / "x.safetensors")
    assert head_of(tmp_path / "x.safetensors").equal(tensors["classifier.bias"])


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
@pytest.mark.parametrize("source", SOURCES)
def test_a_backbone_without_a_head_has_no_classes_under_any_prefix(prefix, source, tensors, tmp_path):
    backbone = {name.removeprefix("pvt_v2."): tensor for name, tensor in tensors.items() if "classifier" not in name}
    state = {prefix + name: tensor for name, tensor in SOURCES[source](backbone).items()}
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    assert load_checkpoint(tmp_path / "x.safetensors").config.num_classes == 0


def test_a_classifier_that_lost_its_head_is_named_with_its_prefix(small, tensors, tmp_path):
    save_checkpoint(random_weights(small, 0), small, None, tmp_path)
    state = {f"module.{name}": tensor for name, tensor in tensors.items() if "classifier" not in name}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"2 missing \(module.classifier.weight, module.classifier.bias\)"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("counter", ["n_averaged", "module.n_averaged"])
@pytest.mark.parametrize("pickled", [True, False])
def test_the_counter_of_averaged_weights_is_no_weight(counter, pickled, tensors, tmp_path):
    state = {f"module.{name}": tensor for name, tensor in tensors.items()} | {counter: torch.tensor(7)}
    path = tmp_path / ("x.pth" if pickled else "x.safetensors")
    torch.save(state, path) if pickled else safetensors.torch.save_file(state, path)
    assert head_of(path).equal(tensors["classifier.bias"])


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("prefix", ["", "module._orig_mod."])
def test_every_wrapper_is_opened(wrapper, source, prefix, tensors, tmp_path):
    state = {prefix + name: tensor for name, tensor in SOURCES[source](tensors).items()}
    around = {"epoch": 3, "optimizer": {"state": {0: torch.zeros(2)}}, "args": {"model": "pvt_v2_b0"}}
    for number, content in enumerate(
        [{**around, wrapper: state}, {"state_dict": {wrapper: state}}, {wrapper: {"net": state}}]
    ):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        assert head_of(path).equal(tensors["classifier.bias"])


@pytest.mark.parametrize("pair", [*itertools.combinations(WRAPPERS, 2)])
def test_of_two_wrappers_the_earlier_one_is_taken_and_told(pair, tensors, tmp_path, caplog):
    first, second = pair
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    torch.save({second: other, first: tensors}, tmp_path / "x.pth")
    with caplog.at_level(logging.INFO):
        assert head_of(tmp_path / "x.pth").equal(tensors["classifier.bias"])
    assert f"weights.chosen key={first} of={first},{second}" in caplog.text


def test_wrappers_that_were_known_first_keep_their_order():
    assert WRAPPERS[:4] == ("state_dict_ema", "model_ema", "state_dict", "model")


def test_a_wrapper_without_a_network_does_not_hide_another(tensors, tmp_path):
    torch.save({"model": {"name": "pvt_v2_b0"}, "net": tensors}, tmp_path / "x.pth")
    assert head_of(tmp_path / "x.pth").equal(tensors["classifier.bias"])


@pytest.mark.parametrize("name", ["x.pth.tar", "x.ckpt", "X.PTH", "x.pt"])
def test_every_ending_is_found_in_a_folder_and_by_name(name, tensors, tmp_path):
    torch.save({"state_dict": tensors}, tmp_path / name)
    assert head_of(tmp_path).equal(head_of(tmp_path / name))


@pytest.mark.parametrize("other", ["last.ckpt", "checkpoint.pth.tar"])
def test_a_training_state_beside_the_weights_is_passed_over(other, tensors, tmp_path):
    safetensors.torch.save_file(tensors, tmp_path / "x.safetensors")
    (tmp_path / other).write_bytes(b"no weights")
    assert head_of(tmp_path).equal(tensors["classifier.bias"])


def test_a_file_of_another_format_is_refused_with_the_endings_that_are_known(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(CheckpointError, match=", ".join(WEIGHTS_ENDINGS)):
        load_checkpoint(tmp_path / "x.h5")


@pytest.mark.parametrize(
    "broken", [{"0": "cat"}, {"0": "", "1": "b"}, {"a": "cat"}, ["cat"], {"0": "a", "2": "b"}, "x"]
)
def test_labels_that_are_not_read_may_be_broken(broken, small, tmp_path):
    save_checkpoint(random_weights(small, 0), small, None, tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text()) | {"id2label": broken, "num_labels": 4}
    weights = (tmp_path / "model.safetensors").read_bytes()
    loaded = parse_checkpoint(weights, json.dumps(raw), with_labels=False)
    assert (loaded.config, loaded.labels) == (small, None)
    with pytest.raises(CheckpointError):
        parse_checkpoint(weights, json.dumps(raw))
