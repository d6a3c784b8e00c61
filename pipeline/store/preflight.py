"""The proof, before any work is done, that an output can be written and that its store keeps the conditions."""

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from pipeline.errors import OutputError
from pipeline.store.errors import ChangedError, DeniedError, ExistsError, NotFoundError, StoreError, TransientError
from pipeline.store.storage import StoreConfig, delete, put, read
from pipeline.store.uris import join_uri

_RETRY_S = 10.0
_NO_SUCH_ETAG = '"00000000000000000000000000000000"'


def preflight(uri: str, config: StoreConfig) -> None:
    """Proves with one small object that an output can be written, and that its store keeps the conditions.

    Raises:
        OutputError: it cannot, or does not; the message says which and what to do.
    """
    config = replace(config, deadline_s=min(config.deadline_s, _RETRY_S))
    probe = join_uri(uri, f".preflight-{secrets.token_hex(8)}")
    try:
        _probe(probe, config)
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


def _probe(probe: str, config: StoreConfig) -> None:
    first, second, third = (f"preflight {number} {secrets.token_hex(8)}\n".encode() for number in range(3))
    etag = put(probe, first, config, if_absent=True)
    try:
        if not _refused(lambda: put(probe, second, config, if_absent=True), ExistsError):
            raise _ignores("If-None-Match", probe, "two writers of one file would both believe that theirs is there")
        if not _refused(lambda: put(probe, second, config, if_match=_NO_SUCH_ETAG), ChangedError):
            raise _ignores("If-Match", probe, "a rewrite could undo another's")
        try:
            newer = put(probe, third, config, if_match=etag)
        except ChangedError:
            raise OutputError(
                f"the store of {probe} refuses a rewrite under the ETag it gave; use another store"
            ) from None
        if not _refused(lambda: read(probe, config, etag), ChangedError):
            raise _ignores("If-Match of reads", probe, "a file could change while it is read")
        if read(probe, config, newer) != third:
            raise OutputError(f"the store of {probe} does not give back what was written; use another store")
    except BaseException:
        with suppress(StoreError):
            delete(probe, config)
        raise
    delete(probe, config)


def _refused(request: Callable[[], object], refusal: type[StoreError]) -> bool:
    try:
        request()
    except refusal:
        return True
    return False


def _ignores(header: str, probe: str, consequence: str) -> OutputError:
    return OutputError(f"the store of {probe} ignores {header}, so that {consequence}; use another store or gateway")
