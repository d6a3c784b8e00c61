"""The kernels on a real GPU give what each map alone gives."""

import pytest
import torch

from tests.support.ragged_checks import CHECKS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("check", CHECKS)
def test_each_map_gives_what_it_gives_alone(check, dtype):
    from model.gpu import kernels as gpu

    CHECKS[check](gpu, "cuda", dtype)
