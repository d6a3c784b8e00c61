"""Within `exact_float32` no product is rounded to TF32; afterwards the choice of the process holds again."""

import pytest
import torch

from model.gpu.exact_float32 import exact_float32


@pytest.fixture(autouse=True)
def as_before():
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("chosen", ["highest", "high", "medium"])
def test_matrix_products_are_exact_within_and_as_chosen_after(chosen):
    torch.set_float32_matmul_precision(chosen)
    with exact_float32():
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cuda.matmul.fp32_precision != "tf32"
    assert torch.get_float32_matmul_precision() == chosen


def test_the_older_switch_is_heeded_too():
    torch.backends.cuda.matmul.allow_tf32 = True
    with exact_float32():
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32
