"""Listings in parts, by several threads and in bounded memory, equal a sorted list: any store's order, any fault."""

import random
import threading
import time
from collections.abc import Callable, Container
from contextlib import ExitStack, closing
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.listing.fake_lister import FakePages, image_folders, tar_folder
from pipeline.store import external_sort as spool
from pipeline.store import pages as store_pages
from pipeline.store import placeholders
from pipeline.store import retry as store_requests
from pipeline.store.config import StoreConfig
from pipeline.store.errors import StoreError, TransientError
from pipeline.store.external_sort import Entry
from pipeline.store.pages import Page, S3Pages
from pipeline.store.parallel_listing import list_keys
from pipeline.store.store_path import StorePath
from pipeline.store.uris import is_addressable, join_uri

CONFIG = StoreConfig(deadline_s=5, timeout_s=10)
ORDERS = ("code points", "folders", "none")
FOLDERS = ("a", "a-b", "a.b", "b", "b/c", "b/c/d", "é", "😀")
TREE = {f"{folder}/{name}": 1 for folder in FOLDERS for name in ("1", "2-", "3", "4")}
NO_WAITING = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None)


class FakeStore:
    """Some keys in memory, in an order of the store's own, on small pages, with faults.

    Args:
        order: by code points, as one walks through folders, or none.
        faults: requests, counted from 0, that fail and can be repeated.
    """

    def __init__(
        self,
        sizes: dict[str, int],
        *,
        order: str = "code points",
        page_keys: int = 3,
        faults: Container[int] = (),
    ) -> None:
        self.in_order = order == "code points"
        self.requests: list[tuple[str, bool]] = []
        self._lock = threading.Lock()
        self._sizes, self._page_keys, self._faults = sizes, page_keys, faults
        self._keys = sorted(sizes, key=(lambda key: [key]) if self.in_order else (lambda key: key.split("/")))
        if order == "none":
            random.Random(0).shuffle(self._keys)

    def page(self, prefix: str, token: str | None, *, delimited: bool = False) -> Page:
        with self._lock:
            number = len(self.requests)
            self.requests.append((prefix, delimited))
        if number in self._faults:
            raise TransientError("the page broke off")
        names = [key for key in self._keys if key.startswith(prefix)]
        if delimited:
            slashes = [name.find("/", len(prefix)) for name in names]
            names = [name if slash < 0 else name[: slash + 1] for name, slash in zip(names, slashes, strict=True)]
            names = list(dict.fromkeys(names))
        start = int(token or 0)
        stop = start + self._page_keys
        here = names[start:stop]
        folders = [name for name in here if delimited and name.endswith("/") and name != prefix]
        entries = [(name, self._sizes[name], f"e{name}", 1.5) for name in here if name not in folders]
        return Page(entries, str(stop) if stop < len(names) else None, folders)


def listed(store: Any, prefix: str = "", **options: Any) -> list[Entry]:
    """All entries; fails where a listing would wait for ever."""
    found: list[Entry] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            found.extend(list_keys(store, prefix, **({"uri": "s3://b", "deadline_s": 1000.0, "threads": 3} | options)))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "the listing hangs"
    if errors:
        raise errors[0]
    return found


def expected(sizes: dict[str, int], prefix: str = "") -> list[Entry]:
    keys = sorted(key for key in sizes if key.startswith(prefix))
    objects = [key for key in keys if is_addressable(key)]
    entries = []
    for key in keys:
        if key in objects:
            if sizes[key] > 0 or not any(other.startswith(key + "/") for other in objects):
                entries.append((key, sizes[key], f"e{key}", 1.5))
        elif sizes[key] > 0 or not is_addressable(key.removesuffix("/")):
            entries.append((key, ~sizes[key], f"e{key}", 1.5))
    return entries


PARTS = st.sampled_from(["a", "b", "a-", "a.", "~", "é", "😀", "\uffff", "a b", "", ".", "x\n"])
KEYS = st.lists(PARTS, min_size=1, max_size=4).map("/".join).filter(bool)


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.dictionaries(KEYS, st.sampled_from([0, 1, 7]), max_size=40),
    order=st.sampled_from(ORDERS),
    prefix=st.sampled_from(["", "a/", "a/b/"]),
    page_keys=st.integers(1, 4),
    threads=st.sampled_from([1, 2, 4]),
    max_entries_ahead=st.sampled_from([1, 5, 1000]),
    faults=st.frozensets(st.integers(0, 60), max_size=30),
)
def test_a_listing_equals_the_sorted_list_of_what_is_there(
    sizes: dict[str, int],
    order: str,
    prefix: str,
    page_keys: int,
    threads: int,
    max_entries_ahead: int,
    faults: frozenset[int],
) -> None:
    store = FakeStore(sizes, order=order, page_keys=page_keys, faults=faults)
    with ExitStack() as stack:
        stack.enter_context(patch.multiple(spool, _SORTED_ENTRIES=4, _BLOCK_ENTRIES=2, _FAN_IN=2, _MEMORY_BYTES=1))
        stack.enter_context(patch.object(placeholders, "_MAX_WAITING", 2))
        stack.enter_context(patch.object(store_requests, "time", NO_WAITING))
        found = listed(store, prefix, threads=threads, max_entries_ahead=max_entries_ahead)
    assert found == expected(sizes, prefix)


@pytest.mark.parametrize("order", ORDERS)
def test_folders_are_listed_at_the_same_time(order: str) -> None:
    store = FakeStore(TREE, order=order)
    plain_page, together = store.page, threading.Barrier(3)

    def page(prefix: str, token: str | None, *, delimited: bool = False) -> Page:
        if prefix in ("a/", "a-b/", "a.b/") and token is None:
            together.wait(10)
        return plain_page(prefix, token, delimited=delimited)

    store.page = page  # type: ignore[method-assign]
    assert listed(store, threads=8) == expected(TREE)
    assert {prefix for prefix, _ in store.requests} > {"a/", "a-b/", "a.b/", "b/", "é/", "😀/"}


def test_folders_of_a_few_objects_are_not_worth_a_request_each() -> None:
    tree = {f"{folder:04d}/only": 1 for folder in range(1000)}
    store = FakeStore(tree, page_keys=100)
    assert listed(store, threads=8) == expected(tree)
    assert len(store.requests) == 10


def test_one_thread_takes_one_page_after_the_other() -> None:
    store = FakeStore(TREE)
    assert listed(store, threads=1) == expected(TREE)
    assert len(store.requests) == -(-len(TREE) // 3)


def test_where_the_store_keeps_the_order_the_first_page_comes_at_once() -> None:
    flat = {f"{number:04d}": 1 for number in range(1000)}
    for order, num_requests in (("code points", 1), ("folders", 100)):
        store = FakeStore(flat, order=order, page_keys=10)
        with closing(list_keys(store, "", uri="s3://b", deadline_s=0)) as found:
            assert next(found)[0] == "0000"
        assert len(store.requests) == num_requests


def test_a_store_that_breaks_its_word_about_the_order_is_an_error() -> None:
    store = FakeStore({"a/1": 1, "a-b": 1}, order="folders")
    store.in_order = True
    with pytest.raises(StoreError, match="listed 'a-b' after 'a/1', out of order"):
        listed(store, threads=1)


def test_what_keeps_failing_is_told_and_not_left_out() -> None:
    for faults in (range(3, 10**9), range(10**9)):
        with patch.object(store_requests, "time", NO_WAITING), pytest.raises(TransientError, match="gave up after"):
            listed(FakeStore(TREE, order="folders", faults=faults), deadline_s=0.2)


def test_a_store_that_goes_round_in_circles_is_an_error() -> None:
    store = SimpleNamespace(in_order=False, page=lambda prefix, token, delimited: Page([("a", 1, "e", 1.5)], "again"))
    with pytest.raises(StoreError, match="the same page again"):
        listed(store)
    entry = ("a/b", 1, "e", 1.5)
    store.page = lambda prefix, token, delimited: Page([entry], "more", ["a/", prefix] if delimited else [])
    with pytest.raises(StoreError, match="listed the folder '' below ''"):
        listed(store)


def test_a_reader_that_stops_does_not_list_the_whole_store() -> None:
    pages, requests = FakePages(image_folders(400_000, 20)), []
    plain_page = pages.page
    pages.page = lambda *args, **options: requests.append(args) or plain_page(*args, **options)  # type: ignore
    found = list_keys(pages, "", uri="s3://b", deadline_s=1, threads=4, max_entries_ahead=5000)
    next(found)
    deadline, before = time.monotonic() + 10, -1
    while len(requests) > before and time.monotonic() < deadline:
        before = len(requests)
        time.sleep(0.2)
    # The reader's folder of 20 pages, and what was begun beside it.
    assert 20 <= before < 50
    found.close()
    while time.monotonic() < deadline and any(thread.name.startswith("listing") for thread in threading.enumerate()):
        time.sleep(0.01)
    assert not any(thread.name.startswith("listing") for thread in threading.enumerate())
    assert len(requests) == before


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_made_up_stores_hold_each_of_their_objects_once(is_shuffled: bool) -> None:
    folders = [*image_folders(12_017, 7), tar_folder(2_345)]
    runs = [
        list(FakePages(folders, is_shuffled=is_shuffled, threads=threads).list_objects(StorePath("s3://b", CONFIG)))
        for threads in (1, 5)
    ]
    assert runs[0] == runs[1] and len({info.uri for info in runs[0]}) == 14_362
    assert [info.uri for info in runs[0]] == sorted(info.uri for info in runs[0])
    assert runs[0][-1].uri == "s3://b/tars/000002344.tar"
    only_tars = FakePages(folders).list_objects(StorePath("s3://b/tars", CONFIG))
    assert list(only_tars) == runs[0][12_017:]


# ---- On a real server, which lists as one walks through folders


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_pages, "_PAGE_KEYS", 3)


@pytest.mark.usefixtures("small_pages")
def test_a_real_store_is_listed_alike_by_one_thread_and_by_many(
    s3_env: Any, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in TREE:
        StorePath(s3_root, CONFIG).join(key).put(key.encode())
    found = list(StorePath(s3_root, CONFIG).list())
    assert [info.uri for info in found] == sorted(join_uri(s3_root, key) for key in TREE)
    assert [info.size for info in found] == [len(info.uri.encode()) - len(s3_root) - 1 for info in found]
    monkeypatch.setattr("pipeline.store.remote.LISTING_THREADS", 1)
    assert list(StorePath(s3_root, CONFIG).list()) == found


@pytest.mark.usefixtures("small_pages")
def test_pages_of_a_real_store_that_break_off_are_asked_for_again(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in TREE:
        StorePath(s3_root, CONFIG).join(key).put(b"x")
    expected = list(StorePath(s3_root, CONFIG).list())
    plain_page, asked, broken = S3Pages.page, threading.Lock(), []

    def page(self: S3Pages, prefix: str, token: str | None, *, delimited: bool = False) -> Page:
        whole = plain_page(self, prefix, token, delimited=delimited)
        with asked:
            if (prefix, token, delimited) not in broken:
                broken.append((prefix, token, delimited))
                raise TransientError("the page broke off")
        return whole

    monkeypatch.setattr(S3Pages, "page", page)
    monkeypatch.setattr(store_requests, "time", NO_WAITING)
    assert list(StorePath(s3_root, CONFIG).list()) == expected
    assert len(broken) > len(TREE) / 3


def test_a_page_that_is_cut_short_is_asked_for_again(
    stub_store: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def listing(keys: list[str], token: str | None, *, cut: int | None = None) -> Callable[[Any], None]:
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>" if token else ""
        contents = "".join(f"<Contents><Key>{key}</Key><Size>1</Size><ETag>e</ETag></Contents>" for key in keys)
        body = f"<ListBucketResult>{more}{contents}</ListBucketResult>".encode()

        def answer(exchange: Any) -> None:
            tokens.append("continuation-token=two" in exchange.path)
            exchange.reply(200, body[:cut], claimed=None if cut is None or cut < 0 else len(body))

        return answer

    tokens: list[bool] = []
    first, second = listing(["in/a", "in/b"], "two"), listing(["in/c"], None)
    # Cut by the connection, and by a server that ends its answer early.
    answers = (
        lambda exchange: exchange.error(404, "NoSuchKey"), first, listing(["in/c"], None, cut=60),
        listing(["in/c"], None, cut=-30), second,
    )  # fmt: skip
    with stub_store(*answers, deadline_s=10) as (config, requests), caplog.at_level("INFO"):
        assert [info.uri for info in StorePath("s3://bucket/in", config).list()] == [
            f"s3://bucket/in/{k}" for k in "abc"
        ]
    assert requests == ["HEAD"] + ["GET"] * 4 and tokens == [False, True, True, True]
    assert caplog.text.count("the listing breaks off or is no XML") == 2
