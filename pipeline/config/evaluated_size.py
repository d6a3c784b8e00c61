"""`--size-from`: the size that an evaluation chose, for the same weights."""

import json
import logging

from pipeline.chunks.size_policy import SizePolicy, policy_from
from pipeline.errors import ConfigError
from pipeline.store.errors import StoreError
from pipeline.store.store_path import StorePath

logger = logging.getLogger(__name__)

_SAME = ("small_images", "large_images", "jpeg_decoding")

SIZES_FILE = "sizes.json"
"""Name of the file of an evaluation that holds its choice."""


def evaluated_size(evaluation: StorePath, sizes: SizePolicy, weights_sha256: str) -> SizePolicy:
    """Returns the size policy that an evaluation of these weights chose.

    Args:
        evaluation: Folder of the evaluation, or its `sizes.json`.
        sizes: Limits of the job. They must be those of the evaluation.

    Raises:
        ConfigError: The evaluation is missing, chose nothing, had other weights or other limits.
    """
    file = evaluation if evaluation.uri.endswith(".json") else evaluation.join(SIZES_FILE)
    try:
        found = json.loads(file.read())
        chosen, weights = found["chosen"], found["weights_sha256"]
        policy = None if chosen is None else policy_from(found["policies"][chosen])
    except StoreError as error:
        raise ConfigError(
            f"--size-from {file.shown} cannot be read: {error}; give the --output of jobs/evaluate.py with --sweep"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--size-from {file.shown} is no {SIZES_FILE} of jobs/evaluate.py") from error
    if weights != weights_sha256:
        raise ConfigError(
            f"--size-from {file.shown} is an evaluation of other weights (sha256 {weights[:12]}, these are "
            f"{weights_sha256[:12]}); evaluate these weights"
        )
    if policy is None:
        raise ConfigError(f"--size-from {file.shown} chose no size, since it had no labelled image")
    # `pixels:N` is a limit, which the evaluation chose; a job that gives no limit of its own takes it.
    pixels = {policy.max_image_pixels, SizePolicy.max_image_pixels}
    is_same = all(getattr(sizes, name) == getattr(policy, name) for name in _SAME)
    if not is_same or sizes.max_image_pixels not in pixels:
        raise ConfigError(
            f"--size-from {file.shown} had other limits: {_limits(policy)}; these are {_limits(sizes)}. Give the same"
        )
    logger.info("size.from evaluation=%s size=%s", file.shown, chosen)
    return policy


def _limits(policy: SizePolicy) -> str:
    return (
        f"--max-image-pixels {policy.max_image_pixels} --large-images {policy.large_images} "
        f"--small-images {policy.small_images} --jpeg-decoding {policy.jpeg_decoding}"
    )
