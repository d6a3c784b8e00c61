"""The table of rooms and of what each may import; and the places of frameworks and of private parts of libraries.

A room is a folder of product code with all that lies below it. Imports inside functions, and those for types alone,
count like those at the head of a file.
"""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.imports import ROOT, TOPS, circles, imported_names, imports_by_file, sources
from tests.support.private_parts import private_parts

# Room: the rooms that it may import, all of them further down. `chunks` is short for `pipeline/chunks`.
_TABLE = {
    "jobs": "jobs/cli jobs/remote dataset earlier sweep run page evaluation publish output inputs chunks cluster store "
    "errors.py",
    "jobs/cli": "estimate run config lease evaluation output inputs account chunks cluster store errors.py "
    "model/network",
    "jobs/remote": "errors.py",
    "dataset": "run evaluation publish output inputs chunks store errors.py",
    "earlier": "config output inputs decode chunks store errors.py",
    "sweep": "run publish plan config page evaluation output inputs chunks store errors.py "
    "model/checkpoints model/network",
    "estimate": "run read plan config lease output account chunks store errors.py",
    "run": "flow read publish plan config lease page output inputs infer account chunks cluster store errors.py "
    "model/checkpoints",
    "flow": "read publish plan decode infer account chunks workers cluster errors.py model/network",
    "read": "plan inputs decode chunks store errors.py model/network",
    "publish": "output inputs account chunks store errors.py model/network",
    "plan": "output inputs store",
    "config": "output inputs chunks cluster store errors.py model/checkpoints model/network model/errors.py",
    "lease": "output store errors.py",
    "page": "output chunks store",
    "evaluation": "output account store errors.py model/network",
    "output": "account chunks store errors.py",
    "inputs": "chunks store errors.py",
    "decode": "chunks workers",
    "infer": "chunks workers model model/checkpoints model/network",
    "workers": "chunks model/network",
    "account": "chunks",
    "chunks": "store errors.py model/network",
    "cluster": "errors.py",
    "store": "errors.py",
    "errors.py": "",
    "model": "model/checkpoints model/cpu model/gpu model/network model/errors.py",
    "model/checkpoints": "model/network model/errors.py",
    "model/cpu": "model/network",
    "model/gpu": "model/network",
    "model/network": "model/errors.py",
    "model/errors.py": "",
}


def _full(room: str) -> str:
    return room if room.split("/")[0] in TOPS else f"pipeline/{room}"


ROOMS = {_full(room): {_full(lower) for lower in allowed.split()} for room, allowed in _TABLE.items()}

# Packages whose `__init__.py` is a door: it gives names of the files behind it, so it holds code.
DOORS = {"model/__init__.py", "model/gpu/kernels/__init__.py"}

MOST_FILES = 20
"""Files of product code that a folder may hold."""

# Library -> the only places that may import it.
PLACES = {
    "ray": {
        "jobs/remote/ray_jobs.py",  # the jobs API alone: it asks a cluster over HTTP, and joins none
        "jobs/submit.py",
        "pipeline/cluster/",
        "pipeline/flow/",
        "pipeline/account/metrics.py",
    },
    "obstore": {
        "pipeline/store/remote.py",
        "pipeline/store/clients.py",
        "pipeline/store/pages.py",
        "pipeline/store/retry.py",
    },
    "boto3": {"pipeline/store/clients.py", "model/checkpoints/sources.py"},
    "botocore": {"pipeline/store/clients.py", "pipeline/store/retry.py", "model/checkpoints/sources.py"},
    "huggingface_hub": {"model/checkpoints/hub.py"},
    "PIL": {"pipeline/decode/"},
    "simplejpeg": {"pipeline/decode/jpeg.py"},
    "matplotlib": {"pipeline/page/charts.py"},
    "jinja2": {"pipeline/page/page.py"},
    "markupsafe": {"pipeline/page/parts.py", "pipeline/page/charts.py"},
    "argparse": {"jobs/", "model/checkpoints/pickled.py"},  # the latter names a class that training states hold
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

# (file, private part of a library): why it is used all the same.
ALLOWED = {
    ("model/cpu/linear.py", "torch.ops.mkldnn._reorder_linear_weight"): (
        "torch has no public operator that keeps a weight in oneDNN's own layout; the file tries it before it is used."
    ),
    ("model/cpu/linear.py", "torch.ops.mkldnn._linear_pointwise"): (
        "torch has no public operator that multiplies by such a weight; the file tries it before it is used."
    ),
    ("model/packed.py", "parameter._version"): (
        "The counter alone shows that a weight was written to after the network had been prepared."
    ),
    ("pipeline/cluster/cluster.py", "ray._private"): (
        "Ray has no public setting with which it listens on the loopback alone (docs/design/adr/0023)."
    ),
    ("pipeline/store/clients.py", "client._endpoint"): (
        "botocore gives no public access to its HTTP session, which a timeout over a whole answer needs."
    ),
}


def room_of(source: str) -> str:
    """Returns the room that a file lies in; an `errors.py` beside the rooms is a room of its own."""
    parts = source.split("/")
    if len(parts) == 2:
        return source if parts[1] == "errors.py" else parts[0]
    return "/".join(parts[:2])


TREES = {source: ast.parse((ROOT / source).read_text(encoding="utf-8")) for source in sources()}
IMPORTS = imports_by_file(TREES)
PACKAGES = sorted(source for source in IMPORTS if source.endswith("/__init__.py"))
FOLDERS = sorted({str(Path(source).parent) for source in TREES})


def test_every_room_is_in_the_table_and_the_table_names_no_other():
    rooms = {room_of(source) for source in IMPORTS if source not in ("pipeline/__init__.py", "jobs/__init__.py")}
    assert rooms == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_may_import_rooms_below_it_alone(room: str) -> None:
    order = list(ROOMS)
    assert all(order.index(lower) > order.index(room) for lower in ROOMS[room])


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_itself_and_from_rooms_that_the_table_allows(room: str) -> None:
    arrows = {(source, file) for source, files in IMPORTS.items() if room_of(source) == room for file in files}
    assert {(source, file) for source, file in arrows if room_of(file) not in {room, *ROOMS[room]}} == set()


def test_the_table_allows_no_more_than_the_code_needs():
    needed = {(room_of(source), room_of(file)) for source, files in IMPORTS.items() for file in files}
    assert {(room, lower) for room, allowed in ROOMS.items() for lower in allowed} - needed == set()


def test_no_files_import_each_other_in_a_circle():
    assert circles(IMPORTS) == []


def test_a_circle_is_found_however_long_it_is():
    assert circles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": set()}) == [["a", "b", "c"]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_can_be_read_at_a_glance(folder: str) -> None:
    assert sum(path.is_file() for path in (ROOT / folder).iterdir()) <= MOST_FILES


def test_the_pipeline_holds_rooms_and_nothing_else_flat():
    assert {path.name for path in (ROOT / "pipeline").iterdir() if path.is_file()} == {"__init__.py", "errors.py"}


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - DOORS))
def test_a_room_says_in_one_sentence_what_it_is_for(package: str) -> None:
    tree = TREES[package]
    sentence = ast.get_docstring(tree) or ""
    assert len(tree.body) == 1, "a room's __init__.py holds no code"
    assert sentence.endswith(".")
    assert "\n" not in sentence and ". " not in sentence


@pytest.mark.parametrize("library", PLACES)
def test_a_framework_stays_in_its_places(library: str) -> None:
    users = {
        source for source, tree in TREES.items() if library in {name.split(".")[0] for name in imported_names(tree)}
    }
    assert {source for source in users if not source.startswith(tuple(PLACES[library]))} == set()
    assert all(any(source.startswith(place) for source in users) for place in PLACES[library])


def test_private_parts_of_libraries_are_left_alone_but_for_the_exceptions():
    found = {(source, part) for source, tree in TREES.items() for part in private_parts(tree)}
    assert found == set(ALLOWED)


def test_every_exception_gives_its_reason_in_a_sentence():
    for reason in ALLOWED.values():
        assert reason[0].isalpha() and reason.endswith(".") and len(reason.split()) > 5


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import ray\nray._private.ray_constants.SIZE = 5", ["ray._private"]),
        ("from ray.data._internal import plan", ["ray.data._internal.plan"]),
        ("import ray._private.worker", ["ray._private.worker"]),
        ("def f(client):\n    client._endpoint.close()", ["client._endpoint"]),
        ("def f(client):\n    return getattr(client, '_endpoint')", ["client._endpoint"]),
        ("f(logger('ray._private.worker'))", ["ray._private.worker"]),
        ("found = type(handler).__name__ == 'PlainRayHandler'", ["PlainRayHandler"]),
        ("from pipeline.read.cut import _slice", ["pipeline.read.cut._slice"]),
        ("def _version(parameter):\n    return parameter._version", ["parameter._version"]),
    ],
)
def test_a_private_part_is_found(text: str, found: list[str]) -> None:
    assert private_parts(ast.parse(text)) == found


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n    def f(self, b):\n        self._b = b\n    def g(self, other):\n        return other._b",
        "class A:\n    def f(self):\n        return self._inherited",
        "Row._fields, row._replace(a=1), os._exit(0), value.__class__.__name__",
        "from __future__ import annotations",
    ],
)
def test_a_files_own_names_and_documented_ones_are_no_private_parts(text: str) -> None:
    assert private_parts(ast.parse(text)) == []


def test_no_job_shares_its_name_with_a_library() -> None:
    names = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__"}
    assert not names & set(sys.stdlib_module_names)
    installed = set(importlib.metadata.packages_distributions()) - {"jobs", "pipeline", "model"}
    assert not names & installed


def test_a_driver_starts_without_loading_torch() -> None:
    """It would cost every run, and every mistake in a flag, seconds and 200 MB for nothing."""
    code = "import sys, jobs.classify, jobs.extract_features; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
