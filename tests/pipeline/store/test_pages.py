"""Pages of a listing from a store's answers, and listings by obstore's client."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore

from pipeline.store import pages as store_pages
from pipeline.store.errors import StoreError, TransientError
from pipeline.store.pages import ClientPages, S3Pages
from pipeline.store.parallel_listing import list_keys


class FakeClient:
    """What `S3Pages` uses of boto3's client, with one answer for everything."""

    def __init__(self, body: str, *, endpoint_url: str = "http://localhost", region: str | None = None) -> None:
        events = SimpleNamespace(register=lambda *args, **options: None)
        self.meta = SimpleNamespace(endpoint_url=endpoint_url, region_name="eu-west-1", events=events)
        self._headers = {"x-amz-bucket-region": region} if region else {}
        self._body = body

    def list_objects_v2(self, **options: Any) -> dict[str, Any]:
        return {"ResponseMetadata": {"HTTPHeaders": self._headers}, store_pages._XML_PLACE: self._body.encode()}


def test_keys_come_as_they_are() -> None:
    body = """<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType>
        <Contents><ETag>&quot;1&quot;</ETag><Key>a%2B+%26%0Ab</Key><LastModified>1970-01-02T00:00:01.500Z</LastModified>
            <Size>5</Size></Contents>
        <Contents><Key>caf%E9</Key><LastModified>yesterday</LastModified><Size>1</Size></Contents>
        <CommonPrefixes><Prefix>%C3%A9/</Prefix></CommonPrefixes></ListBucketResult>"""
    page = S3Pages("b", FakeClient(body)).page("", None)
    assert page.entries == [("a+ &\nb", 5, '"1"', 86401.5), ("caf\udce9", 1, "", 0.0)]
    assert (page.folders, page.token) == (["é/"], None)
    plain = "<ListBucketResult><Contents><Key>a%2B+b</Key><Size>5</Size></Contents></ListBucketResult>"
    assert S3Pages("b", FakeClient(plain)).page("", None).entries == [("a%2B+b", 5, "", 0.0)]


def test_answers_that_are_no_listing_are_errors() -> None:
    for body, message in (
        ("<html/>", "no listing: html"),
        ("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "does not say where"),
    ):
        with pytest.raises(StoreError, match=message):
            S3Pages("b", FakeClient(body)).page("", None)


def test_an_answer_that_is_cut_or_became_an_error_on_its_way_can_be_asked_for_again() -> None:
    for body, message in (
        ("<ListBucketResult><Contents><Key>a</Ke", "breaks off"),
        ("", "breaks off"),
        ("<Error><Code>InternalError</Code><Message>try again</Message></Error>", "500 InternalError: try again"),
    ):
        with pytest.raises(TransientError, match=message):
            S3Pages("b", FakeClient(body)).page("", None)


def test_only_general_purpose_buckets_of_aws_vouch_for_their_order() -> None:
    aws = "https://s3.eu-west-1.amazonaws.com"
    for bucket, url, in_order in (("b", aws, True), ("b--x-s3", aws, False), ("b", "http://minio:9000", False)):
        assert S3Pages(bucket, FakeClient("", endpoint_url=url)).in_order is in_order


def test_a_bucket_in_another_region_is_told_before_its_objects_are_read() -> None:
    body = "<ListBucketResult/>"
    with pytest.raises(StoreError, match=r"it lies in us-west-2; .* set AWS_REGION"):
        S3Pages("b", FakeClient(body, endpoint_url="https://s3.amazonaws.com", region="us-west-2")).page("", None)
    assert S3Pages("b", FakeClient(body, region="elsewhere")).page("", None).entries == []


@pytest.mark.parametrize("breaks_off", [False, True])
def test_other_stores_are_listed_by_obstore_and_go_on_where_they_broke_off(
    monkeypatch: pytest.MonkeyPatch, breaks_off: bool
) -> None:
    monkeypatch.setattr(store_pages, "_PAGE_KEYS", 2)
    store = MemoryStore()
    names = ["a", 'a"b', "a#b", "a$b", "a%b", "a-b", "a/x", "a b", "b/c/d", "~", "é", "😀", "zero"]
    for name in names:
        obstore.put(store, f"in/{name}", b"" if name in ("a", "zero") else name.encode())
    obstore.put(store, "inside", b"a neighbour")
    pages = ClientPages(store)
    whole_page = pages.page

    def page(*args: Any, **options: Any) -> Any:
        if breaks_off:
            # As if the stream had failed: the next page is asked for anew.
            pages._open.clear()
        return whole_page(*args, **options)

    monkeypatch.setattr(pages, "page", page)
    found = list(list_keys(pages, "in/", uri="gs://b/in", deadline_s=0, threads=1))
    assert [entry[0] for entry in found] == sorted(f"in/{name}" for name in names if name != "a")
    assert [size for _, size, _, _ in found] == [len(key[3:].encode()) * (key != "in/zero") for key, *_ in found]
    meta = obstore.head(store, found[0][0])
    assert found[0][2:] == (meta["e_tag"], meta["last_modified"].timestamp())


def test_a_listing_in_an_order_of_its_own_is_not_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_pages, "_PAGE_KEYS", 2)
    order = [["b", "a"], ["c", "d"]]
    meta = {"size": 1, "e_tag": None, "last_modified": datetime.now(UTC)}
    metas = [[{"path": key} | meta for key in page] for page in order]
    monkeypatch.setattr(store_pages.obstore, "list", lambda *args, **options: iter(metas))
    pages = ClientPages(MemoryStore())
    assert [entry[0] for entry in list_keys(pages, "", uri="gs://b", deadline_s=0, threads=1)] == ["a", "b", "c", "d"]
    first = pages.page("", None)
    pages._open.clear()
    with pytest.raises(StoreError, match="broke off, in an order of the store's own"):
        pages.page("", first.token)
