"""Pages of a listing: what a store answers to one request for the names under a prefix.

S3 is asked through boto3, for two reasons. A page is asked for by the token that came with the one before, so that one
which breaks off can be asked for again exactly, whatever the store's order. And keys come as they are: obstore's
listing takes no level without its objects, and one key that it cannot represent ends it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote_plus, urlsplit
from xml.etree import ElementTree

import obstore
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, SSLError
from botocore.exceptions import ConnectionError as BotoConnectionError
from obstore.store import ObjectStore

from pipeline.store.clients import listing_client, open_client
from pipeline.store.config import Account
from pipeline.store.errors import StoreError, TransientError, from_answer, naming, redact
from pipeline.store.external_sort import Entry
from pipeline.store.iso_time import unix_s
from pipeline.store.uris import split_uri

_PAGE_KEYS = 1000
_XML_PLACE = "pvtv2-page"


@dataclass(frozen=True, slots=True)
class Page:
    """One answer.

    Attributes:
        entries: key, size in bytes, ETag and last-modified time of each object.
        token: what the next page is asked for by; None: there is none.
        folders: of a delimited page: what the other keys under the prefix begin with, up to and with the next slash.
    """

    entries: list[Entry]
    token: str | None
    folders: list[str] = field(default_factory=list)


class PageSource(Protocol):
    """A store as a listing sees it; used from several threads.

    Attributes:
        in_order: keys come in the order of their code points, by the store's own word.
    """

    in_order: bool

    def page(self, prefix: str, token: str | None, *, delimited: bool = False) -> Page:
        """The keys that begin with `prefix`, from where the page with this token ended; the same for the same token.

        Args:
            delimited: only those without a further slash; of the others, the folders.

        Raises:
            TransientError: the page can be asked for again.
            StoreError: it cannot.
        """


def open_pages(uri: str, account: Account, *, timeout_s: float, deadline_s: float) -> PageSource:
    """The pages of a URI's bucket."""
    if uri.startswith("s3://"):
        return S3Pages(split_uri(uri)[1], listing_client(account, timeout_s))
    return ClientPages(open_client(uri, account, timeout_s=timeout_s, deadline_s=deadline_s)[0])


class S3Pages:
    """A bucket's pages, by ListObjectsV2."""

    def __init__(self, bucket: str, client: Any) -> None:
        self._uri, self._bucket, self._client = f"s3://{bucket}", bucket, client
        host = urlsplit(client.meta.endpoint_url).hostname
        self._on_aws = host in ("s3.amazonaws.com", f"s3.{client.meta.region_name}.amazonaws.com")
        # AWS lists its directory buckets in no order; other stores may, or as their folders' names go.
        self.in_order = self._on_aws and not bucket.endswith("--x-s3")
        # boto3's own parser needs several times as long. A handler with a star in its name comes before the one that
        # would parse the body once more, to look for errors.
        client.meta.events.register("before-parse.*.ListObjectsV2", _take_body, unique_id=_XML_PLACE)

    def page(self, prefix: str, token: str | None, *, delimited: bool = False) -> Page:
        """See `PageSource`."""
        options = ({"ContinuationToken": token} if token else {}) | ({"Delimiter": "/"} if delimited else {})
        try:
            answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=_PAGE_KEYS, **options)
        except ClientError as error:
            said = error.response.get("Error", {})
            answer = error.response.get("ResponseMetadata", {})
            status, retry_after = answer.get("HTTPStatusCode", 0), answer.get("HTTPHeaders", {}).get("retry-after")
            refusal = from_answer(
                self._uri, status, said.get("Code", ""), said.get("Message", ""), retry_after=retry_after
            )
            raise naming(self._uri, refusal, "s3:ListBucket") from None
        except SSLError as error:
            raise StoreError(f"{self._uri}: {redact(str(error))}") from None
        except (HTTPClientError, BotoConnectionError, IncompleteReadError) as error:
            raise TransientError(f"{self._uri}: {redact(str(error))}") from None
        except BotoCoreError as error:
            raise StoreError(f"{self._uri}: {redact(str(error))}") from None
        region = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        if self._on_aws and region not in (None, self._client.meta.region_name):
            # boto3 went after it; the reads that follow would not.
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
    # Some stores leave out the namespace.
    space = root.tag[: root.tag.find("}") + 1]
    if root.tag == f"{space}Error":
        # Found too late for another status.
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
    """Unix seconds; 0 where the store does not say."""
    try:
        return unix_s(text) if text else 0.0
    except ValueError:
        return 0.0


class ClientPages:
    """The pages of any store that obstore knows; one listing at a time, and no delimited pages.

    After a failure it goes on behind the largest key that came, which is exact for stores that list in order.
    """

    in_order = False

    def __init__(self, client: ObjectStore) -> None:
        self._client = client
        # Prefix and token -> where the listing stands.
        self._open: dict[tuple[str, str | None], Iterator[Any]] = {}
        self._resumable = True

    def page(self, prefix: str, token: str | None, *, delimited: bool = False) -> Page:
        """See `PageSource`.

        Raises:
            NotImplementedError: `delimited`.
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
                # Placeholders of folders arrive without the slash that they end with, at the place where it counts.
                self._resumable = False
        goes_on = len(entries) == _PAGE_KEYS
        if goes_on:
            self._open[prefix, largest] = stream
        # The placeholder of the prefix itself is no key below it.
        return Page([entry for entry in entries if entry[0] != folder], largest if goes_on else None)
