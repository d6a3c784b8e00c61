"""The check, before any work, that an output can be written and that its store respects conditional requests."""

import secrets
from collections.abc import Callable
from contextlib import suppress

from pipeline.errors import OutputError
from pipeline.store.errors import ChangedError, DeniedError, ExistsError, NotFoundError, StoreError, TransientError
from pipeline.store.store_path import StorePath

_DEADLINE_S = 10.0
_NO_SUCH_ETAG = '"00000000000000000000000000000000"'


def preflight(folder: StorePath) -> None:
    """Writes, rewrites, reads and removes one small object in the folder, to check that the store respects conditions.

    Raises:
        OutputError: The output cannot be written, or its store ignores a condition. The message says what to do.
    """
    try:
        _probe(folder.bounded(_DEADLINE_S).join(f".preflight-{secrets.token_hex(8)}"))
    except NotFoundError as error:
        raise OutputError(f"the output cannot be written: {error}; create the bucket, or check its name") from None
    except DeniedError as error:
        raise OutputError(
            f"the output may not be written: {error}; check the credentials, the profile, and that they allow to "
            "read, write and delete there"
        ) from None
    except TransientError as error:
        raise OutputError(f"the output's store does not answer: {error}; check the endpoint and the network") from None
    except StoreError as error:
        raise OutputError(f"the output cannot be written: {error}") from None


def _probe(probe: StorePath) -> None:
    first, second, third = (f"preflight {number} {secrets.token_hex(8)}\n".encode() for number in range(3))
    etag = probe.put(first, if_absent=True)
    try:
        if not _refused(lambda: probe.put(second, if_absent=True), ExistsError):
            raise _ignores("If-None-Match", probe, "two writers of one file would both believe that theirs is there")
        if not _refused(lambda: probe.put(second, if_match=_NO_SUCH_ETAG), ChangedError):
            raise _ignores("If-Match", probe, "a rewrite could undo another's")
        try:
            newer = probe.put(third, if_match=etag)
        except ChangedError:
            raise OutputError(
                f"the store of {probe} refuses a rewrite under the ETag it gave; use another store"
            ) from None
        if not _refused(lambda: probe.read(etag), ChangedError):
            raise _ignores("If-Match of reads", probe, "a file could change while it is read")
        if probe.read(newer) != third:
            raise OutputError(f"the store of {probe} does not give back what was written; use another store")
    except BaseException:
        with suppress(StoreError):
            probe.delete()
        raise
    probe.delete()


def _refused(request: Callable[[], object], refusal: type[StoreError]) -> bool:
    try:
        request()
    except refusal:
        return True
    return False


def _ignores(header: str, probe: StorePath, consequence: str) -> OutputError:
    return OutputError(f"the store of {probe} ignores {header}, so that {consequence}; use another store or gateway")
