"""The GPU's kernels on a machine without one."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


def test_the_kernels_and_the_engine_are_right_under_the_interpreter():
    """Runs in a process of its own: when a kernel is defined, Triton decides whether to interpret it."""
    command = [sys.executable, "-m", "pytest", "-q", "--show-capture=no", "tests/model/gpu/kernels/interpreted.py"]
    env = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-5000:]
