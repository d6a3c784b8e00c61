"""What a GPU may answer with.

RuntimeError
+-- CaptureError            a graph could not be captured, for another reason than memory
+-- torch.OutOfMemoryError  there is no room on the device
"""

import torch


class CaptureError(RuntimeError):
    """A graph could not be captured; packs can run launch by launch."""


def is_out_of_memory(error: BaseException) -> bool:
    """True if the device had no room, also where that error led to another one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.OutOfMemoryError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
