"""PVTv2 from other libraries, as the benchmarks of these libraries run it: batches of float pixels on the device."""

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from model import VARIANTS
from model.checkpoints.transformers_config import write_config

LIBRARIES = ("timm", "transformers")
# A peer computes all in bfloat16, or has float32 weights under autocast to bfloat16 or float16.
PRECISIONS = ("bf16", "amp-bf16", "amp-fp16")


def installed() -> list[str]:
    return [name for name in LIBRARIES if importlib.util.find_spec(name)]


def missing() -> list[str]:
    return [name for name in LIBRARIES if name not in installed()]


def build(library: str, variant: str) -> torch.nn.Module:
    """Returns the network of a library, with random weights."""
    if library == "timm":
        import timm

        name = {"b2-linear": "pvt_v2_b2_li"}.get(variant, f"pvt_v2_{variant}")
        return timm.create_model(name, pretrained=False).eval()
    from transformers import PvtV2Config, PvtV2ForImageClassification

    config = PvtV2Config.from_dict(json.loads(write_config(VARIANTS[variant], None)))
    return PvtV2ForImageClassification(config).eval()


def ways(
    library: str, variant: str, device: str, *, precisions: Sequence[str] = PRECISIONS, compile_it: bool = False
) -> Iterator[tuple[str, Callable]]:
    """Yields (name, function of float pixels BCHW) for each way to run a peer; the device has one network at a time."""
    for precision in precisions:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        autocast_dtype = torch.float16 if precision == "amp-fp16" and device == "cuda" else torch.bfloat16
        network = build(library, variant).to(device, dtype)
        run = torch.compile(network) if compile_it else network

        def forward(
            pixels_BCHW: Tensor,
            run: Callable = run,
            dtype: torch.dtype = dtype,
            autocast_dtype: torch.dtype = autocast_dtype,
        ) -> object:
            is_amp = dtype == torch.float32
            with torch.inference_mode(), torch.autocast(device, autocast_dtype) if is_amp else nullcontext():
                return run(pixels_BCHW.to(dtype))

        yield f"{library}, {'compiled' if compile_it else 'eager'}, {precision}", forward
