"""Checkpoints load strictly, from folders, files and bytes, and say what is wrong with those that do not."""

import hashlib
import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from model.checkpoints.load import load_checkpoint, parse_checkpoint, save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.errors import CheckpointError
from model.network.config import IMAGENET_MEAN, IMAGENET_STD, VARIANTS

LABELS = ("cat", "dog", "hen")


@pytest.fixture(scope="module")
def b0():
    """A network of the smallest published variant, which its shapes identify."""
    return random_weights(replace(VARIANTS["b0"], num_classes=3), seed=0)


@pytest.fixture
def folder(b0, tmp_path):
    save_checkpoint(b0, b0.config, LABELS, tmp_path)
    return tmp_path


@pytest.fixture
def tensors(folder):
    return safetensors.torch.load_file(folder / "model.safetensors")


def rewrite(folder, tensors):
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def assert_same_weights(model, expected):
    ours, theirs = model.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_folder_gives_the_model_and_what_came_with_it(folder, b0):
    loaded = load_checkpoint(str(folder))
    assert_same_weights(loaded.model, b0)
    assert (loaded.config, loaded.model.config) == (b0.config, b0.config)
    assert loaded.labels == LABELS
    assert (loaded.mean, loaded.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert loaded.digest == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert loaded.source_format == "transformers"


def test_a_file_alone_is_recognised_by_its_shapes(folder, b0):
    (folder / "config.json").unlink()
    loaded = load_checkpoint(folder / "model.safetensors")
    assert_same_weights(loaded.model, b0)
    assert (loaded.config, loaded.labels) == (b0.config, None)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_recognised_by_its_shapes(name, narrow, monkeypatch, tmp_path):
    narrowed = {variant: narrow(variant) for variant in VARIANTS}
    # Narrowed, b1 to b5 still differ in depths, reduction or MLP; the real ones would take 250 million weights.
    monkeypatch.setattr("model.network.config.VARIANTS", narrowed)
    monkeypatch.setattr("model.checkpoints.matching.VARIANTS", narrowed)
    monkeypatch.setattr("model.checkpoints.checkpoint.VARIANTS", narrowed)
    save_checkpoint(random_weights(narrowed[name], seed=0), narrowed[name], None, tmp_path)
    (tmp_path / "config.json").unlink()
    assert load_checkpoint(tmp_path).config == narrowed[name]


def test_bytes_in_any_buffer_give_the_same_model(folder, b0):
    weights = (folder / "model.safetensors").read_bytes()
    config_json = (folder / "config.json").read_text()
    for buffer in (weights, bytearray(weights), memoryview(weights)):
        assert_same_weights(parse_checkpoint(buffer, config_json, None, "b0").model, b0)


def test_a_saved_folder_gives_the_same_bytes_again(folder, tmp_path):
    loaded = load_checkpoint(folder)
    save_checkpoint(loaded.model, loaded.config, loaded.labels, tmp_path / "again")
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_transformers_loads_what_was_saved_with_its_labels(folder, b0, oracle, images):
    reference = oracle(folder)
    assert tuple(reference.network.config.id2label.values()) == LABELS
    torch.testing.assert_close(reference(images(1, 64, 64))[0], b0(images(1, 64, 64)), atol=1e-5, rtol=0)


def test_what_transformers_saves_loads(folder, b0, oracle, tmp_path):
    oracle(folder).network.save_pretrained(tmp_path / "theirs")
    loaded = load_checkpoint(tmp_path / "theirs")
    assert_same_weights(loaded.model, b0)
    assert (loaded.config, loaded.labels) == (b0.config, LABELS)


@pytest.mark.parametrize("with_config", [True, False])
def test_a_backbone_without_a_head_loads(folder, oracle, tmp_path, with_config, images, b0):
    oracle(folder).network.pvt_v2.save_pretrained(tmp_path / "backbone")
    if not with_config:
        (tmp_path / "backbone" / "config.json").unlink()
    loaded = load_checkpoint(tmp_path / "backbone")
    assert (loaded.config, loaded.labels) == (replace(b0.config, num_classes=0), None)
    assert torch.equal(loaded.model.forward_features(images(1, 64, 64))[3], b0.forward_features(images(1, 64, 64))[3])


def test_a_network_without_a_head_is_saved_for_transformers_too(tmp_path, narrow, oracle, images):
    model = random_weights(replace(narrow("b0"), num_classes=0), seed=0)
    save_checkpoint(model, model.config, None, tmp_path)
    assert load_checkpoint(tmp_path).config == model.config
    _, maps = oracle(tmp_path)(images(1, 64, 64))
    torch.testing.assert_close(model.forward_features(images(1, 64, 64))[3], maps[3], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_become_float32(folder, tensors, dtype):
    rewrite(folder, {name: tensor.to(dtype) for name, tensor in tensors.items()})
    model = load_checkpoint(folder).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.head.weight, tensors["classifier.weight"].to(dtype).float())


def test_keys_and_values_are_joined_in_this_order(folder, tensors):
    kv = load_checkpoint(folder).model.state_dict()["stages.1.blocks.0.attention.kv.weight"]
    theirs = "pvt_v2.encoder.layers.1.blocks.0.attention"
    assert torch.equal(kv, torch.cat([tensors[f"{theirs}.key.weight"], tensors[f"{theirs}.value.weight"]]))


def test_numbered_labels_are_no_labels(b0, tmp_path):
    save_checkpoint(b0, b0.config, None, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert (loaded.labels, loaded.config.num_classes) == (None, 3)


def test_mean_and_std_come_from_the_preprocessor(folder):
    path = folder / "preprocessor_config.json"
    change_json(path, image_mean=[0.5, 0.5, 0.5], image_std=[0.25, 0.5, 1])
    loaded = load_checkpoint(folder)
    assert (loaded.mean, loaded.std) == ((0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    change_json(path, do_normalize=False)
    loaded = load_checkpoint(folder)
    assert (loaded.mean, loaded.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_epsilon_and_biases_come_from_the_configuration(narrow, tmp_path):
    config = replace(narrow("b0"), qkv_bias=False, block_eps=1e-5, embed_eps=1e-5)
    save_checkpoint(random_weights(config, seed=0), config, None, tmp_path)
    assert load_checkpoint(tmp_path).config == config


def test_tensors_that_do_not_fit_are_named_and_counted(folder, tensors):
    del tensors["pvt_v2.encoder.layers.0.layer_norm.bias"]
    tensors["extra.weight"] = torch.zeros(2)
    tensors["classifier.weight"] = torch.zeros(3, 255)
    tensors["classifier.bias"] = torch.zeros(3, dtype=torch.int64)
    for number in range(5):
        tensors[f"more.{number}"] = torch.zeros(1)
    rewrite(folder, tensors)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder}: The tensors are not those of b0: ")
    assert "1 missing (pvt_v2.encoder.layers.0.layer_norm.bias)" in message
    assert "6 unexpected (extra.weight, more.0, more.1, ...)" in message
    assert "1 of another shape (classifier.weight is 3x255, not 3x256)" in message
    assert "1 of no floating-point type (classifier.bias)" in message


def test_a_classifier_that_lost_its_head_is_no_backbone(folder, tensors):
    rewrite(folder, {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")})
    with pytest.raises(CheckpointError, match=r"2 missing .*classifier.weight, classifier.bias"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no whole safetensors file"),
        (b"\x80\x02}q\x00this is a pickle of sorts", "is not read because|no whole file that torch saved"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        (safetensors.torch.save({"conv1.weight": torch.zeros(1)}), r"not those of a PVTv2 .* conv1.weight"),
        (safetensors.torch.save({}), "not those of a PVTv2 .*: none"),
    ],
)
def test_a_file_that_holds_no_pvt_v2_is_refused(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_a_file_that_was_cut_short_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"no whole safetensors file .* cut short"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "resnet"}, "describes a model of type 'resnet', not 'pvt_v2'"),
        ({"hidden_act": "relu"}, "has hidden_act 'relu'; only 'gelu' can be loaded"),
        ({"depths": [2, 2]}, "describes no PVTv2 that can be built: depths must be"),
        ({"depths": 2}, "describes no PVTv2 that can be built: depths must be"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps 'small', which is no number"),
        ({"id2label": {"0": "cat", "2": "hen"}}, "config.json: id2label has 2 labels, .* none for class 1"),
        ({"id2label": {"0": "cat", "1": "dog"}}, "classifier.weight is 3x256, not 2x256"),
        ({"id2label": ["cat"]}, "id2label must be an object"),
        ({"depths": [2, 2, 3, 2]}, "not those of the network in config.json: 22 missing"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(folder, changes, message):
    change_json(folder / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_configuration_that_is_no_json_object_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json (is not JSON|must hold a JSON object)"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_mean": [0.5]}, r"image_mean \[0.5\]; it must be three numbers"),
        ({"image_std": [1, 1, 0]}, "each must be above 0"),
        ({"rescale_factor": 1 / 127.5}, "only 1/255 can be loaded"),
        ({"do_rescale": False}, "only 1/255 can be loaded"),
    ],
)
def test_a_preprocessor_that_scales_otherwise_is_refused(folder, changes, message):
    change_json(folder / "preprocessor_config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_a_variant_that_contradicts_the_configuration_is_refused(folder):
    with pytest.raises(CheckpointError, match=r"config\.json describes b0, not b2"):
        load_checkpoint(folder, variant="b2")


def test_a_variant_that_contradicts_the_shapes_is_refused(folder):
    (folder / "config.json").unlink()
    assert load_checkpoint(folder, variant="b0").config.embed_dims == VARIANTS["b0"].embed_dims
    with pytest.raises(CheckpointError, match="The tensors are those of b0, not b2-linear"):
        load_checkpoint(folder, variant="b2-linear")


def test_an_unknown_variant_is_refused_with_the_known_ones(folder):
    with pytest.raises(CheckpointError, match="no variant 'b9': choose one of b0, b1, b2, b2-linear"):
        load_checkpoint(folder, variant="b9")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            [],
            r"there is no .*/model.safetensors, nor another file with weights \(.safetensors, .*, .ckpt, .pth.tar\)",
        ),
        (["optimizer.bin", "notes.txt"], "there is no .*/model.safetensors, nor another file with weights"),
        (["a.pth", "b.safetensors"], r"several weights files \(a.pth, b.safetensors\): name one of them"),
        (["model.safetensors.index.json"], "weights in several parts, which are not read: load them with transformers"),
    ],
)
def test_a_folder_without_weights_says_what_it_has(tmp_path, files, message):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no .*nothing: give a folder"):
        load_checkpoint(tmp_path / "nothing")


def test_what_transformers_cannot_express_is_not_saved(b0, tmp_path):
    with pytest.raises(ValueError, match="one epsilon for all norms"):
        save_checkpoint(b0, replace(b0.config, embed_eps=1e-5), None, tmp_path)
    with pytest.raises(ValueError, match="There are 1 labels for 3 classes"):
        save_checkpoint(b0, b0.config, ("cat",), tmp_path)
