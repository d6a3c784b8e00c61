"""A tiny real model, drawn images, and the command as a user runs it."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.classify import classify
from jobs.cli.command import run_command
from jobs.evaluate import evaluate
from jobs.extract_features import extract_features
from jobs.label_dataset import label_dataset
from model.checkpoints.load import save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import PVTv2Config
from pipeline.cluster import cluster
from pipeline.cluster.cluster import Cluster
from pipeline.cluster.config import ComputeConfig
from pipeline.store.clients import forget_clients
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from tests.support.ray_settings import RAY_SETTINGS

ROOT = Path(__file__).resolve().parents[2]
LABELS = tuple(f"class {i}" for i in range(10))
TIMEOUT_S = 240
# One actor starts in half the time of two; what two of them do side by side is for the tests that ask for it.
ONE_ACTOR = ("--num-actors", "1")
WITH_ACTORS = (classify, evaluate, extract_features, label_dataset)


@dataclass(frozen=True)
class Result:
    """One finished command."""

    code: int
    summary: dict[str, Any]
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a real, very small PVTv2 with ten named classes."""
    config = PVTv2Config(
        embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2),
        sr_ratios=(8, 4, 2, 1), num_classes=10,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("weights")
    save_checkpoint(random_weights(config, 0), config, LABELS, folder)
    return folder


@pytest.fixture(scope="session")
def job_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user of whose settings nothing is known, with a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    return {**kept, **RAY_SETTINGS, "HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture(scope="session")
def run_job(job_env: dict[str, str]) -> Callable[..., Result]:
    """Runs `python jobs/classify.py` with some arguments, from a folder of its own, to its end."""

    def run(*arguments: object, env: dict[str, str] | None = None, cwd: Path = ROOT) -> Result:
        command = [sys.executable, str(ROOT / "jobs" / "classify.py"), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=cwd, env={**job_env, **(env or {})}, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        return Result(done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stdout, done.stderr)

    return run


@pytest.fixture(autouse=True)
def commands_keep_no_signals(signal_handlers: None) -> None:
    """A command keeps the handlers of its signals to its end, which a test that runs one here outlives."""


class ParkedRay:
    """A local Ray that stays up from one file of tests to the next: to start one takes longer than most tests."""

    def __init__(self) -> None:
        self._up: tuple[ExitStack, Cluster, Path] | None = None

    def join(self, new_home: Callable[[], Path]) -> tuple[Cluster, Path]:
        """The cluster, and the home of its workers; it is started if it is not up."""
        if self._up is None:
            home, stack = new_home(), ExitStack()
            with ray_environment(home):
                self._up = stack, stack.enter_context(cluster.joined_cluster(ComputeConfig(), ())), home
        return self._up[1:]

    def leave(self) -> None:
        """Ends it, if it is up."""
        if self._up is not None:
            (stack, _, home), self._up = self._up, None
            with ray_environment(home):
                stack.close()


_PARKED = ParkedRay()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Nobody but these tests needs a Ray."""
    if nextitem is None or nextitem.path.parent != item.path.parent:
        _PARKED.leave()


@pytest.fixture(scope="module")
def warm_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A local Ray for the jobs that a file's tests run in this process; its workers stay warm between them."""
    joined, home = _PARKED.join(lambda: tmp_path_factory.mktemp("home"))
    with ray_environment(home):
        yield joined


@contextmanager
def joined_ray(config: ComputeConfig, home: Path) -> Iterator[Cluster]:
    """This process in a Ray of its own settings, until the block ends."""
    _PARKED.leave()
    with ray_environment(home), cluster.joined_cluster(config, ()) as joined:
        yield joined


@contextmanager
def ray_environment(home: Path) -> Iterator[None]:
    """What Ray, its processes and what they leave behind need around them."""
    saved = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    os.environ |= {**RAY_SETTINGS, "HOME": str(home)}
    handler = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        # What Ray leaves to the garbage collector goes here, where its warnings are not errors.
        gc.collect()
    signal.signal(signal.SIGTERM, handler)
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture
def on_warm_ray(warm_ray: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs of this process find Ray up, and leave it up."""

    @contextmanager
    def already_joined(config: ComputeConfig, local_paths: Iterable[Path]) -> Iterator[Cluster]:
        yield warm_ray

    monkeypatch.setattr("pipeline.run.execute.joined_cluster", already_joined)
    yield


@pytest.fixture
def run_here(on_warm_ray: None, capfd: pytest.CaptureFixture) -> Callable[..., Result]:
    """Runs a command in this process, on a Ray that is up: all of it but Python's and Ray's own start."""

    def run(*arguments: object, command: Callable[..., dict[str, Any]] = classify) -> Result:
        capfd.readouterr()
        more = ONE_ACTOR if command in WITH_ACTORS and "--num-actors" not in arguments else ()
        code = run_command(command, [str(argument) for argument in (*arguments, *more)])
        out, err = capfd.readouterr()
        return Result(code, json.loads(out.splitlines()[-1]), out, err)

    return run


@pytest.fixture
def profile(warm_ray: Cluster, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a profile for the S3 server, in the home that Ray's workers were started with."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    folder = Path(os.environ["HOME"], ".aws")
    folder.mkdir(exist_ok=True)
    (folder / "config").write_text(
        f"[profile tests]\nregion = us-east-1\naws_access_key_id = {s3.access_key}\n"
        f"aws_secret_access_key = {s3.secret_key}\n"
    )
    forget_clients()
    yield "tests"
    (folder / "config").unlink()
    forget_clients()


@pytest.fixture
def make_tars(profile: str, s3: Any) -> Callable[..., str]:
    """Tars, as lists of encoded images -> the URI of a bucket of their own that has them below `in/`."""

    def make(tars: Iterable[Sequence[bytes]]) -> str:
        uri = f"s3://{s3.make_bucket()}"
        for number, images in enumerate(tars):
            body = io.BytesIO()
            with tarfile.open(fileobj=body, mode="w") as tar:
                for index, data in enumerate(images):
                    info = tarfile.TarInfo(f"{index:03d}.png")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
            store = StoreConfig(profile=profile, endpoint_url=s3.endpoint_url)
            StorePath(f"{uri}/in/{number:02d}.tar", store).put(body.getvalue())
        return uri

    return make


def photo(seed: int, width: int | None = None, height: int | None = None, image_format: str = "PNG") -> bytes:
    """An image of smooth colours, of a size that the seed draws where none is given."""
    rng = np.random.default_rng(seed)
    size = (width or int(rng.integers(33, 90)), height or int(rng.integers(33, 90)))
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
    body = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(body, image_format)
    return body.getvalue()


@pytest.fixture(scope="session")
def draw() -> Callable[..., bytes]:
    """(seed, width, height, format) -> an encoded image."""
    return photo
