"""URIs: the one way to name a file or an object, on S3, Google Cloud, Azure and the local disk.

A URI is `scheme://` and a raw name, nothing percent-encoded: `file:///abs/path`, `s3://bucket/key`, `gs://bucket/key`,
`az://container/key`. `canonical_uri` makes it of what a user gave; everything else takes it as canonical.
"""

import re
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.store.errors import StoreError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_REMOTE = ("s3", "gs", "az")
# A part that is empty, "." or "..", a control character, or bytes that were no UTF-8.
_UNADDRESSABLE = re.compile(r"(?:^|/)\.{0,2}(?:/|\Z)|[\x00-\x1f\x7f\ud800-\udfff]")


def canonical_uri(text: str) -> str:
    """The one URI of what a user named; a canonical URI is returned as it is.

    Local paths become absolute, with links resolved as far as they exist. Object keys are kept as they are, `//` inside
    included, but for slashes at either end.

    Raises:
        ConfigError: the text is empty, no UTF-8, of an unknown scheme, or its bucket's name is none.
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
        # Not repeated: what stands before an @ may be a password.
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
    """True if the URI is of this machine's disk."""
    return uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The path of a URI of this machine's disk."""
    return Path(uri.removeprefix("file://"))


def join_uri(root: str, *parts: str) -> str:
    """The URI of a name below another."""
    return _folder(root) + "/".join(part.strip("/") for part in parts)


def is_inside(uri: str, root: str) -> bool:
    """True if one canonical URI is the other, or lies below it."""
    return uri == root or uri.startswith(_folder(root))


def name_of(uri: str) -> str:
    """The last part of a URI: a file's name, or the bucket's where there is no more."""
    return uri.rstrip("/").rpartition("/")[2]


def split_uri(uri: str) -> tuple[str, str, str]:
    """Scheme, bucket and key of an object in a store; the key of a bucket is empty.

    Raises:
        StoreError: it is not such a URI, or not a canonical one.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in _REMOTE:
        raise StoreError(f"{uri}: not a canonical URI")
    return scheme, bucket, key


def is_addressable(key: str) -> bool:
    """False for a key that the client would refuse, or change into another."""
    return not key or _UNADDRESSABLE.search(key) is None


def _folder(uri: str) -> str:
    return uri if uri.endswith("/") else uri + "/"


def shown(uri: str) -> str:
    """A URI as a user would type it: a path where it is one."""
    return str(local_path(uri)) if is_local(uri) else uri
