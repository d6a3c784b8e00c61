"""The errors of a GPU.

RuntimeError
+-- CaptureError            a graph could not be captured, for another reason than memory
+-- torch.OutOfMemoryError  the device has not enough memory
"""

import torch


class CaptureError(RuntimeError):
    """A graph could not be captured; packs can still run without a graph, one kernel launch after the other."""


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error, or an error that caused it, says that the device has not enough memory."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.OutOfMemoryError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
