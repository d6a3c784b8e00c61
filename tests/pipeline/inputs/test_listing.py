"""Real folders and real buckets are surveyed: what takes part, how it is read, and how many names do not."""

import os
import time
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, InputError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.listing import Survey
from pipeline.inputs.names import NameFilter
from pipeline.inputs.rules import FIRST_RULES, RULES
from pipeline.store.config import StoreConfig
from pipeline.store.object_info import ObjectInfo
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri, join_uri

STORE = StoreConfig()
OUTPUT = "file:///nowhere/out"


class Taken:
    """A survey, iterated once."""

    def __init__(self, config, output):
        survey = Survey(config, output)
        self.found = tuple(survey)
        self.ignored = survey.ignored


@pytest.fixture
def survey(tmp_path):
    """(names below the input, ...) -> a survey of a folder in which exactly these are."""

    def make(*names, **changes):
        write(tmp_path / "in", *names)
        return Taken(InputConfig(uris=(str(tmp_path / "in"),), **changes), OUTPUT)

    return make


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def names_of(survey):
    return [found.name for found in survey.found]


def kinds_of(survey):
    return {found.name: found.format for found in survey.found}


def test_objects_are_told_apart_by_their_names_and_the_rest_is_counted(survey):
    found = survey("a.jpg", "b/c.PNG", "d.tar", "e.TAR.GZ", "f.tgz", "g.parquet", "h.txt", ".hidden.jpg", "_SUCCESS")
    assert kinds_of(found) == {
        "a.jpg": "files", "b/c.PNG": "files", "d.tar": "tar", "e.TAR.GZ": "tar", "f.tgz": "tar", "g.parquet": "parquet",
    }  # fmt: skip
    assert found.ignored == 3


def test_what_is_found_is_known_by_uri_size_and_etag(root):
    uri = join_uri(root, "in", "a b/ü.jpg")
    StorePath(uri, STORE).put(b"12345")
    StorePath(join_uri(root, "in-no", "b.jpg"), STORE).put(b"x")  # a name that begins alike is no input
    (found,) = Taken(InputConfig(uris=(join_uri(root, "in"),)), join_uri(root, "out")).found
    assert found.info == StorePath(uri, STORE).head()
    assert (found.info.uri, found.info.size, found.root, found.name) == (uri, 5, join_uri(root, "in"), "a b/ü.jpg")


@pytest.mark.parametrize("path", [("in",), ("in", "a.jpg")], ids=["folder", "object"])
def test_what_is_found_says_when_it_was_last_modified(root, path):
    before = time.time()
    StorePath(join_uri(root, "in", "a.jpg"), STORE).put(b"12345")
    (found,) = Taken(InputConfig(uris=(join_uri(root, *path),)), OUTPUT).found
    # S3 says it in whole seconds; a disk's time is that of the kernel's last tick.
    assert before - 1.1 <= found.info.modified_s <= time.time()
    assert found.info.modified_s == pytest.approx(StorePath(found.info.uri, STORE).head().modified_s, abs=1)


def test_a_file_is_as_old_as_its_own_time_says(tmp_path):
    write(tmp_path / "in", "a.jpg")
    os.utime(tmp_path / "in" / "a.jpg", (5, 86400.25))
    (found,) = Taken(InputConfig(uris=(str(tmp_path / "in"),)), OUTPUT).found
    assert found.info.modified_s == 86400.25


def test_objects_come_in_the_order_of_their_names_whatever_the_order_of_the_inputs(tmp_path):
    write(tmp_path / "z", "b.jpg", "a.jpg")
    write(tmp_path / "y", "d.jpg", "c/x.jpg")
    found = Taken(InputConfig(uris=(str(tmp_path / "z"), str(tmp_path / "y"))), OUTPUT)
    assert names_of(found) == ["c/x.jpg", "d.jpg", "a.jpg", "b.jpg"]


def test_an_object_that_several_inputs_name_is_taken_once_under_the_first(tmp_path):
    write(tmp_path / "in", "cat/a.jpg", "cat/b.jpg", "cat/x.txt", "dog/c.jpg")
    whole, part, one = (canonical_uri(str(tmp_path / "in" / name)) for name in ("", "cat", "cat/a.jpg"))
    found = Taken(InputConfig(uris=(whole, part, one, whole)), OUTPUT)
    assert names_of(found) == ["cat/a.jpg", "cat/b.jpg", "dog/c.jpg"]
    assert found.ignored == 1
    found = Taken(InputConfig(uris=(one, part, whole)), OUTPUT)
    assert [(entry.root, entry.name) for entry in found.found] == [
        (one, "a.jpg"), (part, "b.jpg"), (whole, "dog/c.jpg"),
    ]  # fmt: skip
    assert found.ignored == 1


def test_the_folder_of_a_loose_file_is_its_label(survey):
    found = survey("a.jpg", "cat/b.jpg", "train/dog/c.jpg", "train/d.tar")
    labels = {entry.name: entry.true_label for entry in found.found}
    assert labels == {"a.jpg": None, "cat/b.jpg": "cat", "train/dog/c.jpg": "dog", "train/d.tar": None}


@pytest.mark.parametrize(
    ("key", "first", "now"),
    [("cat/b.jpg", "cat", "cat"), ("cat//b.jpg", None, "cat"), ("cat/./b.jpg", ".", "cat"), ("../b.jpg", "..", None)],
)
def test_empty_parts_and_dots_are_no_folders_as_in_a_tar(key, first, now):
    """On S3 such keys may be listed; under the first rules their labels stay as they were."""

    def listed(place, **_):
        yield ObjectInfo(f"{place.uri}/{key}", 1, "e", 0.0)

    config = InputConfig(uris=("s3://bucket/in",))
    for rules, expected in ((FIRST_RULES, first), (RULES, now)):
        (found,) = Survey(config.under_rules(rules), "s3://bucket/out", listed)
        assert found.true_label == expected


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "files"), ("b.tar", "tar"), ("c.parquet", "parquet")])
def test_an_input_may_be_one_object(root, name, kind):
    uri = join_uri(root, "x", name)
    StorePath(uri, STORE).put(b"1")
    StorePath(join_uri(root, "x", "other.jpg"), STORE).put(b"1")
    found = Taken(InputConfig(uris=(uri,)), join_uri(root, "out"))
    (entry,) = found.found
    assert (entry.info.uri, entry.name, entry.format, entry.true_label) == (uri, name, kind, None)
    assert found.ignored == 0


def test_an_input_in_a_hidden_folder_is_read(tmp_path):
    write(tmp_path / ".cache" / "_photos", "a.jpg", ".b.jpg")
    found = Taken(InputConfig(uris=(str(tmp_path / ".cache" / "_photos"),)), OUTPUT)
    assert names_of(found) == ["a.jpg"]


# Sidecars.


def test_a_parquet_file_beside_a_tar_of_its_name_is_no_shard(survey):
    found = survey("0.tar", "0.parquet", "0_stats.json", "1.parquet", "sub/1.tar", "sub/0.parquet")
    assert kinds_of(found) == {"0.tar": "tar", "1.parquet": "parquet", "sub/0.parquet": "parquet", "sub/1.tar": "tar"}
    assert found.ignored == 2


def test_a_parquet_file_that_is_asked_for_is_a_shard_beside_a_tar_too(survey):
    assert kinds_of(survey("0.tar", "0.parquet", format="parquet")) == {"0.parquet": "parquet"}


def test_only_a_parquet_file_can_be_a_sidecar(survey):
    """An image without ending beside a tar of its name was passed over, and a tar beside another with two endings."""
    found = survey("photo", "photo.tar", "0.tar", "0.tar.tar", names=NameFilter(include=("*",)))
    assert kinds_of(found) == {"photo": "files", "photo.tar": "tar", "0.tar": "tar", "0.tar.tar": "tar"}


# What is chosen.


@pytest.mark.parametrize(
    ("input_format", "expected"),
    [
        ("auto", ["a.jpg", "b.tar", "c.parquet"]),
        ("files", ["a.jpg"]),
        ("tar", ["b.tar"]),
        ("parquet", ["c.parquet"]),
    ],
)
def test_a_format_takes_its_own_objects_only(survey, input_format, expected):
    found = survey("a.jpg", "b.tar", "c.parquet", "d.txt", format=input_format)
    assert names_of(found) == expected
    assert found.ignored == 4 - len(expected)


def test_patterns_choose_images_and_shards(survey):
    files = ("a.jpg", "b.dat", "c.tar", "d.tar", "skip/e.jpg", "skip/f.tar")
    assert names_of(survey(*files, names=NameFilter(include=("*.dat", "c*.tar")))) == ["b.dat", "c.tar"]
    assert names_of(survey(*files, names=NameFilter(exclude=("skip/*",)))) == ["a.jpg", "c.tar", "d.tar"]


# What is refused.


@pytest.mark.parametrize("output", ["", "/out", "/a/b/c"])
def test_an_output_inside_an_input_is_refused(output):
    config = InputConfig(uris=("s3://bucket/other", "s3://bucket/in"))
    with pytest.raises(ConfigError, match=f"the output s3://bucket/in{output} lies inside the input s3://bucket/in"):
        Taken(config, f"s3://bucket/in{output}")


def test_an_output_beside_an_input_whose_name_begins_alike_is_none_inside(tmp_path):
    write(tmp_path / "in", "a.jpg")
    config = InputConfig(uris=(str(tmp_path / "in"),))
    assert names_of(Taken(config, canonical_uri(str(tmp_path / "in-out")))) == ["a.jpg"]


def test_an_output_inside_a_folder_that_is_linked_to_is_refused(tmp_path):
    write(tmp_path / "in", "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    config = InputConfig(uris=(str(tmp_path / "link"),))
    with pytest.raises(ConfigError, match="lies inside"):
        Taken(config, canonical_uri(str(tmp_path / "in" / "out")))


def test_an_input_that_is_not_there_is_named(root):
    StorePath(join_uri(root, "in", "a.jpg"), STORE).put(b"x")
    config = InputConfig(uris=(join_uri(root, "in"), join_uri(root, "gone")))
    with pytest.raises(InputError, match=f"input {join_uri(root, 'gone')}: nothing is there; check the spelling"):
        Taken(config, join_uri(root, "out"))


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: nothing is there"):
        Taken(InputConfig(uris=(str(tmp_path / "empty"),)), OUTPUT)


def test_an_input_without_images_is_named_with_what_is_there(survey):
    with pytest.raises(InputError) as raised:
        survey("a.txt", "b.txt", "c.csv", "README", format="tar")
    message = str(raised.value)
    assert "/in: none of its 4 objects is an image or a shard under --input-format tar" in message
    assert "2 x .txt" in message
    assert "1 x (none)" in message


def test_an_input_all_of_whose_objects_another_input_gave_is_no_error(tmp_path):
    write(tmp_path / "in", "cat/a.jpg", "x/y.txt")
    found = Taken(InputConfig(uris=(str(tmp_path / "in"), str(tmp_path / "in" / "x"))), OUTPUT)
    assert names_of(found) == ["cat/a.jpg"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    write(tmp_path / "in", "a.jpg")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"/in may not be listed: .*; check the credentials or the profile"):
        Taken(InputConfig(uris=(str(tmp_path / "in"),)), OUTPUT)


def test_a_bucket_that_is_not_there_is_named(s3_env):
    with pytest.raises(InputError, match=r"input s3://no-such-bucket-here/x: .*the bucket does not exist"):
        Taken(InputConfig(uris=("s3://no-such-bucket-here/x",)), OUTPUT)


def test_names_that_cannot_be_read_are_counted_too(tmp_path):
    """They were only said in the log."""
    write(tmp_path / "in", "a.jpg", "sub/b.jpg")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "sub" / "dangling.jpg").symlink_to(tmp_path / "gone")
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.jpg")).write_bytes(b"x")
    found = Taken(InputConfig(uris=(str(tmp_path / "in"), str(tmp_path / "in" / "sub"))), OUTPUT)
    assert names_of(found) == ["a.jpg", "sub/b.jpg"]
    assert found.ignored == 3


def test_an_object_that_is_itself_an_input_is_what_the_format_says(tmp_path):
    write(tmp_path, "shard", "other.tar")
    found = Taken(InputConfig(uris=(str(tmp_path / "shard"),), format="tar"), OUTPUT)
    assert [(entry.name, entry.format) for entry in found.found] == [("shard", "tar")]
    found = Taken(InputConfig(uris=(str(tmp_path),), format="tar"), OUTPUT)
    assert [(entry.name, entry.format) for entry in found.found] == [("other.tar", "tar")]
