"""The sample of a run is the first images of one draw, however they come together."""

import base64
import functools
import operator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.account.breakdown import Breakdown
from pipeline.chunks import sample
from pipeline.chunks.sample import Sample, num_offered, rank, samples_of, smallest

FEW = 5
ROW = {"image_id": "i", "shard": "s", "width": 40, "height": 30, "sample_jpeg": b"\xff\xd8\xff\xd9".ljust(64, b"\0")}


def one(image_id):
    return Sample(image_id=image_id, shard="s", label="cat", score=0.5, width=4, height=3, jpeg=b"x")


@pytest.fixture(scope="module", autouse=True)
def few():
    """Fewer samples are kept, so that small ones are too many."""
    kept, sample.MOST_SAMPLES = sample.MOST_SAMPLES, FEW
    yield
    sample.MOST_SAMPLES = kept


@settings(max_examples=50, deadline=None)
@given(st.data(), st.lists(st.text(max_size=3), max_size=20, unique=True))
def test_the_sample_is_the_same_however_the_images_come_together(data, ids):
    parts = data.draw(st.integers(1, 8))
    breakdowns = [Breakdown() for _ in range(parts)]
    for image_id in data.draw(st.permutations(ids)):
        place = data.draw(st.integers(0, parts - 1))
        # Some come twice, as a receipt may.
        for _ in range(data.draw(st.integers(1, 2))):
            breakdowns[place] += Breakdown(samples=[one(image_id)])
    while len(breakdowns) > 1:
        a = breakdowns.pop(data.draw(st.integers(0, len(breakdowns) - 1)))
        b = breakdowns.pop(data.draw(st.integers(0, len(breakdowns) - 1)))
        breakdowns.append(a + b)
    expected = sorted(ids, key=lambda image_id: (rank(image_id), image_id))[:FEW]
    assert [each.image_id for each in breakdowns[0].samples] == expected


@given(st.lists(st.lists(st.text(max_size=4), max_size=30), max_size=12))
def test_what_each_part_keeps_is_enough_for_the_whole(parts):
    kept = [smallest(map(one, part)) for part in parts]
    together = functools.reduce(operator.iadd, kept, ())
    assert smallest(together) == smallest(one(image_id) for part in parts for image_id in part)


def test_the_draw_is_spread_and_not_by_name():
    ids = [f"s3://b/{shard:03}.tar#{row:04}" for shard in range(100) for row in range(100)]
    drawn = sorted(ids, key=rank)[:200]
    quarters = [sum(image_id < bound for image_id in drawn) for bound in ("s3://b/025", "s3://b/05", "s3://b/075")]
    assert quarters == pytest.approx([50, 100, 150], abs=25)


@given(st.integers(0, 200), st.integers(0, 10**7))
def test_chunks_offer_enough_together_and_few_each(num_wanted, least_chunks):
    each = num_offered(num_wanted, least_chunks)
    assert each * max(1, least_chunks) >= num_wanted
    assert each <= min(num_wanted, 1 + 2 * num_wanted / max(1, least_chunks))


def test_rows_that_were_offered_become_samples_without_what_filled_them_up():
    rows = [
        {**ROW, "image_id": "a", "label": "cat", "label_id": 3, "score": 0.25},
        {**ROW, "image_id": "b", "label": None, "label_id": 7, "score": float("nan")},
        {**ROW, "image_id": "c", "label": "dog", "label_id": 1, "score": 0.5, "sample_jpeg": None},
    ]
    schema = pa.schema(
        [("image_id", pa.string()), ("shard", pa.string()), ("width", pa.int32()), ("height", pa.int32()),
         ("sample_jpeg", pa.binary()), ("label", pa.string()), ("label_id", pa.int32()), ("score", pa.float32())]
    )  # fmt: skip
    found = {each.image_id: each for each in samples_of(pa.Table.from_pylist(rows, schema=schema))}
    assert sorted(found) == ["a", "b"]
    assert (found["a"].label, found["a"].score, found["a"].jpeg) == ("cat", 0.25, b"\xff\xd8\xff\xd9")
    assert (found["b"].label, found["b"].score) == ("7", None)
    assert found["a"].to_dict() == {
        "image_id": "a", "shard": "s", "label": "cat", "score": 0.25, "width": 40, "height": 30,
        "thumbnail": base64.b64encode(b"\xff\xd8\xff\xd9").decode(),
    }  # fmt: skip


def test_features_have_no_labels_and_without_thumbnails_there_is_no_sample():
    (found,) = samples_of(pa.Table.from_pylist([ROW]))
    assert (found.label, found.score) == (None, None)
    assert samples_of(pa.Table.from_pylist([ROW]).drop_columns(["sample_jpeg"])) == ()
