"""Refusals before any work: an exit code, one sentence, no traceback, nothing written. No Ray is started."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.classify import classify
from jobs.cli.command import run_command


@pytest.fixture
def refuse(capsys, tmp_path):
    """Runs the command with some arguments; returns its exit code and its sentence, having checked their form."""

    def run(*arguments):
        code = run_command(classify, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        summary = json.loads(captured.out.splitlines()[-1])
        assert summary["exit_code"] == code
        assert summary["status"] == "failed"
        assert summary["error"] in captured.err
        assert "Traceback" not in captured.err
        assert not (tmp_path / "out").exists()
        return code, summary["error"]

    return run


@pytest.fixture
def photos(tmp_path, draw):
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.png").write_bytes(draw(index))
    return folder


def test_an_input_that_is_not_there_exits_3_and_says_which(refuse, photos, tiny_weights, tmp_path):
    gone = tmp_path / "gone"
    code, error = refuse("--input", photos, "--input", gone, "--weights", tiny_weights, "--output", tmp_path / "out")
    assert code == 3
    assert str(gone) in error


@pytest.mark.parametrize("names", [(), ("a.txt", "b.csv"), (".hidden.jpg", "_SUCCESS")])
def test_an_input_without_images_exits_3_and_says_which(refuse, tiny_weights, tmp_path, names):
    (tmp_path / "empty").mkdir()
    for name in names:
        (tmp_path / "empty" / name).write_text("x")
    code, error = refuse("--input", tmp_path / "empty", "--weights", tiny_weights, "--output", tmp_path / "out")
    assert code == 3
    assert str(tmp_path / "empty") in error


def test_an_output_inside_an_input_exits_2(refuse, photos, tiny_weights, tmp_path):
    code, error = refuse("--input", tmp_path, "--weights", tiny_weights, "--output", tmp_path / "out")
    assert code == 2
    assert "inside the input" in error


def test_weights_that_are_not_there_exit_4(refuse, photos, tmp_path):
    code, error = refuse("--input", photos, "--weights", tmp_path / "none", "--output", tmp_path / "out")
    assert code == 4
    assert "random_checkpoint" in error


def test_weights_that_are_none_exit_4(refuse, photos, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"these are no weights")
    code, error = refuse("--input", photos, "--weights", tmp_path / "w.safetensors", "--output", tmp_path / "out")
    assert code == 4
    assert "safetensors" in error


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--no-such-flag",), "no-such-flag"),
        (("--rows-per-file", "0"), "--rows-per-file"),
        (("--rows-per-file", "many"), "--rows-per-file"),
        (("--top-k", "0"), "--top-k"),
        (("--limit", "0"), "--limit"),
        (("--num-actors", "3,1"), "--num-actors"),
        (("--num-actors", "x"), "--num-actors"),
        (("--max-failed-fraction", "2"), "--max-failed-fraction"),
        (("--max-image-pixels", "10"), "--max-image-pixels"),
        (("--run-id", "a/b"), "--run-id"),
        (("--calibrate",), "--dry-run"),
        (("--input-format", "zip"), "--input-format"),
        (("--keep-columns", "width"), "--keep-columns width"),
        (("--input", "ftp://x/y"), "ftp://x/y"),
        (("--labels", "/no/such/labels"), "--labels"),
        (("--input-profile", "nobody", "--input", "s3://bucket/x"), "nobody"),
    ],
)
def test_a_flag_that_cannot_work_exits_2_and_is_named(refuse, photos, tiny_weights, tmp_path, flags, expected):
    code, error = refuse("--input", photos, "--weights", tiny_weights, "--output", tmp_path / "out", *flags)
    assert code == 2
    assert expected in error


def test_labels_of_another_number_of_classes_exit_2(refuse, photos, tiny_weights, tmp_path):
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    arguments = ("--input", photos, "--weights", tiny_weights, "--output", tmp_path / "out")
    code, error = refuse(*arguments, "--labels", tmp_path / "labels.txt")
    assert code == 2
    assert "names 2 classes, but the network has 10" in error


def test_parquet_without_an_image_column_exits_3_and_names_its_columns(refuse, tiny_weights, tmp_path):
    (tmp_path / "p").mkdir()
    pq.write_table(pa.table({"url": ["x"], "caption": ["y"]}), tmp_path / "p" / "a.parquet")
    code, error = refuse("--input", tmp_path / "p", "--weights", tiny_weights, "--output", tmp_path / "out")
    assert code == 3
    assert "caption" in error
    assert "--image-column" in error


def test_a_bucket_that_is_not_there_exits_3(refuse, tiny_weights, tmp_path, s3_env):
    arguments = ("--weights", tiny_weights, "--output", tmp_path / "out")
    code, error = refuse("--input", "s3://no-such-bucket-here/x", *arguments)
    assert code == 3
    assert "no-such-bucket-here" in error


def test_wrong_credentials_exit_3_and_are_not_repeated(refuse, tiny_weights, tmp_path, s3_env, monkeypatch):
    from pipeline.store.clients import forget_clients

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-value")
    forget_clients()
    arguments = ("--weights", tiny_weights, "--output", tmp_path / "out")
    code, error = refuse("--input", f"s3://{s3_env.bucket}/x", *arguments)
    assert code == 3
    assert "wrong-secret-value" not in error
    assert s3_env.access_key not in error


def test_an_output_whose_files_have_lost_their_identity_exits_5(capsys, photos, tiny_weights, tmp_path):
    output = tmp_path / "out"
    (output / "data").mkdir(parents=True)
    (output / "data" / "x-0123456789abcdef-00000-end.parquet").write_bytes(b"garbage that is longer than a tail")
    arguments = ["--input", photos, "--weights", tiny_weights, "--output", output]
    assert run_command(classify, [str(argument) for argument in arguments]) == 5
    assert "Traceback" not in capsys.readouterr().err
