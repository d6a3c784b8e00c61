"""A dry run that tries the job: real runs on a warm Ray, with a tiny model."""

import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore:::ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.drill
def test_a_dry_run_tells_the_time_by_a_trial_that_leaves_nothing_and_after_a_run_by_that(
    tmp_path, draw, tiny_weights, run_here
):
    (tmp_path / "in").mkdir()
    for index in range(30):
        (tmp_path / "in" / f"{index}.png").write_bytes(draw(index, 64, 64))
    output = tmp_path / "out"
    flags = ("--input", tmp_path / "in", "--weights", tiny_weights, "--output", output, "--num-actors", "1")

    result = run_here(*flags, "--dry-run", "--calibrate", "--price-per-hour", "3600")
    assert result.code == 0, result.stderr
    estimate = result.summary["estimate"]
    assert (estimate["images"], estimate["calibrated"], estimate["like_run"]) == (30, True, None)
    assert estimate["seconds"] > 0
    assert estimate["cost"] == pytest.approx(estimate["seconds"], abs=0.1)
    assert not output.exists()

    summary = run_here(*flags).summary
    assert (summary["ok"], summary["rows_in_output"]) == (30, 30)
    before = sorted(output.rglob("*"))
    (tmp_path / "in" / "new.png").write_bytes(draw(100, 64, 64))
    estimate = run_here(*flags, "--dry-run", "--calibrate").summary["estimate"]
    assert (estimate["calibrated"], estimate["like_run"]) == (False, summary["run_id"])
    assert estimate["seconds"] > 0
    assert sorted(output.rglob("*")) == before
