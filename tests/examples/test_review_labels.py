"""The page on which a person reviews labels: its rows, its pictures, and what hostile names may do on it."""

import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from examples import review_labels
from examples.review_images import SIDE_PX, ShardRules, pictures
from pipeline.inputs.names import NameFilter
from pipeline.inputs.rules import FIRST_RULES
from pipeline.store.store_path import StorePath
from tests.support.review_rows import (
    HOSTILE,
    STORE,
    encoded,
    loose_row,
    make_output,
    make_page,
    row,
    shard_row,
    sheet_of,
    write_tar,
)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return make_output(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="module")
def page(output, tmp_path_factory):
    html = tmp_path_factory.mktemp("page") / "review.html"
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_page(output, html, monkeypatch=monkeypatch)
    return html


def colour_of(jpeg):
    image = Image.open(io.BytesIO(jpeg))
    assert max(image.size) == SIDE_PX
    return tuple(int(value) // 128 for value in np.asarray(image).mean((0, 1)))


def test_the_least_certain_come_first_and_those_without_a_score_last(page):
    rows = sheet_of(page.read_text())["rows"]
    assert [row["label"] for row in rows] == ["cat", "dog", "cat", "=1+1", HOSTILE, None]
    assert rows[5] == {"id": f"s3://bucket/{HOSTILE}", "etag": None, "label": None}


def test_order_limit_and_decision_choose_the_rows(output, tmp_path, monkeypatch, capsys):
    html = tmp_path / "page.html"
    by_label = sheet_of(make_page(output, html, "--order", "label", "--limit", "4", monkeypatch=monkeypatch))["rows"]
    assert [row["label"] for row in by_label] == [HOSTILE, "=1+1", "cat", "cat"]
    assert capsys.readouterr().out == f"4 of 6 rows, 1 without a picture, in {html}\n"
    accepted = sheet_of(make_page(output, html, "--decision", "accepted", monkeypatch=monkeypatch))["rows"]
    assert [row["label"] for row in accepted] == ["cow"]
    assert sheet_of(make_page(output, html, "--decision", "dropped", monkeypatch=monkeypatch))["rows"] == []


def test_an_output_without_a_data_set_is_said_to_have_none(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"error: there is no .*labels\.parquet; give the output of a data set"):
        make_page(tmp_path, tmp_path / "page.html", monkeypatch=monkeypatch)


def test_digits_stand_for_the_commonest_labels(page):
    assert sheet_of(page.read_text())["quick"] == ["cat", "dog", "=1+1", HOSTILE, "cow"]


def test_a_hostile_name_stays_text_wherever_it_stands(page):
    text = page.read_text()
    assert "<img src=x" not in text
    assert text.count("<script") == 2 and text.count("</script") == 2
    assert "default-src 'none'; script-src 'sha256-" in text and "unsafe" not in text
    assert not re.search(r"https?://", text)


def test_pictures_of_all_kinds_of_shards_and_a_reason_where_there_is_none(output, tmp_path):
    photos = output.parent / "photos"
    parquet = tmp_path / "shard.parquet"
    images = [encoded(colour) for colour in ("black", "blue", "red")]
    pq.write_table(pa.table({"image": images, "label": [1, 2, 3]}), parquet, row_group_size=1)
    rows = [
        loose_row(photos / "dog.jpg", 0.2, "dog"),
        loose_row(photos / "cat.jpg", 0.2, "dog", source_etag='"another"'),
        shard_row(photos / "shard.tar", "a.jpg", 0, 0.1, "cat"),
        shard_row(photos / "shard.tar", "broken.jpg", 1, 0.1, "cat"),
        shard_row(photos / "shard.tar", "absent.jpg", 7, 0.1, "cat"),
        shard_row(parquet, "1", 1, 0.1, "cat"),
        shard_row(parquet, "2", 2, 0.1, "cat"),
        shard_row(parquet, "0", 0, 0.1, "cat", source_etag='"old"'),
        row("file:///gone.tar#a.jpg", "file:///gone.tar", 0.1, "cat", key="a.jpg", source_etag='"x"'),
        row("file:///dark", "files:0", None, None, error_code="decode.crashed"),
    ]
    found = pictures(rows, STORE, ShardRules())
    assert found.keys() == {each["image_id"] for each in rows}
    shown = [colour_of(each) if isinstance(each, bytes) else each for each in found.values()]
    by_id = dict(zip(found, shown, strict=True))
    assert [by_id[each["image_id"]] for each in rows] == [
        (0, 0, 1),
        "the object changed after it was listed",
        (1, 1, 0),
        by_id[rows[3]["image_id"]],
        "it is not in its shard any more",
        (0, 0, 1),
        (1, 0, 0),
        "its shard changed after it was labelled",
        "its shard is gone",
        "it could not be read: decode.crashed",
    ]
    assert by_id[rows[3]["image_id"]].startswith("JPEG: ")


def test_a_key_that_a_tar_repeats_is_found_by_the_rules_of_the_job(tmp_path):
    tar = tmp_path / "shard.tar"
    write_tar(tar, [("left.png", encoded("red")), ("a.jpg", encoded("green")), ("a.jpg", encoded("blue"))])
    (wanted,) = rows = [shard_row(tar, "a.jpg@1", 1, 0.1, "cat")]
    rules = ShardRules(names=NameFilter(include=("*.jpg",)))
    assert colour_of(pictures(rows, STORE, rules)[wanted["image_id"]]) == (0, 0, 1)
    assert pictures(rows, STORE, ShardRules())[wanted["image_id"]] == "it is not in its shard any more"


def test_the_rules_come_from_the_output(tmp_path):
    records = {"include": ["*.jpg"], "exclude": ["x*"], "image_column": "photo"}
    assert review_labels.shard_rules(StorePath(f"file://{tmp_path}")) == ShardRules()
    (tmp_path / "_job.json").write_text(json.dumps({"records": records}))
    names = NameFilter(include=("*.jpg",), exclude=("x*",), rules=FIRST_RULES)
    assert review_labels.shard_rules(StorePath(f"file://{tmp_path}")) == ShardRules(names=names, image_column="photo")


def test_the_label_to_confirm_is_the_one_of_the_data_set_and_what_the_network_said_stands_below(page):
    text = page.read_text()
    assert sheet_of(text)["rows"][1]["label"] == "dog"
    assert "the network says n02084071" in text
    assert 'value="n02084071"' not in text
    assert "not sure enough" in text
