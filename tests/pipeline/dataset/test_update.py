"""Updates of a data set from rows, corrections and policies, night after night."""

import errno
import tempfile

import pytest

from pipeline.dataset.dataset_file import find_published, labels_file
from pipeline.dataset.labels import _SORTED
from pipeline.dataset.policy import Policy
from pipeline.dataset.update import DatasetConfig, shards_half_read, update_dataset
from pipeline.errors import ConfigError, InputError, OutputError
from pipeline.store.errors import ChangedError, NotFoundError
from pipeline.store.store_path import StorePath
from tests.pipeline.dataset.conftest import STORE, row, without

TAR = "s3://in/t.tar"


def decided(world):
    return {name: (entry["decision"], entry["reason"], entry["label"]) for name, entry in world.labels().items()}


def kinds(world, run_id):
    return {entry["image_id"].rpartition("/")[2]: entry["change"] for entry in world.changes(run_id)}


def test_rows_are_sorted_by_their_scores_and_failed_ones_stay_failed(labelled):
    update = labelled.update()
    assert decided(labelled) == {
        "0.png": ("accepted", None, "cat"), "1.png": ("review", "score.low", "dog"),
        "t.tar#t0.png": ("accepted", None, "teapot"), "t.tar#t1.png": ("failed", "decode.corrupt", None),
    }  # fmt: skip
    assert update.published.footer.counts == {"rows": 4, "accepted": 2, "review": 1, "dropped": 0, "failed": 1}
    assert [entry["label_source"] for entry in labelled.labels().values()] == ["model", "model", "model", None]


@pytest.mark.parametrize("score", [0.1, 0.5, 0.7, 0.8, 0.9, 0.99])
def test_a_score_at_the_threshold_is_accepted(world, score):
    """Also where the score, of 32 bits, lies a little below the number that was written."""
    world.publish("a" * 16, [row("files:a", 0, "cat", score), row("files:a", 1, "cat", score - 1e-4)], shard="files:a")
    world.update(policy=Policy(accept_score=score))
    assert [entry["decision"] for entry in world.labels().values()] == ["accepted", "review"]


def test_classes_are_mapped_and_dropped_and_have_thresholds_of_their_own(labelled):
    policy = Policy(classes={"cat": "pet", "dog": "pet", "teapot": None}, class_scores={"pet": 0.3})
    labelled.update(policy=policy)
    assert decided(labelled) == {
        "0.png": ("accepted", None, "pet"), "1.png": ("accepted", None, "pet"),
        "t.tar#t0.png": ("dropped", "class.dropped", None), "t.tar#t1.png": ("failed", "decode.corrupt", None),
    }  # fmt: skip
    assert labelled.labels()["t.tar#t0.png"]["model_label"] == "teapot"


def test_classes_without_names_are_called_by_their_numbers(world):
    world.publish("a" * 16, [row("files:a", 0, "dog") | {"label": None}], shard="files:a")
    update_dataset(
        StorePath(world.output, STORE), list(world.files.values()), ("0", "1"), DatasetConfig(), "run-1", lambda: None
    )
    assert world.labels()["0.png"]["label"] == "1"


def test_of_two_attempts_at_one_shard_the_whole_one_counts(labelled):
    """The other one lost its source early, and its file is not emptied yet."""
    labelled.publish("b" * 16, [row(TAR, 0, "teapot", key="t0.png")], shard=TAR, end=False)
    labelled.publish("b" * 16, [row(TAR, 1, "cat", key="t1.png")], shard=TAR, slice_number=1)
    labelled.update()
    assert [labelled.labels()[name]["label"] for name in ("t.tar#t0.png", "t.tar#t1.png")] == ["teapot", "cat"]
    assert len(labelled.labels()) == 4


def test_a_policy_with_a_name_that_there_is_not_changes_nothing(labelled):
    with pytest.raises(ConfigError, match="no class 'cats'"):
        labelled.update(policy=Policy(classes={"cats": None}))
    assert find_published(StorePath(labelled.output, STORE)) is None


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_is_a_failure_and_never_accepted(world, score, caplog):
    """NaN sorts above every number, so it was accepted under any threshold."""
    tar = "s3://in/t.tar"
    world.publish("a" * 16, [row("files:a", 0, "cat", score), row("files:a", 1, "dog")], shard="files:a")
    world.publish("b" * 16, [row(tar, 0, "cat", score, key="t0.png")], shard=tar)
    world.override("image_id,label\ns3://in/t.tar#t0.png,dog\n")
    update = world.update(policy=Policy(accept_score=0.0, class_scores={"cat": 0.0}))
    assert decided(world) == {
        "0.png": ("failed", "infer.not_finite", None), "1.png": ("accepted", None, "dog"),
        "t.tar#t0.png": ("accepted", "override", "dog"),
    }  # fmt: skip
    for name in ("0.png", "t.tar#t0.png"):
        found = world.labels()[name]
        assert (found["score"], found["model_label"], found["error_code"]) == (None, None, "infer.not_finite")
    assert update.not_finite == world.change_summary("run-1")["not_finite"] == 2
    assert "rows.not_finite table=predictions rows=2" in caplog.text


def publish_as_earlier_versions_did(world, monkeypatch, **config):
    """The data set of a version that took NaN for a score above every threshold."""
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.dataset.update.fail_not_finite", lambda database, table: 0)
        patch.setattr("pipeline.dataset.update.forget_not_finite", lambda database: None)
        patch.setattr("pipeline.dataset.dataset_file._RULES", 1)
        patch.setattr("pipeline.dataset.labels._SORTED", _SORTED.replace("isfinite(p.score) AND", ""))
        return world.update(**config)


@pytest.mark.parametrize("shard", ["files:a", "s3://in/t.tar"])
def test_what_an_earlier_version_accepted_is_taken_back_once_and_is_no_drift(world, monkeypatch, shard):
    nan = float("nan")
    bad = [row(shard, i, "cat", nan, key=f"{i}") for i in range(60)]
    good = [row(shard, 60 + i, "dog", 0.95, key=f"{60 + i}") for i in range(60)]
    world.publish("a" * 16, [*bad, *good], shard=shard)
    before = publish_as_earlier_versions_did(world, monkeypatch)
    assert before.published.footer.counts["accepted"] == 120
    more = [row("files:c", i, "dog", 0.95, key=f"c{i}") for i in range(60)]
    world.publish("c" * 16, more, shard="files:c")
    update = world.update()
    assert update.published.footer.counts == {"rows": 180, "accepted": 120, "review": 0, "dropped": 0, "failed": 60}
    counts = {"added": 60, "changed": 0, "removed": 0, "relabelled": 60, "flipped": 0}
    assert dict(update.changes.counts) == counts
    # The drift is that of the rows with a score: as many dogs of the same score as before.
    assert update.changes.over == {}
    assert [drift.psi for drift in update.changes.drift.values()] == [0.0, 0.0]
    assert all(entry["score"] is None or entry["score"] < 1 for entry in world.changes("run-2"))
    again = world.update()
    assert (again.changes, again.not_finite, again.published.etag) == (None, 0, update.published.etag)


def test_a_row_without_a_finite_score_stays_out_while_its_shard_is_read_again(world, monkeypatch):
    world.publish("b" * 16, [row(TAR, 0, "cat", float("nan"), key="t0.png")], shard=TAR)
    publish_as_earlier_versions_did(world, monkeypatch)
    world.publish("b" * 16, [], shard=TAR, etag="e2", emptied=True)
    world.update()
    assert decided(world) == {"t.tar#t0.png": ("failed", "infer.not_finite", None)}


def test_the_same_rows_under_new_rules_are_a_new_version_alone(labelled, monkeypatch):
    first = publish_as_earlier_versions_did(labelled, monkeypatch)
    second = labelled.update()
    assert (second.changes, second.not_finite, second.published.footer.run_id) == (None, 0, "run-1")
    assert first.published.footer.version != second.published.footer.version
    assert labelled.update().published.etag == second.published.etag


def test_corrections_win_over_the_network_and_may_drop_or_label_what_failed(labelled):
    labelled.override(
        "image_id,label\ns3://in/0.png,kettle\ns3://in/1.png,\ns3://in/t.tar#t1.png,dog\ns3://in/gone.png,cat\n"
    )
    update = labelled.update()
    assert decided(labelled) == {
        "0.png": ("accepted", "override", "kettle"), "1.png": ("dropped", "override", None),
        "t.tar#t0.png": ("accepted", None, "teapot"), "t.tar#t1.png": ("accepted", "override", "dog"),
    }  # fmt: skip
    assert labelled.labels()["0.png"]["label_source"] == "human"
    assert (update.corrections.rows, update.corrections.unused) == (4, 1)


def test_the_latest_correction_counts_and_of_equal_ones_the_last(labelled):
    labelled.override(
        "image_id,label,at\n"
        "s3://in/0.png,new,2026-11-27T10:00:00Z\ns3://in/0.png,old,2026-11-26\ns3://in/0.png,undated,\n"
        "s3://in/1.png,first,\ns3://in/1.png,second,\n"
    )
    labelled.update()
    assert [labelled.labels()[name]["label"] for name in ("0.png", "1.png")] == ["new", "second"]


def test_a_correction_of_an_image_that_was_exchanged_stands_but_is_looked_at_again(labelled):
    labelled.override('image_id,label,source_etag\ns3://in/0.png,kettle,e1\ns3://in/1.png,dog,""\n')
    labelled.update()
    labelled.publish(
        "a" * 16, [row("files:a", 0, "dog", etag="e2"), row("files:a", 1, "dog", 0.4, etag="e2")], shard="files:a"
    )
    update = labelled.update()
    assert decided(labelled)["0.png"] == ("review", "override.outdated", "kettle")
    assert decided(labelled)["1.png"] == ("accepted", "override", "dog")
    assert update.corrections.outdated == 1


def tar_rows(etag):
    teapot = row(TAR, 0, "teapot", key="t0.png", etag=etag, encoded_bytes=9)
    return [teapot, row(TAR, 1, "dog", key="t1.png", etag=etag)]


def test_a_tar_that_gained_an_image_keeps_its_corrections_and_is_no_drift(labelled):
    labelled.publish("b" * 16, tar_rows("e1"), shard=TAR, etag="e1")
    labelled.override("image_id,label,source_etag\ns3://in/t.tar#t0.png,kettle,e1\n")
    labelled.update()
    for run, etag in ((2, "e2"), (3, "e3")):
        more = [row(TAR, 1 + n, "cat", key=f"more{n}.png", etag=etag) for n in range(1, run)]
        labelled.publish("b" * 16, [*tar_rows(etag), *more], shard=TAR, etag=etag)
        labelled.update()
        assert decided(labelled)["t.tar#t0.png"] == ("accepted", "override", "kettle")
        assert kinds(labelled, f"run-{run}") == {f"t.tar#more{run - 1}.png": "added"}
    # Now it is another image under the same name.
    rows = tar_rows("e4")
    rows[0]["encoded_bytes"] = 10
    labelled.publish("b" * 16, rows, shard=TAR, etag="e4")
    labelled.update()
    assert decided(labelled)["t.tar#t0.png"] == ("review", "override.outdated", "kettle")


def test_rows_that_were_written_again_and_say_the_same_change_nothing(labelled):
    first = labelled.update()
    rows = [row("files:a", 0, "cat"), row("files:a", 1, "dog", 0.4) | {"error_message": "another nonce"}]
    labelled.publish("a" * 16, rows, shard="files:a")
    again = labelled.update()
    assert again.changes is None
    assert (again.published.footer.run_id, again.published.footer.previous_run_id) == ("run-1", None)
    assert first.published.footer.version != again.published.footer.version
    with pytest.raises(NotFoundError):
        labelled.changes("run-2")
    assert labelled.update().published.etag == again.published.etag


def test_corrections_are_never_written_to(labelled, tmp_path):
    text = "image_id,label\ns3://in/0.png,kettle\n"
    labelled.override(text)
    before = (tmp_path / "out" / "overrides.csv").stat()
    labelled.update()
    labelled.update(policy=Policy(accept_score=0.1))
    after = (tmp_path / "out" / "overrides.csv").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    assert (tmp_path / "out" / "overrides.csv").read_text() == text


def test_the_same_again_is_nothing_to_do(labelled):
    first = labelled.update()
    again = labelled.update()
    assert again.changes is None
    assert again.published.etag == first.published.etag
    assert again.published.footer == first.published.footer


def test_each_run_tells_what_it_changed(labelled):
    labelled.update()
    assert set(kinds(labelled, "run-1").values()) == {"added"}
    labelled.publish(
        "a" * 16,
        [row("files:a", 0, "dog", etag="e2"), row("files:a", 2, "cat")],
        shard="files:a",
    )
    labelled.override("image_id,label\ns3://in/t.tar#t0.png,kettle\n")
    changes = labelled.update().changes
    assert kinds(labelled, "run-2") == {
        "0.png": "changed", "1.png": "removed", "2.png": "added", "t.tar#t0.png": "relabelled",
    }  # fmt: skip
    assert dict(changes.counts) == {"added": 1, "changed": 1, "removed": 1, "relabelled": 1, "flipped": 2}
    flipped = {entry["image_id"]: (entry["label_before"], entry["label"]) for entry in labelled.changes("run-2")}
    assert flipped["s3://in/0.png"] == ("cat", "dog")
    assert flipped["s3://in/t.tar#t0.png"] == ("teapot", "kettle")
    assert changes.classes == {
        "cat": {"before": 1, "now": 1, "gained": 1, "lost": 1}, "dog": {"before": 1, "now": 1, "gained": 1, "lost": 1},
        "kettle": {"before": 0, "now": 1, "gained": 1, "lost": 0},
        "teapot": {"before": 1, "now": 0, "gained": 0, "lost": 1},
    }  # fmt: skip
    summary = labelled.change_summary("run-2")
    assert (summary["previous_run_id"], summary["before"]["rows"], summary["now"]["rows"]) == ("run-1", 4, 4)
    assert [summary[kind] for kind in ("added", "changed", "removed", "relabelled")] == [1, 1, 1, 1]


def test_a_row_says_which_run_decided_on_it_last(labelled):
    labelled.update()
    labelled.update(policy=Policy(accept_score=0.1))
    runs = {name: entry["changed_run"] for name, entry in labelled.labels().items()}
    assert runs == {"0.png": "run-1", "1.png": "run-2", "t.tar#t0.png": "run-1", "t.tar#t1.png": "run-1"}


class KilledError(Exception):
    """The process is gone."""


@pytest.mark.parametrize("writes", [0, 1])
def test_a_run_that_dies_before_the_data_set_is_exchanged_leaves_it_and_the_next_log_tells_all(labelled, writes):
    """Before its log, or between the log and the data set."""
    labelled.update()
    labelled.publish("c" * 16, [row("files:c", 0, "cat", key="new.png")], shard="files:c")
    calls = iter(range(10))

    def die() -> None:
        if next(calls) == writes:
            raise KilledError

    with pytest.raises(KilledError):
        labelled.update(check_right=die)
    assert "new.png" not in labelled.labels()
    labelled.update()
    assert kinds(labelled, "run-3") == {"new.png": "added"}
    assert labelled.change_summary("run-3")["previous_run_id"] == "run-1"


def test_a_data_set_that_somebody_exchanged_meanwhile_is_not_overwritten(labelled):
    labelled.update()
    file = labels_file(StorePath(labelled.output, STORE))
    labelled.publish("c" * 16, [row("files:c", 0, "cat", key="new.png")], shard="files:c")
    calls = []

    def interfere() -> None:
        calls.append(1)
        if len(calls) == 2:
            file.put(b"another")

    with pytest.raises(OutputError, match="was exchanged meanwhile"):
        labelled.update(check_right=interfere)
    with pytest.raises(OutputError, match="no data set of ours"):
        labelled.update()


def test_a_run_id_tells_one_log(labelled):
    labelled.update(run_id="tonight")
    with pytest.raises(OutputError, match="--run-id tonight was used before"):
        labelled.update(run_id="tonight", policy=Policy(accept_score=0.1))


def test_rows_of_an_object_that_is_being_read_again_are_not_gone(labelled):
    labelled.update()
    # Its file was emptied for the new version, of which the first slice is there.
    labelled.publish("b" * 16, [], shard=TAR, etag="e2", emptied=True)
    labelled.publish("b" * 16, [row(TAR, 0, "dog", key="t0.png", etag="e2")], shard=TAR, etag="e2", end=False)
    changes = labelled.update().changes
    assert (changes.counts["removed"], changes.counts["changed"]) == (0, 1)
    assert labelled.labels()["t.tar#t1.png"]["decision"] == "failed"
    # Now it is whole, and has one image fewer.
    labelled.publish("b" * 16, [], shard=TAR, etag="e2", slice_number=1)
    changes = labelled.update().changes
    assert (changes.counts["removed"], list(kinds(labelled, "run-3"))) == (1, ["t.tar#t1.png"])


def test_corrections_reach_rows_of_an_object_that_is_being_read_again(labelled):
    labelled.update()
    labelled.publish("b" * 16, [], shard=TAR, etag="e2", emptied=True)
    labelled.override("image_id,label\ns3://in/t.tar#t0.png,kettle\n")
    update = labelled.update()
    assert decided(labelled)["t.tar#t0.png"] == ("accepted", "override", "kettle")
    assert update.corrections.unused == 0


def test_an_image_with_two_rows_has_one_in_the_data_set_for_good(labelled, caplog):
    """Two files of an output may claim an image until the next plan settles it."""
    labelled.publish("d" * 16, [row("files:d", 0, "dog", key="0.png")], shard="files:d")
    for _ in range(2):
        labelled.update(policy=Policy(accept_score=0.1 * labelled.runs))
        assert len(labelled.labels()) == 4
    assert "rows.doubled table=predictions rows=1" in caplog.text


def test_what_is_wrong_with_a_file_of_corrections_is_told_as_it_is(labelled):
    labelled.override("image_id,label,at\ns3://in/0.png,cat,soon\n")
    with pytest.raises(InputError, match="at='soon' is no time"):
        labelled.update()


def test_a_file_of_rows_that_changed_meanwhile_is_told_as_it_is(labelled):
    (name, *_) = labelled.files
    StorePath(f"{labelled.output}/data/{name}", STORE).put(b"another")
    with pytest.raises(ChangedError):
        labelled.update()


def test_a_full_disk_costs_no_row(labelled, monkeypatch):
    """What was tried there is made again in memory, from the first row on."""
    real = tempfile.TemporaryFile

    class Full:
        def __init__(self):
            self._file = real()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, data):
            if self._file.tell() > 100:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self._file.write(data)

        def __getattr__(self, name):
            return getattr(self._file, name)

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    update = labelled.update()
    assert len(labelled.labels()) == len(labelled.changes("run-1")) == update.published.footer.counts["rows"] == 4


def test_an_object_whose_files_none_may_fill_again_is_gone(labelled):
    labelled.publish("b" * 16, [], shard=TAR, etag=None, emptied=True)
    assert shards_half_read(labelled.files.values()) == []
    labelled.update()
    assert set(labelled.labels()) == {"0.png", "1.png"}


def test_a_class_keeps_its_number_when_others_come(labelled):
    labelled.update()
    labelled.override("image_id,label\ns3://in/0.png,aardvark\n")
    assert labelled.update().published.footer.classes == ("cat", "dog", "teapot", "aardvark")
    policy = Policy(classes={"cat": None, "teapot": "kettle"})
    assert labelled.update(policy=policy).published.footer.classes == ("cat", "dog", "teapot", "aardvark", "kettle")


def test_drift_is_between_what_came_now_and_all_that_was_there(world):
    world.publish("a" * 16, [row("files:a", i, "cat") for i in range(60)], shard="files:a")
    assert world.update().changes.drift == {"labels": None, "scores": None}
    world.publish("c" * 16, [row("files:c", i, "cat", key=f"c{i}") for i in range(40)], shard="files:c")
    assert world.update().changes.over == {}
    world.publish("d" * 16, [row("files:d", i, "dog", 0.3, key=f"d{i}") for i in range(40)], shard="files:d")
    over = world.update().changes.over
    assert set(over) == {"labels", "scores"}
    assert over["labels"].moved == (("dog", 0.0, 1.0), ("cat", 1.0, 0.0))
    assert over["scores"].moved == (("0.3-0.4", 0.0, 1.0), ("0.9-1.0", 1.0, 0.0))
    assert world.change_summary("run-3")["drift"]["labels"]["over"] is True


def test_larger_images_of_the_same_classes_are_no_other_classes(world):
    """Large photos get low scores; now most photos are large."""

    def some(number, name, width, score, label="cat"):
        return [row("files:x", i, label, score, key=f"{name}{i}", width=width, height=width) for i in range(number)]

    rows = [*some(900, "small", 100, 0.9), *some(300, "large", 700, 0.3)]
    world.publish("a" * 16, [{**one, "row": i} for i, one in enumerate(rows)], shard="files:x")
    world.update()
    world.publish("c" * 16, some(200, "new", 700, 0.3), shard="files:c")
    changes = world.update().changes
    assert changes.drift["scores"].is_over
    assert (changes.over, set(changes.of_sizes_alone)) == ({}, {"scores"})
    summary = world.change_summary("run-2")
    assert summary["drift_within_sizes"]["scores"]["compared"] == 1.0
    assert summary["drift_within_sizes"]["scores"]["psi"] < 0.1
    world.publish("d" * 16, some(200, "dog", 700, 0.3, "dog"), shard="files:d")
    assert set(world.update().changes.over) == {"labels"}


def test_images_that_failed_at_first_are_compared_when_they_succeed(world):
    world.publish("a" * 16, [row("files:a", i, "cat") for i in range(60)], shard="files:a")
    world.publish("c" * 16, [row("files:c", i, None, key=f"c{i}") for i in range(40)], shard="files:c")
    world.update()
    world.publish("c" * 16, [row("files:c", i, "dog", key=f"c{i}") for i in range(40)], shard="files:c")
    assert world.update().changes.over["labels"].moved[0] == ("dog", 0.0, 1.0)


def test_corrections_and_policies_are_no_drift(world):
    world.publish("a" * 16, [row("files:a", i, "cat") for i in range(60)], shard="files:a")
    world.update()
    changes = world.update(policy=Policy(classes={"cat": "feline"})).changes
    assert (changes.counts["relabelled"], changes.drift) == (60, {"labels": None, "scores": None})


def test_an_output_without_rows_has_an_empty_data_set(labelled):
    empty = without(without(labelled, "a" * 16), "b" * 16)
    assert empty.update().published.footer.counts["rows"] == 0


def test_names_of_any_kind_are_values_and_nothing_else(world):
    name = "a'); DROP TABLE labels; --\n\"é.png"
    world.publish("a" * 16, [row("files:a", 0, "cat", key=name)], shard="files:a")
    world.override("image_id,label\n" + '"s3://in/' + name.replace('"', '""') + '","x\'); DROP TABLE labels"\n')
    world.update()
    assert world.labels()[name]["label"] == "x'); DROP TABLE labels"
