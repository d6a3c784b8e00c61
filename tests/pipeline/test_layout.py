import pytest

from pipeline.layout import ShardState, SliceName, hash16, readable_name, shard_states


@pytest.mark.parametrize("end", [False, True])
def test_a_slice_name_is_parsed_back(end):
    name = SliceName("train-001", hash16("s3://b/train-001.tar"), 12, end)
    assert str(name).startswith("train-001-")
    assert str(name).endswith("-00012-end.parquet" if end else "-00012.parquet")
    assert SliceName.parse(str(name)) == name


CODE = "0123456789abcdef"


@pytest.mark.parametrize("name", ["a.parquet", f"a-{CODE}-1.parquet", f"a-{CODE}-00001.parquet.tmp", "x"])
def test_a_foreign_name_is_none_of_ours(name):
    assert SliceName.parse(name) is None


def test_a_shard_is_complete_when_every_slice_up_to_the_last_is_there():
    code = CODE
    files = [f"s-{code}-00000.parquet", f"s-{code}-00002-end.parquet"]
    assert not shard_states(files)[code].complete
    assert shard_states([*files, f"s-{code}-00001.parquet"])[code].complete


def test_a_shard_without_its_last_slice_is_not_complete():
    assert not ShardState({0, 1}, None).complete


def test_readable_names_are_plain_and_short():
    assert readable_name("train 001.tar.gz") == "train_001"
    assert readable_name("ünï/код.tgz") == "n"
    assert readable_name("...") == "shard"
    assert len(readable_name("x" * 500)) == 64
