"""URIs: the names of files and objects, on S3, Google Cloud, Azure and the local disk.

A URI is `scheme://` and a raw name without percent-encoding: `file:///abs/path`, `s3://bucket/key`, `gs://bucket/key`,
`az://container/key`. `canonical_uri` makes the canonical URI of a user's text; the other functions expect canonical
URIs.
"""

import re
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.store.errors import StoreError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_REMOTE = ("s3", "gs", "az")
# A part that is empty, "." or "..", a control character, or a byte that is not UTF-8.
_UNADDRESSABLE = re.compile(r"(?:^|/)\.{0,2}(?:/|\Z)|[\x00-\x1f\x7f\ud800-\udfff]")


def canonical_uri(text: str) -> str:
    """Returns the canonical URI of a path or URI that a user gave; a canonical URI is returned unchanged.

    Local paths become absolute, and existing links are resolved. Object keys are not changed, not even `//` inside;
    only slashes at either end are removed.

    Raises:
        ConfigError: The text is empty, is not UTF-8, or has an unknown scheme or an impossible bucket name.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{text!r} is not UTF-8; rename it") from None
    match = _SCHEME.fullmatch(text)
    if match is None:
        return _canonical_path(text, expand=True)
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file" and rest.startswith("/"):
        return _canonical_path(rest, expand=False)
    if scheme not in _REMOTE:
        raise ConfigError(f"{text!r}: give a path, or one of file:///path, s3://, gs://, az://")
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        # The message does not repeat the text: a password may stand before an @.
        raise ConfigError(f"a {scheme}:// URI must begin with the name of a bucket, as in {scheme}://bucket/folder")
    return f"{scheme}://{bucket}/{key.strip('/')}".rstrip("/")


def _canonical_path(text: str, *, expand: bool) -> str:
    if not text:
        raise ConfigError("an empty path; give a path or a URI")
    try:
        path = Path(text).expanduser() if expand else Path(text)
        return f"file://{path.resolve()}"
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{text!r} is no path: {error}") from None


def is_local(uri: str) -> bool:
    """Returns True for a URI of the local disk."""
    return uri.startswith("file://")


def local_path(uri: str) -> Path:
    """Returns the path of a URI of the local disk."""
    return Path(uri.removeprefix("file://"))


def join_uri(root: str, *parts: str) -> str:
    """Returns the URI of a name, given in parts, below the URI `root`."""
    return _folder(root) + "/".join(part.strip("/") for part in parts)


def is_inside(uri: str, root: str) -> bool:
    """Returns True if a canonical URI equals `root` or lies below it."""
    return uri == root or uri.startswith(_folder(root))


def name_of(uri: str) -> str:
    """Returns the last part of a URI: the name of the file, or of the bucket if there is no key."""
    return uri.rstrip("/").rpartition("/")[2]


def split_uri(uri: str) -> tuple[str, str, str]:
    """Returns scheme, bucket and key of a remote object; the key of a bucket is empty.

    Raises:
        StoreError: The URI is local, or not canonical.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in _REMOTE:
        raise StoreError(f"{uri}: not a canonical URI")
    return scheme, bucket, key


def is_addressable(key: str) -> bool:
    """Returns True for a key that the client sends unchanged; the client refuses or changes any other key."""
    return not key or _UNADDRESSABLE.search(key) is None


def is_utf8(name: str) -> bool:
    """Returns True for a name that UTF-8 can encode; a name with bytes that are not UTF-8 holds surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _folder(uri: str) -> str:
    return uri if uri.endswith("/") else uri + "/"


def shown(uri: str) -> str:
    """Returns the URI as a user would type it: a path for the local disk, else the URI itself."""
    return str(local_path(uri)) if is_local(uri) else uri
