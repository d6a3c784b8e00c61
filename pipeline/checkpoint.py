"""The checkpoint of a run: fetched by the driver once, checked there, and handed to the actors as bytes."""

import logging
import time
from dataclasses import dataclass

from model.checkpoint import CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE, CheckpointInfo, inspect_checkpoint
from model.errors import CheckpointError
from model.labels import parse_labels
from pipeline.config import ClassifyConfig
from pipeline.errors import ConfigError
from pipeline.storage import StoreConfig, read
from pipeline.store_errors import NotFoundError, StoreError
from pipeline.uris import join_uri

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose tensors are those of its network.

    Attributes:
        weights: the safetensors file's bytes.
        config_json, preprocessor_json: the files beside it, as text.
        info: what the driver found in it, without torch; the actors load it.
        labels: from `--labels`, else from the checkpoint; None where neither names the classes.
        load_s: seconds that fetching and checking took.
    """

    weights: bytes
    config_json: str | None
    preprocessor_json: str | None
    info: CheckpointInfo
    labels: tuple[str, ...] | None
    load_s: float


def fetch_checkpoint(config: ClassifyConfig) -> Checkpoint:
    """Reads a checkpoint from a local path or an object store, with the account of the inputs.

    Raises:
        CheckpointError: it is not there, or does not load, or has no head.
        ConfigError: the labels are not one for each class.
    """
    started = time.perf_counter()
    store = config.input.store
    uri, folder = config.weights, config.weights
    if uri.endswith(".safetensors"):
        folder = uri.rpartition("/")[0]
    else:
        uri = join_uri(folder, WEIGHTS_FILE)
    weights = _read(uri, store)
    if weights is None:
        raise CheckpointError(
            f"--weights {config.weights}: there is no {uri}. Give a folder that transformers saved, or a "
            ".safetensors file; for a trial, examples/random_checkpoint.py makes one with random weights."
        )
    texts = [_text(join_uri(folder, name), store) for name in (CONFIG_FILE, PREPROCESSOR_FILE)]
    try:
        info = inspect_checkpoint(weights, texts[0], texts[1], config.variant)
    except CheckpointError as error:
        raise CheckpointError(f"--weights {config.weights}: {error}") from error
    if not info.config.num_classes:
        raise CheckpointError(
            f"--weights {config.weights}: this is a backbone without a head, which cannot classify. "
            "Give a checkpoint that was saved with its classifier."
        )
    labels = _labels(config, info)
    digest = info.digest[:12]
    logger.info("weights.loaded uri=%s sha256=%s seconds=%.1f", uri, digest, time.perf_counter() - started)
    return Checkpoint(
        weights=weights,
        config_json=texts[0],
        preprocessor_json=texts[1],
        info=info,
        labels=labels,
        load_s=time.perf_counter() - started,
    )


def _labels(config: ClassifyConfig, info: CheckpointInfo) -> tuple[str, ...] | None:
    if config.labels is None:
        return info.labels
    data = _read(config.labels, config.input.store)
    if data is None:
        raise ConfigError(f"--labels {config.labels}: there is no such file")
    try:
        labels = parse_labels(data.decode("utf-8-sig"), config.labels)
    except ValueError as error:
        raise ConfigError(f"--labels: {error}") from error
    if len(labels) != info.config.num_classes:
        raise ConfigError(
            f"--labels {config.labels} names {len(labels)} classes, but the network has {info.config.num_classes}"
        )
    return labels


def _read(uri: str, store: StoreConfig) -> bytes | None:
    try:
        return read(uri, store)
    except NotFoundError:
        return None
    except StoreError as error:
        raise CheckpointError(f"{uri} cannot be read: {error}") from error


def _text(uri: str, store: StoreConfig) -> str | None:
    data = _read(uri, store)
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{uri} is not UTF-8 text: {error}") from error
