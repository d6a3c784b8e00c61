"""Exports: the data set in the forms that other tools read, made anew when it has changed.

`csv`, `coco` and `huggingface` lie in the output's `dataset/`. `imagefolder` and `webdataset` lie beside the images,
where their readers look for them, or below a folder of one's own.

`dataset/_exports.json` remembers what each export was made of, and which objects beside the images are ours: an object
that somebody else put there is never overwritten.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from pipeline.dataset.export_beside import BESIDE, Sidecar
from pipeline.dataset.export_files import FILES
from pipeline.dataset.published import DATASET, Published, published_rows
from pipeline.errors import ConfigError, OutputError
from pipeline.storage import StoreConfig, head, put, read
from pipeline.store_errors import ChangedError, ExistsError, NotFoundError, StoreError
from pipeline.uris import is_inside, join_uri, name_of, shown

logger = logging.getLogger(__name__)

EXPORTS = (*FILES, *BESIDE)
LEDGER_FILE = "_exports.json"


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Which exports are kept, and where.

    Attributes:
        names: some of `EXPORTS`.
        roots: the job's inputs: what names in exports are relative to.
        input_store: account and endpoint of the inputs.
        sidecars_to: folder for what otherwise lies beside the images; None: beside them.
    """

    names: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    input_store: StoreConfig = field(default_factory=StoreConfig)
    sidecars_to: str | None = None

    def made_of(self, name: str, published: Published) -> str:
        """What an export is made of."""
        parts = [published.info.etag, list(self.roots), self.sidecars_to if name in BESIDE else None]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(slots=True)
class _Ledger:
    """What was exported: export -> what it was made of; URI of a sidecar -> the ETag and SHA-256 of what is ours.

    The SHA-256 is noted before a sidecar is written and its ETag after it, so that it is known again whatever happens
    between the two.
    """

    made_of: dict[str, str] = field(default_factory=dict)
    sidecars: dict[str, dict[str, str | None]] = field(default_factory=dict)


class Exporter:
    """Writes what is not up to date."""

    def __init__(
        self,
        published: Published,
        output: str,
        store: StoreConfig,
        config: ExportConfig,
        check_right: Callable[[], None],
    ) -> None:
        """Nothing is read or written here.

        Args:
            check_right: raises if the output is no longer this run's to write to.
        """
        self._published, self._output, self._store, self._config = published, output, store, config
        self._check_right = check_right
        self._ledger = _Ledger()
        self._ledger_uri = join_uri(output, DATASET, LEDGER_FILE)
        self._sidecar_store = config.input_store if config.sidecars_to is None else store

    def write(self) -> list[str]:
        """Brings the exports up to date; returns the URIs of the objects that were written.

        Raises:
            ConfigError: two sidecars would have one name.
            OutputError: something that is not ours is in the place of a sidecar, or a store refuses it.
            StoreError: the output's store refuses.
        """
        self._ledger = self._read_ledger()
        written: list[str] = []
        for name in self._config.names:
            made_of = self._config.made_of(name, self._published)
            if self._ledger.made_of.get(name) == made_of:
                continue
            self._check_right()
            if name in FILES:
                uri = join_uri(self._output, DATASET, FILES[name].file_name)
                put(uri, FILES[name].make(self._rows, self._published.footer.classes, self._config.roots), self._store)
                written.append(uri)
            else:
                sidecars = BESIDE[name](self._rows, self._published.footer.classes, self._config.roots)
                written += self._write_sidecars(sidecars)
            self._ledger.made_of[name] = made_of
            self._save_ledger()
        for uri in written:
            logger.info("export.written uri=%s", shown(uri))
        return written

    def _rows(self) -> Iterator[pa.RecordBatch]:
        return published_rows(self._published, self._store)

    def _write_sidecars(self, sidecars: Iterator[Sidecar]) -> list[str]:
        written = []
        made_for: dict[str, str] = {}
        for sidecar in sidecars:
            uri = self._place(sidecar.uri)
            if made_for.setdefault(uri, sidecar.uri) != sidecar.uri:
                raise ConfigError(
                    f"{shown(uri)} would stand for {shown(made_for[uri])} and for {shown(sidecar.uri)}; leave "
                    "--sidecars-to out, or give inputs with equal names to jobs of their own"
                )
            if self._put_sidecar(uri, sidecar.body):
                written.append(uri)
        return written

    def _place(self, beside: str) -> str:
        """Where a sidecar lies."""
        if self._config.sidecars_to is None:
            return beside
        root = next((root for root in self._config.roots if is_inside(beside, root)), None)
        below = name_of(beside) if root is None else beside[len(root) :].lstrip("/")
        return join_uri(self._config.sidecars_to, below)

    def _put_sidecar(self, uri: str, body: memoryview) -> bool:
        """Writes a sidecar unless it is there as it should be; returns whether it was written."""
        digest, store = hashlib.sha256(body).hexdigest(), self._sidecar_store
        try:
            there = head(uri, store)
            noted = self._ledger.sidecars.get(uri)
            if there is not None:
                found = self._whose(uri, there.etag, noted)
                if found == digest:
                    self._ledger.sidecars[uri] = {"etag": there.etag, "sha256": digest}
                    return False
            self._ledger.sidecars[uri] = {"etag": None if there is None else there.etag, "sha256": digest}
            self._save_ledger()
            etag = put(uri, body, store, if_absent=there is None, if_match=None if there is None else there.etag)
        except (ExistsError, ChangedError) as error:
            raise OutputError(f"{shown(uri)} was written by somebody else meanwhile; move it, or leave it") from error
        except StoreError as error:
            raise OutputError(
                f"{shown(uri)} cannot be written: {error}; give --sidecars-to another folder, or leave the export out"
            ) from error
        self._ledger.sidecars[uri] = {"etag": etag, "sha256": digest}
        return True

    def _whose(self, uri: str, etag: str, noted: dict[str, str | None] | None) -> str | None:
        """SHA-256 of a sidecar of ours that is there.

        Raises:
            OutputError: it is not ours.
        """
        if noted is not None and noted["etag"] == etag:
            return noted["sha256"]
        if noted is not None and hashlib.sha256(read(uri, self._sidecar_store, etag)).hexdigest() == noted["sha256"]:
            return noted["sha256"]
        raise OutputError(
            f"{shown(uri)} is there and is not ours; move it away, or give --sidecars-to a folder of its own"
        )

    def _read_ledger(self) -> _Ledger:
        try:
            return _Ledger(**json.loads(read(self._ledger_uri, self._store)))
        except NotFoundError:
            return _Ledger()
        except (ValueError, TypeError) as error:
            raise OutputError(f"{shown(self._ledger_uri)} cannot be understood: {error}; restore it") from error

    def _save_ledger(self) -> None:
        put(self._ledger_uri, json.dumps(asdict(self._ledger), indent=1).encode(), self._store)
