"""A sweep over real images with a tiny real network: each size gets the output that classifying at that size gives."""

import io
import json
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from model.checkpoints.input_size import InputSize, SizeAdvice
from model.checkpoints.load import save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import PVTv2Config
from model.network.cost import count_macs
from pipeline.chunks.columns import AT_SIZES
from pipeline.chunks.size_policy import SizePolicy
from pipeline.chunks.task import Classify, ClassifyAtSizes
from pipeline.config.job_config import BoundsConfig, JobConfig
from pipeline.config.size import parse_size
from pipeline.errors import ConfigError, OutputError
from pipeline.inputs.config import InputConfig
from pipeline.output.config import OutputConfig
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.sweep.answers import read_answers
from pipeline.sweep.fill import fill_from_pass
from pipeline.sweep.passes import default_sizes, plan_sweep
from tests.support.in_process import run_in_process

NETWORK = PVTv2Config(
    embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2),
    sr_ratios=(8, 4, 2, 1), num_classes=10,
)  # fmt: skip
SIZES = ("native", "square:64", "shorter:48", "longer:80", "stretch:64", "pixels:2048")
LABELS = tuple(f"class {i}" for i in range(10))


class KilledError(Exception):
    """The run's process is gone."""


@pytest.fixture(scope="module", autouse=True)
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_checkpoint(random_weights(NETWORK, 3), NETWORK, LABELS, folder)
    return folder


def encoded(index, width, height, image_format, orientation=1):
    pixels = np.random.default_rng(index).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[274] = orientation
    body = io.BytesIO()
    image.save(body, image_format, exif=exif)
    return body.getvalue()


def photos():
    """Images of many sizes and formats, turned ones among them, and broken ones."""
    sizes = [(120, 90), (33, 70), (64, 64), (20, 31), (300, 40), (97, 201)]
    formats = ("JPEG", "PNG", "WEBP")
    found = [
        encoded(index, *size, formats[index % 3], 6 if index % 4 == 0 else 1) for index, size in enumerate(sizes * 2)
    ]
    return [*found, b"", b"no image", found[0][:200]]


def write_inputs(folder: Path) -> None:
    """A tar, a Parquet file and loose images."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = photos()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for index, body in enumerate(bodies):
            info = tarfile.TarInfo(f"{index:03d}.jpg")
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    pq.write_table(
        pa.table({"image": bodies, "label": [f"class {i % 10}" for i in range(len(bodies))]}), folder / "b.parquet"
    )
    for index, body in enumerate(bodies):
        path = folder / f"class {index % 3}" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(body)


@pytest.fixture
def job(tmp_path, weights):
    """Name of a size -> the settings of a job over the inputs at this size, into `out/`."""
    write_inputs(tmp_path / "in")

    def make(size="native", output="out", **options):
        return JobConfig(
            task=Classify(top_k=4),
            input=InputConfig(uris=(str(tmp_path / "in"),)),
            output=OutputConfig(uri=str(tmp_path / output), rows_per_file=4, **options),
            weights=str(weights),
            precision="fp32",
            size=parse_size(size),
        )

    return make


def planned(job, sizes=SIZES):
    return plan_sweep(job(), [(name, job(name)) for name in sizes], job().output.folder)


def swept(job, sizes=SIZES):
    """Does a whole sweep; returns it with the ledger of each size's run."""
    sweep = planned(job, sizes)
    for config in sweep.passes:
        run_in_process(config)
    ledgers = []
    for size in sweep.sizes:
        fill = None if size.place is None else partial(fill_from_pass, place=size.place)
        _, ledger, report = run_in_process(size.config, fill)
        assert not report.problems
        ledgers.append(ledger)
    return sweep, ledgers


def rows_of(output: Path):
    return {
        row["image_id"]: row
        for path in sorted((output / "data").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    }


def test_each_size_gets_the_rows_that_classifying_at_that_size_gives(job, tmp_path):
    sweep, ledgers = swept(job)
    assert [size.name for size in sweep.sizes] == list(SIZES)
    assert [ledger.num_passes for ledger in ledgers] == [0] * len(SIZES)
    for name in SIZES:
        folder = tmp_path / "out" / name.replace(":", "-")
        _, _, report = run_in_process(job(name, output="alone"), None)
        found, expected = rows_of(folder), rows_of(tmp_path / "alone")
        assert len(found) == report.output.listed == 3 * len(photos())
        assert sorted(path.name for path in (folder / "data").iterdir()) == sorted(
            path.name for path in (tmp_path / "alone" / "data").iterdir()
        )
        for image_id, row in expected.items():
            same = found[image_id]
            assert {key: same[key] for key in row if "score" not in key} == {
                key: row[key] for key in row if "score" not in key
            }
            if row["status"] == "ok":
                # Other images share the pack, so sums are taken in another order.
                np.testing.assert_allclose(same["topk_scores"], row["topk_scores"], rtol=0, atol=5e-6)
        assert json.loads((folder / "_job.json").read_text()) == json.loads(
            (tmp_path / "alone" / "_job.json").read_text()
        )
        for path in sorted((tmp_path / "alone").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()


def test_classifying_at_the_size_afterwards_finds_nothing_to_do_and_takes_new_images(job, tmp_path):
    swept(job, ("native", "square:64"))
    config = job("square:64", output="out/square-64")
    run, _, _ = run_in_process(config)
    assert run.plan.is_empty
    (tmp_path / "in" / "class 0" / "new.png").write_bytes(encoded(99, 50, 50, "PNG"))
    _, _, report = run_in_process(config)
    assert (report.run.listed, report.output.listed) == (1, 3 * len(photos()) + 1)


def test_an_image_that_one_size_rejects_has_its_answers_at_the_other_sizes(job, tmp_path):
    limits = SizePolicy(large_images="reject", max_image_pixels=8000)

    def strict(name):
        return replace(job(name), sizes=limits)

    sweep = plan_sweep(
        strict("native"), [(name, strict(name)) for name in ("native", "shorter:48")], job().output.folder
    )
    (config,) = sweep.passes
    run_in_process(config)
    for size in sweep.sizes:
        _, ledger, _ = run_in_process(size.config, partial(fill_from_pass, place=size.place))
        assert ledger.num_passes == 0
    native, reduced = (rows_of(tmp_path / "out" / name) for name in ("native", "shorter-48"))
    rejected = {image_id for image_id, row in native.items() if row["error_code"] == "image.too_large"}
    assert rejected
    assert any(reduced[image_id]["status"] == "ok" for image_id in rejected)
    # The pass counts such an image as failed, so that `--retry-failed` finds it.
    passed = rows_of(Path(config.output.folder.local_path))
    assert all(passed[image_id]["error_code"] == "image.too_large" for image_id in rejected)


@pytest.mark.parametrize("slices", [0, 1, 5])
def test_a_pass_that_is_killed_goes_on_and_doubles_nothing(job, tmp_path, slices):
    published = 0

    def may_publish():
        nonlocal published
        if published == slices:
            raise KilledError
        published += 1

    two = ("native", "square:64")
    with pytest.raises(KilledError):
        run_in_process(planned(job, two).passes[0], may_publish=may_publish)
    sweep, ledgers = swept(job, two)
    assert len(sweep.passes) == 1
    assert [ledger.num_passes for ledger in ledgers] == [0, 0]
    assert all(len(rows_of(tmp_path / "out" / name.replace(":", "-"))) == 3 * len(photos()) for name in two)


def test_filling_that_is_killed_goes_on(job, tmp_path):
    sweep = planned(job, ("native", "square:64"))
    run_in_process(sweep.passes[0])
    size = sweep.sizes[1]

    def fill_half(run, ledger):
        fill_from_pass(run, ledger, size.place)
        raise KilledError

    with pytest.raises(KilledError):
        run_in_process(size.config, fill_half)
    files = sorted((tmp_path / "out" / "square-64" / "data").iterdir())
    for path in files[::2]:
        path.unlink()
    before = {path.name: path.stat().st_mtime_ns for path in files[1::2]}
    swept(job, ("native", "square:64"))
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "square-64" / "data").iterdir()}
    assert before.items() <= after.items()
    assert len(after) == len(files)


def test_a_longer_list_computes_the_new_sizes_alone(job):
    swept(job, ("native", "square:64"))
    sweep = planned(job, ("native", "shorter:48", "square:64"))
    assert [config.task.policies for config in sweep.passes] == [
        (sweep.sizes[0].policy, sweep.sizes[2].policy), (sweep.sizes[1].policy,),
    ]  # fmt: skip
    _, ledgers = swept(job, ("native", "shorter:48", "square:64"))
    assert [len(ledger.receipts) for ledger in ledgers][::2] == [0, 0]


def test_bounds_are_for_the_pass_and_not_for_the_outputs_that_are_made_of_it(job):
    bounds = BoundsConfig(max_images=5, since_s=1.0)
    named = [(name, replace(job(name), bounds=bounds)) for name in ("native", "square:64")]
    sweep = plan_sweep(replace(job(), bounds=bounds), named, job().output.folder)
    assert [config.bounds for config in sweep.passes] == [bounds]
    assert [size.config.bounds for size in sweep.sizes] == [BoundsConfig(since_s=1.0)] * 2


def test_a_folder_that_only_looks_like_a_pass_is_named(job, tmp_path):
    (tmp_path / "out" / "at-sizes-00000000").mkdir(parents=True)
    (tmp_path / "out" / "at-sizes-00000000" / "_job.json").write_text('{"policies": [{"preprocess": 3, "x": 1}]}')
    with pytest.raises(OutputError, match="at-sizes-00000000 holds no pass of this version"):
        planned(job)


def test_an_output_without_a_pass_keeps_the_bounds_of_its_run(job):
    run_in_process(job("square:64", output="out/square-64"))
    config = replace(job("square:64"), bounds=BoundsConfig(max_images=5))
    sweep = plan_sweep(job(), [("square:64", config)], job().output.folder)
    assert (sweep.passes, sweep.sizes[0].config.bounds) == ((), BoundsConfig(max_images=5))


def test_a_sweep_without_a_list_keeps_the_precision_of_an_output_that_is_there(job, monkeypatch):
    run_in_process(job(output="out/native"))
    asked = []

    def choose(asked_for, stored, device):
        asked.append(stored)
        return "fp32", ""

    monkeypatch.setattr("pipeline.sweep.passes.choose_precision", choose)
    plan_sweep(replace(job(), precision="auto"), [], job().output.folder)
    assert asked == ["fp32"]


def test_reduced_jpegs_are_not_compared_at_several_sizes(job):
    reduced = SizePolicy(jpeg_decoding="reduced")
    named = [(name, replace(job(name), sizes=reduced)) for name in ("native", "square:64")]
    with pytest.raises(ConfigError, match="several sizes are compared on images that are decoded once, whole"):
        plan_sweep(job(), named, job().output.folder)
    assert len(plan_sweep(job(), named[:1], job().output.folder).passes) == 1


def test_kept_columns_that_an_answer_has_are_refused(job):
    config = replace(job(), input=replace(job().input, keep_columns=("label", "compute_s")))
    with pytest.raises(ConfigError, match="--keep-columns compute_s,label"):
        plan_sweep(config, [("native", config)], job().output.folder)


def test_sizes_of_the_same_numbers_are_one_size(job):
    sweep = planned(job, ("native", "square:64", "native"))
    assert [size.name for size in sweep.sizes] == ["native", "square:64"]


def test_a_source_that_changes_after_the_pass_is_classified_by_the_run_itself(job, tmp_path):
    sweep = planned(job, ("native", "square:64"))
    run_in_process(sweep.passes[0])
    (tmp_path / "in" / "class 0" / "0.png").write_bytes(encoded(50, 80, 80, "PNG"))
    with tarfile.open(tmp_path / "in" / "a.tar", "w") as tar:
        body = encoded(51, 64, 64, "PNG")
        info = tarfile.TarInfo("other.png")
        info.size = len(body)
        tar.addfile(info, io.BytesIO(body))
    size = sweep.sizes[1]
    _, ledger, report = run_in_process(size.config, partial(fill_from_pass, place=size.place))
    assert (list(report.problems), ledger.num_passes) == ([], 1)
    rows = rows_of(tmp_path / "out" / "square-64")
    assert len(rows) == 2 * len(photos()) + 1
    assert {row["width"] for row in rows.values() if row["image_id"].endswith("/0.png")} == {80}


def test_an_output_without_a_pass_goes_on_without_one(job):
    run_in_process(job("square:64", output="out/square-64"))
    sweep = planned(job, ("square:64", "native"))
    assert [size.place is None for size in sweep.sizes] == [True, False]
    assert len(sweep.passes) == 1


def test_a_pass_is_no_output_of_a_classification(job, tmp_path):
    sweep = planned(job, ("native", "square:64"))
    run_in_process(sweep.passes[0])
    folder = Path(sweep.passes[0].output.folder.local_path).relative_to(tmp_path)
    with pytest.raises(OutputError, match="holds the results of another job"):
        run_in_process(job(output=str(folder)))


def test_logits_give_the_scores_of_the_outputs(job, tmp_path):
    sweep, _ = swept(job, ("native", "square:64"))
    rows = rows_of(tmp_path / "out" / "square-64")
    ids = np.array(sorted(image_id for image_id, row in rows.items() if row["status"] == "ok"), np.str_)
    more = np.sort(np.append(ids, ["zzz"]))  # an image that only the output of the size has
    answers = read_answers(sweep.sizes[1].place, more, 10)
    assert list(more[~answers.is_found]) == ["zzz"]
    scores = torch.from_numpy(answers.logits).softmax(-1)
    assert [rows[image_id]["label_id"] for image_id in ids] == scores.argmax(-1).tolist()
    np.testing.assert_allclose([rows[image_id]["score"] for image_id in ids], scores.max(-1).values, atol=1e-6)
    assert answers.seconds > 0


def test_the_account_of_a_pass_adds_up_all_sizes(job):
    sweep = planned(job, ("native", "square:64"))
    _, _, report = run_in_process(sweep.passes[0])
    folder = Path(sweep.passes[0].output.folder.local_path)
    assert report.run.macs == sum(size_macs(row) for row in rows_of(folder).values())


def size_macs(row):
    answers = [answer for answer in row[AT_SIZES] if answer["status"] == "ok"]
    return sum(count_macs(NETWORK, answer["net_height"], answer["net_width"]) for answer in answers)


def test_a_sweep_without_a_list_starts_from_the_size_in_training():
    assert default_sizes(SizeAdvice()) == ["native", "square:224", "shorter:224", "shorter:288", "shorter:384"]
    known = SizeAdvice(resize=InputSize(to="shorter", width=106, height=106, crop=(96, 96)), source="x", trained_px=96)
    assert default_sizes(known) == ["native", "checkpoint", "square:96", "shorter:96", "shorter:128", "shorter:160"]
    assert default_sizes(SizeAdvice(trained_range_px=(64, 128)))[1:] == [
        "square:128", "shorter:128", "shorter:160", "shorter:224",
    ]  # fmt: skip


def test_the_policies_of_a_pass_are_read_back_from_its_identity(job):
    sweep = planned(job)
    (config,) = sweep.passes
    run_in_process(config)
    assert isinstance(config.task, ClassifyAtSizes)
    again = planned(job)
    assert [one.task for one in again.passes] == [config.task]
    assert StorePath(config.output.uri, StoreConfig()).join("_job.json").head() is not None
