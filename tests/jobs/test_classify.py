"""The job as a user runs it: real command, real Ray, real files. What it refuses is in `test_refusals.py`."""

import base64
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from pipeline.chunks.sample import rank
from pipeline.chunks.task import Classify
from pipeline.cluster.config import ComputeConfig
from pipeline.config.job_config import JobConfig
from pipeline.decode.decode_chunk import decode_chunk
from pipeline.flow.steps import Steps
from pipeline.inputs.config import InputConfig
from pipeline.inputs.names import has_image_ending
from pipeline.lease.lease import Lease
from pipeline.output.config import OutputConfig
from pipeline.run.execute import execute
from pipeline.run.prepare import prepare
from tests.jobs.conftest import ONE_ACTOR
from tests.support.tars import tar_of
from tests.support.waiting_step import WaitingNetwork

# Ray, in this process for some of these tests, warns of its own settings and leaves sockets to its own end.
pytestmark = [
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
COLUMNS = [
    *("image_id", "shard", "key", "row", "source_etag", "status", "error_code", "error_message", "encoded_bytes"),
    *("width", "height", "net_width", "net_height", "scale", "true_label"),
    *("label_id", "label", "score", "topk_ids", "topk_scores"),
]


def table(output):
    return duckdb.sql(f"SELECT * FROM read_parquet('{output}/data/*.parquet') ORDER BY shard, row").to_arrow_table()


def report(output):
    (path,) = output.glob("runs/*/report.json")
    return json.loads(path.read_text())


def mtimes(output):
    return {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.name != "_lease.json"}


def write_loose(folder, draw, count, side=None):
    for index in range(count):
        path = folder / ("cat", "dog")[index % 2] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw(index, side, side))


def test_loose_files_tars_and_parquet_give_equal_rows_in_one_run(tmp_path, draw, tiny_weights, run_here):
    count = 30
    write_loose(tmp_path / "loose", draw, count)
    names = ("cat", "dog")
    (tmp_path / "tars").mkdir()
    for number, packed in (("0", False), ("1", True)):
        members = {}
        for index in range(count):
            members |= {f"{index:04d}.png": draw(index), f"{index:04d}.cls": names[index % 2].encode()}
        data = tar_of(members.items())
        path = tmp_path / "tars" / (f"t{number}.tar.gz" if packed else f"t{number}.tar")
        path.write_bytes(gzip.compress(data) if packed else data)
    (tmp_path / "parquet").mkdir()
    images = [{"bytes": draw(index), "path": f"{index:04d}.png"} for index in range(count)]
    labels = [names[index % 2] for index in range(count)]
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "parquet" / "p.parquet", row_group_size=7)

    inputs = [part for kind in ("loose", "tars", "parquet") for part in ("--input", tmp_path / kind)]
    output = tmp_path / "out"
    inputs += ["--precision", "fp32"]  # scores are compared
    command = (*inputs, "--weights", tiny_weights, "--output", output, "--rows-per-file", "8")
    result = run_here(*command, "--thumbnails", "24")
    assert result.code == 0, result.stderr
    found = table(output)
    assert found.schema.names == COLUMNS
    assert found.num_rows == 4 * count
    assert len(set(found.column("image_id").to_pylist())) == 4 * count
    assert set(found.column("status").to_pylist()) == {"ok"}
    for row in found.to_pylist():
        assert row["label"] == f"class {row['label_id']}" == f"class {row['topk_ids'][0]}"
        assert row["score"] == row["topk_scores"][0] == max(row["topk_scores"])
        assert len(row["topk_ids"]) == 5
        assert (row["width"], row["height"], row["scale"]) == (row["net_width"], row["net_height"], 1.0)

    # The same image, however it was packed: the same label, and the same score but for its pack mates' last bits.
    def number(row):
        return int(row["key"][-8:-4]) if row["key"].endswith(".png") else row["row"]

    first = {number(row): row for row in found.to_pylist() if row["shard"].endswith("t0.tar")}
    for row in found.to_pylist():
        twin = first[number(row)]
        assert row["label_id"] == twin["label_id"]
        assert row["score"] == pytest.approx(twin["score"], abs=1e-5)
        for column in ("true_label", "width", "height", "encoded_bytes"):
            assert row[column] == twin[column]

    # The account.
    account = report(output)
    assert account["status"] == "done"
    assert account["run"] == account["output"]
    run = account["run"]
    assert (run["listed"], run["ok"], run["failed"], run["ignored"]) == (4 * count, 4 * count, 0, 0)
    assert run["bytes"] == sum(found.column("encoded_bytes").to_pylist())
    pixels = [w * h for w, h in zip(*(found.column(f"net_{s}").to_pylist() for s in ("width", "height")), strict=True)]
    assert run["pixels"] == sum(pixels)
    assert run["files"] == len(list((output / "data").iterdir())) == 16
    rows = {row["image_id"]: row for row in found.to_pylist()}
    assert [sample["image_id"] for sample in account["samples"]] == sorted(rows, key=rank)[:24]
    for sample in account["samples"]:
        assert all(sample[name] == rows[sample["image_id"]][name] for name in ("shard", "label", "width", "height"))
        assert base64.b64decode(sample["thumbnail"]).startswith(b"\xff\xd8\xff")
    (page,) = output.glob("runs/*/report.html")
    assert page.read_text().count("<img ") == 24
    assert set(account["seconds"]["steps"]) >= {
        "read",
        "decode",
        "compute",
        "fetch",
        "wait",
        "rows",
        "serialise",
        "put",
    }
    assert account["rates"]["images_per_s"] > 0
    assert result.summary["listed"] == 4 * count
    # Other readers, and no partial or hidden file left behind.
    assert polars.read_parquet(output / "data" / "*.parquet").height == 4 * count
    assert sorted(path.name for path in output.iterdir()) == [
        "_index.parquet",
        "_job.json",
        "_lease.json",
        "data",
        "runs",
    ]

    # A second run takes and gives back the lease, does nothing else, and says so; thumbnails make no other job.
    before = mtimes(output)
    again = run_here(*command)
    assert again.code == 0
    assert "nothing to do" in again.summary["message"]
    assert mtimes(output) == before
    # Another identity is refused.
    other = run_here(*inputs, "--weights", tiny_weights, "--output", output, "--rows-per-file", "9")
    assert other.code == 5
    assert "rows_per_file (8 there, 9 now)" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.drill
def test_a_run_killed_in_the_middle_is_continued_and_its_files_are_left_alone(
    tmp_path, draw, tiny_weights, job_env, run_here
):
    count, output = 240, tmp_path / "out"
    write_loose(tmp_path / "in", draw, count, side=220)
    arguments = ["--input", tmp_path / "in", "--weights", tiny_weights, "--output", output, "--rows-per-file", "8"]
    arguments += ONE_ACTOR
    command = [sys.executable, "jobs/classify.py", *map(str, arguments)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=job_env, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(output.glob("data/*.parquet"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in output.glob("data/*.parquet")}
    assert 5 <= len(before) < count / 8, "the kill came too late to show anything"

    result = run_here(*arguments)
    assert result.code == 0, result.stderr
    found = table(output)
    assert found.num_rows == len(set(found.column("image_id").to_pylist())) == count
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    # Not an equality: the killed run's collectors may publish one more slice before they notice.
    assert 0 < result.summary["listed"] <= count - sum(pq.read_metadata(path).num_rows for path in before)
    assert result.summary["rows_in_output"] == count


@pytest.mark.drill
def test_a_run_that_is_told_to_stop_more_than_once_says_so_and_the_next_one_continues(
    tmp_path, draw, tiny_weights, job_env, run_here
):
    count, output = 240, tmp_path / "out"
    write_loose(tmp_path / "in", draw, count, side=220)
    arguments = ["--input", tmp_path / "in", "--weights", tiny_weights, "--output", output, "--rows-per-file", "8"]
    arguments += ONE_ACTOR
    command = [sys.executable, "jobs/classify.py", *map(str, arguments)]
    process = subprocess.Popen(command, env=job_env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while len(list(output.glob("data/*.parquet"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    for number in (signal.SIGINT, signal.SIGTERM):
        time.sleep(0.1)
        process.send_signal(number)
    stdout, _ = process.communicate(timeout=60)
    summary = json.loads(stdout.splitlines()[-1])
    assert process.returncode == summary["exit_code"] == 9
    assert summary["status"] == "stopped"
    assert report(output)["status"] == "stopped"
    assert report(output)["reason"] == "the run was told to stop (SIGTERM)"
    assert report(output)["run"]["listed"] == table(output).num_rows
    assert 0 < report(output)["run"]["listed"] < count
    result = run_here(*arguments)
    assert result.code == 0
    assert table(output).num_rows == result.summary["rows_in_output"] == count


def test_s3_in_and_out_under_two_accounts_and_no_secret_is_written_anywhere(
    tmp_path, draw, tiny_weights, run_job, s3, s3_root
):
    members = {f"{index:03d}.png": draw(index) for index in range(20)} | {"notes.md": b"passed over", "._x.jpg": b"x"}
    bucket, _, prefix = s3_root.removeprefix("s3://").partition("/")
    with closing(s3.client()) as client:
        client.put_object(Bucket=bucket, Key=f"{prefix}/in/a b#1.tar", Body=tar_of(members.items()))
        client.put_object(Bucket=bucket, Key=f"{prefix}/in/_SUCCESS", Body=b"")
        for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
            client.put_object(Bucket=bucket, Key=f"{prefix}/w/{name}", Body=(tiny_weights / name).read_bytes())
    (tmp_path / "config").write_text(
        f"[profile in]\nregion = us-east-1\nendpoint_url = {s3.endpoint_url}\n"
        f"aws_access_key_id = {s3.reader_access_key}\naws_secret_access_key = {s3.reader_secret_key}\n"
    )
    env = {**s3.env, "AWS_CONFIG_FILE": str(tmp_path / "config")}
    result = run_job(
        "--input", f"{s3_root}/in", "--input-profile", "in", "--weights", f"{s3_root}/w", "--output", f"{s3_root}/out",
        "--rows-per-file", "6", "--log-level", "debug", env=env,
    )  # fmt: skip
    assert result.code == 0, result.stderr
    assert (result.summary["listed"], result.summary["files"]) == (20, 4)
    assert result.summary["ignored"] == 3
    with closing(s3.client()) as client:
        objects = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/out/")["Contents"]
        bodies = [client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read() for item in objects]
    names = [item["Key"] for item in objects]
    assert sum("/data/" in name for name in names) == 4
    assert not [name for name in names if "preflight" in name]
    for secret in (s3.secret_key, s3.reader_secret_key, s3.access_key, s3.reader_access_key):
        assert not any(secret.encode() in body for body in bodies)
        assert secret not in result.stderr + result.stdout
    data = [pq.read_table(io.BytesIO(body)) for name, body in zip(names, bodies, strict=True) if "/data/" in name]
    found = pa.concat_tables(data)
    assert found.column("image_id").to_pylist()[:1] == [f"{s3_root}/in/a b#1.tar#000.png"]
    assert found.column("key").to_pylist() == [f"{index:03d}.png" for index in range(20)]


def test_failed_records_have_their_rows_and_too_many_of_them_exit_6(tmp_path, draw, tiny_weights, run_here):
    (tmp_path / "in").mkdir()
    good, bad = draw(1), draw(2)[:-40]
    contents = {"a.png": good, "b.png": bad, "c.jpg": b"", "d.jpg": b"no image at all", "e.png": draw(3, 20, 50)}
    for name, data in contents.items():
        (tmp_path / "in" / name).write_bytes(data)
    arguments = ("--input", tmp_path / "in", "--weights", tiny_weights, "--small-images", "reject")
    result = run_here(*arguments, "--output", tmp_path / "out")
    assert result.code == 6
    assert "4 of 5 records failed" in result.stderr
    assert "Traceback" not in result.stderr
    found = {row["key"]: row for row in table(tmp_path / "out").to_pylist()}
    codes = {key: row["error_code"] for key, row in found.items()}
    assert codes == {
        "a.png": None, "b.png": "decode.corrupt", "c.jpg": "decode.empty", "d.jpg": "decode.unsupported",
        "e.png": "image.too_small",
    }  # fmt: skip
    assert (found["e.png"]["width"], found["e.png"]["height"]) == (20, 50)
    assert found["c.jpg"]["encoded_bytes"] == 0
    assert all(row["label_id"] is None and row["topk_ids"] is None for key, row in found.items() if key != "a.png")
    assert report(tmp_path / "out")["run"]["failed_by_code"] == {
        code: 1 for code in sorted(filter(None, codes.values()))
    }


@pytest.mark.drill
def test_every_odd_file_ends_with_one_row(tmp_path, test_data, tiny_weights, run_here):
    """All files loose; those with image endings again in a tar and in Parquet. The network need not see them large."""
    odd = test_data / "odd"
    files = sorted(path for path in odd.rglob("*") if path.is_file())
    named = [path for path in files if has_image_ending(path.name)]
    (tmp_path / "tar").mkdir()
    members = {str(path.relative_to(odd)): path.read_bytes() for path in named}
    (tmp_path / "tar" / "odd.tar").write_bytes(tar_of(members.items()))
    images = pa.table({"jpg": pa.array(list(members.values()), pa.binary()), "key": list(members)})
    pq.write_table(images, tmp_path / "tar" / "other.parquet", row_group_size=100)

    loose = run_here(
        "--input", odd, "--input-format", "files", "--include", "*", "--weights", tiny_weights,
        "--output", tmp_path / "loose", "--max-failed-fraction", "1", "--max-image-pixels", 2**16,
    )  # fmt: skip
    assert loose.code == 0, loose.stderr
    packed = run_here(
        "--input", tmp_path / "tar" / "other.parquet", "--weights", tiny_weights, "--output", tmp_path / "packed",
        "--keep-columns", "cls",
    )  # fmt: skip
    assert packed.code == 3  # Parquet has no column "cls": said before any work
    packed = run_here(
        "--input", tmp_path / "tar", "--weights", tiny_weights, "--output", tmp_path / "packed",
        "--max-failed-fraction", "1", "--max-image-pixels", 2**16,
    )  # fmt: skip
    assert packed.code == 0, packed.stderr

    found = {row["key"]: row for row in table(tmp_path / "loose").to_pylist()}
    assert sorted(found) == sorted(str(path.relative_to(odd)) for path in files)
    for path in files:
        row = found[str(path.relative_to(odd))]
        size = None
        with suppress(Exception), Image.open(path) as image:
            image.load()
            size = image.size if image.format in FORMATS else None
            size = size and ImageOps.exif_transpose(image).size
        if size is not None:
            assert row["status"] == "ok", (path.name, row["error_message"])
            assert (row["width"], row["height"]) == size
        assert (row["status"] == "ok") == (row["error_code"] is None)
    again = table(tmp_path / "packed").to_pylist()
    assert len(again) == 2 * len(named)
    by_key = {row["key"]: row for row in again if row["shard"].endswith(".tar")}
    for key, row in by_key.items():
        twin = found[key.partition("@")[0]]
        assert (row["status"], row["error_code"], row["width"]) == (twin["status"], twin["error_code"], twin["width"])
        assert row["label_id"] == twin["label_id"]


def test_the_next_chunk_is_unpacked_while_the_network_is_at_the_one_before(tmp_path, draw, tiny_weights, on_warm_ray):
    """Each chunk comes from a shard of its own, and ends only when the next one is there."""
    (tmp_path / "in").mkdir()
    for number in range(6):
        (tmp_path / "in" / f"{number}.tar").write_bytes(
            tar_of({"a.png": draw(number), "b.png": draw(number + 10)}.items())
        )
    config = JobConfig(
        task=Classify(),
        input=InputConfig(uris=(str(tmp_path / "in"),)),
        output=OutputConfig(uri=str(tmp_path / "out")),
        weights=str(tiny_weights),
        compute=ComputeConfig(num_actors=(1, 1), no_progress_timeout_s=60),
        run_id="waiting",
    )
    with Lease(config.output.folder, "waiting") as lease:
        run, ledger = prepare(config, time.time(), lease)
        report = execute(run, ledger, lambda _: None, Steps(decode=decode_chunk, infer=WaitingNetwork(6)))
    assert (report.status, report.passes, report.run.ok) == ("done", 1, 12)
    assert set(table(tmp_path / "out").column("label_id").to_pylist()) == {1}


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path, draw, tiny_weights, run_here):
    write_loose(tmp_path / "in", draw, 12)
    (tmp_path / "in" / "x.txt").write_text("passed over")
    output = tmp_path / "out"
    result = run_here(
        "--input", tmp_path / "in", "--weights", tiny_weights, "--output", output, "--rows-per-file", "5", "--dry-run"
    )
    assert result.code == 0
    assert (result.summary["shards"], result.summary["images"], result.summary["ignored"]) == (1, 12, 1)
    assert not output.exists()
    estimate = result.summary["estimate"]
    assert (estimate["images_sampled"], estimate["images"], estimate["seconds"]) == (12, 12, None)


def test_a_dry_run_estimates_what_the_run_then_does_and_how_long_the_next_one_takes(
    tmp_path, draw, tiny_weights, run_here
):
    (tmp_path / "in").mkdir()
    for number in range(30):  # more than are looked into, of two kinds
        side = 40 if number % 2 else 80
        members = {f"{index}.png": draw(index, side, side) for index in range(6)}
        (tmp_path / "in" / f"{number:02d}.tar").write_bytes(tar_of(members.items()))
    flags = ("--input", tmp_path / "in", "--weights", tiny_weights, "--output", tmp_path / "out")
    estimate = run_here(*flags, "--dry-run").summary["estimate"]
    assert run_here(*flags).code == 0
    run = report(tmp_path / "out")["run"]
    assert estimate["gmac"] == pytest.approx(run["macs"] / 1e9, rel=0.25)
    assert estimate["mpix"] == pytest.approx(run["pixels"] / 1e6, rel=0.25)
    assert estimate["images"] == pytest.approx(180, rel=0.25)
    assert run_here(*flags, "--dry-run").summary["estimate"] is None
    for number in range(30):
        (tmp_path / "in" / f"1{number:02d}.tar").write_bytes((tmp_path / "in" / f"{number:02d}.tar").read_bytes())
    again = run_here(*flags, "--dry-run", "--price-per-hour", "2").summary["estimate"]
    assert again["seconds"] > 0
    assert again["cost"] > 0


@pytest.mark.drill
def test_a_limit_takes_the_first_records(tmp_path, draw, tiny_weights, run_here):
    (tmp_path / "in").mkdir()
    for number in range(2):
        members = {f"{index}.png": draw(index) for index in range(6)}
        (tmp_path / "in" / f"{number}.tar").write_bytes(tar_of(members.items()))
    result = run_here(
        "--input", tmp_path / "in", "--weights", tiny_weights, "--output", tmp_path / "out", "--limit", "8"
    )
    assert result.code == 0, result.stderr
    keys = [(row["shard"][-5:], row["key"]) for row in table(tmp_path / "out").to_pylist()]
    assert keys == [("0.tar", f"{i}.png") for i in range(6)] + [("1.tar", f"{i}.png") for i in range(2)]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:8265"])
def test_an_address_where_no_cluster_is_is_said_without_a_traceback(tmp_path, draw, tiny_weights, run_job, address):
    write_loose(tmp_path / "in", draw, 2)
    result = run_job(
        "--input", tmp_path / "in", "--weights", tiny_weights, "--output", tmp_path / "out", "--ray-address", address
    )
    assert result.code == 2
    assert address in result.stderr
    assert "Traceback" not in result.stderr
