import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.dataset.file_exports import image_path
from pipeline.inputs.ids import loose_uri, object_id, record_id
from pipeline.inputs.rules import FIRST_RULES, RULES
from tests.support.simulated import SimulatedRun, published_rows, run_once

PARTS = st.lists(
    st.sampled_from(["#", "%23", "%25", "%", "23", "@1", "a", ".tar", "/", "b.jpg", "escaped:"]), max_size=6
)
URIS = PARTS.map(lambda parts: "s3://b/" + "".join(parts))
KEYS = PARTS.map("".join).filter(bool)
RECORDS = st.tuples(URIS, st.none() | KEYS)


@given(RECORDS, RECORDS)
@example(("s3://b/a.tar#b.jpg", None), ("s3://b/a.tar", "b.jpg"))
@example(("s3://b/a.tar#b.tar", "c.jpg"), ("s3://b/a.tar", "b.tar#c.jpg"))
@example(("s3://b/a.tar%23b.jpg", None), ("s3://b/a.tar#b.jpg", None))
@example(("s3://b/a.tar#b%23c.jpg", None), ("s3://b/a.tar#b#c.jpg", None))
def test_two_records_never_have_one_id(one, other):
    assert (record_id(*one, RULES) == record_id(*other, RULES)) == (one == other)


@given(URIS)
def test_the_uri_of_a_loose_image_follows_from_its_id(uri):
    assert loose_uri(object_id(uri, RULES)) == uri


@given(URIS.filter(lambda uri: "#" not in uri))
def test_the_uri_of_an_object_without_a_hash_is_its_id(uri):
    assert object_id(uri, RULES) == object_id(uri, FIRST_RULES) == uri


@pytest.mark.parametrize(
    ("shard", "key"),
    [
        ("file:///d/a.tar", "b.jpg"),
        ("file:///d/a.tar", "b#c.jpg"),
        ("file:///d/a.tar", "b.tar#c.jpg"),
        ("file:///d/a b#1.tar", "b.jpg"),
        ("s3://b/d#1/x.TAR.GZ", "@3"),
        ("s3://b/d#1/x.parquet", "17"),
        ("file:///d/named-as-an-input", "b#c.jpg"),
    ],
)
def test_ids_of_records_that_are_taken_apart_rightly_are_the_same_under_all_rules(shard, key):
    assert record_id(shard, key, RULES) == record_id(shard, key, FIRST_RULES) == f"{shard}#{key}"


@pytest.mark.parametrize(
    ("uri", "key", "first", "now"),
    [
        ("file:///d/a.tar#b.jpg", None, "file:///d/a.tar#b.jpg", "escaped:file:///d/a.tar%23b.jpg"),
        ("file:///d/100%#.jpg", None, "file:///d/100%#.jpg", "escaped:file:///d/100%25%23.jpg"),
        ("file:///a.tar#b.tar", "c#.jpg", "file:///a.tar#b.tar#c#.jpg", "escaped:file:///a.tar%23b.tar#c#.jpg"),
        ("file:///d/input", "b.tar#c.jpg", "file:///d/input#b.tar#c.jpg", "escaped:file:///d/input#b.tar#c.jpg"),
    ],
)
def test_an_id_that_would_be_taken_apart_wrongly_is_escaped(uri, key, first, now):
    assert (record_id(uri, key, FIRST_RULES), record_id(uri, key, RULES)) == (first, now)


def test_a_loose_image_and_a_member_that_had_one_id_have_two_and_are_read_once(tmp_path, test_data):
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.tar", "a.tar#b.jpg"):
        (source / name).write_bytes((test_data / "cases/hostile" / name).read_bytes())
    assert run_once(source, tmp_path / "out", 1).run.ok == 3
    rows = {row["image_id"]: row for row in published_rows(tmp_path / "out")}
    uri = f"file://{source}/a.tar"
    assert rows.keys() == {f"{uri}#b.jpg", f"{uri}#c.png", f"escaped:{uri}%23b.jpg"}
    # The version of a group follows from the URIs of its files, so that nothing is left to do.
    assert SimulatedRun(source, tmp_path / "out", 2).run.plan.is_empty
    loose = rows[f"escaped:{uri}%23b.jpg"]
    assert image_path(loose) == f"{source}/a.tar#b.jpg"
