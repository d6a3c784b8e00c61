"""Loads the compiled code (`model/cpu/c`), if the package was installed with a C compiler.

Installing the package puts the library beside the package `model`. `PVTV2_KERNELS=off` turns the compiled code off.
"""

import ctypes
import functools
import importlib.util
import logging
import os
from pathlib import Path

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

LANES = 16
"""Channels that the compiled code processes at once. The compiled code takes only multiples of this number."""

_LIBRARY = "pvtv2_kernels"
_POINTERS = [ctypes.c_void_p] * 4
# The number at the end of a function's name changes with the function's arguments. A library that was built before such
# a change lacks the new name, and so is never called with the wrong arguments.
_ARGUMENTS = {
    "pvtv2_dwconv_gelu_2": [*_POINTERS, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int, ctypes.c_int],
    "pvtv2_attention_1": [*_POINTERS, *[ctypes.c_int64] * 3, ctypes.c_void_p, ctypes.c_int],
    "pvtv2_layer_norm_1": [*_POINTERS, ctypes.c_int64, ctypes.c_int64, ctypes.c_float, ctypes.c_int],
    "pvtv2_has_tiles_1": [],
    "pvtv2_linear_1": [*_POINTERS, ctypes.c_void_p, *[ctypes.c_int64] * 3],
    "pvtv2_tiled_attention_1": [*_POINTERS, *[ctypes.c_int64] * 3, ctypes.c_void_p],
    "pvtv2_mlp_1": [*_POINTERS, *[ctypes.c_int64] * 3, ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int],
}
_DTYPES = (torch.float32, torch.bfloat16)


def compiled(x_TC: Tensor) -> ctypes.CDLL | None:
    """Returns the compiled code, or None if no such code can be used or the code does not take these tokens."""
    takes = x_TC.device.type == "cpu" and x_TC.dtype in _DTYPES and x_TC.shape[1] % LANES == 0
    return _library() if takes else None


def tiled(dtype: torch.dtype, device: torch.device) -> ctypes.CDLL | None:
    """Returns the compiled code, or None if no such code can be used or the code cannot multiply tiles of this type."""
    library = _library() if dtype == torch.bfloat16 and device.type == "cpu" else None
    return library if library is not None and _has_tiles(library) else None


def is_compiled() -> bool:
    """Returns whether the compiled code is installed and can be used."""
    return _library() is not None


@functools.cache
def _has_tiles(library: ctypes.CDLL) -> bool:
    # Cached, since the answer takes as long as a small layer in a virtual machine, where the host gives the answer.
    return bool(library.pvtv2_has_tiles_1())


@functools.cache
def _library() -> ctypes.CDLL | None:
    if os.environ.get("PVTV2_KERNELS") == "off":
        return None
    found = importlib.util.find_spec(_LIBRARY)
    if found is None or found.origin is None:
        logger.info("kernels.missing: torch's own operations are used; install with a C compiler for faster ones")
        return None
    try:
        return load(Path(found.origin))
    except (OSError, AttributeError) as error:
        logger.warning("kernels.unusable file=%s error=%s", found.origin, error)
        return None


def load(file: Path) -> ctypes.CDLL:
    """Loads a library and declares the arguments of its functions.

    Raises:
        OSError: The file is not a library for this machine.
        AttributeError: The library was built from another version of the code.
    """
    library = ctypes.CDLL(str(file))
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None if arguments else ctypes.c_int
    return library
