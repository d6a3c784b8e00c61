import subprocess
import sys
import time

import pytest

from model.network.config import VARIANTS
from model.network.cost import count_macs
from pipeline.workers.time_limits import compute_s, given_up_after

# `re` holds the interpreter's lock while it backtracks: no Python thread runs meanwhile.
HANGS = """
import re
from pipeline.workers.time_limits import given_up_after
with given_up_after(0.3):
    re.match("(a*)*b", "a" * 60)
"""


def test_work_that_hangs_and_lets_no_python_run_ends_its_process_and_says_where_it_was():
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert 'File "<string>", line 5 in <module>' in done.stderr
    assert time.monotonic() - started < 50


def test_work_that_ends_in_time_is_left_alone_also_if_it_fails():
    with given_up_after(0.1):
        pass
    with pytest.raises(ValueError, match="bad"), given_up_after(0.1):
        raise ValueError("bad")
    time.sleep(0.3)  # this process is still there


def test_larger_images_may_take_longer_as_their_work_grows():
    network = VARIANTS["b2"]
    small, large = (compute_s(network, [(side, side)], "cpu") for side in (224, 2048))
    assert large / small == count_macs(network, 2048, 2048) / count_macs(network, 224, 224)
    assert compute_s(network, [(224, 224)] * 3, "cpu") == pytest.approx(3 * small)
    # Ten times what one thread of the reference machine takes: 433 ms for 500x375.
    assert compute_s(network, [(375, 500)], "cpu") > 4
    assert compute_s(network, [], "cuda") == 0
