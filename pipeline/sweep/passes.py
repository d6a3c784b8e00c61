"""The passes of a sweep: which sizes go through the network together, and into which folders.

    <output>/at-sizes-<digest>/     a pass: one row for each image, with the answers and logits of all its sizes
    <output>/square-224/            an ordinary output of the size square:224, made of the rows of the pass

A size that an earlier pass has is continued there, so that a longer list of sizes computes the new sizes alone.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from model.checkpoints.hub import is_hub
from model.checkpoints.input_size import SizeAdvice
from pipeline.chunks.columns import CLASSIFY_COLUMNS
from pipeline.chunks.size_policy import SizePolicy, policy_from
from pipeline.chunks.task import Classify, ClassifyAtSizes
from pipeline.config.checkpoint import Checkpoint, fetch_checkpoint
from pipeline.config.identity import stored_setting
from pipeline.config.job_config import JobConfig
from pipeline.config.precision import Precision, choose_precision
from pipeline.config.size import SizeRequest, parse_size, resolve_size
from pipeline.errors import ConfigError, OutputError
from pipeline.output.layout import JOB_FILE
from pipeline.run.seen_sizes import PUBLISHED_PX
from pipeline.store.errors import NotFoundError, StoreError
from pipeline.store.store_path import StorePath
from pipeline.store.uris import join_uri, name_of

logger = logging.getLogger(__name__)

_FOLDER = "at-sizes-"
_FACTORS = (1.25, 1.75)


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of a size's answers: a pass, and the index of the size in `at_sizes`."""

    folder: StorePath
    index: int


@dataclass(frozen=True, kw_only=True)
class SweptSize:
    """One size of a sweep.

    Attributes:
        name: Name of the size, such as `square:224`.
        config: Settings of the job that makes the size's ordinary output.
        policy: The resolved policy.
        place: Where the answers lie; None for an output that was made without a pass.
    """

    name: str
    config: JobConfig
    policy: SizePolicy
    place: Place | None = None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The sizes of a sweep and the passes that they need, in order."""

    checkpoint: Checkpoint
    sizes: tuple[SweptSize, ...]
    passes: tuple[JobConfig, ...]


def plan_sweep(base: JobConfig, named: Sequence[tuple[str, JobConfig]], output: StorePath) -> Sweep:
    """Returns the sweep over some sizes; sizes that resolve to the same numbers are one size, under the first name.

    Args:
        base: Settings of a job that would classify at the native size into `output` itself.
        named: Name of each size, and the settings of a job at this size; empty for the sizes that `default_sizes` says.
        output: Folder of the sweep.

    Raises:
        PipelineError: The checkpoint cannot be used, a size cannot be resolved, or the output cannot be read.
    """
    outputs = _outputs_in(output)
    there = {folder: _policies(folder) for folder in outputs if name_of(folder.uri).startswith(_FOLDER)}
    pinned = _first_setting(outputs, "weights_revision") if is_hub(base.weights) else None
    stored = _first_setting(outputs, "precision") if base.precision == "auto" else None
    precision, _ = choose_precision(base.precision, stored, base.compute.device)
    checkpoint = fetch_checkpoint(base, pinned, precision)
    revision = checkpoint.files.revision
    weights = base.weights if revision is None else f"hf://{revision}"
    advice = checkpoint.info.sizes
    named = named or [(name, replace(base, size=parse_size(name))) for name in default_sizes(advice)]
    sizes: dict[SizePolicy, SweptSize] = {}
    for name, config in named:
        policy = resolve_size(config.size, config.sizes, advice, config.weights)
        if policy in sizes:
            logger.info("size.same size=%s as=%s", name, sizes[policy].name)
            continue
        place = replace(config.output, uri=join_uri(output.uri, folder_name(name)))
        own = replace(config, weights=weights, precision=cast(Precision, precision), output=place)
        sizes[policy] = SweptSize(name=name, config=own, policy=policy)
    places = _places(there)
    # An output without a pass was made before there were passes, or by `classify`. It goes on as it is.
    alone = [policy for policy in sizes if policy not in places and _is_begun(sizes[policy].config.output.folder)]
    _check(base, list(sizes))
    new = tuple(policy for policy in sizes if policy not in places and policy not in alone)
    if new:
        folder = output.join(_FOLDER + _digest(new))
        places |= {policy: Place(folder=folder, index=index) for index, policy in enumerate(new)}
        there = {**there, folder: new}
    swept = tuple(_placed(size, places.get(policy)) for policy, size in sizes.items())
    used = {size.place.folder.uri for size in swept if size.place is not None}
    config = replace(swept[0].config, bounds=base.bounds)
    passes = [_pass_config(config, folder, policies) for folder, policies in there.items() if folder.uri in used]
    return Sweep(checkpoint=checkpoint, sizes=swept, passes=tuple(passes))


def _placed(size: SweptSize, place: Place | None) -> SweptSize:
    """Returns the size with its place; the bounds of a run are for the work of its pass, if it has one."""
    if place is None:
        return size
    bounds = replace(size.config.bounds, max_images=None, max_hours=None)
    return replace(size, place=place, config=replace(size.config, bounds=bounds))


def default_sizes(advice: SizeAdvice) -> list[str]:
    """Returns the sizes of a sweep without a list: native, what the checkpoint says, and from the size in training up.

    The whole image is also tried at 1.25 and 1.75 times the size in training, in multiples of 32 px: most networks are
    best at somewhat more than this size (Touvron et al. 2019). If the training had varied sizes, the largest counts.
    """
    trained = advice.trained_px or max(advice.trained_range_px or (PUBLISHED_PX,))
    larger = [32 * round(trained * factor / 32) for factor in _FACTORS]
    words = ["native", *(["checkpoint"] if advice.resize is not None and advice.problem is None else [])]
    return [*words, f"square:{trained}", *(f"shorter:{side}" for side in (trained, *larger))]


def folder_name(size: str) -> str:
    """Returns the name of the folder of a size's output."""
    return size.replace(":", "-")


def _pass_config(config: JobConfig, folder: StorePath, policies: tuple[SizePolicy, ...]) -> JobConfig:
    task = config.task
    assert isinstance(task, Classify)
    return replace(
        config,
        task=ClassifyAtSizes(labels=task.labels, top_k=task.top_k, policies=policies),
        size=SizeRequest("native"),
        sizes=policies[0],
        output=replace(config.output, uri=folder.uri),
    )


def _check(config: JobConfig, policies: Sequence[SizePolicy]) -> None:
    """Checks that the sizes can share a pass, and that its rows can become rows of each size.

    Raises:
        ConfigError: They cannot.
    """
    if len(policies) > 1 and any(policy.jpeg_decoding == "reduced" for policy in policies):
        raise ConfigError(
            "--jpeg-decoding reduced: several sizes are compared on images that are decoded once, whole; evaluate one "
            "--size with it, into another --output"
        )
    if taken := sorted({*CLASSIFY_COLUMNS.names, "logits", "compute_s"}.intersection(config.input.keep_columns)):
        raise ConfigError(f"--keep-columns {','.join(taken)}: an evaluation has a column of that name; leave it out")


def _outputs_in(output: StorePath) -> list[StorePath]:
    """Returns the folders directly in a folder that hold the output of a job."""
    try:
        uris = [info.uri for info in output.list()]
    except NotFoundError:
        return []
    except StoreError as error:
        raise OutputError(f"output {output} cannot be read: {error}") from error
    folders = [uri.removesuffix(f"/{JOB_FILE}") for uri in uris if uri.endswith(f"/{JOB_FILE}")]
    return [output.at(folder) for folder in folders if folder.rpartition("/")[0] == output.uri]


def _policies(folder: StorePath) -> tuple[SizePolicy, ...]:
    try:
        return tuple(map(policy_from, stored_setting(folder, "policies") or ()))
    except (KeyError, TypeError, ValueError) as error:
        raise OutputError(
            f"{folder} holds no pass of this version; move it away, or choose another --output"
        ) from error


def _places(passes: dict[StorePath, tuple[SizePolicy, ...]]) -> dict[SizePolicy, Place]:
    return {
        policy: Place(folder=folder, index=index)
        for folder, policies in passes.items()
        for index, policy in enumerate(policies)
    }


def _first_setting(outputs: Sequence[StorePath], name: str) -> Any:
    found = (stored_setting(folder, name) for folder in outputs)
    return next((value for value in found if value is not None), None)


def _is_begun(output: StorePath) -> bool:
    return stored_setting(output, "job") is not None


def _digest(policies: Sequence[SizePolicy]) -> str:
    text = json.dumps([asdict(policy) for policy in policies], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
