import pytest

from pipeline.output.layout import SliceName, hash16, readable_name, version_of


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


def test_a_version_follows_from_every_uri_and_etag_and_their_order():
    members = [("s3://b/a.jpg", "e1"), ("s3://b/b.jpg", None)]
    assert version_of(members) == version_of(list(members))
    others = [members[::-1], members[:1], [("s3://b/a.jpg", "e2"), members[1]], [members[0], ("s3://b/c.jpg", None)]]
    assert len({version_of(members), *map(version_of, others)}) == 5


def test_readable_names_are_plain_and_short():
    assert readable_name("train 001.tar.gz") == "train_001"
    assert readable_name("ünï/код.tgz") == "n"
    assert readable_name("...") == "shard"
    assert len(readable_name("x" * 500)) == 64
