"""The plain operations, with which the GPU's kernels are compared, give for each map what it gives alone."""

import pytest
import torch

from model.gpu import plain
from tests.support.ragged_checks import CHECKS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_each_map_gives_what_it_gives_alone(check, dtype):
    check(plain, "cpu", dtype)
