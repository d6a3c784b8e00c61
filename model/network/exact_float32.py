"""float32 that is float32: no TF32 in matrix products, whatever the process has chosen for others."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Within it, CUDA's matrix products of float32 do not round their inputs to TF32's ten bits.

    A captured graph keeps what held while it was captured.
    """
    if torch.backends.cuda.matmul.fp32_precision != "tf32":
        yield
        return
    # torch has an older and a newer switch, and refuses to work where they differ; this sets both.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
