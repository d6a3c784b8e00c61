"""Files of corrections: where they are found, and what they say."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.overrides import find_overrides, read_overrides
from pipeline.errors import InputError
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath

STORE = StoreConfig()


def said(folder, *places):
    output = StorePath(f"file://{folder}", STORE)
    files = find_overrides(output, [f"file://{folder}/{place}" for place in places])
    return [entry for batch in read_overrides(output, files) for entry in batch.to_pylist()]


def test_corrections_lie_in_the_output_as_csv_or_parquet_or_in_a_folder_of_both(tmp_path):
    (tmp_path / "overrides").mkdir()
    (tmp_path / "overrides.csv").write_text("image_id,label\na,cat\n")
    pq.write_table(pa.table({"label": ["dog"], "image_id": ["b"], "more": [1]}), tmp_path / "overrides.parquet")
    (tmp_path / "overrides" / "2.csv").write_text("image_id,label\nd,\n")
    (tmp_path / "overrides" / "1.CSV").write_text("label,image_id\ncat,c\n")
    (tmp_path / "overrides" / "readme.txt").write_text("no table")
    assert [(entry["image_id"], entry["label"], entry["order"]) for entry in said(tmp_path)] == [
        ("a", "cat", 0), ("b", "dog", 1), ("c", "cat", 2), ("d", None, 3),
    ]  # fmt: skip


def test_without_corrections_there_are_none(tmp_path):
    assert said(tmp_path) == []


def test_named_places_are_the_only_ones(tmp_path):
    (tmp_path / "overrides.csv").write_text("image_id,label\na,cat\n")
    (tmp_path / "mine.txt").write_text("image_id,label\nb,dog\n")
    (tmp_path / "theirs.csv").write_text("image_id,label\nc,dog\n")
    assert [entry["image_id"] for entry in said(tmp_path, "mine.txt", "theirs.csv")] == ["b", "c"]


def test_texts_stay_what_they_are_and_times_are_understood(tmp_path):
    (tmp_path / "overrides.csv").write_bytes(
        "\ufeffimage_id,label,by,at,source_etag\n"
        '"a,b","NA",Ann,2026-11-27T08:30:00Z,"""e1"""\nb,007,,2026-11-27T09:30:00+01:00,\n"c\nd",null,,2026-11-27,\n'.encode()
    )
    found = said(tmp_path)
    assert [(entry["image_id"], entry["label"], entry["source_etag"]) for entry in found] == [
        ("a,b", "NA", '"e1"'), ("b", "007", None), ("c\nd", "null", None),
    ]  # fmt: skip
    assert found[0]["at_s"] == found[1]["at_s"] == found[2]["at_s"] + 8.5 * 3600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image_id;label\na;cat\n", "has no column 'image_id' but image_id;label; .* separated by commas"),
        ("image_id\na\n", "has no column 'label'"),
        ("image_id,label\na,cat\n,dog\n", "row 2 has no image_id"),
        ("image_id,label,at\na,cat,yesterday\n", "at='yesterday' is no time"),
        ("image_id,label\na\n", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_understood_is_named(tmp_path, text, expected):
    (tmp_path / "overrides.csv").write_text(text)
    with pytest.raises(InputError, match=f"overrides.csv.*{expected}|{expected}"):
        said(tmp_path)


def test_a_place_without_files_is_an_error_only_if_it_was_named(tmp_path):
    with pytest.raises(InputError, match=r"no \.csv or \.parquet file is there"):
        said(tmp_path, "nowhere")
