"""Matrix products of float32 without TF32, whatever the process has chosen."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Runs its block with CUDA's float32 matrix products that do not round their inputs to the ten bits of TF32.

    A captured graph keeps the choice that held during its capture.
    """
    if torch.backends.cuda.matmul.fp32_precision != "tf32":
        yield
        return
    # torch has an older and a newer switch, and refuses to work if they differ; the older one sets both.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
