"""`python jobs/evaluate.py` over a classification, and straight from labelled images."""

import csv
import json

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.evaluate import evaluate
from jobs.extract_features import extract_features
from jobs.label_dataset import label_dataset
from pipeline.chunks.columns import BASE_COLUMNS, CLASSIFY_COLUMNS
from pipeline.errors import ConfigError
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath
from pipeline.store.uris import join_uri

# Ray warns of its own settings and leaves files and sockets to its own end; the jobs' own warnings stay errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NUM_PHOTOS = 12


@pytest.fixture(scope="module")
def photos(tmp_path_factory, draw):
    """Folders of two classes; one file is none."""
    folder = tmp_path_factory.mktemp("in")
    for index in range(NUM_PHOTOS):
        path = folder / f"class {index % 2 * 3}" / f"{index:02d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(draw(index, 40 + 40 * (index % 3), 50) if index != 5 else b"no image")
    return folder


def lenient(photos, weights):
    return ("--input", photos, "--weights", weights, "--max-failed-fraction", 0.5, "--precision", "fp32")


def accuracy_by_hand(output):
    files = f"{output}/data/*.parquet"
    query = "SELECT avg((label = true_label)::INT), count(*) FROM read_parquet($files) WHERE status = 'ok'"
    return duckdb.sql(query, params={"files": files}).fetchall()[0]


@pytest.mark.drill
def test_both_ways_to_preprocess_are_evaluated_in_one_run_and_go_on_where_they_stopped(
    photos, tiny_weights, tmp_path, run_here
):
    out = tmp_path / "out"
    command = (*lenient(photos, tiny_weights), "--output", out, "--preprocess", "both")
    result = run_here(*command, command=evaluate)
    assert result.code == 0, result.stderr
    native, imagenet = result.summary["evaluations"]
    assert [native["preprocess"], imagenet["preprocess"]] == ["native", "imagenet"]
    for found in (native, imagenet):
        top1, evaluated = accuracy_by_hand(out / found["preprocess"])
        assert found["accuracy"]["top1"] == pytest.approx(top1, abs=1e-6)
        assert (found["evaluated"], found["failed"]) == (evaluated, 1) == (NUM_PHOTOS - 1, 1)
    sizes = "SELECT DISTINCT net_width, net_height FROM read_parquet($files) WHERE status = 'ok'"
    seen = duckdb.sql(sizes, params={"files": f"{out}/imagenet/data/*.parquet"}).fetchall()
    assert seen == [(224, 224)]
    stored = json.loads((out / "evaluation.json").read_text())
    assert [entry["preprocess"] for entry in stored] == ["native", "imagenet"]
    assert [(band["shorter_side_px"], band["images"]) for band in stored[0]["bands"] if band["images"]] == [
        ([0, 64], 11)
    ]
    assert stored[0]["true_labels_are"] == "names"
    rows = list(csv.DictReader((out / "confusion.csv").open()))
    assert sum(int(row["images"]) for row in rows) == 2 * (NUM_PHOTOS - 1)
    right = sum(
        int(row["images"]) for row in rows if row["preprocess"] == "native" and row["true_id"] == row["predicted_id"]
    )
    assert right / (NUM_PHOTOS - 1) == pytest.approx(native["accuracy"]["top1"], abs=1e-6)
    assert {row["label"] for row in csv.DictReader((out / "classes.csv").open())} >= {"class 0", "class 3"}
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["native", "imagenet"]
    assert lines[1].split() == ["true", "labels", "are", "names", "names"]
    assert any(line.startswith("top1") for line in lines)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in out.glob("*/data/*"))
    again = run_here(*command, command=evaluate)
    assert again.summary["evaluations"] == result.summary["evaluations"]
    assert sorted((path.name, path.stat().st_mtime_ns) for path in out.glob("*/data/*")) == before


def test_a_classification_is_evaluated_where_it_lies(photos, tiny_weights, tmp_path, run_here, s3_root):
    here = tmp_path / "labels"
    classified = run_here(*lenient(photos, tiny_weights), "--output", here, "--top-k", 3, "--rows-per-file", 5)
    assert classified.code == 0, classified.stderr
    for path in here.rglob("*.*"):
        StorePath(join_uri(s3_root, "labels", path.relative_to(here).as_posix()), StoreConfig()).put(path.read_bytes())
    result = run_here("--predictions", f"{s3_root}/labels", "--report", tmp_path / "report", command=evaluate)
    (found,) = result.summary["evaluations"]
    assert (result.code, found["evaluated"]) == (0, NUM_PHOTOS - 1)
    assert "top5" not in found["accuracy"]
    (stored,) = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert stored["accuracy"] == found["accuracy"]


@pytest.fixture
def error(run_here):
    """Arguments of the command -> its exit code and error."""

    def run(*arguments):
        result = run_here(*arguments, command=evaluate)
        return result.code, result.summary["error"]

    return run


def test_what_is_no_output_cannot_be_evaluated(photos, tmp_path, error):
    assert error() == (2, "give --predictions, or --input, --weights and --output; see --help")
    code, text = error("--predictions", tmp_path, "--input", photos)
    assert (code, "leave --input out" in text) == (2, True)
    code, text = error("--predictions", tmp_path)
    assert (code, "holds no output of a job" in text) == (3, True)


@pytest.mark.drill
def test_outputs_that_cannot_be_evaluated_are_said(photos, tiny_weights, tmp_path, run_here, error):
    features, unlabelled, misnamed = tmp_path / "features", tmp_path / "unlabelled", tmp_path / "misnamed"
    run_here(*lenient(photos, tiny_weights), "--output", features, command=extract_features)
    assert "holds no labels" in error("--predictions", features)[1]
    run_here(*lenient(photos / "class 0", tiny_weights), "--output", unlabelled)
    assert "has no true labels" in error("--predictions", unlabelled)[1]
    names = tmp_path / "names.txt"
    names.write_text("".join(f"other {i}\n" for i in range(10)))
    run_here(*lenient(photos, tiny_weights), "--output", misnamed, "--labels", names)
    code, text = error("--predictions", misnamed)
    assert (code, "none of the true labels (class 0, class 3)" in text) == (3, True)


@pytest.fixture
def classified(tmp_path):
    """(version of the rules, shard, true labels) -> an output whose rows all name class 1, right for the label 1."""

    def write(rules, shard, true_labels):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        (folder / "data").mkdir(parents=True)
        identity = {
            "job": "classify", "labels": ["cat", "dog", "cow"], "model": {"num_classes": 3}, "top_k": 1,
            "preprocess": {"policy": "native"}, "records": {"rules": rules} if rules > 1 else {},
        }  # fmt: skip
        (folder / "_job.json").write_text(json.dumps(identity))
        schema = pa.schema(field for field in (*BASE_COLUMNS, *CLASSIFY_COLUMNS))
        row = {
            "image_id": "",
            "row": 0,
            "shard": shard,
            "status": "ok",
            "width": 9,
            "height": 9,
            "label_id": 1,
            "score": 1.0,
            "topk_ids": [1],
        }
        rows = [{**row, "true_label": label} for label in true_labels]
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / "data" / "a.parquet")
        return folder

    return write


@pytest.mark.parametrize("shard", ["s3://b/a.parquet", "s3://b/a.tar"])
@pytest.mark.parametrize("rules", [1, 2])
def test_numbers_of_a_parquet_files_own_classes_are_not_taken_for_those_of_the_network(classified, rules, shard):
    output = classified(rules, shard, ["1", "0"])
    if rules == 1 and shard.endswith(".parquet"):
        with pytest.raises(
            ConfigError, match=r"may count the classes of these files.*--true-labels names\|numbers\|word"
        ):
            evaluate(["--predictions", str(output)])
    else:
        (found,) = evaluate(["--predictions", str(output)])["evaluations"]
        assert found["true_labels_are"] == "numbers"
    (found,) = evaluate(["--predictions", str(output), "--true-labels", "numbers"])["evaluations"]
    assert (found["true_labels_are"], found["accuracy"]["top1"]) == ("numbers", 0.5)


def test_true_labels_of_two_kinds_are_refused_until_one_is_named(classified, capsys):
    output = classified(2, "s3://b/a.parquet", ["cat", "dog", "0", "1"])
    with pytest.raises(ConfigError, match="2 true labels are names, but '0', '1' would be other classes as numbers"):
        evaluate(["--predictions", str(output)])
    (found,) = evaluate(["--predictions", str(output), "--true-labels", "names"])["evaluations"]
    assert (found["true_labels_are"], found["evaluated"], found["unknown"]) == ("names", 2, 2)
    assert ["true", "labels", "are", "names"] in [line.split() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--sweep", "shorter:0"), "--size shorter:0: a side must lie in 32..16384 px"),
        (("--sweep", "native,square:8"), "--size square:8: a side must lie in 32..16384 px"),
        (("--sweep", "sideways"), "--size must be native, checkpoint"),
        (("--sweep", "--size", "native"), "--sweep names all sizes"),
        (("--sweep", "--preprocess", "both"), "--sweep names all sizes"),
        (("--size-from", "/x"), "an evaluation chooses a size"),
        (("--sweep", "--dry-run"), "an evaluation has no plan"),
    ],
)
def test_sizes_that_make_no_sense_are_refused_before_the_work(photos, tiny_weights, tmp_path, error, flags, text):
    code, said = error("--input", photos, "--weights", tiny_weights, "--output", tmp_path / "out", *flags)
    assert (code, text in said) == (2, True), said
    assert not (tmp_path / "out").exists()


def test_a_sweep_needs_images_and_not_predictions(tmp_path, error):
    assert error("--predictions", tmp_path, "--sweep") == (2, "--predictions are there already: leave --sweep out")


def test_weights_that_say_nothing_have_no_size_of_their_own(photos, tiny_weights, tmp_path, error):
    sweep = ("--sweep", "native,checkpoint")
    code, said = error("--input", photos, "--weights", tiny_weights, "--output", tmp_path / "out", *sweep)
    assert (code, "does not say which size its images had" in said) == (4, True)


@pytest.mark.drill
def test_a_sweep_compares_sizes_and_its_choice_and_calibration_serve_other_jobs(
    draw, tiny_weights, tmp_path, run_here, caplog
):
    folder = tmp_path / "in"
    for index in range(240):
        path = folder / f"class {index % 2 * 3}" / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw(index, 40 + 8 * (index % 3), 50))
    given = ("--input", folder, "--weights", tiny_weights, "--precision", "fp32")
    out = tmp_path / "out"
    sweep = ("--sweep", "native,square:64,shorter:32", "--output", out)
    result = run_here(*given, *sweep, command=evaluate)
    assert result.code == 0, result.stderr
    sizes = json.loads((out / "sizes.json").read_text())
    assert [row["size"] for row in sizes["sizes"]] == ["native", "square:64", "shorter:32"]
    assert sizes["images"] == 240
    assert result.summary["chosen_size"] == sizes["chosen"]
    for row, name in zip(sizes["sizes"], ("native", "square-64", "shorter-32"), strict=True):
        assert row["top1"] == pytest.approx(accuracy_by_hand(out / name)[0], abs=1e-6)
        assert row["images_per_s"] > 0
    assert "</html>" in (out / "sizes.html").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*/data/*")}
    again = run_here(*given, *sweep, command=evaluate)
    assert again.summary["evaluations"] == result.summary["evaluations"]
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/data/*")} == stamps
    # Classifying with the choice gives the rows of the evaluation; with a calibration, the same labels.
    chosen = sizes["chosen"].replace(":", "-")
    calibration = ("--calibration", out / "calibration" / f"{chosen}.parquet")
    plain = run_here(*given, "--output", tmp_path / "plain", "--size-from", out)
    scaled = run_here(*given, "--output", tmp_path / "scaled", "--size-from", out, *calibration)
    assert (plain.code, scaled.code) == (0, 0), plain.stderr + scaled.stderr
    query = "SELECT image_id, label, topk_ids, round(score, 4) AS score FROM read_parquet($files) ORDER BY 1"
    rows = [
        duckdb.sql(query, params={"files": f"{place}/data/*.parquet"}).fetchall()
        for place in (out / chosen, tmp_path / "plain", tmp_path / "scaled")
    ]
    assert rows[0] == rows[1]
    assert [row[:3] for row in rows[1]] == [row[:3] for row in rows[2]]
    assert "calibration.other" not in caplog.text
    # These weights are random, so that no score reaches a precision.
    refused = run_here(*given, "--output", tmp_path / "labels", *calibration, "--accept-precision", 0.95,
                       command=label_dataset)  # fmt: skip
    assert refused.code == 2
    assert "no score reaches it with 95 % confidence" in refused.summary["error"]
    assert ("calibration.other_size" in caplog.text) == (sizes["chosen"] != "native")
    other = run_here(*given, "--output", tmp_path / "labels", "--accept-precision", 0.95, command=label_dataset)
    assert (other.code, "--accept-precision needs --calibration" in other.summary["error"]) == (2, True)
