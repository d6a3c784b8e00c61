"""The identity of an output: settings that decide its rows, written once to `_job.json` and compared by later runs."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from pipeline.chunks.columns import SCHEMA_VERSION
from pipeline.config.checkpoint import Checkpoint
from pipeline.config.job_config import JobConfig
from pipeline.errors import OutputError
from pipeline.inputs.rules import FIRST_RULES, RULES
from pipeline.output.layout import JOB_FILE
from pipeline.store.errors import ExistsError, NotFoundError, StoreError
from pipeline.store.store_path import StorePath

# Setting in `_job.json` beside the identity: the digests of identities that the output had before it was taken over.
_TAKEN_OVER = "taken_over"


def job_identity(config: JobConfig, checkpoint: Checkpoint, precision: str) -> dict[str, Any]:
    """Returns the identity of an output.

    The identity includes every setting that changes a row, or the records that a slice holds. So two runs over one
    output agree on all of these settings, or the later run is refused. The inputs are not included: an output may grow
    by further inputs.

    Args:
        config: Settings of the job.
        checkpoint: Checkpoint of the job.
        precision: Precision of the run: `fp32`, `bf16` or `fp16`.
    """
    info, sizes = checkpoint.info, asdict(config.sizes)
    rules = config.input.names.rules
    policy = sizes.pop("preprocess")
    if config.sizes.resize is None:
        del sizes["resize"]
    if config.sizes.jpeg_decoding == "whole":
        del sizes["jpeg_decoding"]
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
            **({"include_also": list(config.input.names.include_also)} if config.input.names.include_also else {}),
            "image_column": config.input.image_column,
            "keep_columns": list(config.input.keep_columns),
            "limit": config.input.limit,
            **({} if rules == FIRST_RULES else {"rules": rules}),
        },
    }


def reported_identity(identity: dict[str, Any]) -> dict[str, Any]:
    """Returns an identity in the form of a report: with the types of JSON, and without the names of the classes."""
    return json.loads(_canonical({name: value for name, value in identity.items() if name != "labels"}))


def identity_digest(identity: dict[str, Any]) -> str:
    """Returns the SHA-256 of an identity, as hex."""
    return hashlib.sha256(_canonical(identity)).hexdigest()


def check_identity(output: StorePath, identity: dict[str, Any], *, take_over: bool = False) -> None:
    """Checks that the output has this identity.

    Args:
        take_over: True allows that the output has older rules of reading.

    Raises:
        OutputError: The output has another identity, or its `_job.json` is not JSON.
        NotFoundError: The output has no identity yet.
    """
    stored, _ = _split(_stored(output))
    wanted = json.loads(_canonical(identity))
    if take_over and isinstance(stored, dict) and _rules_of(stored) < _rules_of(wanted):
        stored["records"]["rules"] = wanted["records"]["rules"]
    if differing := sorted(_differences(stored, wanted)):
        raise OutputError(
            f"{output} holds the results of another job; it differs in: {'; '.join(differing)}. "
            "Choose another --output, or repeat the settings of that job"
        )


def stored_setting(output: StorePath, name: str) -> Any:
    """Returns a setting from the identity of an output, by its name; None if the output has no identity yet.

    Raises:
        OutputError: The `_job.json` of the output cannot be read.
    """
    try:
        return _stored(output).get(name)
    except NotFoundError:
        return None
    except StoreError as error:
        raise OutputError(f"output {output} cannot be read: {error}") from error


def rules_of(output: StorePath) -> int:
    """Returns the version of the rules of reading that an output keeps; for a new output, the version of new outputs.

    Raises:
        OutputError: The `_job.json` of the output cannot be read, or has rules that this version does not know.
    """
    records = stored_setting(output, "records")
    rules = RULES if records is None else _rules_of({"records": records})
    if rules not in range(FIRST_RULES, RULES + 1):
        raise OutputError(
            f"{output} was begun by a newer version of this job, under rules of reading {rules}; this version knows "
            f"rules up to {RULES}. Continue the output with that version, or choose another --output"
        )
    return rules


def _rules_of(identity: dict[str, Any]) -> int:
    return identity["records"].get("rules", FIRST_RULES)


def _stored(output: StorePath) -> dict[str, Any]:
    path = output.join(JOB_FILE)
    try:
        return json.loads(path.read())
    except ValueError as error:
        raise OutputError(f"{path} is not JSON: {error}; restore it, or choose another --output") from error


def older_identities(output: StorePath, identity: dict[str, Any]) -> tuple[str, ...]:
    """Returns the digests of identities with older rules, whose files the output may still hold; the oldest is first.

    The identity that the output has now is among them if it is not `identity`.

    Raises:
        NotFoundError: The output has no identity yet.
    """
    stored, older = _split(_stored(output))
    digest = identity_digest(stored)
    return older if digest == identity_digest(identity) else (*older, digest)


def claim_identity(output: StorePath, identity: dict[str, Any], older: tuple[str, ...] = ()) -> None:
    """Writes `_job.json` if the output has no such file; if another run was quicker, compares the two identities.

    Args:
        older: The `older_identities` of the output. If the output has one of them, `identity` takes its place.

    Raises:
        OutputError: The output has another identity.
    """
    path = output.join(JOB_FILE)
    try:
        path.put(_canonical(identity), if_absent=True)
    except ExistsError:
        info = path.head()
        stored, _ = _split(_stored(output))
        if info is None or identity_digest(stored) not in older:
            check_identity(output, identity)
            return
        path.put(_canonical({**identity, _TAKEN_OVER: list(older)}), if_match=info.etag)


def _split(stored: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns a stored identity by itself, and the digests of the identities that the output had before."""
    if not isinstance(stored, dict):
        return stored, ()
    return {name: value for name, value in stored.items() if name != _TAKEN_OVER}, tuple(stored.get(_TAKEN_OVER, ()))


def _canonical(identity: dict[str, Any]) -> bytes:
    return json.dumps(identity, sort_keys=True, indent=1).encode()


def _differences(stored: Any, wanted: Any, path: str = "") -> list[str]:
    """Returns a text for each setting that differs between two identities, with both values."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        found = []
        for key in {*stored, *wanted}:
            found += _differences(stored.get(key), wanted.get(key), f"{path}.{key}".lstrip("."))
        return found
    return [] if stored == wanted else [f"{path} ({_short(stored)} there, {_short(wanted)} now)"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
