"""Runs a command and samples the memory of its whole process tree; Ray's object store is counted apart."""

import json
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The measurements of a command that has ended.

    Attributes:
        wall_s: Seconds from the start of the command to its end.
        peak_mib: Largest sum of the processes' proportional-set sizes, without the object store.
        peak_store_mib: Largest sum of the processes' shared memory, which is Ray's object store.
        exit_code: Exit code of the command.
        summary: Last line of the command's stdout, parsed as JSON.
    """

    wall_s: float
    peak_mib: float
    peak_store_mib: float
    exit_code: int
    summary: dict


def run_measured(command: Sequence[str], *, cwd: Path, log: Path) -> Measured:
    """Runs the command to its end; the command's stderr is appended to `log`."""
    peaks = [0.0, 0.0]
    started = time.perf_counter()
    with (
        log.open("ab") as errors,
        subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        while process.poll() is None:
            peaks = [max(peak, now) for peak, now in zip(peaks, _tree_mib(process.pid), strict=True)]
            with suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_EVERY_S)
        wall_s = time.perf_counter() - started
        output = process.stdout.read() if process.stdout else ""
    lines = output.strip().splitlines()
    try:
        summary = json.loads(lines[-1]) if lines else {}
    except ValueError:
        summary = {}
    return Measured(
        wall_s=round(wall_s, 2),
        peak_mib=round(peaks[0], 1),
        peak_store_mib=round(peaks[1], 1),
        exit_code=process.returncode,
        summary=summary,
    )


def _tree_mib(pid: int) -> tuple[float, float]:
    """Returns (memory without shared memory, shared memory) of a process and all its children, in MiB.

    The memory is the sum of the processes' proportional-set sizes.
    """
    own = store = 0.0
    try:
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return own, store
    for process in processes:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue
        mib = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in text.splitlines()[1:]}
        store += mib["Pss_Shmem"]
        own += mib["Pss"] - mib["Pss_Shmem"]
    return own, store
