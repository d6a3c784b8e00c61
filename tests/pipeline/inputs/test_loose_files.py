"""Loose files are fetched many at a time and come in their order; the store is the real one but where a test says."""

import random
import threading

import pytest

from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.inputs import loose_files as files
from pipeline.inputs.loose_files import Member, read_files
from pipeline.inputs.record import Record
from pipeline.store.config import StoreConfig
from pipeline.store.errors import ChangedError, DeniedError, NotFoundError, TransientError
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri, join_uri

STORE = StoreConfig()


def member(number, size=10):
    return Member(f"s3://b/{number}.jpg", f"{number}.jpg", size, "e", f"label {number}")


@pytest.fixture
def store(monkeypatch):
    """(function of a URI) -> what the store answers from now on."""
    return lambda answer: monkeypatch.setattr(StorePath, "read", lambda path, etag: answer(path.uri))


def number_of(uri):
    return int(uri.removesuffix(".jpg").rpartition("/")[2])


def test_each_member_is_read_under_the_etag_that_was_planned(root):
    uris = [join_uri(root, f"{i}.jpg") for i in range(4)]
    for i, uri in enumerate(uris):
        StorePath(uri, STORE).put(b"image %d" % i)
    infos = [StorePath(uri, STORE).head() for uri in uris]
    members = [Member(info.uri, f"{i}.jpg", info.size, info.etag, f"label {i}") for i, info in enumerate(infos)]
    StorePath(uris[1], STORE).delete()
    StorePath(uris[2], STORE).put(b"another")
    assert list(read_files(members, STORE, give_up_failed=False)) == [
        Record("0.jpg", b"image 0", "label 0"),
        Record(
            "1.jpg", None, "label 1", failure=Failure(ErrorCode.SOURCE_MISSING, "the object was listed but is gone")
        ),
        Record(
            "2.jpg", None, "label 2",
            failure=Failure(ErrorCode.SOURCE_CHANGED, "the object changed after it was listed"),
        ),
        Record("3.jpg", b"image 3", "label 3"),
    ]  # fmt: skip


def test_small_files_in_memory_are_read_without_a_thread_and_others_with_one(tmp_path, monkeypatch):
    members = []
    for number in range(6):
        uri = canonical_uri(str(tmp_path / f"{number}.jpg"))
        body = b"%d" % number * (1 if number < 5 else files._AT_ONCE_BYTES + 1)
        members.append(Member(uri, f"{number}.jpg", len(body), StorePath(uri, STORE).put(body), None))
    by_thread = []
    real = {name: getattr(StorePath, name) for name in ("read", "read_at_once")}

    def read(path, etag):
        by_thread.append(number_of(path.uri))
        return real["read"](path, etag)

    def read_at_once(path, etag):
        return None if number_of(path.uri) in (1, 4) else real["read_at_once"](path, etag)

    monkeypatch.setattr(StorePath, "read", read)
    monkeypatch.setattr(StorePath, "read_at_once", read_at_once)
    found = list(read_files(members, STORE, give_up_failed=False))
    assert sorted(by_thread) == [1, 4, 5]
    assert [record.data[:1] for record in found] == [b"%d" % number for number in range(6)]


def test_no_members_are_no_records():
    assert list(read_files([], STORE, give_up_failed=False)) == []


def test_records_come_in_order_however_long_each_takes(store):
    rng = random.Random(3)
    order = list(range(200))
    rng.shuffle(order)
    arrived = {number: threading.Event() for number in order}
    followed_by = dict(zip(order[1:], order, strict=False))

    def answer(uri):
        # Each waits, but not for ever, for one that is drawn: answers come in about the order drawn.
        number = number_of(uri)
        if number in followed_by:
            arrived[followed_by[number]].wait(0.002)
        arrived[number].set()
        return b"%d" % number

    store(answer)
    found = list(read_files([member(number) for number in range(200)], STORE, give_up_failed=False))
    assert found == [Record(f"{n}.jpg", b"%d" % n, f"label {n}") for n in range(200)]


def test_as_many_as_the_window_holds_are_fetched_at_the_same_time_to_the_end(store, monkeypatch):
    monkeypatch.setattr(files, "_WINDOW_BYTES", 8 * 10)
    # A barrier that fewer threads could not pass.
    together = threading.Barrier(8)

    def answer(uri):
        together.wait(20)
        return uri.encode()

    store(answer)
    assert len(list(read_files([member(number) for number in range(64)], STORE, give_up_failed=False))) == 64


@pytest.mark.parametrize(("size", "most"), [(1, 5), (40, 2), (1000, 1)])
def test_what_is_fetched_ahead_is_bounded_in_files_and_in_bytes(store, monkeypatch, size, most):
    monkeypatch.setattr(files, "_WINDOW_FILES", 5)
    monkeypatch.setattr(files, "_WINDOW_BYTES", 100)
    asked = []

    def answer(uri):
        asked.append(number_of(uri))
        return b""

    store(answer)
    records = read_files([member(number, size) for number in range(30)], STORE, give_up_failed=False)
    for yielded, _ in enumerate(records):
        assert len(asked) <= yielded + most
    assert sorted(asked) == list(range(30))


def test_an_object_too_large_for_an_image_is_not_fetched(store, monkeypatch):
    monkeypatch.setattr(files, "MAX_ENCODED_BYTES", 100)
    store(lambda uri: uri.encode())
    large, small = read_files([member(0, 101), member(1, 100)], STORE, give_up_failed=False)
    failure = Failure(ErrorCode.IMAGE_TOO_LARGE, "the object has 101 bytes, more than an image may have")
    assert large == Record("0.jpg", None, "label 0", failure=failure)
    assert small.data == b"s3://b/1.jpg"


@pytest.mark.parametrize("error", [TransientError("no answer from 10.0.0.7"), DeniedError("request 17 refused")])
def test_a_store_that_fails_raises_behind_the_records_before_it_or_fails_the_record(store, error):
    def answer(uri):
        if number_of(uri) == 3:
            raise error
        return b"x"

    store(answer)
    members = [member(number) for number in range(6)]
    found = []
    with pytest.raises(type(error)):
        found.extend(read_files(members, STORE, give_up_failed=False))
    assert [record.key for record in found] == ["0.jpg", "1.jpg", "2.jpg"]
    found = list(read_files(members, STORE, give_up_failed=True))
    assert [record.failure is None for record in found] == [True, True, True, False, True, True]
    # Nothing of what the store said, which may differ from attempt to attempt.
    message = f"the object could not be read ({type(error).__name__})"
    assert found[3] == Record("3.jpg", None, "label 3", failure=Failure(ErrorCode.SOURCE_UNREADABLE, message))


@pytest.mark.parametrize("give_up_failed", [False, True])
@pytest.mark.parametrize(("error", "code"), [(NotFoundError, "source.missing"), (ChangedError, "source.changed")])
def test_what_is_gone_or_changed_is_a_failed_record_in_every_pass(store, error, code, give_up_failed):
    def answer(uri):
        raise error(f"{uri} request 17")

    store(answer)
    (record,) = read_files([member(0)], STORE, give_up_failed=give_up_failed)
    assert record.failure.code == code
    assert "17" not in record.failure.message


def test_a_reader_that_is_left_early_fetches_no_more(store, monkeypatch):
    monkeypatch.setattr(files, "_WINDOW_FILES", 4)
    asked = []
    store(lambda uri: asked.append(uri) or b"")
    records = read_files([member(number) for number in range(50)], STORE, give_up_failed=False)
    next(records)
    records.close()
    assert len(asked) <= 5
    assert not any(thread.name.startswith("fetch") for thread in threading.enumerate())


def test_local_files_with_odd_names_are_read(tmp_path):
    names = ["a b.jpg", "ü%20#?.jpg", "x" * 200 + ".jpg", "s p/ä.jpg"]
    members = []
    for name in names:
        uri = join_uri(canonical_uri(str(tmp_path)), name)
        etag = StorePath(uri, STORE).put(name.encode())
        members.append(Member(uri, name, 1, etag, None))
    found = list(read_files(members, STORE, give_up_failed=False))
    assert [record.data for record in found] == [name.encode() for name in names]
