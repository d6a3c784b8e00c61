"""A tiny real checkpoint is fetched from the disk or from S3, and refused with a sentence where it cannot be used."""

import io
import json
import re
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from model.checkpoints.files import CheckpointFiles
from model.checkpoints.load import parse_checkpoint, save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import PVTv2Config
from pipeline.chunks.task import Classify, ExtractFeatures
from pipeline.config import checkpoint
from pipeline.config.checkpoint import fetch_checkpoint
from pipeline.config.job_config import JobConfig
from pipeline.errors import ConfigError, WeightsError
from pipeline.inputs.config import InputConfig
from pipeline.output.config import OutputConfig
from pipeline.store.config import StoreConfig
from pipeline.store.errors import DeniedError
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri, join_uri

STORE = StoreConfig()
NETWORK = PVTv2Config(
    embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2),
    sr_ratios=(8, 4, 2, 1), num_classes=3,
)  # fmt: skip
LABELS = ("cat", "dog", "cow")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{name: content} of a folder that transformers could have saved."""
    folder = tmp_path_factory.mktemp("weights")
    save_checkpoint(random_weights(NETWORK, 0), NETWORK, LABELS, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def weights(tmp_path, files):
    """The URI of a folder with a checkpoint."""
    return write(canonical_uri(str(tmp_path / "weights")), files)


def write(folder, files):
    for name, content in files.items():
        StorePath(folder, STORE).join(name).put(content)
    return folder


def fetch(weights, labels=None, precision="fp32", task=None, **changes):
    config = JobConfig(
        task=task or Classify(labels=labels),
        input=InputConfig(uris=("/in",)),
        output=OutputConfig(uri="/out"),
        weights=weights,
        **changes,
    )
    return fetch_checkpoint(config, precision=precision)


def test_a_folder_is_fetched_with_all_that_actors_need_to_build_the_same_network(root, files):
    found = fetch(write(join_uri(root, "weights"), files))
    assert found.files.weights == files["model.safetensors"]
    assert found.labels == LABELS
    assert found.info.config == NETWORK
    rebuilt = parse_checkpoint(found.files.weights, found.files.config_json, found.files.preprocessor_json)
    image = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert rebuilt.model(image).equal(random_weights(NETWORK, 0)(image))
    assert (rebuilt.mean, rebuilt.std, rebuilt.digest) == (found.info.mean, found.info.std, found.info.digest)


def test_a_file_is_fetched_with_what_lies_beside_it(weights, files):
    folder, file = fetch(weights), fetch(join_uri(weights, "model.safetensors"))
    assert file.files == folder.files
    StorePath(weights, STORE).join("other.safetensors").put(files["model.safetensors"])
    assert fetch(join_uri(weights, "other.safetensors")).labels == LABELS


def test_normalisation_comes_from_the_preprocessor_file(weights):
    StorePath(weights, STORE).join("preprocessor_config.json").put(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}).encode()
    )
    assert fetch(weights).info.mean == (0.1, 0.2, 0.3)
    StorePath(weights, STORE).join("preprocessor_config.json").delete()
    found = fetch(weights)
    assert (found.files.preprocessor_json, found.info.mean) == (None, (0.485, 0.456, 0.406))


# What is refused.


def test_weights_that_are_not_there_are_named_with_what_to_do(root):
    weights = join_uri(root, "none")
    with pytest.raises(WeightsError) as raised:
        fetch(weights)
    message = str(raised.value)
    assert message.startswith(f"--weights {weights}: there is no {weights}/model.safetensors, ")
    assert "examples/random_checkpoint.py" in message
    with pytest.raises(WeightsError, match=r"there is no .*/x\.safetensors\.$"):
        fetch(join_uri(root, "x.safetensors"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("model.safetensors", b"no weights", "safetensors"),
        ("model.safetensors", b"", "safetensors"),
        ("config.json", b"{", "config.json"),
        ("config.json", b'{"model_type": "vit"}', "'vit', not 'pvt_v2'"),
        ("config.json", b"\xff\xfe", "config.json is not UTF-8 text"),
        ("preprocessor_config.json", b"[", "preprocessor_config.json"),
    ],
)
def test_a_broken_file_is_named(weights, name, content, expected):
    StorePath(weights, STORE).join(name).put(content)
    with pytest.raises(WeightsError) as raised:
        fetch(weights)
    assert expected in str(raised.value)
    assert weights in str(raised.value)


def test_another_variant_than_the_weights_are_of_is_refused(weights):
    with pytest.raises(WeightsError, match=f"--weights {weights}: config.json describes .*, not b5"):
        fetch(weights, variant="b5")


def test_a_backbone_without_a_head_cannot_classify(tmp_path):
    backbone = replace(NETWORK, num_classes=0)
    save_checkpoint(random_weights(backbone, 0), backbone, None, tmp_path)
    with pytest.raises(WeightsError, match=f"--weights file://{tmp_path}: this is a backbone without a head"):
        fetch(str(tmp_path))


@pytest.mark.parametrize("what", ["model.safetensors", "config.json", "labels.txt"])
def test_a_store_that_does_not_let_one_read_is_said(weights, monkeypatch, what):
    real = StorePath.read

    def refuse(path):
        if path.uri.endswith(what):
            raise DeniedError(f"{path}: 403 AccessDenied")
        return real(path)

    monkeypatch.setattr(StorePath, "read", refuse)
    with pytest.raises(WeightsError, match=rf"{what} cannot be read: .*403 AccessDenied"):
        fetch(weights, labels=join_uri(weights, "labels.txt"))


@pytest.fixture
def planted(weights, files):
    """(tensor, value) -> the URI of the checkpoint, whose tensor holds the value."""

    def plant(name, value):
        tensors = safetensors.torch.load(files["model.safetensors"])
        tensors[name].view(-1)[0] = value
        return write(weights, {"model.safetensors": safetensors.torch.save(tensors)})

    return plant


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_the_task_that_uses_them(planted, value):
    with pytest.raises(
        WeightsError, match=r"--weights file://.*: 1 of the 110 .*\(classifier.bias holds (NaN|infinity)\)"
    ):
        fetch(planted("classifier.bias", value))
    assert fetch(planted("classifier.bias", value), task=ExtractFeatures()).network == replace(NETWORK, num_classes=0)
    name = "pvt_v2.encoder.layers.0.layer_norm.bias"
    for task in (Classify(), ExtractFeatures()):
        with pytest.raises(WeightsError, match=name):
            fetch(planted(name, value), task=task)


@pytest.mark.parametrize(
    ("value", "precision", "said"),
    [(-65520.0, "fp16", "holds 65520"), (3.4e38, "bf16", r"holds 3.4e\+38"), (3.4e38, "fp16", "infinite in fp16")],
)
def test_a_weight_that_is_infinite_in_the_precision_is_named_with_the_precision(planted, value, precision, said):
    weights = planted("classifier.weight", value)
    with pytest.raises(WeightsError, match=rf"classifier.weight .*{precision}: give --precision fp32") as raised:
        fetch(weights, precision=precision)
    assert re.search(said, str(raised.value))
    assert fetch(weights).info.largest[0] == "classifier.weight"
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    assert torch.tensor(value).to(half).isinf()


@pytest.mark.parametrize(("value", "precision"), [(65519.0, "fp16"), (-3.39e38, "bf16"), (3.4028234e38, "fp32")])
def test_the_largest_weight_that_a_precision_holds_is_accepted(planted, value, precision):
    assert fetch(planted("classifier.weight", value), precision=precision).info.config == NETWORK


def test_a_file_of_an_unknown_ending_is_refused_with_the_known_ones(root, files):
    write(root, {"model.h5": files["model.safetensors"], "model.h5.d/x": b""})
    with pytest.raises(WeightsError, match=r"/model.h5 is a file whose ending is not known: .* \.ckpt, \.pth\.tar\."):
        fetch(join_uri(root, "model.h5"))


@pytest.mark.parametrize("name", ["best.ckpt", "run.pth.tar"])
def test_a_folder_with_the_ending_of_a_training_state_is_a_folder(root, files, name):
    assert fetch(write(join_uri(root, name), files)).labels == LABELS
    write(root, {f"one/{name}": pickled(files), "one/config.json": files["config.json"]})
    assert fetch(join_uri(root, "one", name)).labels == fetch(join_uri(root, "one")).labels == LABELS


def pickled(files):
    state = io.BytesIO()
    torch.save({"state_dict": safetensors.torch.load(files["model.safetensors"])}, state)
    return state.getvalue()


# Labels.


@pytest.mark.parametrize(
    "id2label", [{"0": "cat"}, {"0": "a", "2": "b"}, {"0": "", "1": "b", "2": "c"}, ["cat"], "cat"]
)
def test_a_file_of_labels_takes_the_place_of_broken_ones(weights, files, id2label):
    config = json.loads(files["config.json"]) | {"id2label": id2label}
    write(weights, {"config.json": json.dumps(config).encode(), "labels": b"one\ntwo\nthree\n"})
    with pytest.raises(WeightsError, match=r"id2label|classifier\.weight is 3x64, not 1x64"):
        fetch(weights)
    assert fetch(weights, labels=join_uri(weights, "labels")).labels == ("one", "two", "three")
    assert fetch(weights, task=ExtractFeatures()).network == replace(NETWORK, num_classes=0)
    write(weights, {"labels": b"one\ntwo\n"})
    with pytest.raises(ConfigError, match="names 2 classes, but the network has 3"):
        fetch(weights, labels=join_uri(weights, "labels"))


@pytest.mark.parametrize(
    "content",
    [
        b"one\ntwo\nthree\n",
        b"\xef\xbb\xbfone\r\ntwo\r\nthree",
        b'["one", "two", "three"]',
        b'{"0": "one", "2": "three", "1": "two"}',
    ],
)
def test_a_file_of_labels_takes_the_place_of_the_checkpoints(weights, content):
    StorePath(weights, STORE).join("labels").put(content)
    assert fetch(weights, labels=join_uri(weights, "labels")).labels == ("one", "two", "three")


def test_a_checkpoint_without_names_has_none(weights, files):
    config = json.loads(files["config.json"])
    del config["id2label"]
    StorePath(weights, STORE).join("config.json").put(json.dumps(config | {"num_labels": 3}).encode())
    assert fetch(weights).labels is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "there is no such file"),
        (b"one\ntwo\n", "names 2 classes, but the network has 3"),
        (b"one\n\nthree\n", "line 2 must be a label"),
        (b"", "is empty"),
        (b"[1", "cannot be read as JSON"),
        (b"caf\xe9\nb\nc", "can't decode byte"),
    ],
)
def test_labels_that_cannot_be_used_are_a_wrong_flag(weights, content, expected):
    uri = join_uri(weights, "labels.txt")
    if content is not None:
        StorePath(uri, STORE).put(content)
    with pytest.raises(ConfigError) as raised:
        fetch(weights, labels=uri)
    assert str(raised.value).startswith("--labels")
    assert expected in str(raised.value)


def test_a_pickle_is_found_by_its_name_or_as_the_only_weights_of_its_folder(root, files):
    folder = join_uri(root, "folder")
    write(folder, {"nice.pth": pickled(files), "config.json": files["config.json"]})
    write(folder, {"below/other.pth": b"x", "a.txt": b"x"})
    found = fetch(folder)
    assert (found.info.source_format, found.labels) == ("transformers", LABELS)
    assert found == replace(fetch(join_uri(folder, "nice.pth")), load_s=found.load_s)
    write(folder, {"second.safetensors": files["model.safetensors"]})
    with pytest.raises(WeightsError, match=r"several weights files \(nice.pth, second.safetensors\): name one"):
        fetch(folder)


@pytest.mark.parametrize(
    ("weights", "pinned", "asked_for"),
    [
        ("hf://org/name", None, "hf://org/name"),
        ("hf://org/name", "org/name@abc", "hf://org/name@abc"),
        ("hf://org/name@v2", "org/name@abc", "hf://org/name@v2"),
        ("hf://org/name2", "org/name@abc", "hf://org/name2"),
    ],
)
def test_a_model_of_the_hub_without_a_revision_is_the_one_that_the_output_began_with(
    weights, pinned, asked_for, files, monkeypatch
):
    asked = []

    def read_hub(source):
        asked.append(source)
        texts = {"config_json": files["config.json"].decode(), "preprocessor_json": None}
        return CheckpointFiles(weights=files["model.safetensors"], revision="org/name@abc", **texts)

    monkeypatch.setattr(checkpoint, "read_hub", read_hub)
    config = JobConfig(
        task=Classify(), input=InputConfig(uris=("/in",)), output=OutputConfig(uri="/out"), weights=weights
    )
    assert fetch_checkpoint(config, pinned).files.revision == "org/name@abc"
    assert asked == [asked_for]
