"""Tars in memory, made of names and contents."""

import io
import tarfile
from collections.abc import Iterable


def tar_of(members: Iterable[tuple[str, bytes]], links: Iterable[tuple[bytes, str, str]] = ()) -> bytes:
    """Returns a tar of (name, content) pairs, then of (type, name, target) links; a name may come twice."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
        for kind, name, target in links:
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, target
            tar.addfile(header)
    return body.getvalue()
