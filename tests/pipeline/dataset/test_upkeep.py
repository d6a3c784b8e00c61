"""The order of an update and its exports within a run, their errors, and signals in between."""

import os
import signal
from types import SimpleNamespace

import pytest

from pipeline.chunks.task import Classify
from pipeline.config.job_config import JobConfig
from pipeline.dataset import update
from pipeline.dataset.dataset_file import find_published, labels_file
from pipeline.dataset.exports import ExportConfig
from pipeline.dataset.policy import Policy
from pipeline.dataset.update import DatasetConfig
from pipeline.dataset.upkeep import check_dataset
from pipeline.dataset.upkeep import keep_dataset as keep_with_stopper
from pipeline.errors import ConfigError, InputError, LeaseLostError, OutputError, StoppedError
from pipeline.inputs.config import InputConfig
from pipeline.output.config import OutputConfig
from pipeline.run.stopper import own_stopper
from pipeline.store.store_path import StorePath
from tests.pipeline.dataset.conftest import MODEL_LABELS, STORE, row

NOWHERE = ExportConfig(names=("imagefolder",), roots=("s3://in",), sidecars_to="file:///proc/nowhere")


@pytest.fixture
def run(world):
    """A run over the world's output, as far as the upkeep looks at it."""
    config = JobConfig(
        task=Classify(), input=InputConfig(uris=("/in",)), output=OutputConfig(uri=world.output), weights="/weights"
    )
    held = SimpleNamespace(check=lambda: None, fence=SimpleNamespace(check=lambda: None))
    checkpoint = SimpleNamespace(labels=MODEL_LABELS)
    return SimpleNamespace(config=config, checkpoint=checkpoint, lease=held, run_id="run-1")


@pytest.fixture
def keep_dataset(world):
    """Brings the data set up to date with the world's files, by a stopper of its own."""

    def keep(run, config, exports, bound=None):
        with own_stopper() as stopper:
            return keep_with_stopper(run, SimpleNamespace(files=world.files, bound=bound), config, exports, stopper)

    return keep


@pytest.fixture
def drifted(world, run, keep_dataset):
    """The same after a first update, and with images that are not like the earlier ones."""
    world.publish("a" * 16, [row("files:a", i, "cat") for i in range(60)], shard="files:a")
    keep_dataset(run, DatasetConfig(), ExportConfig())
    world.publish("c" * 16, [row("files:c", i, "dog", key=f"c{i}") for i in range(40)], shard="files:c")
    run.run_id = "run-2"
    return run


def test_a_drift_is_told_before_an_export_that_failed(drifted, keep_dataset):
    kept = keep_dataset(drifted, DatasetConfig(), NOWHERE)
    assert [error.exit_code for error in kept.errors()] == [8, 5]
    assert "labels have a stability index of" in str(kept.errors()[0])
    assert "dog 0 % -> 100 %" in str(kept.errors()[0])
    assert kept.summary()["rows"] == 100
    # The next run has the export to do, and nothing else to tell.
    drifted.run_id = "run-3"
    again = keep_dataset(drifted, DatasetConfig(), NOWHERE)
    assert [error.exit_code for error in again.errors()] == [5]
    assert keep_dataset(drifted, DatasetConfig(), ExportConfig()).errors() == []


def test_a_part_of_the_work_drifts_without_an_error(drifted, keep_dataset, caplog):
    bound = "bounded by --max-images 40: 3 images are left"
    kept = keep_dataset(drifted, DatasetConfig(), ExportConfig(), bound)
    assert kept.errors() == []
    assert kept.summary()["drift"]["labels"]["over"] is True
    assert "dataset.drifted in a part of the work: labels" in caplog.text


def test_a_drift_of_sizes_alone_is_a_warning(world, run, keep_dataset, caplog):
    def photos(hash16, number, name, side, score):
        rows = [row("files:x", i, "cat", score, key=f"{name}{i}", width=side, height=side) for i in range(number)]
        world.publish(hash16 * 16, rows, shard=f"files:{hash16}")

    photos("a", 900, "small", 100, 0.9)
    photos("b", 300, "large", 700, 0.3)
    keep_dataset(run, DatasetConfig(), ExportConfig())
    photos("c", 200, "new", 700, 0.3)
    run.run_id = "run-2"
    assert keep_dataset(run, DatasetConfig(), ExportConfig()).errors() == []
    assert "dataset.sizes_drifted: scores have a stability index of" in caplog.text
    photos("d", 200, "huge", 2000, 0.8)
    run.run_id = "run-3"
    (error,) = keep_dataset(run, DatasetConfig(), ExportConfig()).errors()
    assert "and no earlier image is of the sizes of the new ones" in str(error)


def test_what_is_wrong_is_found_before_the_work(world, run):
    check_dataset(run, DatasetConfig())
    with pytest.raises(ConfigError, match="no class 'cow'"):
        check_dataset(run, DatasetConfig(policy=Policy(classes={"cow": None})))
    world.override("image_id;label\n")
    with pytest.raises(InputError, match="has no column"):
        check_dataset(run, DatasetConfig())


def test_another_version_of_a_data_set_is_found_before_the_work(world, run):
    labels_file(StorePath(world.output, STORE)).put(b"something else")
    with pytest.raises(OutputError, match="is no data set of ours"):
        check_dataset(run, DatasetConfig())


@pytest.mark.parametrize("where", ["between the writes", "in a query"])
def test_a_run_that_is_told_to_stop_in_the_middle_leaves_the_data_set_as_it_was(
    world, run, keep_dataset, where, monkeypatch, signal_handlers
):
    world.publish("a" * 16, [row("files:a", i, "cat") for i in range(60)], shard="files:a")

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    if where == "between the writes":
        run.lease.fence.check = stop
    else:
        real = update._predictions

        def stopped(*arguments):
            for number, batch in enumerate(real(*arguments)):
                if number == 0:
                    stop()
                yield batch

        monkeypatch.setattr(update, "_predictions", stopped)
    with pytest.raises(StoppedError, match="stopped while the data set was updated"):
        keep_dataset(run, DatasetConfig(), ExportConfig())
    assert find_published(StorePath(world.output, STORE)) is None


def test_a_run_that_lost_its_lease_says_that_and_writes_nothing(world, run, keep_dataset):
    world.publish("a" * 16, [row("files:a", 0, "cat")], shard="files:a")

    def lost() -> None:
        raise LeaseLostError("somebody else has it")

    run.lease.check = lost
    with pytest.raises(LeaseLostError):
        keep_dataset(run, DatasetConfig(), ExportConfig())
    assert find_published(StorePath(world.output, STORE)) is None
