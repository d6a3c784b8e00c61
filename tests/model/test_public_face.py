"""The public names of `model`: all of them are there, and torch is loaded only for those that need it."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import model
from tests.support.renaming import as_original, as_timm

ROOT = Path(__file__).parents[2]
NAMES = sorted(model.__all__)
# Without torch: the cost and the labels; what a driver starts with; the steps that read and decode.
WITHOUT_TORCH = [
    "model",
    "model.network.cost",
    "model.network.labels",
    "jobs.classify",
    "jobs.extract_features",
    "pipeline.flow.run_pass",
    "pipeline.read.read_shard",
    "pipeline.decode.decode_chunk",
]


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_torch_is_not_loaded_by(module: str) -> None:
    run(f"import sys, {module}; sys.exit('torch' in sys.modules)")


def test_names_that_need_no_torch_load_none() -> None:
    run("import sys; from model import VARIANTS, count_macs, imagenet_labels; sys.exit('torch' in sys.modules)")


def test_a_name_that_needs_torch_is_loaded_when_it_is_used() -> None:
    run("import sys, model; assert 'torch' not in sys.modules; model.run_packed; assert 'torch' in sys.modules")


def test_every_public_name_can_be_imported() -> None:
    run(f"from model import *; assert {NAMES!r} == sorted(set(dir()) & set({NAMES!r}))")


def test_what_the_documentation_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs/use/model.md").read_text("utf-8"), re.DOTALL)
    assert len(snippets) == 9
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    config = replace(model.VARIANTS["b0"], num_classes=3)
    model.save_checkpoint(model.random_weights(config, seed=1), config, None, tmp_path / "transformers")
    tensors = load_file(tmp_path / "transformers" / "model.safetensors")
    timm = tmp_path / "checkpoints" / "timm"
    timm.mkdir(parents=True)
    save_file(as_timm(tensors), timm / "model.safetensors")
    (timm / "config.json").write_text(json.dumps({"architecture": "pvt_v2_b0", "num_classes": 3}))
    torch.save(as_original(tensors), tmp_path / "checkpoints" / "pvt_v2_b0.pth")
    monkeypatch.chdir(tmp_path)
    exec("".join(snippets), {})


@pytest.mark.parametrize("source", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_need_the_public_names_alone(source: Path) -> None:
    nodes = (node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.ImportFrom))
    assert not [node.module for node in nodes if (node.module or "").startswith("model.")]


def test_dir_lists_the_public_names() -> None:
    assert dir(model) == NAMES


def test_a_name_that_is_not_public_is_refused_in_pythons_words() -> None:
    with pytest.raises(AttributeError, match="module 'model' has no attribute 'run_packet'"):
        _ = model.run_packet
    with pytest.raises(ImportError, match="cannot import name 'run_packet' from 'model'"):
        exec("from model import run_packet")


def test_type_checkers_find_each_lazy_name_in_the_module_that_python_takes_it_from() -> None:
    (block,) = (node for node in ast.parse(Path(model.__file__).read_text()).body if isinstance(node, ast.If)
                and isinstance(node.test, ast.Name))  # fmt: skip
    imported = {alias.name: node.module for node in block.body for alias in node.names}
    assert imported == model._MODULES
