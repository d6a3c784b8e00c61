"""What makes an output one thing: the settings that decide its rows, written once to `_job.json`, then compared."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from pipeline.chunks.columns import SCHEMA_VERSION
from pipeline.config.checkpoint import Checkpoint
from pipeline.config.job_config import JobConfig
from pipeline.errors import OutputError
from pipeline.output.layout import JOB_FILE
from pipeline.store.errors import ExistsError, NotFoundError, StoreError
from pipeline.store.storage import StoreConfig, put, read
from pipeline.store.uris import join_uri


def job_identity(config: JobConfig, checkpoint: Checkpoint, precision: str) -> dict[str, Any]:
    """The identity of an output.

    Included is whatever changes a row, or which records a slice holds; so two runs over one output either agree on
    all of it or the later is refused. The inputs are not: an output may grow by further inputs.

    Args:
        precision: that was chosen, `fp32`, `bf16` or `fp16`.
    """
    info, sizes = checkpoint.info, asdict(config.sizes)
    policy = sizes.pop("preprocess")
    return {
        **config.task.identity(checkpoint.labels),
        "schema_version": SCHEMA_VERSION,
        "weights_sha256": info.digest,
        "weights_revision": checkpoint.files.revision,
        "model": asdict(checkpoint.network),
        "preprocess": {"policy": policy, "mean": list(info.mean), "std": list(info.std)},
        "sizes": sizes,
        "precision": precision,
        "rows_per_file": config.output.rows_per_file,
        "max_file_mib": config.output.max_file_mib,
        "records": {
            "include": list(config.input.names.include),
            "exclude": list(config.input.names.exclude),
            "image_column": config.input.image_column,
            "keep_columns": list(config.input.keep_columns),
            "limit": config.input.limit,
        },
    }


def reported_identity(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity as a report holds it: as JSON reads it back, and without the names of the classes."""
    return json.loads(_canonical({name: value for name, value in identity.items() if name != "labels"}))


def identity_digest(identity: dict[str, Any]) -> str:
    """SHA-256 of an identity, as hex."""
    return hashlib.sha256(_canonical(identity)).hexdigest()


def check_identity(output: str, store: StoreConfig, identity: dict[str, Any]) -> None:
    """Returns if the output has this identity already.

    Raises:
        OutputError: it has another one, or its `_job.json` cannot be understood.
        NotFoundError: the output has none yet.
    """
    stored = _stored(output, store)
    if differing := sorted(_differences(stored, json.loads(_canonical(identity)))):
        raise OutputError(
            f"{output} holds the results of another job; it differs in: {'; '.join(differing)}. "
            "Choose another --output, or repeat the settings of that job"
        )


def stored_setting(output: str, store: StoreConfig, name: str) -> str | None:
    """A setting that an output was made with so far, by its name in the identity; None if it has none yet.

    Raises:
        OutputError: its `_job.json` cannot be read.
    """
    try:
        return _stored(output, store).get(name)
    except NotFoundError:
        return None
    except StoreError as error:
        raise OutputError(f"output {output} cannot be read: {error}") from error


def _stored(output: str, store: StoreConfig) -> dict[str, Any]:
    uri = join_uri(output, JOB_FILE)
    try:
        return json.loads(read(uri, store))
    except ValueError as error:
        raise OutputError(f"{uri} is not JSON: {error}; restore it, or choose another --output") from error


def claim_identity(output: str, store: StoreConfig, identity: dict[str, Any]) -> None:
    """Writes `_job.json` if the output has none; a run that was quicker must have the same identity.

    Raises:
        OutputError: it has another one.
    """
    try:
        put(join_uri(output, JOB_FILE), _canonical(identity), store, if_absent=True)
    except ExistsError:
        check_identity(output, store, identity)


def _canonical(identity: dict[str, Any]) -> bytes:
    return json.dumps(identity, sort_keys=True, indent=1).encode()


def _differences(stored: Any, wanted: Any, path: str = "") -> list[str]:
    """`setting (stored -> wanted)` for each leaf that differs."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        found = []
        for key in {*stored, *wanted}:
            found += _differences(stored.get(key), wanted.get(key), f"{path}.{key}".lstrip("."))
        return found
    return [] if stored == wanted else [f"{path} ({_short(stored)} there, {_short(wanted)} now)"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
