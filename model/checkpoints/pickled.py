"""Reads weights that torch pickled (`.pth`, `.bin`): as tensors alone, never as code."""

import argparse
import io
import logging
import pickle
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from model.checkpoints.matching import TensorInfo
from model.checkpoints.rename import find_naming
from model.errors import CheckpointError

logger = logging.getLogger(__name__)

# Keys under which training scripts store the weights, in the order in which they are taken. The first four were known
# first, and keep their order, so that a file of theirs gives the same weights for good. Among the others, averaged
# weights, which a script evaluates, come first. A teacher comes last, since it may be another network.
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model",
    "ema",
    "model_state_dict",
    "model_state",
    "net",
    "teacher",
)


def read_pickled(weights: bytes) -> dict[str, Tensor]:
    """Returns the tensors by name, on the CPU. The weights inside a whole training state are found.

    Raises:
        CheckpointError: The file cannot be read as plain tensors.
    """
    try:
        # A training state often holds the script's arguments, which are plain values in an `argparse.Namespace`.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of newer pickle protocols; what cannot be read is an error
            content = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "The weights are a pickle that holds more than tensors, which is not read because it could run code: save "
            f"them again as safetensors, or as a plain state_dict ({_first_line(error)})."
        ) from error
    except Exception as error:  # a broken file can raise any error while it is read
        raise CheckpointError(
            f"The weights are no whole file that torch saved ({_first_line(error)}): they are of another format, or "
            "were cut short."
        ) from error
    return _state(content)


def describe(tensor: Tensor) -> TensorInfo:
    """Returns the description of a tensor."""
    shape, is_float = tuple(tensor.shape), tensor.is_floating_point()
    if not is_float or not tensor.numel():
        return TensorInfo(shape, is_float, 0.0)
    # torch finds the largest number of every type of at least four bytes; shorter types become float32 unchanged.
    wide = tensor.float() if tensor.itemsize < 4 else tensor
    return TensorInfo(shape, is_float, float(torch.stack(wide.detach().aminmax()).abs().max()))


def _state(content: object) -> dict[str, Tensor]:
    """Returns the mapping from names to tensors, which may lie under a key of a training state."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"The weights file holds a {type(content).__name__}, no tensors by name.")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if find_naming(tensors) is not None:
        return tensors
    inner = {key: _state(content[key]) for key in WRAPPERS if isinstance(content.get(key), Mapping)}
    networks = [key for key, state in inner.items() if find_naming(state) is not None]
    if len(networks) > 1:
        logger.info("weights.chosen key=%s of=%s", networks[0], ",".join(networks))
    return inner[networks[0]] if networks else next(iter(inner.values()), tensors)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
