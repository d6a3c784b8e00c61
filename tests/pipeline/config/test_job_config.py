"""The configuration of a run is checked once, and each message names the flag."""

from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

from pipeline.chunks.task import Classify
from pipeline.cluster.config import ComputeConfig
from pipeline.config.job_config import BoundsConfig, JobConfig
from pipeline.errors import ConfigError
from pipeline.inputs.config import InputConfig
from pipeline.output.config import OutputConfig

INPUT, OUTPUT = InputConfig(uris=("/in",)), OutputConfig(uri="/out")


def classify(**changes):
    return JobConfig(**{"task": Classify(), "input": INPUT, "output": OUTPUT, "weights": "/weights"} | changes)


def test_uris_become_canonical_and_inputs_are_named_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = InputConfig(uris=("in", f"{tmp_path}/in/", "s3://bucket/x/", f"file://{tmp_path}/in", "s3://bucket/x"))
    assert config.uris == (f"file://{tmp_path}/in", "s3://bucket/x")
    assert OutputConfig(uri="out/").uri == f"file://{tmp_path}/out"
    assert classify(weights="w").weights == f"file://{tmp_path}/w"


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda: InputConfig(uris=()), "--input"),
        (lambda: InputConfig(uris=("/in",), limit=0), "--limit"),
        (lambda: InputConfig(uris=("/in",), keep_columns=("a", "b", "a")), "--keep-columns"),
        (lambda: InputConfig(uris=("/in", "ftp://x/y")), "ftp://x/y"),
        (lambda: OutputConfig(uri="/out", rows_per_file=0), "--rows-per-file"),
        (lambda: OutputConfig(uri="/out", max_file_mib=0), "--max-file-mib"),
        (lambda: OutputConfig(uri="/out", wait_for_lease_s=-1), "--wait-for-lease-s"),
        (lambda: OutputConfig(uri="/out", wait_for_lease_s=float("nan")), "--wait-for-lease-s"),
        (lambda: OutputConfig(uri=""), "empty path"),
        (lambda: ComputeConfig(num_actors=(0, 1)), "--num-actors"),
        (lambda: ComputeConfig(num_actors=(3, 2)), "--num-actors"),
        (lambda: BoundsConfig(max_images=0), "--max-images"),
        (lambda: BoundsConfig(max_hours=0), "--max-hours"),
        (lambda: BoundsConfig(max_hours=float("nan")), "--max-hours"),
        (lambda: BoundsConfig(max_hours=float("inf")), "--max-hours"),
        (lambda: classify(max_failed_fraction=-0.1), "--max-failed-fraction"),
        (lambda: classify(max_failed_fraction=1.1), "--max-failed-fraction"),
        (lambda: classify(max_failed_fraction=float("nan")), "--max-failed-fraction"),
        (lambda: classify(thumbnails=-1), "--thumbnails must lie in 0..200"),
        (lambda: classify(thumbnails=201), "--thumbnails must lie in 0..200"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_its_flag(make, flag):
    with pytest.raises(ConfigError, match=flag):
        make()


@pytest.mark.parametrize("run_id", ["night-1", "2026.11.22_a", "x", "_x", "-", "a..b", "läufe"])
def test_a_run_may_have_a_name_of_plain_characters(run_id):
    assert classify(run_id=run_id).run_id == run_id


@pytest.mark.parametrize("run_id", ["", "a/b", "a b", "..", ".", ".hidden", "a\n", "s3://x", "a\\b"])
def test_a_name_that_would_be_another_folder_is_refused(run_id):
    """`..` put the run's plan and report beside the output's own files."""
    with pytest.raises(ConfigError, match="--run-id"):
        classify(run_id=run_id)


@pytest.mark.parametrize("config", [INPUT, OUTPUT, ComputeConfig(), BoundsConfig(), classify()])
def test_a_config_stays_as_it_was_checked(config):
    assert is_dataclass(config)
    for field in fields(config):
        with pytest.raises(FrozenInstanceError):
            setattr(config, field.name, None)


@pytest.mark.parametrize("edge", [{"limit": 1}, {"keep_columns": ("a", "b")}])
def test_the_smallest_values_work(edge):
    assert InputConfig(uris=("/in",), **edge)
    assert OutputConfig(uri="/out", rows_per_file=1, max_file_mib=1)
    assert ComputeConfig(num_actors=(1, 1))
    assert BoundsConfig(max_images=1, max_hours=1e-9)
    assert classify(max_failed_fraction=0)
    assert classify(max_failed_fraction=1)
    assert classify(thumbnails=200)
