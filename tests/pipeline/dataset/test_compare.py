"""Two outputs of the same images."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.diff_labels import diff_labels
from pipeline.output.layout import JOB_FILE
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri
from tests.pipeline.dataset.conftest import STORE, World, row


def output(folder, rows):
    """An output with these rows of loose images."""
    world = World(canonical_uri(str(folder)))
    world.publish("a" * 16, rows, shard="files:a")
    identity = {
        "job": "classify", "labels": ["cat", "dog", "teapot"], "top_k": 3, "model": {"num_classes": 3},
        "preprocess": {"policy": "native"},
    }  # fmt: skip
    StorePath(world.output, STORE).join(JOB_FILE).put(json.dumps(identity).encode())
    return folder


def test_every_way_in_which_a_row_can_differ_is_counted_and_listed(tmp_path, capsys):
    a = output(
        tmp_path / "a",
        [
            row("files:a", 0, "cat", 0.75), row("files:a", 1, "cat", 0.5), row("files:a", 2, "dog"),
            row("files:a", 3, "dog"), row("files:a", 4, None), row("files:a", 5, "cat"),
        ],
    )  # fmt: skip
    b = output(
        tmp_path / "b",
        [
            row("files:a", 0, "cat", 0.25), row("files:a", 1, "dog", 0.5), row("files:a", 2, "cat", etag="e2"),
            row("files:a", 3, None), row("files:a", 4, None), row("files:a", 6, "cat"),
        ],
    )  # fmt: skip
    summary = diff_labels([str(a), str(b), "--report", str(tmp_path / "diff")])
    names = ("images", "only_a", "only_b", "other_source", "other_status", "labelled_by_both", "flipped", "agreement")
    assert [summary[name] for name in names] == [7, 1, 1, 1, 1, 2, 1, 0.5]
    assert (summary["status"], summary["exit_code"]) == ("done", 0)
    found = json.loads((tmp_path / "diff" / "diff.json").read_text())
    assert found["flips"] == [{"label_a": "cat", "label_b": "dog", "images": 1}]
    assert (found["mean_score_a"], found["mean_score_b"], found["mean_score_difference"]) == (0.625, 0.375, 0.25)
    assert found["classes"] == [{"label": "cat", "a": 2, "b": 1}, {"label": "dog", "a": 0, "b": 1}]
    rows = pq.read_table(
        pa.BufferReader(StorePath(canonical_uri(str(tmp_path / "diff/diff.parquet")), STORE).read())
    ).to_pylist()
    assert [(entry["image_id"], entry["difference"]) for entry in rows] == [
        ("s3://in/1.png", "flipped"), ("s3://in/2.png", "other_source"), ("s3://in/3.png", "other_status"),
        ("s3://in/5.png", "only_a"), ("s3://in/6.png", "only_b"),
    ]  # fmt: skip
    assert "cat -> dog" in capsys.readouterr().out


def test_an_output_agrees_with_itself(tmp_path):
    a = output(tmp_path / "a", [row("files:a", 0, "cat"), row("files:a", 1, None)])
    summary = diff_labels([str(a), str(a)])
    assert (summary["agreement"], summary["labels_psi"], summary["report"]) == (1.0, 0.0, None)


def test_a_score_that_is_no_number_counts_as_a_failure(tmp_path):
    nan = float("nan")
    a = output(tmp_path / "a", [row("files:a", 0, "cat", 0.5), row("files:a", 1, "dog", nan)])
    b = output(tmp_path / "b", [row("files:a", 0, "cat", 0.5), row("files:a", 1, "dog", 0.5)])
    diff_labels([str(a), str(b), "--report", str(tmp_path / "diff")])
    found = json.loads((tmp_path / "diff" / "diff.json").read_text(), parse_constant=pytest.fail)
    names = ("not_finite", "other_status", "labelled_by_both", "agreement", "mean_score_a", "mean_score_difference")
    assert [found[name] for name in names] == [1, 1, 1, 1.0, 0.5, 0.0]
