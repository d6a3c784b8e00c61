"""Random weights are repeatable, leave no parameter trivial, and give different images different classes."""

import subprocess
import sys
from pathlib import Path

import torch

from model.checkpoints.load import load_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import VARIANTS
from model.packed import run_packed

EXAMPLE = Path(__file__).parents[3] / "examples" / "random_checkpoint.py"


def test_the_same_seed_draws_the_same_network(narrow):
    first, again, other = (random_weights(narrow("b0"), seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_no_parameter_is_trivial(narrow):
    for name, parameter in random_weights(narrow("b2-linear"), seed=0).named_parameters():
        assert parameter.std() > 0.01, name


def test_activations_stay_near_one_at_any_depth(images):
    maps = random_weights(VARIANTS["b5"], seed=0).forward_features(images(1, 64, 64))
    assert all(0.9 < each.std() < 1.1 for each in maps)


def test_photos_get_different_classes(photos):
    logits = run_packed(random_weights(VARIANTS["b0"], seed=0), photos(*[(64, 64)] * 40)).logits
    assert len(logits.argmax(dim=1).unique()) >= 5


def test_the_example_writes_a_checkpoint_that_loads(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nhen\n")
    command = [sys.executable, EXAMPLE, "--variant", "b0", "--seed", "5", "--labels", labels, "--out", tmp_path / "out"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "weights are RANDOM" in run.stdout
    loaded = load_checkpoint(tmp_path / "out")
    assert loaded.labels == ("cat", "dog", "hen")
    expected = random_weights(loaded.config, seed=5).state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in loaded.model.state_dict().items())


def test_the_example_refuses_labels_that_do_not_fit(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nhen\n")
    command = [sys.executable, EXAMPLE, "--labels", labels, "--num-classes", "4", "--out", tmp_path / "out"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "--num-classes 4 does not fit the 3 labels" in run.stderr
