"""What a device reaches in a large matrix product: the peak that a network's speed is held against."""

import json
import logging
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

import torch

from model.gpu.device_errors import is_out_of_memory

logger = logging.getLogger(__name__)

_SIDES = {"cpu": 1024, "cuda": 8192}
_TURNS = 5
_MOST_S = 1.0  # a processor that has no instructions for a type may take seconds for one turn


def peak_gflops(device: str, dtype: torch.dtype) -> float:
    """10^9 floating-point operations a second (a multiply and an add are two) of a square matrix product.

    The best of some turns on this process' threads, taken once a user, device, type and version of torch: a file below
    `XDG_CACHE_HOME` remembers it.

    Args:
        device: `cpu` or `cuda`.

    Returns:
        0.0 where there is no memory for it on the device; then it is not remembered.
    """
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    what = f"{name}, {torch.get_num_threads()} threads, {dtype}, torch {torch.__version__}"
    known = _remembered()
    if what not in known:
        try:
            known[what] = round(_measure(device, dtype), 1)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("peak.not_measured of=%r: out of memory", what)
            return 0.0
        finally:
            if device == "cuda":
                # The network runs on a stream of its own, which cannot use what this one keeps.
                torch.cuda.empty_cache()
        _remember(known)
        logger.info("peak.measured gflops=%.0f of=%r", known[what], what)
    return known[what]


@torch.inference_mode()
def _measure(device: str, dtype: torch.dtype) -> float:
    side = _SIDES[device]
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    best_s, began = float("inf"), time.perf_counter()
    for _ in range(_TURNS):
        started = time.perf_counter()
        (a @ b)[0, 0].item()  # which waits for a GPU
        ended = time.perf_counter()
        best_s = min(best_s, ended - started)
        if ended - began > _MOST_S:
            break
    return 2 * side**3 / best_s / 1e9


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pvtv2-batch" / "matmul-peaks.json"


def _remembered() -> dict[str, float]:
    try:
        found = json.loads(_file().read_text())
        return {str(what): float(gflops) for what, gflops in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError):
        return {}


def _remember(known: dict[str, float]) -> None:
    """Several processes may write at a time; each leaves a whole file, or the one before."""
    with suppress(OSError, RuntimeError):
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        own = file.with_name(f"{file.name}.{os.getpid()}")
        own.write_text(json.dumps(known, indent=1))
        own.replace(file)
