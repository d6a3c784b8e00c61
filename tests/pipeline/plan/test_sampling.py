"""Samples of a plan's shards, on made-up plans."""

from dataclasses import replace

from pipeline.inputs.loose_files import Member
from pipeline.output.slice_chain import DoneSlice
from pipeline.plan.planned_shard import PlannedShard
from pipeline.plan.sampling import sample_shards, trial_plan

TAR = PlannedShard(
    shard="s3://b/0.tar", name="0", hash16="0", format="tar", action="continue", etag="x", size=1000, num_records=None,
    done=(DoneSlice(0, 0, 9),),
)  # fmt: skip


def group(num_members, name="g", gone=()):
    members = tuple(
        Member(f"s3://b/{name}/{row}", f"{row}", 10, None if row in gone else "e", None) for row in range(num_members)
    )
    return PlannedShard(
        shard=f"files:{name}", name=name, hash16=name, format="files", action="replace", etag=None,
        size=10 * num_members, num_records=num_members, members=members, known=True, pruned=(3,),
    )  # fmt: skip


def trial(*shards, most_shards=100, most_members=1000, neighbours=4):
    found = trial_plan(shards, most_shards=most_shards, most_members=most_members, neighbours=neighbours)
    return list(found)


def test_so_many_shards_are_drawn_each_with_the_same_chance():
    shards = [replace(TAR, hash16=f"{number}") for number in range(1000)]
    assert sample_shards(shards, 2000) == shards
    some = sample_shards(shards, 200)
    assert len({shard.hash16 for shard in some}) == 200
    assert 400 < sum(int(shard.hash16) for shard in some) / 200 < 600
    assert sample_shards(shards, 200) == some


def test_a_tar_is_tried_from_its_beginning_whatever_of_it_is_done():
    assert trial(TAR) == [replace(TAR, action="new", done=())]


def test_shards_come_in_another_order_than_that_of_their_names():
    shards = [replace(TAR, hash16=f"{number}") for number in range(50)]
    found = [int(shard.hash16) for shard in trial(*shards)]
    assert found != sorted(found)
    assert sorted(found) == list(range(50))


def test_of_a_group_all_members_that_are_there_are_tried_neighbours_beside_one_another():
    (found,) = trial(group(42, gone=(5, 6)))
    rows = [int(member.key) for member in found.members]
    assert sorted(rows) == [row for row in range(42) if row not in (5, 6)]
    assert rows != sorted(rows)
    assert all(later == row + 1 or row == 4 for row, later in zip(rows[::4], rows[1::4], strict=True))
    assert (found.action, found.num_records, found.num_todo, found.size) == ("new", 40, 40, 400)


def test_of_large_groups_each_gives_its_share():
    found = trial(group(100, "a"), group(100, "b"), most_members=40)
    assert [len(shard.members) for shard in found] == [20, 20]
    assert len({member.uri for shard in found for member in shard.members}) == 40


def test_a_group_whose_files_are_all_gone_is_left_out():
    assert trial(group(3, gone=(0, 1, 2))) == []
