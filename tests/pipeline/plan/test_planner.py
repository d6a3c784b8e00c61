"""Planning is a function of listings: these tests make the listings and the published files themselves."""

import io
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.account.totals import Totals
from pipeline.inputs.config import InputConfig
from pipeline.inputs.listing import Found
from pipeline.output.footer import Footer
from pipeline.output.layout import SliceName, version_of
from pipeline.output.published import OutputRow, PublishedFile
from pipeline.output.slice_chain import DoneSlice
from pipeline.plan.plan_file import OwnGroups, PlanFile, read_plan
from pipeline.plan.planner import Planner, PlanOptions
from pipeline.store.object_info import ObjectInfo

ROOT = "s3://bucket/in"


def loose(*names, etag="e1", etags=None, at=0.0):
    return [
        Found(
            ObjectInfo(f"{ROOT}/{name}", 10, (etags or {}).get(name, etag), at),
            ROOT,
            name,
            "files",
            (PurePosixPath(name).parts[:-1] or (None,))[-1],
        )
        for name in names
    ]


def tar(name, etag="e1", at=0.0):
    return Found(ObjectInfo(f"{ROOT}/{name}", 1000, etag, at), ROOT, name, "tar", None)


def published(shard, rows_per_slice, ended=True, etag=None, pruned=(), codes=None, emptied=False):
    """The files of a shard as a run would have published them; `codes` are failed records by slice."""
    files = []
    row = 0
    for number, rows in enumerate(rows_per_slice):
        end = ended and number == len(rows_per_slice) - 1
        there = [r for r in range(row, row + rows) if r not in pruned]
        version = etag or shard.etag or version_of((shard.members[r].uri, shard.members[r].etag) for r in there)
        failed = (codes or {}).get(number, {})
        footer = Footer(
            shard=shard.shard, hash16=shard.hash16, slice=number, end=end, source_etag=version, first_row=row,
            last_row=row + rows - 1, identity="i", run_id="r", attempt="a", nonce="n", emptied=emptied,
            pruned=tuple(r for r in range(row, row + rows) if r in pruned),
            totals=Totals(
                listed=len(there), ok=len(there) - sum(failed.values()), failed=sum(failed.values()),
                failed_by_code=failed, files=1,
            ),
        )  # fmt: skip
        name = str(SliceName(shard.name, shard.hash16, number, end))
        files.append(PublishedFile.of(name, f"file-etag-{number}", footer))
        row += rows
    return files


class Planned:
    """A plan that was made, with what the planner looked into on the way."""

    def __init__(self, found, files=(), earlier=(), *, limit=None, rows_per_file=4, count=None, rows=(), **options):
        self.looked: list[str] = []
        planner = Planner(
            sorted(found, key=lambda entry: entry.info.uri),
            list(files),
            [[shard for shard in plan if shard.members and not shard.known] for plan in earlier],
            InputConfig(uris=(ROOT,), limit=limit),
            PlanOptions(rows_per_file=rows_per_file, **options),
            count or (lambda found, at_most: at_most),
            lambda file: self._look(file, rows),
        )
        if limit is not None:
            planner.deduct_planned(shard for plan in earlier for shard in plan)
        if options.get("since_s") is not None:
            planner.note_begun(shard.hash16 for plan in earlier for shard in plan if not shard.members)
        self.shards = list(planner.shards())
        self.summary = planner.summary

    def _look(self, file, rows):
        self.looked.append(file.file)
        return [row for row in rows if file.first_row <= row.row <= file.last_row]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr("pipeline.plan.planner._GROUP_FILES", 1)


def keys(shard):
    return [member.key for member in shard.members]


# New.


def test_a_group_holds_as_many_whole_slices_as_are_worth_a_read_task(monkeypatch):
    monkeypatch.setattr("pipeline.plan.planner._GROUP_FILES", 11)
    shards = Planned(loose(*(f"{i:02d}.jpg" for i in range(25)))).shards
    assert [shard.num_records for shard in shards] == [8, 8, 8, 1]


def test_loose_files_are_grouped_and_keep_their_order():
    shards = Planned(loose(*(f"{i:02d}.jpg" for i in range(10)))).shards
    assert [shard.num_records for shard in shards] == [4, 4, 2]
    assert [key for shard in shards for key in keys(shard)] == [f"{i:02d}.jpg" for i in range(10)]
    assert {shard.action for shard in shards} == {"new"}


def test_a_key_that_repeats_in_a_group_gets_its_row():
    other = Found(ObjectInfo("s3://bucket/else/a.jpg", 1, "e"), "s3://bucket/else", "a.jpg", "files", None)
    (shard,) = Planned([*loose("a.jpg"), other]).shards
    assert keys(shard) == ["a.jpg", "a.jpg@1"]


def test_a_plan_of_any_length_survives_its_file(monkeypatch):
    monkeypatch.setattr("pipeline.plan.plan_file._GROUP_SHARDS", 2)
    shards = Planned([*loose("c/a.jpg", "c/b.jpg"), *(tar(f"{i}.tar") for i in range(7))]).shards
    file = PlanFile(shards)
    assert list(file) == shards
    assert list(read_plan(io.BytesIO(file.to_bytes()))) == shards


def test_of_earlier_plans_only_the_groups_that_they_made_themselves_are_kept(monkeypatch):
    """Each run that was killed left a plan that repeats all groups, and the next one held them all."""
    monkeypatch.setattr("pipeline.plan.plan_file._GROUP_SHARDS", 2)
    first = Planned([*loose(*(f"{i:02d}.jpg" for i in range(12))), tar("x.tar")]).shards
    second = Planned([*loose(*(f"{i:02d}.jpg" for i in range(13))), tar("x.tar")], earlier=[first]).shards
    third = Planned([*loose(*(f"{i:02d}.jpg" for i in range(13))), tar("x.tar")], earlier=[first, second]).shards
    assert [[shard.known for shard in plan] for plan in (first, second, third)] == [
        [False, False, False, False], [True, True, True, False, False], [True, True, True, True, False],
    ]  # fmt: skip
    groups = OwnGroups(io.BytesIO(PlanFile(plan).to_bytes()) for plan in (first, second, third)).by_plan()
    assert [list(plan) for plan in groups] == [first[:3], second[-1:], []]


# Begun.


def test_a_complete_shard_is_not_planned_again():
    first = Planned([tar("x.tar")]).shards
    again = Planned([tar("x.tar")], published(first[0], [4, 2]), [first])
    assert (again.shards, again.summary.complete_shards, again.looked) == ([], 1, [])


def test_a_shard_with_missing_slices_is_continued_with_what_is_done():
    first = Planned([tar("x.tar")]).shards
    files = published(first[0], [4, 4, 1])
    again = Planned([tar("x.tar")], [files[0], files[2]], [first])
    assert again.shards[0].action == "continue"
    assert again.shards[0].done == (DoneSlice(0, 0, 3), DoneSlice(2, 8, 8))
    assert again.summary.continued_shards == 1


def test_files_added_later_never_move_a_file_to_another_group():
    first = Planned(loose("b.jpg", "d.jpg")).shards
    later = Planned(loose("a.jpg", "b.jpg", "c.jpg", "d.jpg"), published(first[0], [2]), [first])
    assert [keys(shard) for shard in later.shards] == [["a.jpg", "c.jpg"]]
    assert later.summary.complete_shards == 1


def test_a_group_that_was_planned_but_not_published_is_finished_under_its_own_name():
    first = Planned(loose("b.jpg", "d.jpg")).shards
    later = Planned(loose("a.jpg", "b.jpg", "d.jpg"), [], [first])
    assert {(shard.hash16, shard.known) for shard in later.shards if shard.hash16 == first[0].hash16} == {
        (first[0].hash16, True)
    }
    assert sorted(map(keys, later.shards)) == [["a.jpg"], ["b.jpg", "d.jpg"]]


def test_a_file_that_two_plans_grouped_has_its_row_in_the_older_group():
    first, second = Planned(loose("a.jpg", "b.jpg")).shards, Planned(loose("b.jpg", "c.jpg")).shards
    both = Planned(loose("a.jpg", "b.jpg", "c.jpg"), [], [first, second])
    assert {tuple(keys(shard)): shard.pruned for shard in both.shards} == {
        ("a.jpg", "b.jpg"): (), ("b.jpg", "c.jpg"): (0,),
    }  # fmt: skip
    files = [*published(first[0], [2]), *published(second[0], [2])]
    (rewritten,) = Planned(loose("a.jpg", "b.jpg", "c.jpg"), files, [first, second]).shards
    assert (keys(rewritten), rewritten.rewrites[0].pruned) == (["b.jpg", "c.jpg"], (0,))


# Changed.


def test_the_old_slices_of_a_changed_object_are_emptied_for_the_new_version_and_it_is_read_again():
    first = Planned([tar("x.tar")]).shards
    files = published(first[0], [4, 2])
    again = Planned([tar("x.tar", "e2")], files, [first])
    (shard,) = again.shards
    assert (shard.action, shard.etag, shard.done) == ("replace", "e2", ())
    assert [(entry.file.file, entry.awaits) for entry in again.summary.emptied] == [(f.file, "e2") for f in files]
    assert again.summary.changed_shards == 1


def test_a_slice_of_an_older_version_that_came_late_is_emptied_and_nothing_is_read():
    (old,), (new,) = Planned([tar("x.tar")]).shards, Planned([tar("x.tar", "e2")]).shards
    late = published(old, [4, 4, 4, 4])[2]
    again = Planned([tar("x.tar", "e2")], [*published(new, [4, 3]), late])
    assert (again.shards, [entry.file for entry in again.summary.emptied]) == ([], [late])


def test_an_emptied_slice_does_not_count_as_published():
    (shard,) = Planned([tar("x.tar", "e2")]).shards
    emptied = published(shard, [4, 4], emptied=True)
    (again,) = Planned([tar("x.tar", "e2")], emptied).shards
    assert (again.action, again.done) == ("new", ())
    third = Planned([tar("x.tar", "e3")], emptied)
    assert [entry.awaits for entry in third.summary.emptied] == ["e3", "e3"]


def test_a_changed_loose_file_is_the_only_one_read_again():
    first = Planned(loose("a.jpg", "b.jpg", "c.jpg", "d.jpg"), rows_per_file=2).shards
    groups = [first[0], first[1]]
    files = [*published(groups[0], [2]), *published(groups[1], [2])]
    rows = [OutputRow(0, "c.jpg", "e1", None), OutputRow(1, "d.jpg", "e1", None)]
    again = Planned(
        loose("a.jpg", "b.jpg", "c.jpg", "d.jpg", etags={"d.jpg": "e2"}), files, [first], rows=rows, rows_per_file=2
    )
    (shard,) = again.shards
    (rewrite,) = shard.rewrites
    assert (shard.action, rewrite.redo, rewrite.pruned, rewrite.file_etag) == ("rewrite", (1,), (), "file-etag-0")
    assert shard.members[1].etag == "e2"
    assert again.looked == [files[1].file]
    assert again.summary.changed_shards == 1


# Gone.


def test_what_is_gone_is_counted_and_stays_unless_it_is_to_be_pruned():
    first = Planned([*loose("a.jpg", "b.jpg"), tar("x.tar")]).shards
    group = next(shard for shard in first if shard.members)
    object_shard = next(shard for shard in first if not shard.members)
    files = [*published(group, [2]), *published(object_shard, [3])]
    rows = [OutputRow(0, "a.jpg", "e1", None), OutputRow(1, "b.jpg", "e1", None)]
    again = Planned(loose("a.jpg"), files, [first], rows=rows)
    assert (again.shards, again.summary.removed_records, again.summary.pruned_records) == ([], 4, 0)
    pruned = Planned(loose("a.jpg"), files, [first], rows=rows, prune=True)
    (shard,) = pruned.shards
    assert [(rewrite.redo, rewrite.pruned) for rewrite in shard.rewrites] == [((), (1,))]
    assert [(entry.file, entry.awaits) for entry in pruned.summary.emptied] == [(files[1], None)]
    assert pruned.summary.pruned_records == 4


def test_files_that_wait_for_a_version_of_an_object_that_is_gone_wait_no_longer_once_it_is_pruned():
    (shard,) = Planned([tar("x.tar", "e1")]).shards
    waiting = published(shard, [4, 4], etag="e2", emptied=True)
    assert Planned(loose("a.jpg"), waiting).summary.emptied == []
    pruned = Planned(loose("a.jpg"), waiting, prune=True).summary
    assert [(entry.file, entry.awaits) for entry in pruned.emptied] == [(file, None) for file in waiting]
    assert pruned.pruned_records == 0


def test_a_pruned_file_that_is_back_gets_its_row_again():
    first = Planned(loose("a.jpg", "b.jpg")).shards
    files = published(first[0], [2], pruned=(1,))
    gone = Planned(loose("a.jpg"), files, [first])
    assert (gone.shards, gone.summary.removed_records) == ([], 0)
    (back,) = Planned(loose("a.jpg", "b.jpg"), files, [first]).shards
    assert [(rewrite.redo, rewrite.pruned) for rewrite in back.rewrites] == [((1,), ())]


def test_a_group_that_is_not_published_and_lost_a_file_keeps_its_bounds():
    first = Planned(loose("a.jpg", "b.jpg", "c.jpg")).shards
    (kept,) = Planned(loose("a.jpg", "c.jpg"), [], [first]).shards
    assert ([member.etag for member in kept.members], kept.pruned) == (["e1", None, "e1"], ())
    (pruned,) = Planned(loose("a.jpg", "c.jpg"), [], [first], prune=True).shards
    assert (keys(pruned), pruned.pruned, pruned.num_todo) == (["a.jpg", "b.jpg", "c.jpg"], (1,), 2)


def test_what_lies_outside_the_inputs_of_this_run_is_left_alone():
    elsewhere = Found(ObjectInfo("s3://other/x.tar", 10, "e1"), "s3://other", "x.tar", "tar", None)
    file = Found(ObjectInfo("s3://other/a.jpg", 10, "e1"), "s3://other", "a.jpg", "files", None)
    first = Planned([elsewhere, file]).shards
    files = [entry for shard in first for entry in published(shard, [1], ended=shard.format == "tar")]
    again = Planned(loose("b.jpg"), files, [first], prune=True)
    assert [keys(shard) for shard in again.shards] == [["b.jpg"]]
    assert (again.summary.removed_records, again.summary.emptied) == (0, [])


# Tried again.


def test_failed_records_are_tried_again_by_code():
    first = Planned([tar("x.tar")]).shards
    codes = {0: {"decode.corrupt": 1}, 1: {"infer.out_of_memory": 1}}
    files = published(first[0], [4, 2], codes=codes)
    rows = [OutputRow(2, "c", "e1", "decode.corrupt"), OutputRow(4, "e", "e1", "infer.out_of_memory")]
    assert Planned([tar("x.tar")], files, [first], rows=rows).shards == []
    one = Planned([tar("x.tar")], files, [first], rows=rows, retry_codes=frozenset({"infer.out_of_memory"}))
    assert [(r.slice, r.redo) for r in one.shards[0].rewrites] == [(1, (4,))]
    assert (one.shards[0].action, one.looked, one.summary.retried_records) == ("rewrite", [files[1].file] * 2, 1)
    every = Planned([tar("x.tar")], files, [first], rows=rows, retry_codes=frozenset())
    assert [r.redo for r in every.shards[0].rewrites] == [(2,), (4,)]


def test_the_lost_end_of_an_object_is_read_again_as_a_whole():
    first = Planned([tar("x.tar")]).shards
    files = published(first[0], [4, 3], codes={1: {"source.unreadable": 1}})
    rows = [OutputRow(6, None, "e1", "source.unreadable")]
    again = Planned([tar("x.tar")], files, [first], rows=rows, retry_codes=frozenset({"source.unreadable"}))
    (shard,) = again.shards
    assert (shard.action, shard.done, shard.rewrites) == ("continue", (DoneSlice(0, 0, 3),), ())
    assert [(entry.file, entry.awaits) for entry in again.summary.emptied] == [(files[1], "e1")]


def test_failed_loose_files_are_tried_again():
    first = Planned(loose("a.jpg", "b.jpg")).shards
    files = published(first[0], [2], codes={0: {"source.unreadable": 1}})
    rows = [OutputRow(0, "a.jpg", "e1", None), OutputRow(1, "b.jpg", "e1", "source.unreadable")]
    again = Planned(loose("a.jpg", "b.jpg"), files, [first], rows=rows, retry_codes=frozenset())
    assert again.shards[0].rewrites[0].redo == (1,)


# Limited.


def test_a_limit_takes_the_first_records_of_loose_files_and_of_tars():
    counts = {"x.tar": 7, "y.tar": 9}
    found = [tar("x.tar"), tar("y.tar"), *loose("z.jpg")]
    limited = Planned(found, limit=10, count=lambda found, at_most: min(counts[found.name], at_most))
    assert [(shard.name, shard.num_records) for shard in limited.shards] == [("x", 7), ("y", 3)]


def test_a_limit_is_not_spent_twice():
    first = Planned(loose("a.jpg", "b.jpg", "c.jpg"), limit=2).shards
    assert Planned(loose("a.jpg", "b.jpg", "c.jpg"), published(first[0], [2]), [first], limit=2).shards == []
    counted = Planned([tar("x.tar")], limit=3).shards
    (again,) = Planned([tar("a.tar"), tar("x.tar")], [], [counted], limit=3).shards
    assert (again.name, again.num_records) == ("x", 3)


# Bounded by time.


def test_what_is_older_and_unknown_is_counted_and_left_for_a_run_that_takes_everything():
    found = [*loose("a.jpg", at=4.0), *loose("b.jpg", at=5.0), tar("x.tar", at=4.0), tar("y.tar", at=6.0)]
    bounded = Planned(found, since_s=5.0)
    assert [(shard.name, keys(shard)) for shard in bounded.shards] == [("y", []), ("in", ["b.jpg"])]
    assert (bounded.summary.older_objects, bounded.summary.removed_records) == (2, 0)
    files = [file for shard in bounded.shards for file in published(shard, [1])]
    assert (Planned(found, files, [bounded.shards], since_s=5.0)).shards == []
    everything = Planned(found, files, [bounded.shards])
    assert [(shard.name, keys(shard)) for shard in everything.shards] == [("x", []), ("in", ["a.jpg"])]
    assert everything.summary.older_objects == 0


def test_what_is_known_is_treated_as_ever_however_old_it_is():
    """Continued, read again when it changed, and not taken for gone."""
    old = [*loose("a.jpg", "b.jpg"), tar("x.tar"), tar("y.tar"), tar("z.tar")]
    first = Planned(old).shards
    x, y, _, group = first
    files = [*published(group, [2]), *published(x, [4, 2])[:1], *published(y, [3])]
    rows = [OutputRow(0, "a.jpg", "e1", None), OutputRow(1, "b.jpg", "e1", None)]
    now = [*loose("a.jpg", "b.jpg", etags={"b.jpg": "e2"}), tar("x.tar"), tar("y.tar", "e2"), tar("z.tar")]
    again = Planned(now, files, [first], since_s=5.0, prune=True, rows=rows)
    assert [(shard.name, shard.action) for shard in again.shards] == [
        ("in", "rewrite"), ("x", "continue"), ("y", "replace"), ("z", "new"),
    ]  # fmt: skip
    summary = again.summary
    assert (summary.older_objects, summary.removed_records, summary.pruned_records) == (0, 0, 0)


def test_what_is_older_takes_nothing_of_a_limit():
    found = [*loose("a.jpg", "b.jpg"), *loose("c.jpg", "d.jpg", "e.jpg", at=9.0)]
    (shard,) = Planned(found, since_s=5.0, limit=2).shards
    assert keys(shard) == ["c.jpg", "d.jpg"]


# Bounded by a number.


def left(planned):
    return planned.summary.postponed_images, planned.summary.postponed_shards


def counted(**records):
    return lambda found, at_most: min(records[found.name.removesuffix(".tar")], at_most)


def test_loose_files_are_cut_exactly_and_the_next_runs_go_on():
    found = loose(*(f"{i:02d}.jpg" for i in range(10)))
    earlier, files, sizes = [], [], []
    while len(sizes) < 9:
        tonight = Planned(found, files, earlier, max_images=6)
        sizes.append(([shard.num_records for shard in tonight.shards], *left(tonight)))
        earlier.append(tonight.shards)
        files += [file for shard in tonight.shards for file in published(shard, [shard.num_records])]
        if not tonight.shards:
            break
    assert sizes == [([4, 2], 4, 0), ([4], 0, 0), ([], 0, 0)]


def test_a_bound_that_is_not_reached_changes_nothing():
    found = [*loose("a.jpg", "b.jpg"), tar("x.tar")]
    bounded = Planned(found, max_images=5, count=counted(x=3))
    assert (bounded.shards, left(bounded)) == (Planned(found).shards, (0, 0))


def test_a_group_that_was_begun_is_taken_whole_and_as_long_as_there_is_work_something_is():
    first = Planned(loose("b.jpg", "d.jpg", "f.jpg")).shards
    again = Planned(loose("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"), [], [first], max_images=3)
    # a, c and e are met before the last of the group is.
    assert [keys(shard) for shard in again.shards] == [["a.jpg", "c.jpg", "e.jpg"]]
    assert left(again) == (3, 0)
    again = Planned(loose("a.jpg", "b.jpg", "d.jpg", "f.jpg", "g.jpg"), [], [first], max_images=2)
    assert [keys(shard) for shard in again.shards] == [["b.jpg", "d.jpg", "f.jpg"], ["a.jpg"]]
    assert left(again) == (1, 0)


def test_tars_are_taken_whole_and_counted_as_far_as_it_matters():
    asked = []

    def count(found, at_most):
        asked.append((found.name, at_most))
        return min({"w.tar": 0, "x.tar": 4, "y.tar": 70}[found.name], at_most)

    found = [tar("w.tar"), tar("x.tar"), tar("y.tar"), tar("z.tar"), *loose("zz.jpg")]
    bounded = Planned(found, max_images=10, count=count)
    assert [(shard.name, shard.num_records) for shard in bounded.shards] == [("w", None), ("x", None), ("y", None)]
    assert asked == [("w.tar", 10), ("x.tar", 10), ("y.tar", 6)]
    assert left(bounded) == (1, 1)


def test_of_a_tar_that_was_begun_only_what_is_missing_counts():
    (shard,) = Planned([tar("x.tar")]).shards
    begun = published(shard, [4, 4, 2])[:2]
    again = Planned([tar("x.tar"), *loose("y.jpg", "z.jpg")], begun, max_images=3, count=counted(x=10))
    assert [(shard.name, shard.action, keys(shard)) for shard in again.shards] == [
        ("x", "continue", []), ("in", "new", ["y.jpg"]),
    ]  # fmt: skip


def test_a_changed_tar_keeps_its_rows_until_the_run_that_reads_it_again():
    first = Planned([tar("x.tar"), tar("y.tar")]).shards
    files = [file for shard in first for file in published(shard, [4])]
    changed = [tar("x.tar", "e2"), tar("y.tar", "e2")]
    tonight = Planned(changed, files, [first], max_images=2, count=counted(x=3))
    assert [(shard.name, shard.action) for shard in tonight.shards] == [("x", "replace")]
    assert [entry.file for entry in tonight.summary.emptied] == files[:1]
    assert (left(tonight), tonight.summary.changed_shards) == ((0, 1), 1)
    written = [*published(tonight.shards[0], [3]), files[1]]
    tomorrow = Planned(changed, written, [first, tonight.shards], max_images=2, count=counted(y=3))
    assert [(shard.name, shard.action) for shard in tomorrow.shards] == [("y", "replace")]
    assert [entry.file for entry in tomorrow.summary.emptied] == files[1:]
    assert left(tomorrow) == (0, 0)


def test_an_older_slice_that_came_late_beside_rows_of_this_version_is_emptied_though_the_rest_is_postponed():
    (old,), (new,) = Planned([tar("x.tar")]).shards, Planned([tar("x.tar", "e2")]).shards
    late, begun = published(old, [4, 4, 4])[2], published(new, [4, 4])[0]
    tonight = Planned([*loose("a.jpg"), tar("x.tar", "e2")], [begun, late], max_images=1)
    assert [keys(shard) for shard in tonight.shards] == [["a.jpg"]]
    assert ([entry.file for entry in tonight.summary.emptied], left(tonight)) == ([late], (0, 1))


def test_rewrites_count_by_the_rows_that_changed_and_not_by_those_that_are_tried_again():
    first = Planned([*loose("a.jpg", "b.jpg", "c.jpg", "d.jpg"), tar("x.tar"), tar("y.tar")]).shards
    group, x, y = first
    codes = {0: {"decode.corrupt": 2}}
    files = [*published(group, [4]), *published(x, [4], codes=codes), *published(y, [4], codes=codes)]
    rows = [OutputRow(row, key, "e1", "decode.corrupt" if row > 1 else None) for row, key in enumerate("abcd")]
    now = [*loose("a.jpg", "b.jpg", "c.jpg", "d.jpg", etags={"b.jpg": "e2"}), tar("x.tar"), tar("y.tar")]
    # b changed, and two records of each have failed.
    tonight = Planned(now, files, [first], rows=rows, retry_codes=frozenset(), max_images=2)
    assert [(shard.name, shard.num_todo) for shard in tonight.shards] == [("in", 3), ("x", 2), ("y", 2)]
    tonight = Planned(now, files, [first], rows=rows, retry_codes=frozenset(), max_images=1)
    assert [(shard.name, shard.num_todo) for shard in tonight.shards] == [("in", 3)]
    assert (left(tonight), tonight.summary.retried_records) == ((4, 0), 2)


def test_the_lost_end_of_an_object_stays_until_the_run_that_reads_it_again():
    first = Planned([tar("x.tar")]).shards
    files = published(first[0], [4, 3], codes={1: {"source.unreadable": 1}})
    rows = [OutputRow(6, None, "e1", "source.unreadable")]
    tonight = Planned([*loose("a.jpg"), tar("x.tar")], files, [first], rows=rows, retry_codes=frozenset(), max_images=1)
    assert [keys(shard) for shard in tonight.shards] == [["a.jpg"]]
    assert (tonight.summary.emptied, tonight.summary.retried_records, left(tonight)) == ([], 0, (0, 1))


def test_rows_of_what_is_gone_are_taken_out_without_a_bound():
    first = Planned([*loose("a.jpg", "b.jpg", "c.jpg", "d.jpg"), tar("x.tar")]).shards
    group, x = first
    files = [*published(group, [4], pruned=(3,)), *published(x, [3])]
    rows = [OutputRow(row, key, "e1", None) for row, key in enumerate(("a.jpg", "b.jpg", "c.jpg"))]
    now = loose("0.jpg", "b.jpg", "c.jpg", "d.jpg", etags={"b.jpg": "e2"})
    tonight = Planned(now, files, [first], rows=rows, prune=True, max_images=1)
    pruned, new = tonight.shards
    assert keys(new) == ["0.jpg"]
    # b changed and d is back, for the next run; a goes now.
    assert [(rewrite.redo, rewrite.pruned) for rewrite in pruned.rewrites] == [((), (0, 3))]
    assert [entry.file for entry in tonight.summary.emptied] == files[1:]
    assert (tonight.summary.pruned_records, left(tonight)) == (4, (2, 0))


def test_a_limit_holds_exactly_over_bounded_runs_and_nothing_beyond_it_is_left():
    found = [*loose("a.jpg", "b.jpg", "c.jpg"), tar("x.tar"), tar("y.tar"), *loose("z.jpg")]
    earlier, files, nights = [], [], []
    for _ in range(4):
        tonight = Planned(found, files, earlier, limit=8, max_images=2, count=counted(x=4, y=9))
        nights.append(([(shard.name, shard.num_records) for shard in tonight.shards], *left(tonight)))
        earlier.append(tonight.shards)
        files += [file for shard in tonight.shards for file in published(shard, [shard.num_records])]
    assert nights == [([("in", 2)], 6, 0), ([("x", 4), ("in", 1)], 1, 0), ([("y", 1)], 0, 0), ([], 0, 0)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 25), min_size=1), st.lists(st.booleans(), max_size=30)), max_size=5))
def test_whatever_runs_publish_each_loose_file_is_in_exactly_one_group(nights):
    """Each night some files are there and some planned groups get published; none is ever in two groups."""
    earlier, files, everything = [], {}, set()
    for present, publishes in nights:
        everything |= present
        tonight = Planned(
            loose(*(f"{i:02d}.jpg" for i in sorted(present))), files.values(), earlier, rows_per_file=3
        ).shards
        earlier.append(tonight)
        for shard, publish in zip(tonight, publishes, strict=False):
            if publish and shard.action != "rewrite":
                files |= {file.file: file for file in published(shard, [shard.num_records])}
    members = [member.uri for plan in earlier for shard in plan if not shard.known for member in shard.members]
    assert sorted(members) == sorted(f"{ROOT}/{i:02d}.jpg" for i in everything)
