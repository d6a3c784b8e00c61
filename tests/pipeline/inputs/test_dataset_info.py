"""Names of classes in `dataset_infos.json` and `dataset_info.json` beside a shard, or in the folder above it."""

import json

import pytest

from pipeline.inputs.dataset_info import names_beside
from pipeline.store.clients import forget_clients
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath

CAT_OR_DOG = {"features": {"label": {"names": ["cat", "dog"], "id": None, "_type": "ClassLabel"}}}
PUMA_OR_LION = {"features": {"label": {"names": ["puma", "lion"], "_type": "ClassLabel"}}}
CATS = ("cat", "dog")


@pytest.fixture
def found(tmp_path):
    """(files by name) -> the names for the column `label` of `data/0.parquet`."""

    def find(column="label", **files):
        (tmp_path / "data").mkdir(exist_ok=True)
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/")
            text = content if isinstance(content, str) else json.dumps(content)
            path.with_suffix(".json").write_text(text)
        return names_beside(StorePath(f"file://{tmp_path}/data/0.parquet"))(column)

    return find


def test_the_file_beside_the_shard_comes_before_the_one_above_it(found):
    assert found() == ()
    assert found(dataset_infos={"default": CAT_OR_DOG}) == CATS
    assert found(data__dataset_info=PUMA_OR_LION) == ("puma", "lion")
    assert found(data__dataset_infos={"default": CAT_OR_DOG}) == CATS
    assert found("other") == ()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a": CAT_OR_DOG, "b": CAT_OR_DOG}, CATS),
        ({"a": CAT_OR_DOG, "b": {"features": {"image": {"_type": "Image"}}}}, CATS),
        ({"a": CAT_OR_DOG, "b": 3}, CATS),
        ({"a": CAT_OR_DOG, "b": PUMA_OR_LION}, ()),
        ({"a": {"features": {"label": {"dtype": "int64", "_type": "Value"}}}}, ()),
        ({"a": {"features": {"label": {"names": [1], "_type": "ClassLabel"}}}}, ()),
        ({"a": {"features": {"label": {"names": {"0": "cat"}, "_type": "ClassLabel"}}}}, ()),
        ({"a": {"features": None}}, ()),
        ([], ()),
        ("no JSON", ()),
        ("[" * 100_000, ()),
    ],
)
def test_only_names_without_a_doubt_are_taken(found, content, expected):
    assert found(dataset_infos=content) == expected


def test_a_file_that_is_too_large_or_not_there_gives_no_names(found, monkeypatch):
    monkeypatch.setattr("pipeline.inputs.dataset_info._MAX_BYTES", 10)
    assert found(dataset_infos={"default": CAT_OR_DOG}) == ()


def test_in_a_bucket_a_file_that_may_not_be_read_gives_no_names(s3_root, s3_env, monkeypatch):
    config = StoreConfig(deadline_s=1)
    root = StorePath(s3_root, config)
    root.join("dataset_infos.json").put(json.dumps({"default": CAT_OR_DOG}).encode())
    names = names_beside(root.join("data", "0.parquet"))
    assert names("label") == CATS
    assert names_beside(StorePath(f"s3://{s3_env.bucket}/0.parquet", config))("label") == ()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    forget_clients()
    assert names("label") == ()
