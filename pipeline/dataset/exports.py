"""Exports: the data set in formats of other tools. An export is written again when the data set has changed.

`csv`, `coco` and `huggingface` lie in the output's `dataset/`. `imagefolder` and `webdataset` lie beside the images,
where the readers of these formats look, or below a folder that the user gives.

The ledger `dataset/_exports.json` records a digest of the sources of each export, and the objects that exports wrote
beside the images. An object that something else wrote is never overwritten.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice

import pyarrow as pa

from pipeline.dataset.dataset_file import DATASET, Published, published_rows
from pipeline.dataset.file_exports import FILES
from pipeline.dataset.sidecar_exports import BESIDE, Sidecar
from pipeline.errors import ConfigError, OutputError
from pipeline.store.config import StoreConfig
from pipeline.store.errors import ChangedError, ExistsError, NotFoundError, StoreError
from pipeline.store.store_path import StorePath
from pipeline.store.uris import is_inside, join_uri, name_of, shown

logger = logging.getLogger(__name__)

EXPORTS = (*FILES, *BESIDE)
LEDGER_FILE = "_exports.json"
# Number of sidecars that are made, held in memory and written at a time.
_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of the exports: which exports are written, and where.

    Attributes:
        names: Names of the exports, from `EXPORTS`.
        roots: Inputs of the job; names in exports are relative to them.
        input_store: Account, endpoint and time limits for requests to the inputs' store.
        sidecars_to: Folder for sidecars; None puts each sidecar beside its images.
    """

    names: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    input_store: StoreConfig = field(default_factory=StoreConfig)
    sidecars_to: str | None = None

    def made_of(self, name: str, published: Published) -> str:
        """Returns a digest of the sources of an export; an export with another digest is written again.

        A CSV holds all columns, so its digest depends on the ETag of the data set. The other exports hold only columns
        that change with the run that made the data set, so their digests depend on the id of that run.
        """
        rows = published.etag if name == "csv" else published.footer.run_id
        parts = [rows, list(self.roots), self.sidecars_to if name in BESIDE else None]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(slots=True)
class _OwnSidecar:
    """A sidecar that an export wrote.

    Attributes:
        etag: ETag of the sidecar after its last write.
        sha256: SHA-256 of the sidecar after its last write.
        pending_sha256: SHA-256 of a write that has begun. The digest is saved before the write and removed
            after the write, so that the sidecar is recognised if the process dies in between.
    """

    etag: str | None = None
    sha256: str | None = None
    pending_sha256: str | None = None


@dataclass(slots=True)
class _Ledger:
    """The record of all exports.

    Attributes:
        made_of: Digest of the sources of each export, by the name of the export.
        sidecars: Sidecars that exports wrote, by URI.
    """

    made_of: dict[str, str] = field(default_factory=dict)
    sidecars: dict[str, _OwnSidecar] = field(default_factory=dict)


class Exporter:
    """Writes the exports that are out of date."""

    def __init__(
        self,
        published: Published,
        output: StorePath,
        config: ExportConfig,
        check_right: Callable[[], None],
    ) -> None:
        """Prepares the exports without any access to a store.

        Args:
            published: Data set that is exported.
            output: Output that holds the data set.
            config: Settings of the exports.
            check_right: Function that raises if the run may no longer write to the output.
        """
        self._published, self._output, self._config = published, output, config
        self._check_right = check_right
        self._ledger = _Ledger()
        self._ledger_file = output.join(DATASET, LEDGER_FILE)
        self._sidecar_store = config.input_store if config.sidecars_to is None else output.config

    def write(self) -> list[str]:
        """Brings the exports up to date; returns the URIs of the objects that were written.

        Raises:
            ConfigError: Two sidecars would have the same name.
            OutputError: An object that no export wrote has the name of a sidecar, or a store refuses a sidecar.
            StoreError: The output's store refuses a write.
        """
        self._ledger = self._read_ledger()
        classes, roots = self._published.footer.classes, self._config.roots
        written: list[str] = []
        for name in self._config.names:
            made_of = self._config.made_of(name, self._published)
            if self._ledger.made_of.get(name) == made_of:
                continue
            if name in FILES:
                file = self._output.join(DATASET, FILES[name].file_name)
                body = FILES[name].make(self._rows, classes, roots)
                self._check_right()
                file.put(body)
                written.append(file.uri)
            else:
                written += self._write_sidecars(BESIDE[name](self._rows, classes, roots))
            self._ledger.made_of[name] = made_of
            self._save_ledger()
        for uri in written:
            logger.info("export.written uri=%s", shown(uri))
        return written

    def _rows(self) -> Iterator[pa.RecordBatch]:
        return published_rows(self._published)

    def _write_sidecars(self, sidecars: Iterator[Sidecar]) -> list[str]:
        written: list[str] = []
        made_for: dict[str, str] = {}
        with ThreadPoolExecutor(_THREADS) as pool:
            while some := list(islice(sidecars, _THREADS)):
                bodies: dict[str, memoryview] = {}
                for sidecar in some:
                    uri = self._place(sidecar.uri)
                    if uri in made_for:
                        raise ConfigError(
                            f"{shown(uri)} would stand for {shown(made_for[uri])} and for {shown(sidecar.of)}: rename "
                            "one of the two, or label them by jobs of their own"
                        )
                    made_for[uri] = sidecar.of
                    bodies[uri] = sidecar.body
                written += self._write_some(bodies, pool)
        return written

    def _write_some(self, bodies: Mapping[str, memoryview], pool: Executor) -> list[str]:
        """Writes the sidecars that are missing or out of date, in parallel; returns their URIs."""
        etags = dict(zip(bodies, pool.map(self._etag_if_own, bodies), strict=True))
        digests = {uri: hashlib.sha256(body).hexdigest() for uri, body in bodies.items()}
        stale = [uri for uri in bodies if self._is_stale(uri, etags[uri], digests[uri], len(bodies[uri]))]
        if stale:
            self._check_right()
            for uri in stale:
                self._ledger.sidecars.setdefault(uri, _OwnSidecar()).pending_sha256 = digests[uri]
            self._save_ledger()
            puts = pool.map(lambda uri: self._put_sidecar(uri, bodies[uri], etags[uri]), stale)
            for uri, etag in zip(stale, puts, strict=True):
                self._ledger.sidecars[uri] = _OwnSidecar(etag=etag, sha256=digests[uri])
        return stale

    def _place(self, beside: str) -> str:
        """Returns the URI to which a sidecar is written, given the URI beside the images."""
        if self._config.sidecars_to is None:
            return beside
        root = next((root for root in self._config.roots if is_inside(beside, root)), None)
        below = name_of(beside) if root is None else beside[len(root) :].lstrip("/")
        return join_uri(self._config.sidecars_to, below)

    def _etag_if_own(self, uri: str) -> str | None:
        """Returns the ETag of a sidecar, and enters the sidecar in the ledger; None if no object has the URI.

        Raises:
            OutputError: No export wrote the object at the URI, or the store refuses a request.
        """
        try:
            there = StorePath(uri, self._sidecar_store).head()
            if there is None:
                return None
            own = self._ledger.sidecars.get(uri)
            if own is not None and own.etag != there.etag:
                digest = hashlib.sha256(StorePath(uri, self._sidecar_store).read(there.etag)).hexdigest()
                own = (
                    _OwnSidecar(etag=there.etag, sha256=digest) if digest in (own.sha256, own.pending_sha256) else None
                )
        except StoreError as error:
            raise _unreachable(uri, error) from error
        if own is None:
            raise OutputError(
                f"{shown(uri)} is there and is not ours; move it away, or give --sidecars-to a folder of its own"
            )
        self._ledger.sidecars[uri] = own
        return there.etag

    def _is_stale(self, uri: str, etag: str | None, digest: str, size: int) -> bool:
        # An empty sidecar is written only to replace a sidecar that is not empty.
        return bool(size) if etag is None else self._ledger.sidecars[uri].sha256 != digest

    def _put_sidecar(self, uri: str, body: memoryview, etag: str | None) -> str:
        try:
            return StorePath(uri, self._sidecar_store).put(body, if_absent=etag is None, if_match=etag)
        except (ExistsError, ChangedError) as error:
            raise OutputError(f"{shown(uri)} was written by somebody else meanwhile; move it, or leave it") from error
        except StoreError as error:
            raise _unreachable(uri, error) from error

    def _read_ledger(self) -> _Ledger:
        try:
            values = json.loads(self._ledger_file.read())
            return _Ledger(values["made_of"], {uri: _OwnSidecar(**own) for uri, own in values["sidecars"].items()})
        except NotFoundError:
            return _Ledger()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(f"{self._ledger_file.shown} cannot be understood: {error}; restore it") from error

    def _save_ledger(self) -> None:
        self._ledger_file.put(json.dumps(asdict(self._ledger), indent=1).encode())


def _unreachable(uri: str, error: StoreError) -> OutputError:
    return OutputError(
        f"{shown(uri)} cannot be written: {error}; give --sidecars-to another folder, or leave the export out"
    )
