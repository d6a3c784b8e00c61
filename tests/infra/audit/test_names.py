"""The audit classifies names as the job does, with code of its own."""

import itertools

import pytest

from infra.audit.names import FIRST_IMAGE_ENDINGS, IMAGE_ENDINGS, Selection
from pipeline.inputs import names
from pipeline.inputs.rules import FIRST_RULES, RULES

FOLDERS = ("", "a/", "./", ".git/", "__MACOSX/", "_a/", "a..b/", "../")
LAST = (
    "x.jpg",
    "x.JPEG",
    ".jpg",
    "_x.png",
    "_SUCCESS",
    "._x.jpg",
    "x",
    "x.tar",
    "x.TGZ",
    "x.tar.gz",
    "x.labels.tar",
    "a/metadata.jsonl",
    "x.parquet",
    "x.",
    "x.img",
    "y.img",
    "x.dat",
    "x.HEIC",
    "_x.jxl",
    "x.pjpeg",
    "x.cr2",
)
GLOBS = [
    {},
    {"include": ("*.jpg",)},
    {"include": ("a/*", "*.tar"), "exclude": ("*.png",)},
    {"include": ("*.parquet",), "exclude": ("a/*.jpg", "x.tar")},
    {"include_also": ("*.IMG", "a/*.dat"), "exclude": ("y.img",)},
    {"include": ("*.heic",), "include_also": ("x",)},
]


def test_the_image_endings_are_the_same():
    assert {f".{ending}" for ending in IMAGE_ENDINGS} == names.IMAGE_ENDINGS
    assert {f".{ending}" for ending in FIRST_IMAGE_ENDINGS} == names.FIRST_IMAGE_ENDINGS


@pytest.mark.parametrize("rules", [FIRST_RULES, RULES])
@pytest.mark.parametrize("globs", GLOBS, ids=str)
def test_the_same_names_are_images_and_shards(globs, rules):
    ours, theirs = Selection(**globs, rules=rules), names.NameFilter(**globs, rules=rules)
    for folder, last in itertools.product(FOLDERS, LAST):
        name = folder + last
        assert ours.takes_image(name) == theirs.takes_image(name), name
        assert ours.takes_shard(name) == theirs.takes_shard(name), name


def test_an_object_that_is_itself_an_input_is_what_the_format_says():
    selection = Selection()
    assert selection.format_name("x", input_format="tar", is_named=True) == "tar"
    assert selection.format_name("x", input_format="tar", is_named=False) is None
    assert selection.format_name("x.tar", input_format="files", is_named=False) is None
    assert selection.format_name("x.parquet", input_format="auto", is_named=False) == "parquet"
    assert selection.format_name("x.jpg", input_format="parquet", is_named=False) is None
