"""Runs a command and samples the memory of its whole process tree, Ray's object store told apart."""

import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_EVERY_S = 1.0
# What stands in the titles of the processes that a figure is kept for.
STEPS = ("CollectorActor", "InferActor", "_decode", "_read")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One command.

    Attributes:
        wall_s: start to end.
        peak_mib: largest sum over the processes of proportional-set size, the object store left out.
        peak_store_mib: the same of shared memory, which is Ray's object store.
        peak_step_mib: of each step the largest process at any time, its files in memory included.
        summary: last line of stdout, as JSON.
    """

    wall_s: float
    peak_mib: float
    peak_store_mib: float
    peak_step_mib: dict[str, float]
    exit_code: int
    summary: dict


def run_measured(command: Sequence[str], *, cwd: Path, env: dict[str, str] | None = None, log: Path) -> Measured:
    """Runs the command to its end; its stderr goes to `log`."""
    peaks, steps = [0.0, 0.0], dict.fromkeys(STEPS, 0.0)
    started = time.perf_counter()
    with (
        log.open("ab") as errors,
        subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        while process.poll() is None:
            *sampled, by_step = _tree_mib(process.pid)
            peaks = [max(peak, now) for peak, now in zip(peaks, sampled, strict=True)]
            steps = {step: max(peak, by_step[step]) for step, peak in steps.items()}
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
        peak_step_mib={step: round(peak, 1) for step, peak in steps.items()},
        exit_code=process.returncode,
        summary=summary,
    )


def _tree_mib(pid: int) -> tuple[float, float, dict[str, float]]:
    """Memory of a process and all its children, proportional, in MiB.

    Returns:
        All without shared memory; shared memory; without it, the largest process of each step.
    """
    ours = store = 0.0
    by_step: dict[str, float] = defaultdict(float)
    try:
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return ours, store, by_step
    for process in processes:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            title = Path(f"/proc/{process.pid}/cmdline").read_text()
        except OSError:
            continue
        mib = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in text.splitlines()[1:]}
        own = mib["Pss"] - mib["Pss_Shmem"]
        store += mib["Pss_Shmem"]
        ours += own
        for step in STEPS:
            if step in title:
                by_step[step] = max(by_step[step], own)
    return ours, store, by_step
