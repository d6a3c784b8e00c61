"""Planning is a pure function of listings: these tests make the listings and the published files themselves."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.account import Footer, Totals
from pipeline.config import InputConfig
from pipeline.layout import SliceName, hash16, shard_states
from pipeline.listing import Found, Survey
from pipeline.output import PublishedFile
from pipeline.plan import from_parquet, make_plan, to_parquet
from pipeline.storage import ObjectInfo

ROOT = "s3://bucket/in"


def loose(*names, etag="e1"):
    return [
        Found(
            ObjectInfo(f"{ROOT}/{name}", 10, etag), ROOT, name, "files", (PurePosixPath(name).parts[:-1] or (None,))[-1]
        )
        for name in names
    ]


def tar(name, etag="e1"):
    return Found(ObjectInfo(f"{ROOT}/{name}", 1000, etag), ROOT, name, "tar", None)


def published(shard, rows_per_slice, etag=None, ended=True):
    files = []
    row = 0
    for number, rows in enumerate(rows_per_slice):
        end = ended and number == len(rows_per_slice) - 1
        footer = Footer(
            shard=shard.shard, hash16=shard.hash16, slice=number, end=end, source_etag=etag, first_row=row,
            last_row=row + rows - 1, identity="i", run_id="r", attempt="a", nonce="n",
            totals=Totals(listed=rows, ok=rows, files=1),
        )  # fmt: skip
        files.append(PublishedFile(str(SliceName(shard.name, shard.hash16, number, end)), "fe", footer))
        row += rows
    return files


def plan(found, files=(), earlier=(), limit=None, rows_per_file=4, count=lambda found, at_most: at_most):
    config = InputConfig(uris=(ROOT,), limit=limit)
    states = shard_states(file.file for file in files)
    return make_plan(Survey(tuple(found), 0), list(files), states, list(earlier), config, rows_per_file, count)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr("pipeline.plan._GROUP_FILES", 1)


def test_a_group_holds_as_many_whole_slices_as_are_worth_a_read_task(monkeypatch):
    monkeypatch.setattr("pipeline.plan._GROUP_FILES", 11)
    shards = plan(loose(*(f"{i:02d}.jpg" for i in range(25))), rows_per_file=4).shards
    assert [shard.num_records for shard in shards] == [8, 8, 8, 1]


def test_loose_files_are_grouped_and_keep_their_order():
    shards = plan(loose(*(f"{i:02d}.jpg" for i in range(10)))).shards
    assert [shard.num_records for shard in shards] == [4, 4, 2]
    assert [member.key for shard in shards for member in shard.members] == [f"{i:02d}.jpg" for i in range(10)]


def test_a_key_that_repeats_in_a_group_gets_its_row():
    other = Found(ObjectInfo("s3://bucket/else/a.jpg", 1, "e"), "s3://bucket/else", "a.jpg", "files", None)
    (shard,) = plan([*loose("a.jpg"), other]).shards
    assert [member.key for member in shard.members] == ["a.jpg", "a.jpg@1"]


def test_the_plan_survives_its_parquet_file():
    shards = plan([*loose("c/a.jpg", "c/b.jpg"), tar("x.tar")]).shards
    assert tuple(from_parquet(to_parquet(shards))) == shards


def test_a_complete_shard_is_not_planned_again():
    (shard,) = plan([tar("x.tar")]).shards
    again = plan([tar("x.tar")], published(shard, [4, 2], "e1"), [shard])
    assert again.shards == ()
    assert (again.num_complete, again.num_changed) == (1, 0)


def test_a_changed_complete_shard_is_counted_as_changed():
    (shard,) = plan([tar("x.tar")]).shards
    assert plan([tar("x.tar", "e2")], published(shard, [4, 2], "e1"), [shard]).num_changed == 1


def test_a_shard_with_missing_slices_is_carried_over_with_its_etag_and_what_is_done():
    (shard,) = plan([tar("x.tar")]).shards
    files = published(shard, [4, 4, 1], "e1")
    again = plan([tar("x.tar", "e2")], [files[0], files[2]], [shard])
    (carried,) = again.shards
    assert carried.etag == "e1"
    assert [(done.slice, done.first_row, done.last_row) for done in carried.done] == [(0, 0, 3), (2, 8, 8)]


def test_of_several_plans_for_a_shard_the_one_its_slices_were_read_under_counts():
    (old,) = plan([tar("x.tar", "e1")]).shards
    (new,) = plan([tar("x.tar", "e2")], [], [old]).shards
    files = published(new, [4, 4], "e2", ended=False)
    (carried,) = plan([tar("x.tar", "e3")], files, [new, old]).shards
    assert carried.etag == "e2"


def test_published_slices_pin_the_version_of_their_shard_even_when_their_plan_is_gone():
    (shard,) = plan([tar("x.tar", "e1")]).shards
    (again,) = plan([tar("x.tar", "e2")], published(shard, [4, 4], "e1", ended=False)).shards
    assert again.etag == "e1"


def test_a_shard_of_which_nothing_is_published_is_read_as_it_is_now():
    (shard,) = plan([tar("x.tar")]).shards
    (again,) = plan([tar("x.tar", "e2")], [], [shard]).shards
    assert again.etag == "e2"


def test_files_added_later_never_move_a_file_to_another_group():
    first = plan(loose("b.jpg", "d.jpg")).shards
    later = plan(loose("a.jpg", "b.jpg", "c.jpg", "d.jpg"), published(first[0], [2]), first)
    assert [[member.key for member in shard.members] for shard in later.shards] == [["a.jpg", "c.jpg"]]


def test_a_group_that_was_planned_but_not_published_is_finished_under_its_own_name():
    first = plan(loose("b.jpg", "d.jpg")).shards
    later = plan(loose("a.jpg", "b.jpg", "d.jpg"), [], first)
    assert later.shards[0] == first[0]
    assert [member.key for member in later.shards[1].members] == ["a.jpg"]
    assert later.num_carried == 1


def test_a_limit_takes_the_first_records_of_loose_files_and_of_tars():
    counts = {"x.tar": 7, "y.tar": 9}
    found = [tar("x.tar"), tar("y.tar"), *loose("a.jpg")]
    limited = plan(found, limit=10, count=lambda found, at_most: min(counts[found.name], at_most))
    assert [(shard.name, shard.num_records) for shard in limited.shards] == [("x", 7), ("y", 3)]


def test_a_limit_is_not_spent_twice():
    first = plan(loose("a.jpg", "b.jpg", "c.jpg"), limit=2).shards
    assert plan(loose("a.jpg", "b.jpg", "c.jpg"), published(first[0], [2]), first, limit=2).shards == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 25), min_size=1), st.lists(st.booleans(), max_size=30)), max_size=5))
def test_whatever_runs_publish_each_loose_file_is_in_exactly_one_group(nights):
    """Each night some files are there and some planned groups get published; none is ever in two groups."""
    earlier, files, everything = [], [], set()
    for present, publishes in nights:
        everything |= present
        tonight = plan(loose(*(f"{i:02d}.jpg" for i in sorted(present))), files, earlier, rows_per_file=3)
        earlier += [shard for shard in tonight.shards if shard.hash16 not in {e.hash16 for e in earlier}]
        for shard, publish in zip(tonight.shards, publishes, strict=False):
            files += published(shard, [shard.num_records]) if publish else []
    members = [member.uri for shard in earlier for member in shard.members]
    assert sorted(members) == sorted(f"{ROOT}/{i:02d}.jpg" for i in everything)
    assert len({hash16(shard.shard) for shard in earlier}) == len(earlier)
