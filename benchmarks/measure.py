"""Runs a command and samples the memory of its whole process tree, Ray's object store told apart."""

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One command.

    Attributes:
        wall_s: start to end.
        peak_mib: largest sum over the processes of proportional-set size, the object store left out.
        peak_store_mib: the same of shared memory, which is Ray's object store.
        summary: last line of stdout, as JSON.
    """

    wall_s: float
    peak_mib: float
    peak_store_mib: float
    exit_code: int
    summary: dict


def run_measured(command: Sequence[str], *, cwd: Path, env: dict[str, str] | None = None, log: Path) -> Measured:
    """Runs the command to its end; its stderr goes to `log`."""
    peaks = [0.0, 0.0]
    started = time.perf_counter()
    with (
        log.open("ab") as errors,
        subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        while process.poll() is None:
            sampled = _tree_mib(process.pid)
            peaks = [max(peak, now) for peak, now in zip(peaks, sampled, strict=True)]
            time.sleep(SAMPLE_EVERY_S)
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
    """(memory without shared memory, shared memory) of a process and all its children, proportional, in MiB."""
    ours = store = 0
    try:
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0, 0.0
    for process in processes:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue
        kib = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        store += kib["Pss_Shmem"]
        ours += kib["Pss"] - kib["Pss_Shmem"]
    return ours / 1024, store / 1024
