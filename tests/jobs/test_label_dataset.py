"""A week of nightly runs over a bucket that changes: one is killed, one is started twice, one meets a flood of broken
files, one another model, and one a drift."""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from itertools import pairwise

import duckdb
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from examples.digits import load_digits, render, split
from jobs import label_dataset as job
from jobs.cli.command import run_command
from jobs.diff_labels import diff_labels
from jobs.label_dataset import label_dataset
from pipeline.chunks.failures import TRANSIENT_CODES
from pipeline.lease.record import find_lease
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from tests.jobs.conftest import ONE_ACTOR, ROOT

pytestmark = [
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WEIGHTS = ROOT / "weights" / "digits"
# How long a killed or doubled run may take to begin with its work.
PATIENCE_S = 90


class Digits:
    """Images of digits that the weights never saw, by what they show."""

    def __init__(self) -> None:
        images, labels = load_digits()
        _, held_out = split(labels)
        self._by_digit = {d: [images[i] for i in held_out if labels[i] == d] for d in range(10)}
        self._rng = np.random.default_rng(0)

    def draw(self, digit: int) -> bytes:
        """An encoded image of some 60 px."""
        of_digit = self._by_digit[digit]
        width, height = self._rng.integers(48, 72, 2).tolist()
        body = io.BytesIO()
        render(of_digit[self._rng.integers(len(of_digit))], width, height, self._rng).save(body, "PNG")
        return body.getvalue()


class Bucket:
    """Images and tars of a bucket, and the output beside them, as a test changes and reads them."""

    def __init__(self, uri: str, store: StoreConfig, s3, folder) -> None:
        self.uri, self.store, self._s3, self._folder = uri, store, s3, folder
        self.digits = Digits()

    def add(self, name: str, content: bytes) -> None:
        StorePath(f"{self.uri}/in/{name}", self.store).put(content)

    def add_digits(self, prefix: str, digits) -> None:
        for index, digit in enumerate(digits):
            self.add(f"{prefix}-{index:03d}-shows-{digit}.png", self.digits.draw(digit))

    def add_tar(self, name: str, digits) -> None:
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w") as tar:
            for index, digit in enumerate(digits):
                content = self.digits.draw(digit)
                info = tarfile.TarInfo(f"{index:03d}-shows-{digit}.png")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        self.add(name, body.getvalue())

    def remove(self, *names: str) -> None:
        bucket, _, folder = self.uri.removeprefix("s3://").partition("/")
        with closing(self._s3.client()) as client:
            for name in names:
                client.delete_object(Bucket=bucket, Key=f"{folder}/in/{name}".lstrip("/"))

    def names(self) -> list[str]:
        """What the inputs hold, as the last parts of image ids."""
        found = []
        for info in StorePath(f"{self.uri}/in", self.store).list():
            name = info.uri.rpartition("/")[2]
            if name.endswith(".labels.tar"):
                continue
            if name.endswith(".tar"):
                with tarfile.open(fileobj=io.BytesIO(StorePath(info.uri, self.store).read())) as tar:
                    found += [f"{name}#{member}" for member in tar.getnames()]
            else:
                found.append(name)
        return sorted(found)

    def query(self, what: str, sql: str, output: str = "out"):
        """Rows of the output (`data/*.parquet`) or of one file in it, by DuckDB."""
        folder = self._folder / "copy"
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for info in StorePath(f"{self.uri}/{output}/{what}", self.store).list():
            (folder / info.uri.rpartition("/")[2]).write_bytes(StorePath(info.uri, self.store).read())
        return duckdb.sql(sql.replace("{}", f"read_parquet('{folder}/*.parquet')")).fetchall()

    def changes(self, run_id: str) -> dict:
        return json.loads(StorePath(f"{self.uri}/out/runs/{run_id}/changes.json", self.store).read())

    def label_of(self, name: str) -> tuple:
        sql = f"SELECT label, decision, label_source FROM {{}} WHERE image_id LIKE '%/{name}'"
        (found,) = self.query("dataset/labels.parquet", sql)
        return found


@pytest.fixture
def bucket(profile, s3, tmp_path) -> Bucket:
    store = StoreConfig(profile=profile, endpoint_url=s3.endpoint_url)
    return Bucket(f"s3://{s3.make_bucket()}", store, s3, tmp_path)


@pytest.fixture
def arguments(bucket):
    def arguments(night: str, *flags: str, weights=WEIGHTS, output="out") -> list[str]:
        url, name = bucket.store.endpoint_url, bucket.store.profile
        return [
            *("--input", f"{bucket.uri}/in", "--output", f"{bucket.uri}/{output}", "--weights", str(weights)),
            *("--input-endpoint-url", url, "--output-endpoint-url", url, "--input-profile", name),
            *("--output-profile", name, "--rows-per-file", "4", "--run-id", night, "--prune", *flags),
        ]

    return arguments


@pytest.fixture
def night(arguments, run_here, record_property):
    """One night's run in this process, and what it may end with; `--junitxml` has what each came to."""

    def night(name: str, *flags: str, code: int = 0, **options):
        result = run_here(*arguments(name, *flags, **options), command=label_dataset)
        assert result.code == result.summary["exit_code"] == code, result.stderr
        record_property(name, json.dumps(result.summary))
        return result.summary

    return night


@pytest.fixture
def start(arguments, warm_ray):
    """Starts a run as a process of its own, on the same Ray."""
    import ray

    started = []

    def start(name: str) -> subprocess.Popen:
        address = ray.get_runtime_context().gcs_address
        command = [
            sys.executable,
            str(ROOT / "jobs/label_dataset.py"),
            *arguments(name),
            *ONE_ACTOR,
            "--ray-address",
            address,
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def other_weights(folder):
    """The same network with a head that is off."""
    folder.mkdir()
    for path in WEIGHTS.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(WEIGHTS / "model.safetensors")
    (name,) = [name for name in tensors if tensors[name].shape[:1] == (10,) and tensors[name].ndim == 2]
    noise = np.random.default_rng(0).standard_normal(tensors[name].shape).astype(np.float32)
    tensors[name] = tensors[name] + 3.0 * np.abs(tensors[name]).mean() * noise
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def wait_until(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def exactly_one_row_each(bucket: Bucket) -> None:
    """Rows and data set hold what the bucket holds, each once."""
    expected = bucket.names()
    for what in ("data", "dataset/labels.parquet"):
        rows = bucket.query(what, "SELECT split_part(image_id, '/in/', 2) FROM {} ORDER BY 1")
        assert [name for (name,) in rows] == expected, what


@pytest.mark.drill
def test_a_week_of_nights(bucket, night, start, tmp_path):
    # Monday: all is new, and more than a night is given.
    bucket.add_digits("mon", [*range(10)] * 4)
    bucket.add_tar("mon.tar", range(10))
    planned = night("monday", "--max-images", "30", "--dry-run")
    assert (planned["images"], planned["postponed_images"], planned["postponed_shards"]) == (30, 10, 1)
    summary = night("monday", "--max-images", "30", code=9)
    assert (summary["dataset"]["added"], summary["dataset"]["rows"]) == (30, 30)
    assert summary["dataset"]["drift"] == {"labels": None, "scores": None}
    assert summary["message"] == "bounded by --max-images 30: 1 shard and 10 images are left"
    report = json.loads(StorePath(f"{bucket.uri}/out/runs/monday/report.json", bucket.store).read())
    assert (report["status"], report["reason"], report["run"]["listed"]) == ("stopped", summary["message"], 30)
    summary = night("monday-rest")
    assert (summary["dataset"]["added"], summary["dataset"]["rows"]) == (20, 50)
    exactly_one_row_each(bucket)
    shown = bucket.query(
        "dataset/labels.parquet", "SELECT avg((image_id LIKE '%-shows-' || label || '.png')::INT) FROM {}"
    )
    assert shown[0][0] > 0.9  # what the network makes of digits is in weights/digits/README.md
    assert night("monday-again")["message"] == "nothing to do: every row is published"

    # Tuesday: some are new, two are other images now, three and a tar's member are gone; somebody corrected one.
    bucket.add_digits("tue", range(6))
    bucket.add("mon-000-shows-0.png", bucket.digits.draw(7))
    bucket.add("mon-001-shows-1.png", bucket.digits.draw(8))
    bucket.remove("mon-002-shows-2.png", "mon-003-shows-3.png", "mon-004-shows-4.png")
    corrected = f"{bucket.uri}/in/mon-005-shows-5.png"
    StorePath(f"{bucket.uri}/out/overrides/ann.csv", bucket.store).put(
        f"image_id,label\n{corrected},squiggle\n".encode()
    )
    told = night("tuesday")["dataset"]
    assert [told[kind] for kind in ("added", "changed", "removed", "relabelled", "flipped")] == [6, 2, 3, 1, 3]
    assert bucket.label_of("mon-000-shows-0.png")[0] == "7"
    assert bucket.label_of("mon-005-shows-5.png") == ("squiggle", "accepted", "human")
    exactly_one_row_each(bucket)
    assert bucket.changes("tuesday")["previous_run_id"] == "monday-rest"

    # Wednesday: killed in the middle. Its rows so far are whole, and the data set is Tuesday's.
    bucket.add_digits("wed", [*range(10)] * 8)
    process = start("wednesday")
    before = bucket.query("dataset/labels.parquet", "SELECT count(*), max(changed_run) FROM {}")
    files = len(list(StorePath(f"{bucket.uri}/out/data", bucket.store).list()))
    wait_until(lambda: len(list(StorePath(f"{bucket.uri}/out/data", bucket.store).list())) > files, process)
    process.kill()
    assert process.wait() == -9
    assert bucket.query("dataset/labels.parquet", "SELECT count(*), max(changed_run) FROM {}") == before
    rows, distinct = bucket.query("data", "SELECT count(*), count(DISTINCT image_id) FROM {}")[0]
    assert before[0][0] < rows == distinct < before[0][0] + 80
    # The scheduler starts it again: the rest is done, and the log has all of the night's images.
    summary = night("wednesday-again")
    assert 0 < summary["listed"] < 80
    assert (summary["dataset"]["added"], summary["dataset"]["removed"]) == (80, 0)
    exactly_one_row_each(bucket)

    # Thursday: started twice. The second says who has it and does nothing.
    bucket.add_digits("thu", range(10))
    process = start("thursday")
    wait_until(lambda: "thursday" in str(find_lease(StorePath(f"{bucket.uri}/out", bucket.store))[0]), process)
    refused = night("thursday-twice", code=10)
    assert "thursday" in refused["error"]
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["dataset"]["added"] == 10
    exactly_one_row_each(bucket)

    # Friday: a flood of files that are no images. Each has its row, and the run says so.
    for index in range(20):
        bucket.add(f"fri-{index:03d}.png", b"no image")
    bucket.add_digits("fri", range(4))
    summary = night("friday", code=6)
    assert (summary["listed"], summary["failed"], summary["dataset"]["failed"]) == (24, 20, 20)
    exactly_one_row_each(bucket)
    assert "nothing to do" in night("friday-again")["message"]

    # Saturday: another model does not go over the old one's labels, but beside them.
    weights = other_weights(tmp_path / "other")
    refused = night("saturday", code=5, weights=weights)
    assert "weights_sha256" in refused["error"] and "Choose another --output" in refused["error"]
    night("saturday-beside", "--max-failed-fraction", "0.5", weights=weights, output="out2")
    url, name = bucket.store.endpoint_url, bucket.store.profile
    found = diff_labels(
        [f"{bucket.uri}/out", f"{bucket.uri}/out2", "--output-profile", name, "--output-endpoint-url", url]
    )
    assert (found["only_a"], found["only_b"], found["other_source"], found["other_status"]) == (0, 0, 0, 0)
    assert 0 < found["flipped"] < found["labelled_by_both"] == found["images"] - 20

    # Sunday: sevens only. The data set has them, and the run ends with 8, once.
    bucket.add_digits("sun", [7] * 40)
    summary = night("sunday", code=8)
    assert "new images are not like those before: labels" in summary["error"] and "7 " in summary["error"]
    drift = summary["dataset"]["drift"]["labels"]
    assert drift["over"] and drift["moved"][0]["class"] == "7"
    exactly_one_row_each(bucket)
    assert "nothing to do" in night("sunday-again")["message"]
    # What somebody said on Tuesday still stands.
    assert bucket.label_of("mon-005-shows-5.png") == ("squiggle", "accepted", "human")
    # Each log begins where the last one ended.
    runs = ["monday", "monday-rest", "tuesday", "wednesday-again", "thursday", "friday", "sunday"]
    assert [bucket.changes(run)["previous_run_id"] for run in runs] == [None, *runs[:-1]]
    for earlier, later in pairwise(runs):
        assert bucket.changes(earlier)["now"] == bucket.changes(later)["before"]


def test_failures_that_may_pass_are_tried_again_unless_told_otherwise(monkeypatch):
    asked = []

    def run_config(config, started_at, stopper, upkeep):
        asked.append(config.output.retry_failed)
        return {"exit_code": 0}

    monkeypatch.setattr(job, "run_config", run_config)
    for flags in ([], ["--retry-failed", "decode.corrupt"], ["--retry-failed"]):
        label_dataset(["--input", "/in", "--weights", "/weights", "--output", "/out", *flags])
    assert asked == [TRANSIENT_CODES, {"decode.corrupt"}, set()]


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_a_policy_with_a_name_that_there_is_not_is_refused_before_any_work(tmp_path, capsys, flags, signal_handlers):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.png").write_bytes(Digits().draw(0))
    (tmp_path / "classes.yaml").write_text("zero: nought\n")
    places = {"--input": tmp_path / "in", "--weights": WEIGHTS, "--output": tmp_path / "out"}
    named = [str(part) for pair in places.items() for part in pair]
    code = run_command(label_dataset, [*named, "--classes", str(tmp_path / "classes.yaml"), *flags])
    assert code == 2
    assert "the network has no class 'zero'; it has 0, 1, 2" in capsys.readouterr().err
    assert not (tmp_path / "out" / "_job.json").exists()
