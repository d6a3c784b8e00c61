"""The rate of runs with several actors."""

import pytest

from benchmarks.job.noted import Note
from benchmarks.job.scaling import images_per_s


def note(pid, began, ended, images=10):
    return Note(step="compute", pid=pid, images=images, began=began, ended=ended, cpu_s=0.0)


def test_images_count_from_the_last_actor_s_first_chunk_to_the_first_actor_s_last():
    notes = [note(1, 0, 1), note(1, 1, 2), note(2, 1, 2), note(1, 2, 3), note(2, 2, 4)]
    assert images_per_s(notes, 2) == pytest.approx((10 + 5) / 1)


def test_an_actor_without_work_or_without_company_is_no_measurement():
    with pytest.raises(RuntimeError, match="1 of 2 actors had work"):
        images_per_s([note(1, 0, 1)], 2)
    with pytest.raises(RuntimeError, match="side by side"):
        images_per_s([note(1, 0, 1), note(1, 1, 2), note(2, 5, 6)], 2)
