"""The checkpoint of a run: the driver fetches and checks it once, and hands it to the actors as bytes."""

import logging
import math
import time
from dataclasses import dataclass

from model.checkpoints.checkpoint import CheckpointInfo, inspect_checkpoint
from model.checkpoints.files import CheckpointFiles, gather_files, is_weights_file, unknown_ending
from model.checkpoints.hub import is_hub, parse_hub_source, read_hub
from model.errors import CheckpointError
from model.network.config import PVTv2Config
from model.network.labels import parse_labels
from pipeline.chunks.task import Classify
from pipeline.config.job_config import JobConfig
from pipeline.errors import ConfigError, WeightsError
from pipeline.store.errors import NotFoundError, StoreError
from pipeline.store.store_path import StorePath

logger = logging.getLogger(__name__)

# The least number that becomes infinite in each precision. All weights are finite as float32.
_INFINITE = {"fp32": math.inf, "bf16": 2.0**128 - 2.0**119, "fp16": 2.0**16 - 2.0**4}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose tensors fit its network.

    Attributes:
        files: Files from which the actors load the network.
        info: Content of the files, as the driver found it.
        network: Configuration of the part of the network that the job runs.
        labels: Names of the classes, from `--labels` or else from the checkpoint; None if the classes have no names, or
            if the task does not classify.
        load_s: Seconds that fetching and checking took.
    """

    files: CheckpointFiles
    info: CheckpointInfo
    network: PVTv2Config
    labels: tuple[str, ...] | None
    load_s: float


def fetch_checkpoint(config: JobConfig, pinned: str | None = None, precision: str = "fp32") -> Checkpoint:
    """Reads a checkpoint from a local path, the Hub, or an object store with the account of the inputs.

    Args:
        config: Settings of the job.
        pinned: `org/name@commit` of the weights that made the output so far, if they came from the Hub. A run that
            names the same model without a revision takes this commit, even if the main branch has changed.
        precision: Type in which the network runs: `fp32`, `bf16` or `fp16`.

    Raises:
        WeightsError: The checkpoint is missing, does not load, lacks the head that the task needs, or has a weight that
            is not finite, or not finite in the precision.
        ConfigError: The file of `--labels` is missing or broken, or its number of labels is not the number of classes.
    """
    started = time.perf_counter()
    try:
        if is_hub(config.weights):
            files = read_hub(_pinned(config.weights, pinned))
        else:
            files = _from_store(StorePath(config.weights, config.input.store))
        info = inspect_checkpoint(
            files.weights,
            files.config_json,
            files.preprocessor_json,
            config.variant,
            with_head=isinstance(config.task, Classify),
            with_labels=isinstance(config.task, Classify) and config.task.labels is None,
        )
    except (CheckpointError, WeightsError) as error:
        raise WeightsError(f"--weights {config.weights}: {error}") from error
    labels = None
    if isinstance(config.task, Classify):
        if not info.config.num_classes:
            raise WeightsError(
                f"--weights {config.weights}: this is a backbone without a head, which cannot classify. "
                "Give a checkpoint that was saved with its classifier."
            )
        labels = info.labels
        if config.task.labels is not None:
            labels = _labels(StorePath(config.task.labels, config.input.store), info.config.num_classes)
    _check_range(config.weights, info.largest, precision)
    seconds = time.perf_counter() - started
    logger.info("weights.loaded uri=%s sha256=%s seconds=%.1f", config.weights, info.digest[:12], seconds)
    network = config.task.network(info.config)
    return Checkpoint(files=files, info=info, network=network, labels=labels, load_s=seconds)


def _check_range(weights: str, largest: tuple[str, float], precision: str) -> None:
    """Checks that the largest weight stays finite in a precision."""
    name, value = largest
    if value >= _INFINITE[precision]:
        raise WeightsError(
            f"--weights {weights}: {name} holds {value:g}, which is infinite in {precision}: "
            "give --precision fp32, and a new --output if this one was begun in another precision"
        )


def _pinned(source: str, pinned: str | None) -> str:
    repo, revision = parse_hub_source(source)
    return f"hf://{pinned}" if revision is None and pinned is not None and pinned.startswith(f"{repo}@") else source


def _from_store(weights: StorePath) -> CheckpointFiles:
    folder, weights_name = weights, None
    if is_weights_file(weights.uri, lambda: _is_there(weights)):
        above, _, weights_name = weights.uri.rpartition("/")
        folder = weights.at(above)

    def names() -> list[str]:
        try:
            found = [info.uri for info in folder.list()]
            if folder.uri in found:
                raise unknown_ending(folder.shown)
            below = [uri.removeprefix(f"{folder}/") for uri in found]
            return [name for name in below if "/" not in name]
        except NotFoundError:
            return []
        except StoreError as error:
            raise WeightsError(f"{folder} cannot be listed: {error}") from error

    return gather_files(folder.uri, lambda name: _read(folder.join(name)), names, weights_name=weights_name)


def _labels(file: StorePath, num_classes: int) -> tuple[str, ...]:
    data = _read(file)
    if data is None:
        raise ConfigError(f"--labels {file}: there is no such file")
    try:
        labels = parse_labels(data.decode("utf-8-sig"), file.uri)
    except ValueError as error:
        raise ConfigError(f"--labels: {error}") from error
    if len(labels) != num_classes:
        raise ConfigError(f"--labels {file} names {len(labels)} classes, but the network has {num_classes}")
    return labels


def _is_there(file: StorePath) -> bool:
    try:
        return file.head() is not None
    except StoreError as error:
        raise WeightsError(f"{file} cannot be read: {error}") from error


def _read(file: StorePath) -> bytes | None:
    try:
        return file.read()
    except NotFoundError:
        return None
    except StoreError as error:
        raise WeightsError(f"{file} cannot be read: {error}") from error
