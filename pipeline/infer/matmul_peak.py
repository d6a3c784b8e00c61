"""Measures the speed of a device in a large matrix product: the peak with which a network's speed is compared."""

import json
import logging
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

_SIDES = {"cpu": 1024, "cuda": 8192}
_TURNS = 5
_MOST_S = 1.0  # a processor without instructions for a type may take seconds for one turn; then no other turn follows


def peak_gflops(device: str, dtype: torch.dtype) -> float:
    """Returns the speed of a square matrix product, in 10^9 floating-point operations a second.

    A multiply and an add are two operations. The speed is the best of some turns with the threads of this process. A
    file in the user's cache folder remembers the speed for each combination of device, number of threads, type and
    version of torch, so that each combination is measured once.

    Args:
        device: `cpu` or `cuda`.
        dtype: Type of the matrices.

    Returns:
        The speed; 0.0, which is not remembered, if the device has not enough memory for the matrices.
    """
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    what = f"{name}, {torch.get_num_threads()} threads, {dtype}, torch {torch.__version__}"
    known = _remembered()
    if what not in known:
        try:
            known[what] = round(_measure(device, dtype), 1)
        except torch.OutOfMemoryError:
            logger.warning("peak.not_measured of=%r: out of memory", what)
            return 0.0
        finally:
            if device == "cuda":
                # torch keeps freed memory for the stream that used it, and the network runs on another stream.
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
        (a @ b)[0, 0].item()  # reading a number waits for the GPU
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
    """Writes the file that remembers speeds. Processes that write at the same time each leave a whole file."""
    with suppress(OSError, RuntimeError):
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        own = file.with_name(f"{file.name}.{os.getpid()}")
        own.write_text(json.dumps(known, indent=1))
        own.replace(file)
