"""The direction of imports: jobs -> pipeline -> model, and each framework only where it belongs."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Library -> the only places that may import it.
PLACES = {
    "ray": {
        # Of the jobs API alone: it asks a cluster over HTTP, and joins none.
        "jobs/remote/ray_jobs.py",
        "jobs/submit.py",
        "pipeline/cluster/cluster.py",
        "pipeline/flow/run_pass.py",
        "pipeline/account/metrics.py",
        "pipeline/flow/collectors.py",
    },
    "obstore": {
        "pipeline/store/storage.py",
        "pipeline/store/clients.py",
        "pipeline/store/pages.py",
        "pipeline/store/retry.py",
    },
    "boto3": {"pipeline/store/clients.py", "model/checkpoints/sources.py"},
    "botocore": {"pipeline/store/clients.py", "pipeline/store/pages.py", "model/checkpoints/sources.py"},
    "huggingface_hub": {"model/checkpoints/hub.py"},
    "PIL": {"pipeline/decode/decode_image.py", "pipeline/decode/to_rgb.py", "pipeline/decode/thumbnail.py"},
    "simplejpeg": {"pipeline/decode/jpeg.py"},
    "matplotlib": {"pipeline/page/charts.py"},
    "jinja2": {"pipeline/page/page.py"},
    "markupsafe": {"pipeline/page/parts.py", "pipeline/page/charts.py"},
    "argparse": {"jobs/", "model/checkpoints/pickled.py"},  # there, a class that training states hold
    "torch": {
        "model/",
        "pipeline/infer/infer_step.py",
        "pipeline/infer/matmul_peak.py",
        "pipeline/infer/output_columns.py",
    },
    "safetensors": {"model/"},
    "triton": {"model/gpu/kernels/"},
    "duckdb": {"pipeline/dataset/database.py"},
    "yaml": {"pipeline/dataset/policy.py"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


SOURCES = sorted(
    str(path.relative_to(ROOT)) for top in ("model", "pipeline", "jobs") for path in (ROOT / top).rglob("*.py")
)


@pytest.mark.parametrize("source", SOURCES)
def test_imports_go_one_way_and_frameworks_stay_at_the_edge(source: str) -> None:
    names = imported(ROOT / source)
    tops = {name.partition(".")[0] for name in names}
    top = source.partition("/")[0]
    allowed = {"jobs": {"jobs", "pipeline", "model"}, "pipeline": {"pipeline", "model"}, "model": {"model"}}[top]
    assert tops & {"jobs", "pipeline", "model"} <= allowed
    for library, places in PLACES.items():
        if library in tops:
            assert any(source.startswith(place) for place in places), f"{source} imports {library}"
    assert not any(name.startswith(("ray._private", "ray.data._internal")) for name in names)


def test_no_job_shares_its_name_with_a_library() -> None:
    names = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__"}
    assert not names & set(sys.stdlib_module_names)
    installed = set(importlib.metadata.packages_distributions()) - {"jobs", "pipeline", "model"}
    assert not names & installed


def test_a_driver_starts_without_loading_torch() -> None:
    """It would cost every run, and every mistake in a flag, seconds and 200 MB for nothing."""
    code = "import sys, jobs.classify, jobs.extract_features; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
