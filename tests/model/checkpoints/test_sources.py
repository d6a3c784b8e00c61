"""Checkpoints of timm and of the authors' repository: the same network as transformers', but for two epsilons."""

import argparse
import hashlib
import io
import json
import pickle
from contextlib import closing
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from model.checkpoints.load import load_checkpoint, save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.errors import CheckpointError
from model.network.config import VARIANTS
from model.network.labels import imagenet_labels
from tests.support.renaming import as_original, as_timm, use_source_epsilons

SIZES = [(224, 224), (61, 95), (32, 640)]
RENAMED = {"timm": as_timm, "original": as_original}


@pytest.fixture
def narrowed(narrow, monkeypatch):
    """Makes the published variants narrow; their shapes still differ."""
    variants = {name: narrow(name) for name in VARIANTS}
    for module in ("network.config", "checkpoints.matching", "checkpoints.checkpoint", "checkpoints.timm_config"):
        monkeypatch.setattr(f"model.{module}.VARIANTS", variants)
    return variants


@pytest.fixture
def saved(tmp_path):
    """Saves a network as transformers would; returns the folder and its tensors."""

    def save(config):
        folder = tmp_path / "transformers"
        save_checkpoint(random_weights(config, seed=1), config, None, folder)
        return folder, safetensors.torch.load_file(folder / "model.safetensors")

    return save


def assert_equal(model, reference, pixels):
    logits, maps = reference(pixels)
    torch.testing.assert_close(model(pixels), logits, atol=1e-5, rtol=0)
    for ours, theirs in zip(model.forward_features(pixels), maps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("source", RENAMED)
def test_logits_and_maps_are_those_of_transformers_with_the_sources_epsilons(
    source, variant, narrowed, saved, oracle, images, tmp_path
):
    folder, tensors = saved(narrowed[variant])
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(RENAMED[source](tensors), path)
    loaded = load_checkpoint(path)
    assert loaded.source_format == source
    assert loaded.config == replace(narrowed[variant], embed_eps=1e-5)
    reference = oracle(folder)
    use_source_epsilons(reference.network)
    for size in SIZES:
        assert_equal(loaded.model, reference, images(1, *size))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wrapped", [None, "state_dict", "model", "state_dict_ema"])
def test_what_torch_saved_loads_whatever_is_around_it(wrapped, dtype, saved, tmp_path):
    _, tensors = saved(replace(VARIANTS["b0"], num_classes=3))
    state = {f"module.{name}": value.to(dtype) for name, value in as_original(tensors).items()}
    # A training state, with what else a script leaves in it.
    around = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {0: torch.zeros(2)}}}
    if wrapped == "state_dict_ema":
        around["model"] = {name: value + 1 for name, value in state.items()}
    path = tmp_path / "pvt_v2_b0.pth"
    torch.save(state if wrapped is None else {**around, wrapped: state}, path)
    loaded = load_checkpoint(path)
    assert (loaded.source_format, loaded.base) == ("original", "module.")
    assert loaded.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    expected = state["module.patch_embed1.proj.weight"].float()
    assert loaded.model.stages[0].embed.conv.weight.equal(expected)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


def test_the_bare_pickle_of_early_torch_loads_too(saved, tmp_path):
    _, tensors = saved(replace(VARIANTS["b0"], num_classes=3))
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    assert load_checkpoint(tmp_path).source_format == "transformers"


class Surprise:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(protocol, tmp_path, capsys):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"patch_embed1.proj.weight": Surprise()}, protocol=protocol))
    zipped = tmp_path / "zipped.pth"
    torch.save({"patch_embed1.proj.weight": Surprise()}, zipped)
    for evil in (path, zipped):
        with pytest.raises(CheckpointError):
            load_checkpoint(evil)
    with pytest.raises(CheckpointError, match=r"more than tensors.*save them again as safetensors"):
        load_checkpoint(zipped)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("cut", [3, 1000, -10])
def test_a_pickle_that_was_cut_short_is_named(cut, saved, tmp_path):
    _, tensors = saved(replace(VARIANTS["b0"], num_classes=3))
    path = tmp_path / "weights.pth"
    torch.save(as_original(tensors), path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match="cut short"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}])
def test_a_file_of_something_else_says_what_it_holds(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"holds a list|not those of a PVTv2"):
        load_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("source", RENAMED)
@pytest.mark.parametrize("change", ["missing", "unexpected", "misshapen"])
def test_wrong_tensors_are_named_in_the_names_of_the_file(source, change, saved, tmp_path):
    _, tensors = saved(replace(VARIANTS["b0"], num_classes=3))
    state = RENAMED[source](tensors)
    name = next(name for name in state if name.endswith("attn.kv.weight"))
    if change == "missing":
        del state[name]
    elif change == "unexpected":
        state[name := "attn.stranger"] = torch.zeros(1)
    else:
        state[name] = torch.zeros(3, 3)
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=rf"1 (missing|unexpected|of another shape) \({name}"):
        load_checkpoint(tmp_path / "x.safetensors", variant="b0")


@pytest.mark.parametrize("source", RENAMED)
def test_a_backbone_without_its_head_has_no_classes(source, saved, tmp_path):
    _, tensors = saved(replace(VARIANTS["b0"], num_classes=3))
    state = {name: value for name, value in RENAMED[source](tensors).items() if not name.startswith("head")}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    loaded = load_checkpoint(tmp_path)
    assert (loaded.config.num_classes, loaded.labels, loaded.model.head) == (0, None, None)


def test_a_thousand_classes_without_names_are_those_of_imagenet(saved, tmp_path):
    _, tensors = saved(VARIANTS["b0"])
    safetensors.torch.save_file(as_original(tensors), tmp_path / "x.safetensors")
    labels = load_checkpoint(tmp_path / "x.safetensors").labels
    assert labels == imagenet_labels()
    assert (len(labels), labels[0], labels[999][:13]) == (1000, "tench, Tinca tinca", "toilet tissue")


def write_timm(folder, state, **config):
    folder.mkdir()
    safetensors.torch.save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_timms_configuration_says_variant_classes_labels_and_normalisation(saved, tmp_path):
    _, tensors = saved(replace(VARIANTS["b0"], num_classes=3))
    folder = write_timm(
        tmp_path / "timm", as_timm(tensors), architecture="pvt_v2_b0", num_classes=3, num_features=256,
        label_names=["a", "b", "c"],
        pretrained_cfg={"num_classes": 3, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic"},
    )  # fmt: skip
    loaded = load_checkpoint(folder)
    assert loaded.labels == ("a", "b", "c")
    assert (loaded.mean, loaded.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (loaded.config.block_eps, loaded.config.embed_eps) == (1e-6, 1e-5)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architecture": "resnet18"}, r"architecture 'resnet18'.*pvt_v2_b2_li"),
        ({"architecture": "pvt_v2_b1", "num_classes": 3}, "not those of b1"),
        ({"architecture": "pvt_v2_b0", "num_classes": 3, "label_names": ["a"]}, "other than its 3 classes"),
        ({"architecture": "pvt_v2_b0", "num_classes": 5}, r"head.weight is 3x256, not 5x256"),
        ({"architecture": "pvt_v2_b0", "num_classes": 3, "pretrained_cfg": {"mean": [1]}}, "mean .* three numbers"),
    ],
)
def test_a_configuration_of_timm_that_does_not_fit_is_refused(config, expected, saved, tmp_path):
    _, tensors = saved(replace(VARIANTS["b0"], num_classes=3))
    folder = write_timm(tmp_path / "timm", as_timm(tensors), **config)
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(folder)


@pytest.fixture
def on_s3(s3, s3_root, saved):
    """Puts checkpoints below a URI, and returns the URI and the local folder with the same weights."""
    folder, tensors = saved(replace(VARIANTS["b0"], num_classes=3))
    state = io.BytesIO()
    torch.save(as_original(tensors), state)
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")
    with closing(s3.client()) as client:
        for path in folder.iterdir():
            client.put_object(Bucket=bucket, Key=f"{prefix}/hf/{path.name}", Body=path.read_bytes())
        client.put_object(Bucket=bucket, Key=f"{prefix}/one/pvt_v2_b0.pth", Body=state.getvalue())
        client.put_object(Bucket=bucket, Key=f"{prefix}/one/below/other.pth", Body=b"x")
        client.put_object(Bucket=bucket, Key=f"{prefix}/x.ckpt/last.ckpt", Body=state.getvalue())
        client.put_object(Bucket=bucket, Key=f"{prefix}/weights.h5", Body=state.getvalue())
    return s3_root, folder


def test_a_checkpoint_on_s3_is_that_on_the_disk(on_s3):
    root, folder = on_s3
    expected = load_checkpoint(folder)
    for source in (f"{root}/hf", f"{root}/hf/", f"{root}/hf/model.safetensors"):
        assert load_checkpoint(source).digest == expected.digest
    original = load_checkpoint(f"{root}/one")
    assert original.source_format == "original"
    assert original.digest == load_checkpoint(f"{root}/one/pvt_v2_b0.pth").digest
    for source in (f"{root}/x.ckpt", f"{root}/x.ckpt/", f"{root}/x.ckpt/last.ckpt"):
        assert load_checkpoint(source).digest == original.digest
    with pytest.raises(CheckpointError, match=r"/weights.h5 is a file whose ending is not known: .*\.ckpt, \.pth\.tar"):
        load_checkpoint(f"{root}/weights.h5")
    with pytest.raises(CheckpointError, match=r"there is no s3://.*/none/model.safetensors"):
        load_checkpoint(f"{root}/none")
    with pytest.raises(CheckpointError, match=r"there is no s3://.*/hf/x.pth"):
        load_checkpoint(f"{root}/hf/x.pth")
    with pytest.raises(CheckpointError, match=r"s3://no-such-bucket-here/x cannot be read: .*NoSuchBucket"):
        load_checkpoint("s3://no-such-bucket-here/x")


def test_another_scheme_is_refused_with_those_that_are_read():
    with pytest.raises(CheckpointError, match="read from a local path, s3:// or hf://"):
        load_checkpoint("gs://bucket/x")
