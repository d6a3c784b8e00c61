"""A wheel holds all that runs: label lists, templates and compiled code are found outside the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("model", "pipeline", "jobs", "pyproject.toml", "README.md")
# Run in a folder of its own, with the unpacked wheel as the only place of the packages.
USE = """
import importlib.util
import sys
from importlib.resources import files
from pathlib import Path

import torch

import jobs.classify
from model import PVTv2Config, imagenet_labels, is_compiled, random_weights, run_packed
from model.network.labels import imagenet_wordnet_ids
from pipeline.page.page import render_page

installed = Path(sys.argv[1])
for package in ("model", "pipeline", "jobs"):
    assert Path(sys.modules[package].__file__).is_relative_to(installed), sys.modules[package].__file__
assert (len(imagenet_labels()), len(imagenet_wordnet_ids())) == (1000, 1000)
assert files("model").joinpath("py.typed").is_file()
assert "<style>" in render_page([{}], [[]])
assert Path(importlib.util.find_spec("pvtv2_kernels").origin).is_relative_to(installed)
assert is_compiled()
config = PVTv2Config(
    embed_dims=(16, 32, 80, 128), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2),
    sr_ratios=(8, 4, 2, 1), num_classes=11,
)
images = [torch.zeros(64, 48, 3, dtype=torch.uint8), torch.zeros(40, 90, 3, dtype=torch.uint8)]
assert run_packed(random_weights(config, seed=0), images).logits.isfinite().all()
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Builds a wheel from a copy of the packages, and returns the folder into which it is unpacked."""
    source, target = tmp_path / "source", tmp_path / "installed"
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, source / part)
    project = (source / "pyproject.toml").read_text()
    assert '"-O3"' in project
    (source / "pyproject.toml").write_text(project.replace('"-O3"', '"-O1"'))  # a fifth of the time of the build
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "-w", tmp_path / "dist", source], check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_wheel_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", USE, str(installed)]
    subprocess.run(command, cwd=tmp_path / "elsewhere", env=environment, check=True)
