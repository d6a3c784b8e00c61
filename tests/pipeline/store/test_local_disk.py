"""The local disk's own promises: order of writes, leftovers, links, names, and what the kernel can refuse."""

import errno
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import OutputError
from pipeline.store import checked_file, local_disk
from pipeline.store import external_sort as spool
from pipeline.store.config import StoreConfig
from pipeline.store.errors import ChangedError, DeniedError, ExistsError, NotFoundError, StoreError
from pipeline.store.preflight import preflight
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri

CONFIG = StoreConfig()
TEMPORARY = ".a.parquet.0123456789abcdef.tmp"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def names(folder: Path, on_skipped: Callable[[str], None] | None = None) -> list[str]:
    root = f"file://{folder}"
    return [info.uri[len(root) + 1 :] for info in StorePath(root, CONFIG).list(on_skipped=on_skipped)]


def failing(code: int) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.fixture
def traced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls below the folder that change the disk or wait for it, in order, each with the names that it touches."""
    calls: list[str] = []

    def short(argument: Any) -> str:
        path = Path(f"/proc/self/fd/{argument}").readlink() if isinstance(argument, int) else Path(argument)
        text = str(path.relative_to(folder)) if path.is_relative_to(folder) else "above"
        return re.sub(r"\.a\.[0-9a-f]{16}\.tmp", "tmp", text)

    def watch(name: str, num_paths: int) -> None:
        real = getattr(os, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            calls.append(" ".join([name, *map(short, args[:num_paths])]))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, watched)

    for name, num_paths in (("mkdir", 1), ("write", 1), ("fsync", 1), ("link", 2), ("replace", 2), ("unlink", 1)):
        watch(name, num_paths)
    monkeypatch.setattr(local_disk, "_synced_folders", {folder})
    return calls


@pytest.mark.parametrize("publish", ["link", "replace"])
def test_a_name_appears_after_its_bytes_are_on_disk_and_is_on_disk_itself_at_return(
    folder: Path, traced: list[str], publish: str
) -> None:
    (folder / "out").mkdir()
    StorePath(f"file://{folder}/out/first", CONFIG).put(b"body")
    traced.clear()
    StorePath(f"file://{folder}/out/a", CONFIG).put(b"body", if_absent=publish == "link")
    assert traced == ["write out/tmp", "fsync out/tmp", f"{publish} out/tmp out/a", "unlink out/tmp", "fsync out"]
    traced.clear()
    StorePath(f"file://{folder}/out/a", CONFIG).delete()
    assert traced == ["unlink out/a", "fsync out"]


def test_new_folders_are_on_disk_before_the_name_of_what_they_hold(folder: Path, traced: list[str]) -> None:
    StorePath(f"file://{folder}/out/data/a", CONFIG).put(b"body", if_absent=True)
    assert traced[:5] == ["mkdir out", "mkdir out/data", "fsync .", "fsync out", "write out/data/tmp"]
    assert traced[-1] == "fsync out/data"


def test_a_folder_that_another_process_has_just_made_is_on_disk_too(folder: Path, traced: list[str]) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "data").mkdir()
    traced.clear()
    StorePath(f"file://{folder}/out/data/a", CONFIG).put(b"body", if_absent=True)
    assert traced[:3] == ["fsync .", "fsync out", "write out/data/tmp"]
    traced.clear()
    StorePath(f"file://{folder}/out/data/b", CONFIG).put(b"body", if_absent=True)
    assert traced[0].startswith("write")


def test_the_first_write_syncs_the_names_up_to_the_mount_point(folder: Path, traced: list[str]) -> None:
    local_disk._synced_folders.clear()
    StorePath(f"file://{folder}/a", CONFIG).put(b"body")
    assert "fsync above" in traced and traced.index("fsync above") < traced.index("write tmp")
    assert all(path in local_disk._synced_folders or path.is_mount() for path in (folder, *folder.parents[:2]))


def test_what_is_above_an_output_need_not_be_readable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> int:
        if Path(path) == folder.parent:
            raise PermissionError(errno.EACCES, "not yours")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(local_disk, "_synced_folders", set())
    monkeypatch.setattr(os, "open", refuse)
    StorePath(f"file://{folder}/a", CONFIG).put(b"body")
    assert (folder / "a").read_bytes() == b"body"


@pytest.fixture(params=["mounted", "simulated"])
def small_disk(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of one MiB: a real one where this user may mount it, else `os.write` that counts; and always the second.

    Without the right to mount, the first is the second as well.
    """
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if request.param == "mounted" and subprocess.run(mount, capture_output=True).returncode == 0:
        yield folder
        subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    real, left = os.write, 2**20

    def write(descriptor: int, data: Any) -> int:
        nonlocal left
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real(descriptor, memoryview(data)[:left])
        left -= count
        return count

    monkeypatch.setattr(os, "write", write)
    yield folder


def test_a_full_disk_keeps_what_is_there_and_no_half_file(small_disk: Path) -> None:
    root = f"file://{small_disk}"
    etag = StorePath(f"{root}/out/a", CONFIG).put(b"whole", if_absent=True)
    with pytest.raises(StoreError, match=f"out/b: {os.strerror(errno.ENOSPC)}") as caught:
        StorePath(f"{root}/out/b", CONFIG).put(bytes(2**21), if_absent=True)
    assert type(caught.value) is StoreError
    with pytest.raises(StoreError, match=os.strerror(errno.ENOSPC)):
        StorePath(f"{root}/out/a", CONFIG).put(bytes(2**21), if_match=etag)
    assert [path.name for path in (small_disk / "out").iterdir()] == ["a"]
    assert StorePath(f"{root}/out/a", CONFIG).read(etag) == b"whole"


def test_a_leftover_that_cannot_be_removed_does_not_hide_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC))
    monkeypatch.setattr(os, "unlink", failing(errno.EROFS))
    with pytest.raises(StoreError, match=os.strerror(errno.ENOSPC)):
        StorePath(f"file://{folder}/a", CONFIG).put(b"body", if_absent=True)
    assert names(folder) == []


def test_a_leftover_that_cannot_be_removed_costs_a_published_file_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "unlink", failing(errno.EIO))
    etag = StorePath(f"file://{folder}/a", CONFIG).put(b"body", if_absent=True)
    assert names(folder) == ["a"] and StorePath(f"file://{folder}/a", CONFIG).read(etag) == b"body"


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EDQUOT, StoreError), (errno.EIO, StoreError), (errno.EACCES, DeniedError)]
)
def test_a_write_that_fails_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StoreError]
) -> None:
    monkeypatch.setattr(os, "fsync", failing(code))
    with pytest.raises(StoreError, match=os.strerror(code)) as caught:
        StorePath(f"file://{folder}/a", CONFIG).put(b"body", if_absent=True)
    assert type(caught.value) is kind
    assert list(folder.iterdir()) == []
    with pytest.raises(OutputError, match=os.strerror(code)):
        preflight(StorePath(f"file://{folder}/out", CONFIG))


def test_a_read_only_disk_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def read_only(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        return failing(errno.EROFS)() if flags & os.O_CREAT else real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(OutputError, match=r"cannot be written: .* Read-only file system"):
        preflight(StorePath(f"file://{folder}", CONFIG))
    assert list(folder.iterdir()) == []


def test_a_file_where_a_folder_is_needed_is_told(folder: Path) -> None:
    (folder / "file").write_bytes(b"x")
    with pytest.raises(StoreError, match="a file is where a folder is needed") as caught:
        StorePath(f"file://{folder}/file/a", CONFIG).put(b"body", if_absent=True)
    assert not isinstance(caught.value, ExistsError)
    assert StorePath(f"file://{folder}/file/a", CONFIG).head() is None
    assert list(StorePath(f"file://{folder}/file/a", CONFIG).list()) == []
    StorePath(f"file://{folder}/file/a", CONFIG).delete()
    with pytest.raises(NotFoundError):
        StorePath(f"file://{folder}/file/a", CONFIG).read()


def test_a_file_system_without_hard_links_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    with pytest.raises(OutputError, match="has no hard links"):
        preflight(StorePath(f"file://{folder}", CONFIG))
    assert list(folder.iterdir()) == []


def test_a_name_of_full_length_can_be_written(folder: Path) -> None:
    uri = f"file://{folder}/{'é' * 127}a"
    etag = StorePath(uri, CONFIG).put(b"body", if_absent=True)
    assert StorePath(uri, CONFIG).read(etag) == b"body"


def test_every_write_has_its_own_etag(folder: Path) -> None:
    uri = f"file://{folder}/a"
    etags = [StorePath(uri, CONFIG).put(b"same") for _ in range(5)]
    assert all(older != newer for older, newer in pairwise(etags))


def test_leftovers_of_killed_writers_are_unseen_and_swept_after_an_hour(folder: Path) -> None:
    (folder / "data").mkdir()
    for name, age_s in ((f"data/{TEMPORARY}", 4000), (TEMPORARY, 10), ("data/.tmp", 4000), ("a.tmp", 4000)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    assert names(folder) == ["a.tmp", "data/.tmp"]
    assert StorePath(f"file://{folder}").sweep_temporaries() == 1
    assert not (folder / "data" / TEMPORARY).exists() and (folder / TEMPORARY).exists()
    assert StorePath(f"file://{folder}/nothing").sweep_temporaries() == 0


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


def test_a_folder_of_more_files_than_are_sorted_at_once_keeps_its_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_SORTED_ENTRIES", "_BLOCK_ENTRIES", "_FAN_IN"):
        monkeypatch.setattr(spool, name, 2)
    expected = [f"{parent}/{number}" for parent in ("a", "a-b", "a.b", "b/c", "b/c-d") for number in range(7)]
    for name in expected:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    assert names(folder) == sorted(expected)
    assert [info.size for info in StorePath(f"file://{folder}/b/c-d", CONFIG).list()] == [7] * 7
    assert all(info == StorePath(info.uri, CONFIG).head() for info in StorePath(f"file://{folder}", CONFIG).list())


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
        StorePath(f"file://{folder}/pipe", CONFIG).read()
    with pytest.raises(NotFoundError, match="not a file"):
        StorePath(f"file://{folder}", CONFIG).read()


def test_a_folder_that_may_not_be_read_is_no_empty_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "scandir", failing(errno.EACCES))
    with pytest.raises(DeniedError, match="Permission denied"):
        names(folder)


@pytest.mark.parametrize("body", [b"", b"some bytes", bytes(2**20)])
def test_a_file_that_was_just_written_is_read_at_once(folder: Path, body: bytes) -> None:
    etag = StorePath(canonical_uri(f"{folder}/a"), CONFIG).put(body)
    assert checked_file.read_at_once(f"{folder}/a", etag) == body


def test_a_file_for_which_the_disk_would_be_waited_for_is_not_read_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etag = StorePath(canonical_uri(f"{folder}/a"), CONFIG).put(b"some bytes")
    for refusal in (failing(errno.EAGAIN), failing(errno.EOPNOTSUPP), lambda *args: 5):
        monkeypatch.setattr(os, "preadv", refusal)
        assert checked_file.read_at_once(f"{folder}/a", etag) is None
    monkeypatch.setattr(checked_file, "_DO_NOT_WAIT", None)
    assert checked_file.read_at_once(f"{folder}/a", etag) is None


def test_another_version_of_a_file_is_not_read_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etag = StorePath(canonical_uri(f"{folder}/a"), CONFIG).put(b"some bytes")
    with pytest.raises(NotFoundError):
        checked_file.read_at_once(f"{folder}/b", etag)
    with pytest.raises(NotFoundError):
        checked_file.read_at_once(f"{folder}", etag)
    real = os.preadv

    def change_meanwhile(*args: Any) -> int:
        count = real(*args)
        with (folder / "a").open("ab") as file:
            file.write(b"and more")
        return count

    monkeypatch.setattr(os, "preadv", change_meanwhile)
    for _ in range(2):  # while it is read, and before
        with pytest.raises(ChangedError):
            checked_file.read_at_once(f"{folder}/a", etag)


def test_a_file_that_has_become_huge_is_given_no_memory(folder: Path) -> None:
    etag = StorePath(canonical_uri(f"{folder}/a"), CONFIG).put(b"some bytes")
    os.truncate(folder / "a", 2**43)
    with pytest.raises(ChangedError):
        checked_file.read_at_once(f"{folder}/a", etag)


def test_a_file_that_changes_under_the_reader_is_noticed(folder: Path) -> None:
    uri = canonical_uri(f"{folder}/a")
    etag = StorePath(uri, CONFIG).put(bytes(2**20))
    with StorePath(uri, CONFIG).open(size=2**20, etag=etag) as reader:
        assert reader.read(10) == bytes(10)
        with (folder / "a").open("r+b") as writer:
            writer.truncate(2**19)
        with pytest.raises(ChangedError):
            reader.read()


def test_a_file_that_is_replaced_under_the_reader_stays_the_old_one(folder: Path) -> None:
    uri = canonical_uri(f"{folder}/a")
    etag = StorePath(uri, CONFIG).put(b"old" * 2**18)
    with StorePath(uri, CONFIG).open(size=3 * 2**18, etag=etag) as reader:
        assert reader.read(3) == b"old"
        StorePath(uri, CONFIG).put(b"new", if_match=etag)
        assert reader.read() == b"old" * (2**18 - 1)
