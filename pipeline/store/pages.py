"""Pages of a listing: the answers of a store to requests for the names under a prefix.

S3 is listed through boto3, for two reasons. Each page is requested by the token of the page before, so a page that
breaks off can be requested again exactly, whatever the order of the store. And boto3 returns all keys unchanged, while
the listing of obstore always includes the objects below a level, and ends at a key that obstore cannot represent.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote_plus, urlsplit
from xml.etree import ElementTree

import obstore
from obstore.store import ObjectStore

from pipeline.store.clients import listing_client, open_client
from pipeline.store.config import StoreConfig
from pipeline.store.errors import StoreError, TransientError, from_answer, redact
from pipeline.store.external_sort import Entry
from pipeline.store.object_info import unix_s
from pipeline.store.retry import boto_translated
from pipeline.store.uris import split_uri

_PAGE_KEYS = 1000
_XML_PLACE = "pvtv2-page"


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to a listing request.

    Attributes:
        entries: Key, size in bytes, ETag and last-modified time of each object.
        token: Token of the next page; None for the last page.
        folders: Folders below the prefix, each with a slash at the end; empty in a page that is not delimited.
    """

    entries: list[Entry]
    token: str | None
    folders: list[str] = field(default_factory=list)


class PageSource(Protocol):
    """A source of the pages of a bucket's listing, for several threads.

    Attributes:
        in_order: True if the store promises to list keys in the order of their code points.
    """

    in_order: bool

    def page(self, prefix: str, token: str | None, *, delimited: bool = False) -> Page:
        """Returns one page of the keys that begin with `prefix`; the same token always gives the same page.

        Args:
            token: Token of the page, from the page before; None for the first page.
            delimited: True lists only the keys without a slash behind the prefix, and the folders of the other keys.

        Raises:
            TransientError: The page can be requested again.
            StoreError: The page cannot be requested again.
        """


def open_pages(uri: str, config: StoreConfig) -> PageSource:
    """Returns the source of pages for the bucket of a URI."""
    if uri.startswith("s3://"):
        return S3Pages(split_uri(uri)[1], listing_client(config))
    return ClientPages(open_client(uri, config, asks_again=True)[0])


class S3Pages:
    """The pages of an S3 bucket, by ListObjectsV2."""

    def __init__(self, bucket: str, client: Any) -> None:
        self._uri, self._bucket, self._client = f"s3://{bucket}", bucket, client
        host = urlsplit(client.meta.endpoint_url).hostname
        self._on_aws = host in ("s3.amazonaws.com", f"s3.{client.meta.region_name}.amazonaws.com")
        # AWS lists directory buckets in no order. Other stores may list in no order, or sort by the names of folders.
        self.in_order = self._on_aws and not bucket.endswith("--x-s3")
        # The parser of boto3 needs several times as long as `_parsed`. A handler with a star in its event name runs
        # before the handler that would parse the body once more to look for errors.
        client.meta.events.register("before-parse.*.ListObjectsV2", _take_body, unique_id=_XML_PLACE)

    def page(self, prefix: str, token: str | None, *, delimited: bool = False) -> Page:
        """See `PageSource`."""
        options = ({"ContinuationToken": token} if token else {}) | ({"Delimiter": "/"} if delimited else {})
        with boto_translated(self._uri, "s3:ListBucket"):
            answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=_PAGE_KEYS, **options)
        region = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        if self._on_aws and region not in (None, self._client.meta.region_name):
            # boto3 finds the region of a bucket by itself; the client that reads objects does not.
            raise from_answer(self._uri, 301, "PermanentRedirect", f"it lies in {region}")
        return _parsed(self._uri, answer[_XML_PLACE])


def _take_body(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    if response_dict["status_code"] == 200:
        customized_response_dict[_XML_PLACE] = response_dict["body"]
        response_dict["body"] = b""


def _parsed(uri: str, body: bytes) -> Page:
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise TransientError(f"{uri}: the listing breaks off or is no XML: {error}") from None
    # Some stores leave out the XML namespace.
    space = root.tag[: root.tag.find("}") + 1]
    if root.tag == f"{space}Error":
        # The store found the error after it had sent status 200.
        raise from_answer(uri, 500, root.findtext(f"{space}Code") or "", root.findtext(f"{space}Message") or "")
    if root.tag != f"{space}ListBucketResult":
        raise StoreError(f"{uri}: the answer is no listing: {redact(root.tag)}")
    named, sized, tagged, modified = (f"{space}{field}" for field in ("Key", "Size", "ETag", "LastModified"))
    is_quoted = root.findtext(f"{space}EncodingType") == "url"

    def name(text: str | None) -> str:
        if text and is_quoted and ("%" in text or "+" in text):
            return unquote_plus(text, errors="surrogateescape")
        return text or ""

    token = None
    if root.findtext(f"{space}IsTruncated") == "true":
        token = root.findtext(f"{space}NextContinuationToken")
        if not token:
            raise StoreError(f"{uri}: the listing goes on, but does not say where")
    return Page(
        [
            (
                name(item.findtext(named)),
                int(item.findtext(sized) or 0),
                item.findtext(tagged) or "",
                _modified_s(item.findtext(modified)),
            )
            for item in root.iterfind(f"{space}Contents")
        ],
        token,
        [name(item.findtext(f"{space}Prefix")) for item in root.iterfind(f"{space}CommonPrefixes")],
    )


def _modified_s(text: str | None) -> float:
    """Returns a last-modified time in Unix seconds; 0 if the text is missing or is not a time."""
    try:
        return unix_s(text) if text else 0.0
    except ValueError:
        return 0.0


class ClientPages:
    """The pages of any store that obstore supports, one listing at a time and without delimited pages.

    After a failure the listing continues behind the largest key that arrived. A listing whose keys arrived out of order
    cannot be continued, and raises a `StoreError`.
    """

    in_order = False

    def __init__(self, client: ObjectStore) -> None:
        self._client = client
        # The rest of each listing that is under way, by prefix and token.
        self._open: dict[tuple[str, str | None], Iterator[Any]] = {}
        self._resumable = True

    def page(self, prefix: str, token: str | None, *, delimited: bool = False) -> Page:
        """See `PageSource`.

        Raises:
            NotImplementedError: The page is delimited.
        """
        if delimited:
            raise NotImplementedError("only S3 is listed by folders")
        folder = prefix.rstrip("/")
        stream = self._open.pop((prefix, token), None)
        if stream is None:
            if token is not None and not self._resumable:
                raise StoreError(f"the listing of {folder!r} broke off, in an order of the store's own; start again")
            stream = iter(obstore.list(self._client, folder or None, offset=token, chunk_size=_PAGE_KEYS))
        entries = []
        largest = token
        for meta in next(stream, ()):
            key = meta["path"]
            entries.append((key, meta["size"], meta["e_tag"] or "", meta["last_modified"].timestamp()))
            if largest is None or key > largest:
                largest = key
            elif meta["size"] or key + "/" < largest:
                # Placeholders of folders arrive without their last slash, but sorted as if they had that slash.
                self._resumable = False
        goes_on = len(entries) == _PAGE_KEYS
        if goes_on:
            self._open[prefix, largest] = stream
        # The placeholder of the prefix itself does not lie below the prefix.
        return Page([entry for entry in entries if entry[0] != folder], largest if goes_on else None)
