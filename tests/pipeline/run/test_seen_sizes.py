"""Sizes of images are compared with the size in training before the work, and advice is given where they are far."""

from dataclasses import replace

import pytest

from model.checkpoints.input_size import SizeAdvice
from pipeline.chunks.size_policy import IMAGENET, SizePolicy
from pipeline.chunks.task import Classify, ExtractFeatures, ScoreScaling
from pipeline.config.size import parse_size
from pipeline.run.seen_sizes import compare_sizes, warn_if_fitted_for_another
from tests.support.simulated import SimulatedRun


@pytest.fixture
def compared(tmp_path, encode, make_tar):
    """(shorter sides, changes of the config, size in training) -> what is known of the sizes."""

    def compare(sides, trained_px=None, trained_range_px=None, **changes):
        source = tmp_path / "in"
        source.mkdir(exist_ok=True)
        images = {f"{number}.png": encode(side + 100, side, number) for number, side in enumerate(sides)}
        for name, data in images.items():
            (source / name).write_bytes(data)
        (source / "x.tar").write_bytes(make_tar(images))
        (source / "broken.png").write_bytes(b"no image")
        run = SimulatedRun(source, tmp_path / "out", 1).run
        info = replace(run.checkpoint.info, sizes=SizeAdvice(trained_px=trained_px, trained_range_px=trained_range_px))
        run = replace(run, config=replace(run.config, **changes), checkpoint=replace(run.checkpoint, info=info))
        return compare_sizes(run)

    return compare


def test_images_that_are_far_from_the_published_size_bring_advice(compared, caplog):
    found = compared([200, 500, 600])
    assert found["advice"] is not None
    assert (found["trained_px"], found["images_sampled"]) == ({"least": 224, "largest": 224}, 6)
    assert found["trained_px_from"] == "published"
    assert found["shorter_side_px"] == {"least": 200, "median": 500, "largest": 600}
    assert found["far"] == round(4 / 6, 3)
    assert "published PVTv2 were (these weights do not say) trained at 224 px" in found["advice"]
    assert "67% of the samples" in found["advice"]
    assert "--size square:224" in found["advice"]
    assert "sizes.far" in caplog.text


@pytest.mark.parametrize("sides", [[224], [150, 224, 336], [160, 600, 300]])
def test_images_near_the_size_bring_none(compared, sides, caplog):
    found = compared(sides)
    assert found["advice"] is None
    assert "sizes.far" not in caplog.text


def test_small_images_and_the_checkpoints_own_size_count(compared):
    found = compared([100, 120], trained_px=224)
    assert "these weights were trained at 224 px" in found["advice"]
    found = compared([100, 120], trained_px=128)
    assert (found["advice"], found["trained_px_from"]) == (None, "checkpoint")


def test_features_get_the_figures_alone(compared):
    found = compared([500], task=ExtractFeatures())
    assert (found["far"], found["advice"]) == (1.0, None)


def test_a_chosen_size_is_not_questioned(compared):
    assert compared([500], size=parse_size("native")) is None
    assert compared([500], sizes=SizePolicy(preprocess="imagenet")) is None


def test_weights_trained_at_varied_sizes_bring_advice_beyond_their_range_alone(compared):
    found = compared([32, 400, 500], trained_range_px=(32, 512))
    assert (found["advice"], found["far"]) == (None, 0.0)
    assert (found["trained_px"], found["trained_px_from"]) == ({"least": 32, "largest": 512}, "checkpoint")
    found = compared([800, 900], trained_range_px=(32, 512))
    assert "these weights were trained at 32 to 512 px" in found["advice"]
    assert "--size shorter:512" in found["advice"]


def fitted(policy, weights_sha256="d" * 64):
    scaling = ScoreScaling(temperature=1.5, weights_sha256=weights_sha256, size="square:224", policy=policy)
    return Classify(scaling=scaling)


def test_a_calibration_of_this_size_is_a_choice_and_one_of_another_size_is_not(compared):
    assert compared([500], task=fitted(SizePolicy())) is None
    assert compared([500], task=fitted(SizePolicy(resize=IMAGENET)))["advice"] is not None
    assert compared([500], size_from="/evaluation") is None


@pytest.fixture
def warned(tmp_path, caplog):
    """Task and size policy -> the warnings."""

    def warn(task, sizes):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / "x.png").write_bytes(b"x")
        config = replace(SimulatedRun(tmp_path / "in", tmp_path / "out", 1).config, task=task, sizes=sizes)
        warn_if_fitted_for_another(config, "d" * 64)
        return caplog.text

    return warn


def test_scores_of_another_size_or_other_weights_are_warned_of(warned):
    square = SizePolicy(resize=IMAGENET)
    assert warned(fitted(square), square) == ""
    assert warned(Classify(), square) == ""
    assert warned(ExtractFeatures(), square) == ""
    assert "calibration.other_size fitted_at=square:224" in warned(fitted(square), SizePolicy())
    assert "calibration.other_weights fitted_for=eeeeeeeeeeee these=dddddddddddd" in warned(
        fitted(square, "e" * 64), square
    )
