"""Checkpoints of the Hub, fetched by its own library from a server that speaks its protocol."""

from dataclasses import replace

import pytest

from model.checkpoints.hub import parse_hub_source
from model.checkpoints.load import save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.errors import CheckpointError
from model.network.config import VARIANTS
from tests.support.hub_server import running_hub
from tests.support.other_process import load_in_other_process

LABELS = ("cat", "dog", "hen")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two models' files, which differ in their weights."""
    made = []
    for seed in range(2):
        folder = tmp_path_factory.mktemp("weights")
        config = replace(VARIANTS["b0"], num_classes=3)
        save_checkpoint(random_weights(config, seed), config, LABELS, folder)
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    return made


@pytest.fixture
def hub():
    with running_hub() as running:
        yield running


@pytest.fixture
def load(hub, tmp_path):
    """Loads sources in another process, with this hub and a cache of its own; returns one line for each source."""

    def loaded(*sources, **env):
        base = {"PATH": "", "HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
        return load_in_other_process(sources, base | env)

    return loaded


def test_a_model_is_fetched_once_and_its_commit_is_told(hub, load, files):
    commit = hub.push("org/name", {**files[0], "README.md": b"#", "pytorch_model.bin": b"not asked for"})
    found = load("hf://org/name")
    assert found.startswith("('cat', 'dog', 'hen')")
    assert found.endswith(f"org/name@{commit}")
    assert not [path for path in hub.requests if "pytorch_model.bin" in path or "README" in path]
    hub.requests.clear()
    assert load("hf://org/name") == found
    assert not [path for path in hub.requests if path.endswith("model.safetensors")]


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, load, files):
    first = hub.push("org/name", files[0])
    old = load("hf://org/name@main")
    second = hub.push("org/name", files[1])
    hub.push("org/name", files[0], revision="v1")
    new = load("hf://org/name")
    assert new.endswith(second)
    by_commit, by_tag = load(f"hf://org/name@{first}", "hf://org/name@v1").splitlines()
    assert by_commit == old
    assert by_tag.split()[3] == old.split()[3] != new.split()[3]


def test_what_is_in_the_cache_loads_without_a_network(hub, load, files):
    commit = hub.push("org/name", files[0])
    found = load("hf://org/name")
    hub.requests.clear()
    sources = ("hf://org/name", f"hf://org/name@{commit}", "hf://org/other")
    by_name, by_commit, other = load(*sources, HF_HUB_OFFLINE="1").splitlines()
    assert by_name == by_commit == found
    assert "is not in the cache" in other
    assert hub.requests == []


def test_weights_of_another_name_are_found(hub, load, files):
    hub.push("org/name", {"config.json": files[0]["config.json"], "weights.safetensors": files[0]["model.safetensors"]})
    assert load("hf://org/name").startswith("('cat', 'dog', 'hen')")


def test_what_the_hub_does_not_give_is_said(hub, load, files):
    hub.push("org/name", files[0])
    hub.push("org/private", files[0])
    hub.push("org/empty", {"README.md": b"#"})
    hub.tokens["org/private"] = "secret"
    sources = ("hf://org/none", "hf://org/private", "hf://org/name@v9", "hf://org/empty")
    none, private, revision, empty = load(*sources).splitlines()
    assert "no such model, or it is private and HF_TOKEN is not set" in none
    assert "HF_TOKEN" in private
    assert "no revision 'v9'" in revision
    assert "there is no hf://org/empty@" in empty
    assert "refused" not in load("hf://org/private", HF_TOKEN="secret")
    hub.is_down = True
    assert load("hf://org/fresh").startswith("refused: hf://org/fresh: the Hub")
    # Whatever its HTTP library says of an answer that breaks off.
    hub.is_down, hub.breaks_off = False, True
    hub.push("org/broken", files[0])
    assert load("hf://org/broken").startswith("refused: hf://org/broken: the Hub")


@pytest.mark.parametrize("source", ["hf://name", "hf://a/b/c", "hf://", "hf://a/b@", "hf://a/b@x y"])
def test_another_spelling_is_refused_with_the_right_one(source):
    with pytest.raises(CheckpointError, match="hf://org/name@revision"):
        parse_hub_source(source)
