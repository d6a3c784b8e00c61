import pytest

from pipeline.errors import ConfigError
from pipeline.inputs.names import IMAGE_ENDINGS, UNDECODED_ENDINGS, NameFilter, is_hidden
from pipeline.inputs.rules import FIRST_RULES


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


JPEGS = ["jpe", "jfif", "pjpeg", "pjp", "jif", "jfi"]
UNDECODED = [
    *("heic", "heif", "hif", "heics", "jxl", "psd", "psb", "svg", "svgz"),
    *("dng", "cr2", "cr3", "nef", "nrw", "arw", "sr2", "raf", "orf", "rw2", "pef", "srw", "x3f", "3fr", "iiq"),
]


@pytest.mark.parametrize("ending", [*JPEGS, *UNDECODED])
def test_names_of_images_that_are_not_decoded_are_images(ending):
    for name in (f"d/a.{ending}", f"_IMG.{ending.upper()}"):
        assert NameFilter().takes_image(name)
        assert NameFilter(rules=FIRST_RULES).takes_image(name) == (ending in ("jpe", "jfif"))
    assert not NameFilter(exclude=(f"*.{ending}",)).takes_image(f"d/a.{ending}")
    assert (f".{ending}" in UNDECODED_ENDINGS) == (ending in UNDECODED)


def test_the_first_rules_know_as_many_endings_as_they_always_did():
    known = {ending for ending in IMAGE_ENDINGS if NameFilter(rules=FIRST_RULES).takes_image(f"a{ending}")}
    assert len(known) == 27
    assert not known & UNDECODED_ENDINGS.keys()


def test_further_images_are_added_to_those_that_are_taken_anyway():
    names = NameFilter(include_also=("*.img",), exclude=("bad*",))
    listed = ("a.img", "a.JPG", "a.IMG", "bad.img", ".a.img")
    assert [name for name in listed if names.takes_image(name)] == ["a.img", "a.JPG", "a.IMG"]
    assert not NameFilter(include=("*.img",)).takes_image("a.JPG")
    with pytest.raises(ConfigError, match="chooses shards"):
        NameFilter(include_also=("*.tar",))


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("d/a.IMG", ".img"),
        ("README", "(none)"),
        ("d.x/README", "(none)"),
        ("a.", "(none)"),
        ("a.2024-01-01T00:00:00", "(other)"),
        ("a.seg.json", ".json"),
        ("a.json", None),
        ("d/a.cls", None),
        (".a.img", None),
        ("_SUCCESS", None),
        ("bad.img", None),
        ("bad.jpg", ".jpg"),
    ],
)
def test_a_name_that_is_passed_over_has_an_ending_unless_it_is_hidden_or_a_sidecar(name, ending):
    assert NameFilter(exclude=("bad*",)).ending_left_out(name) == ending
