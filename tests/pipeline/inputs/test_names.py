import pytest

from pipeline.inputs.names import NameFilter, is_hidden


@pytest.mark.parametrize("name", ["a.jpg", "A.JPEG", "d/e.PnG", "_DSC0001.jpg", "x.y.webp", "i.ico", "p.JP2"])
def test_images_are_known_by_their_ending_in_any_case(name):
    assert NameFilter().takes_image(name)


@pytest.mark.parametrize("name", ["a.txt", "jpg", "a.jpg.txt", ".a.jpg", ".git/a.jpg", "__MACOSX/a.jpg", "d/._a.jpg"])
def test_other_names_are_passed_over(name):
    assert not NameFilter().takes_image(name)


@pytest.mark.parametrize(
    "name",
    ["_SUCCESS", "d/_SUCCESS", ".DS_Store", "d/", "_index.parquet", "_metadata", "d/metadata.jsonl", "d/x.labels.tar"],
)
def test_markers_and_hidden_files_are_hidden(name):
    assert is_hidden(name)


def test_include_without_a_slash_matches_the_last_part_and_with_one_the_whole_name():
    assert NameFilter(include=("cat*",)).takes_image("d/cat1.xyz")
    assert not NameFilter(include=("cat*",)).takes_image("cat/dog.jpg")
    assert NameFilter(include=("train/*",)).takes_image("train/a/b.jpg")
    assert not NameFilter(include=("train/*",)).takes_image("val/b.jpg")


def test_a_pattern_with_a_shards_ending_chooses_shards_and_leaves_images_alone():
    names = NameFilter(include=("train-*.tar",))
    assert names.takes_shard("d/train-1.tar")
    assert not names.takes_shard("d/val-1.tar")
    assert names.takes_image("a.jpg")


def test_an_image_pattern_leaves_shards_alone():
    assert NameFilter(include=("*.jpg",)).takes_shard("a.tar")


def test_exclude_wins_for_both_kinds():
    names = NameFilter(include=("*",), exclude=("bad*", "val/*"))
    assert not names.takes_image("d/bad.jpg")
    assert not names.takes_shard("bad.tar")
    assert not names.takes_image("val/a.jpg")
    assert names.takes_image("notes.txt")


@pytest.mark.parametrize("name", ["metadata.jsonl", "d/metadata.jsonl", "x.labels.tar", "d/X.Labels.TAR"])
def test_exported_labels_take_no_part_whatever_is_asked_for(name):
    names = NameFilter(include=("*", "*.tar", "*.labels.tar", "*.jsonl"))
    assert not names.takes_image(name)
    assert not names.takes_shard(name)
