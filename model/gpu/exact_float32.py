"""Exact matrix products of float32 on a GPU, even if the process has switched on the rounding of TF32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Runs a `with` block in which CUDA's float32 matrix products do not round their inputs to the ten bits of TF32.

    A captured graph keeps the setting that held during the capture.
    """
    if torch.backends.cuda.matmul.fp32_precision != "tf32":
        yield
        return
    # torch has an older and a newer setting, and refuses to work if the two differ; the older call changes both.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
