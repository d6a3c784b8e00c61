"""Estimates against what is there: images on a disk, in every layout, and reports of earlier runs."""

import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.network.config import VARIANTS
from model.network.cost import count_macs
from pipeline.chunks.size_policy import SizePolicy
from pipeline.chunks.task import Classify
from pipeline.estimate import estimate
from pipeline.estimate.estimate import estimate_run as estimate_with_progress
from pipeline.estimate.pace import Pace
from pipeline.inputs.config import InputConfig
from pipeline.inputs.loose_files import Member
from pipeline.output.config import OutputConfig
from pipeline.output.slice_chain import DoneSlice
from pipeline.plan.planned_shard import PlannedShard
from pipeline.run.ledger import Ledger
from pipeline.run.work_sample import sample_work
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri
from tests.support.waiting import eventually

STORE = StoreConfig()
NETWORK = VARIANTS["b0"]
GMAC = count_macs(NETWORK, 64, 64) / 1e9


def estimate_run(run):
    return estimate_with_progress(run, lambda _: None)


@pytest.fixture
def run(tmp_path):
    """(shards, price, calibrate) -> what `estimate_run` needs of a run into a folder."""

    def make(*shards, price=None, calibrate=False):
        return SimpleNamespace(
            config=SimpleNamespace(
                input=InputConfig(uris=("x",)),
                output=OutputConfig(uri=str(tmp_path / "out")),
                compute=SimpleNamespace(price_per_hour=price),
                task=Classify(),
                sizes=SizePolicy(),
                calibrate=calibrate,
            ),
            identity={"precision": "fp32", "labels": ["a"]},
            checkpoint=SimpleNamespace(network=NETWORK),
            plan=SimpleNamespace(shards=list(shards), num_bytes=sum(shard.size for shard in shards)),
        )

    return make


@pytest.fixture
def shard(tmp_path, make_tar, encode):
    """(format, number of images of 64x64, changes) -> a planned shard of them."""

    def make(shard_format, count, name="x", **changes):
        images = {f"{i:03d}.png": encode(64, 64, i) for i in range(count)}
        plan = {"num_records": None, "done": (), "action": "new", "members": (), "etag": None} | changes
        if shard_format == "files":
            uris = {key: canonical_uri(str(tmp_path / name / key)) for key in images}
            for key, uri in uris.items():
                StorePath(uri, STORE).put(images[key])
            infos = {key: StorePath(uri, STORE).head() for key, uri in uris.items()}
            plan["members"] = tuple(Member(info.uri, key, info.size, info.etag, None) for key, info in infos.items())
            plan["num_records"], size = count, sum(info.size for info in infos.values())
        else:
            if shard_format == "tar":
                body = make_tar(images)
            else:
                sink = pa.BufferOutputStream()
                pq.write_table(pa.table({"image": pa.array(images.values(), pa.binary())}), sink)
                body = sink.getvalue().to_pybytes()
            uri = canonical_uri(str(tmp_path / f"{name}.{shard_format}"))
            StorePath(uri, STORE).put(body)
            size, plan["etag"] = len(body), StorePath(uri, STORE).head().etag
        return PlannedShard(
            shard=canonical_uri(str(tmp_path / f"{name}.{shard_format}")), name=name, hash16=name * 16,
            format=shard_format, size=size, **plan,
        )  # fmt: skip

    return make


@pytest.fixture
def report(tmp_path):
    """run ID -> a report in the folder's output."""

    def write(run_id):
        values = {
            "run_id": run_id, "status": "done", "rates": {"steady": {"gmac_per_s": 2 * GMAC}}, "actors": {"max": 4},
            "seconds": {"first_row": 7.0, "steady": 20.0, "drain": 1.0}, "identity": {"precision": "fp32"},
        }  # fmt: skip
        report = StorePath(canonical_uri(str(tmp_path / "out" / "runs" / run_id / "report.json")))
        report.put(json.dumps(values).encode())

    return write


@pytest.mark.parametrize("shard_format", ["files", "tar", "parquet"])
@pytest.mark.parametrize("most", [1000, 20])
def test_a_shard_is_estimated_from_all_or_some_of_its_images(run, shard, monkeypatch, shard_format, most):
    monkeypatch.setattr(estimate, "NUM_IMAGES", most)
    found = estimate_run(run(shard(shard_format, 60)))
    assert found["images_sampled"] == min(most, 60)
    assert found["images"] == pytest.approx(60, rel=0.03)
    assert found["gmac"] == pytest.approx(60 * GMAC, rel=0.03)
    assert found["mpix"] == pytest.approx(60 * 64 * 64 / 1e6, rel=0.03)
    assert (found["seconds"], found["cost"], found["like_run"]) == (None, None, None)
    assert (found["calibrated"], found["calibration_seconds"]) == (False, None)


def test_what_is_done_of_a_shard_is_not_counted(run, shard):
    done = (DoneSlice(0, 0, 39),)
    for shard_format in ("files", "tar"):
        found = estimate_run(run(shard(shard_format, 60, action="continue", done=done)))
        assert found["images"] == 20


def test_a_shard_that_cannot_be_read_is_taken_to_be_like_the_others(run, shard, caplog):
    whole, gone = shard("tar", 30, "a"), shard("tar", 30, "b")
    found = estimate_run(run(whole, replace(gone, shard=gone.shard + ".gone")))
    assert found["images"] == pytest.approx(60, rel=0.03)
    assert "estimate.shard_left_out" in caplog.text


def test_of_many_shards_some_are_looked_into_and_the_others_go_by_their_bytes(run, shard, monkeypatch):
    monkeypatch.setattr(estimate, "NUM_SHARDS", 3)
    found = estimate_run(run(*(shard("tar", 10 + i, chr(97 + i)) for i in range(12))))
    assert found["images_sampled"] < 70
    assert found["images"] == pytest.approx(sum(10 + i for i in range(12)), rel=0.05)


def test_time_and_cost_go_by_an_earlier_run(run, shard, report):
    report("1")
    found = estimate_run(run(shard("files", 20), price=3600.0))
    assert (found["seconds"], found["like_run"], found["calibrated"]) == (18.0, "1", False)
    assert found["cost"] == pytest.approx(4 * 18.0, rel=0.01)


def test_time_and_cost_go_by_a_calibration_only_where_no_run_tells_its_pace(run, shard, report, monkeypatch):
    asked = []

    def calibrated(run, image_px, image_gmac, on_progress):
        asked.append((image_px, image_gmac))
        return Pace(run_id="x", fixed_s=5.0, steady_s=40.0, gmac_per_s=4 * GMAC, num_actors=2)

    monkeypatch.setattr(estimate, "calibrate", calibrated)
    planned = run(shard("files", 20), price=3600.0, calibrate=True)
    found = estimate_run(planned)
    assert asked == [(64 * 64, pytest.approx(GMAC))]
    assert (found["seconds"], found["cost"]) == (10.0, 20.0)
    assert (found["like_run"], found["calibrated"], found["calibration_seconds"]) == (None, True, 40.0)
    report("1")
    found = estimate_run(planned)
    assert len(asked) == 1
    assert (found["like_run"], found["calibrated"], found["calibration_seconds"]) == ("1", False, None)


def test_a_calibration_without_a_pace_leaves_the_time_open(run, shard, monkeypatch):
    monkeypatch.setattr(estimate, "calibrate", lambda *_: None)
    found = estimate_run(run(shard("files", 20), price=3600.0, calibrate=True))
    assert (found["seconds"], found["cost"], found["calibrated"]) == (None, None, False)


def test_nothing_to_do_takes_no_time(run):
    assert estimate_run(run()) is None


# How much there is to do, for the progress of a run.


def test_a_large_run_finds_out_beside_its_work_how_much_there_is_to_do(run, shard, monkeypatch, caplog):
    caplog.set_level("INFO", "pipeline")
    planned = run(shard("tar", 10), shard("files", 6, name="loose"))
    ledger = Ledger(0.0)
    sample_work(planned, ledger)
    assert ledger.planned_macs is None  # it is small
    monkeypatch.setattr("pipeline.run.work_sample._SAMPLED_FROM_BYTES", 1)
    sample_work(planned, ledger)
    eventually(lambda: ledger.planned_macs)
    assert ledger.planned_macs / 1e9 == pytest.approx(16 * GMAC, rel=0.1)
    eventually(lambda: "work.sampled images=16" in caplog.text)


def test_a_sample_in_which_nothing_can_be_read_says_nothing_of_the_work(run, shard, tmp_path, monkeypatch):
    """It was taken for a run in which nothing is left to do."""
    monkeypatch.setattr("pipeline.run.work_sample._SAMPLED_FROM_BYTES", 1)
    unreadable = shard("parquet", 2)
    StorePath(unreadable.shard, STORE).put(b"no Parquet")
    ledger = Ledger(0.0)
    sample_work(run(unreadable), ledger)
    for thread in [thread for thread in threading.enumerate() if thread.name == "sample"]:
        thread.join()
    assert ledger.planned_macs is None
