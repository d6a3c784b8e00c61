"""The GPU's kernels, as the network launches them, compile for GPUs and keep what they work on in registers.

No GPU is needed: Triton compiles for one that is named, with the assembler that it ships.
"""

import re
import subprocess
from pathlib import Path

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from model.checkpoints.random_weights import random_weights
from model.gpu import kernels as gpu
from model.gpu.forward import TabledPVTv2
from model.gpu.tables import capacity_for, device_tables, needs
from model.network.config import PVTv2Config

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.uint8: "*u8"}
# Enough for a few scalars; a kernel that needs kilobytes has spilled its tiles to memory and crawls.
MAX_STACK_BYTES = 64
WIDTHS = {32: (1, 2, 2, 1), 64: (1, 1, 1, 1)}  # of the heads: those of B0, and of all others


def network(dim: int, linear: bool, dtype: torch.dtype) -> tuple[PVTv2Config, TabledPVTv2]:
    config = PVTv2Config(
        embed_dims=tuple(dim * heads for heads in WIDTHS[dim]),
        depths=(1, 1, 1, 1),
        num_heads=WIDTHS[dim],
        mlp_ratios=(8, 8, 8, 8),
        sr_ratios=(8, 4, 2, 1),
        linear=linear,
    )
    return config, TabledPVTv2(random_weights(config, 0).to(dtype), gpu, mean=(0.5,) * 3, std=(0.2,) * 3)


def stack_bytes(cubin: bytes, folder: Path) -> int:
    (folder / "kernel.cubin").write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    command = [tool, "-res-usage", folder / "kernel.cubin"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", text).group(1))


@pytest.mark.parametrize(
    ("capability", "dim", "linear", "dtype"),
    [
        (90, 64, False, torch.bfloat16),
        (90, 64, False, torch.float32),
        (80, 32, True, torch.float16),
    ],
    ids=str,
)
def test_every_kernel_compiles_without_spilling(monkeypatch, tmp_path, capability, dim, linear, dtype):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    stacks = {}

    def compiled(kernel, *arguments, grid, warmup, num_warps=4, num_stages=3, **constants):
        values = dict(zip(kernel.arg_names, arguments, strict=False)) | constants
        signature, hints = {}, {}
        for index, parameter in enumerate(kernel.params):
            value = values[parameter.name]
            if parameter.is_constexpr:
                signature[parameter.name] = "constexpr"
            elif isinstance(value, torch.Tensor):
                signature[parameter.name] = TYPES.get(value.dtype, "*i32")
                hints[(index,)] = [["tt.divisibility", 16]]
            else:
                signature[parameter.name] = "i32" if isinstance(value, int) else "fp32"
        constexprs = {name: values[name] for name, kind in signature.items() if kind == "constexpr"}
        key = (kernel.__name__, *signature.values(), *constexprs.values())
        if key not in stacks:
            source = ASTSource(kernel, signature, constexprs, hints)
            options = {"num_warps": num_warps, "num_stages": num_stages}
            found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
            stacks[key] = stack_bytes(found.asm["cubin"], tmp_path)

    monkeypatch.setattr(JITFunction, "run", compiled)
    config, prepared = network(dim, linear, dtype)
    capacity = capacity_for(needs(config, [(64, 48)]))
    tables = device_tables(config, [(64, 48)], capacity, torch.device("cpu"))
    with torch.inference_mode():
        prepared(torch.zeros(capacity.pixels, 3, dtype=torch.uint8), tables)
    kernels = {key[0] for key in stacks}
    assert kernels == {"_pixel_patches", "_patches", "_dwconv_gelu", "_norm", "_attention", "_mean"} | (
        {"_pooled"} if linear else set()
    )
    assert max(stacks.values()) <= MAX_STACK_BYTES, stacks
