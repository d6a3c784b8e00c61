"""Reads weights that torch pickled (`.pth`, `.bin`): as tensors alone, never as code."""

import argparse
import io
import pickle
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from model.checkpoints.rename import find_naming
from model.errors import CheckpointError

# Keys under which training scripts store the weights; averaged weights, which a script evaluates, come first.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


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


def _state(content: object) -> dict[str, Tensor]:
    """Returns the mapping from names to tensors, which may lie under a key of a training state."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"The weights file holds a {type(content).__name__}, no tensors by name.")
    inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if inner is not None and find_naming(map(str, content)) is None:
        return _state(inner)
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
