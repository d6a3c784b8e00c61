"""The floating-point type in which the network runs, and the reason for it."""

from pathlib import Path
from typing import Literal, get_args

from pipeline.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16", "fp16"]

# Flags of processors with instructions for bfloat16: x86 with AVX-512 or AMX, ARM.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_CPUINFO = Path("/proc/cpuinfo")


def choose_precision(asked: Precision, stored: str | None, device: str) -> tuple[str, str]:
    """Returns the precision of a run, and the reason for it.

    An output has one precision. A run without `--precision` continues with the precision of its output, on any machine;
    a new output gets bf16 if the device computes bf16 faster.

    Args:
        asked: Precision that the user asked for.
        stored: Precision of the existing output; None for a new output.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: `asked` is not one of the precisions.
    """
    if asked not in get_args(Precision):
        raise ConfigError(f"--precision must be {', '.join(get_args(Precision))}, not {asked!r}")
    if asked != "auto":
        return asked, "asked for"
    if stored is not None:
        return stored, "the output's rows so far have it"
    if device == "cuda":
        return "bf16", "GPUs multiply it several times as fast as fp32"
    if multiplies_bf16():
        return "bf16", "this machine's processor multiplies it"
    if device == "cpu":
        return "fp32", "this machine's processor does not multiply bf16"
    return "fp32", "this machine's processor does not multiply bf16; if the work goes to GPUs, ask for --precision bf16"


def multiplies_bf16(cpuinfo: Path = _CPUINFO) -> bool:
    """Returns True if the processor of this machine has instructions for bfloat16."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return not _BF16_FLAGS.isdisjoint(flags.partition(":")[2].split())
