"""When a bounded run ends, and what it says is left."""

from types import SimpleNamespace

import pytest

from pipeline.config.job_config import BoundsConfig
from pipeline.plan.plan_summary import PlanSummary
from pipeline.run import run_limits as bounds
from pipeline.run.run_limits import bound_by_images, describe_left, hours_over


def run_of(summary=None, **config):
    return SimpleNamespace(
        started_at=1000.0,
        config=SimpleNamespace(bounds=BoundsConfig(**config)),
        plan=SimpleNamespace(summary=summary or PlanSummary()),
    )


@pytest.mark.parametrize(
    ("images", "shards", "expected"),
    [
        (3000, 12, "12 shards and 3,000 images are left"),
        (1, 0, "1 image is left"),
        (0, 1, "1 shard is left"),
        (1, 1, "1 shard and 1 image are left"),
        (0, 0, "nothing is left"),
    ],
)
def test_what_is_left_is_said_in_words(images, shards, expected):
    assert describe_left(images, shards) == expected


def test_a_run_that_left_something_by_its_number_of_images_says_so():
    left = PlanSummary(postponed_images=3000, postponed_shards=12)
    expected = "bounded by --max-images 1000: 12 shards and 3,000 images are left"
    assert bound_by_images(run_of(left, max_images=1000)) == expected
    assert bound_by_images(run_of(max_images=1000)) is None


def test_a_run_ends_when_its_hours_are_over(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(bounds.time, "time", lambda: now[0])
    check, unbounded = hours_over(run_of(max_hours=0.5)), hours_over(run_of())
    now[0] += 1799
    assert check() is None
    now[0] += 1
    assert (check().status, check().reason, check().is_bound) == ("stopped", "bounded by --max-hours 0.5", True)
    assert unbounded() is None
