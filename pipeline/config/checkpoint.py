"""The checkpoint of a run: fetched by the driver once, checked there, and handed to the actors as bytes."""

import logging
import time
from dataclasses import dataclass

from model.checkpoints.checkpoint import CheckpointInfo, inspect_checkpoint
from model.checkpoints.files import WEIGHTS_ENDINGS, CheckpointFiles, gather_files
from model.checkpoints.hub import is_hub, parse_hub_source, read_hub
from model.errors import CheckpointError
from model.network.config import PVTv2Config
from model.network.labels import parse_labels
from pipeline.chunks.task import Classify
from pipeline.config.job_config import JobConfig
from pipeline.errors import ConfigError, WeightsError
from pipeline.store.errors import NotFoundError, StoreError
from pipeline.store.storage import StoreConfig, list_objects, read
from pipeline.store.uris import join_uri

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose tensors are those of its network.

    Attributes:
        files: what the actors load it from.
        info: what the driver found in them.
        network: what the job runs of it.
        labels: from `--labels`, else from the checkpoint; None where neither names the classes.
        load_s: seconds that fetching and checking took.
    """

    files: CheckpointFiles
    info: CheckpointInfo
    network: PVTv2Config
    labels: tuple[str, ...] | None
    load_s: float


def fetch_checkpoint(config: JobConfig, pinned: str | None = None) -> Checkpoint:
    """Reads a checkpoint from a local path, the Hub, or an object store with the account of the inputs.

    Args:
        pinned: `org/name@commit` of the weights that the output was made with so far; a run that names the model on the
            Hub without a revision goes on with them, whatever its main branch has become.

    Raises:
        WeightsError: it is not there, or does not load, or has no head.
        ConfigError: the labels are not one for each class.
    """
    started = time.perf_counter()
    try:
        if is_hub(config.weights):
            files = read_hub(_pinned(config.weights, pinned))
        else:
            files = _from_store(config.weights, config.input.store)
        info = inspect_checkpoint(files.weights, files.config_json, files.preprocessor_json, config.variant)
    except (CheckpointError, WeightsError) as error:
        raise WeightsError(f"--weights {config.weights}: {error}") from error
    labels = None
    if isinstance(config.task, Classify):
        if not info.config.num_classes:
            raise WeightsError(
                f"--weights {config.weights}: this is a backbone without a head, which cannot classify. "
                "Give a checkpoint that was saved with its classifier."
            )
        labels = _labels(config.task, config.input.store, info)
    seconds = time.perf_counter() - started
    logger.info("weights.loaded uri=%s sha256=%s seconds=%.1f", config.weights, info.digest[:12], seconds)
    network = config.task.network(info.config)
    return Checkpoint(files=files, info=info, network=network, labels=labels, load_s=seconds)


def _pinned(source: str, pinned: str | None) -> str:
    repo, revision = parse_hub_source(source)
    return f"hf://{pinned}" if revision is None and pinned is not None and pinned.startswith(f"{repo}@") else source


def _from_store(uri: str, store: StoreConfig) -> CheckpointFiles:
    folder, weights_name = uri, None
    if uri.endswith(WEIGHTS_ENDINGS):
        folder, _, weights_name = uri.rpartition("/")

    def names() -> list[str]:
        try:
            below = [found.uri.removeprefix(f"{folder}/") for found in list_objects(folder, store)]
            return [name for name in below if "/" not in name]
        except NotFoundError:
            return []
        except StoreError as error:
            raise WeightsError(f"{folder} cannot be listed: {error}") from error

    return gather_files(folder, lambda name: _read(join_uri(folder, name), store), names, weights_name=weights_name)


def _labels(task: Classify, store: StoreConfig, info: CheckpointInfo) -> tuple[str, ...] | None:
    if task.labels is None:
        return info.labels
    data = _read(task.labels, store)
    if data is None:
        raise ConfigError(f"--labels {task.labels}: there is no such file")
    try:
        labels = parse_labels(data.decode("utf-8-sig"), task.labels)
    except ValueError as error:
        raise ConfigError(f"--labels: {error}") from error
    if len(labels) != info.config.num_classes:
        raise ConfigError(
            f"--labels {task.labels} names {len(labels)} classes, but the network has {info.config.num_classes}"
        )
    return labels


def _read(uri: str, store: StoreConfig) -> bytes | None:
    try:
        return read(uri, store)
    except NotFoundError:
        return None
    except StoreError as error:
        raise WeightsError(f"{uri} cannot be read: {error}") from error
