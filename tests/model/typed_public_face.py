"""The types that `mypy` must find for the public names of `model`; `mypy` checks this file, which is never run."""

from typing import assert_type

import torch

import model
from model import VARIANTS, LoadedModel, PackedOutput, PackedPVTv2, PVTv2, PVTv2Config, load_checkpoint, run_packed

assert_type(VARIANTS, dict[str, PVTv2Config])
assert_type(load_checkpoint("weights"), LoadedModel)
assert_type(load_checkpoint("weights").model, PVTv2)
assert_type(run_packed(PVTv2(VARIANTS["b0"]), [torch.zeros(1)]), PackedOutput)
assert_type(PackedPVTv2(PVTv2(VARIANTS["b0"])).run([]).logits, torch.Tensor | None)
assert_type(model.count_macs(VARIANTS["b0"], 224, 224), int)
_ = model.run_packet  # type: ignore[attr-defined]  # mypy finds the mistake: an ignore without one is an error
