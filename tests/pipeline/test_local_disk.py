"""The local disk's own promises: order of writes, leftovers, links, names, and what the kernel can refuse."""

import errno
import logging
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import OutputError
from pipeline.preflight import preflight
from pipeline.storage import StoreConfig, delete, head, list_objects, open_reader, put, read, sweep_temporaries
from pipeline.store_errors import ChangedError, DeniedError, ExistsError, NotFoundError, StoreError
from pipeline.uris import canonical_uri

CONFIG = StoreConfig()
TEMPORARY = ".a.parquet.0123456789abcdef.tmp"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def names(folder: Path, on_skipped: Callable[[str], None] | None = None) -> list[str]:
    root = f"file://{folder}"
    return [info.uri[len(root) + 1 :] for info in list_objects(root, CONFIG, on_skipped=on_skipped)]


def failing(code: int) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("publish", ["link", "replace"])
def test_a_name_appears_after_its_bytes_are_on_disk_and_before_its_folder_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, publish: str
) -> None:
    events: list[str] = []
    calls = {name: getattr(os, name) for name in ("fsync", "link", "replace")}

    def watch(name: str) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            is_folder = name == "fsync" and Path(f"/proc/self/fd/{args[0]}").is_dir()
            events.append(f"{name} folder" if is_folder else name)
            return calls[name](*args, **kwargs)

        return watched

    for name in calls:
        monkeypatch.setattr(os, name, watch(name))
    put(f"file://{folder}/new/a", b"body", CONFIG, if_absent=publish == "link")
    assert events == ["fsync folder", "fsync", publish, "fsync folder"]


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, StoreError), (errno.EIO, StoreError), (errno.EACCES, DeniedError)]
)
def test_a_write_that_fails_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StoreError]
) -> None:
    monkeypatch.setattr(os, "fsync", failing(code))
    with pytest.raises(StoreError, match=os.strerror(code)) as caught:
        put(f"file://{folder}/a", b"body", CONFIG, if_absent=True)
    assert type(caught.value) is kind
    assert list(folder.iterdir()) == []
    with pytest.raises(OutputError, match=os.strerror(code)):
        preflight(f"file://{folder}/out", CONFIG)


def test_a_file_where_a_folder_is_needed_is_told(folder: Path) -> None:
    (folder / "file").write_bytes(b"x")
    with pytest.raises(StoreError, match="a file is where a folder is needed") as caught:
        put(f"file://{folder}/file/a", b"body", CONFIG, if_absent=True)
    assert not isinstance(caught.value, ExistsError)
    assert head(f"file://{folder}/file/a", CONFIG) is None
    assert list(list_objects(f"file://{folder}/file/a", CONFIG)) == []
    delete(f"file://{folder}/file/a", CONFIG)
    with pytest.raises(NotFoundError):
        read(f"file://{folder}/file/a", CONFIG)


def test_a_file_system_without_hard_links_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    with pytest.raises(OutputError, match="has no hard links"):
        preflight(f"file://{folder}", CONFIG)
    assert list(folder.iterdir()) == []


def test_a_name_of_full_length_can_be_written(folder: Path) -> None:
    uri = f"file://{folder}/{'é' * 127}a"
    etag = put(uri, b"body", CONFIG, if_absent=True)
    assert read(uri, CONFIG, etag) == b"body"


def test_every_write_has_its_own_etag(folder: Path) -> None:
    uri = f"file://{folder}/a"
    etags = [put(uri, b"same", CONFIG) for _ in range(5)]
    assert all(older != newer for older, newer in pairwise(etags))


def test_leftovers_of_killed_writers_are_unseen_and_swept_after_an_hour(folder: Path) -> None:
    (folder / "data").mkdir()
    for name, age_s in ((f"data/{TEMPORARY}", 4000), (TEMPORARY, 10), ("data/.tmp", 4000), ("a.tmp", 4000)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    assert names(folder) == ["a.tmp", "data/.tmp"]
    assert sweep_temporaries(f"file://{folder}") == 1
    assert not (folder / "data" / TEMPORARY).exists() and (folder / TEMPORARY).exists()
    assert sweep_temporaries(f"file://{folder}/nothing") == 0


def test_links_are_followed_but_not_round_and_round(folder: Path) -> None:
    (folder / "in" / "b").mkdir(parents=True)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "x").write_bytes(b"x")
    (folder / "in" / "b" / "y").write_bytes(b"y")
    (folder / "in" / "a").symlink_to("../elsewhere")
    (folder / "in" / "b" / "up").symlink_to("..")
    (folder / "in" / "c").symlink_to("b/y")
    (folder / "in" / "dangling").symlink_to("nowhere")
    (folder / "in" / "self").symlink_to("self")
    skipped: list[str] = []
    assert names(folder / "in", skipped.append) == ["a/x", "b/y", "c"]
    assert sorted(skipped) == [f"{folder}/in/{name}" for name in ("b/up", "dangling", "self")]


def test_names_that_are_no_text_and_entries_that_are_no_files_are_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "a").write_bytes(b"a")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(b"b")
    os.mkfifo(folder / "pipe")
    skipped: list[str] = []
    with caplog.at_level(logging.WARNING):
        assert names(folder, skipped.append) == ["a"]
    assert sorted(skipped) == [f"{folder}/caf\\xe9.jpg", f"{folder}/pipe"]
    assert "names=2" in caplog.text
    with pytest.raises(NotFoundError, match="not a file"):
        read(f"file://{folder}/pipe", CONFIG)
    with pytest.raises(NotFoundError, match="not a file"):
        read(f"file://{folder}", CONFIG)


def test_a_folder_that_may_not_be_read_is_no_empty_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "scandir", failing(errno.EACCES))
    with pytest.raises(DeniedError, match="Permission denied"):
        names(folder)


def test_a_file_that_changes_under_the_reader_is_noticed(folder: Path) -> None:
    uri = canonical_uri(f"{folder}/a")
    etag = put(uri, bytes(2**20), CONFIG)
    with open_reader(uri, CONFIG, size=2**20, etag=etag) as reader:
        assert reader.read(10) == bytes(10)
        with (folder / "a").open("r+b") as writer:
            writer.truncate(2**19)
        with pytest.raises(ChangedError):
            reader.read()


def test_a_file_that_is_replaced_under_the_reader_stays_the_old_one(folder: Path) -> None:
    uri = canonical_uri(f"{folder}/a")
    etag = put(uri, b"old" * 2**18, CONFIG)
    with open_reader(uri, CONFIG, size=3 * 2**18, etag=etag) as reader:
        assert reader.read(3) == b"old"
        put(uri, b"new", CONFIG, if_match=etag)
        assert reader.read() == b"old" * (2**18 - 1)
