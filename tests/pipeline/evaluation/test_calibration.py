"""Temperatures of made-up networks whose right temperature is known, and files of calibrations."""

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.evaluation.calibration import (
    LEAST_IMAGES,
    calibrate,
    calibration_error,
    choosers,
    read_calibration,
    sample,
)
from pipeline.evaluation.outcomes import Outcomes
from pipeline.evaluation.temperature import LEAST, MOST, fit_temperature, log_loss, scores_at
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath


def drawn(num, temperature, num_classes=10, seed=0):
    """(logits, true classes), where the classes are drawn with the softmax of logits / temperature."""
    rng = np.random.default_rng(seed)
    logits = (3 * rng.standard_normal((num, num_classes))).astype(np.float32)
    chances = scores_at(logits, temperature).astype(np.float64)
    return logits, np.array([rng.choice(num_classes, p=row / row.sum()) for row in chances])


def outcomes_of(logits, true_id):
    scores = scores_at(logits, 1.0)
    num = len(true_id)
    return Outcomes(
        image_id=np.array([f"s3://in/{index:05d}.jpg" for index in range(num)]), true_id=true_id,
        label_id=logits.argmax(1), is_listed=np.ones(num, bool), score=scores.max(1),
        shorter_px=np.full(num, 224), net_size=np.full((num, 2), 224),
    )  # fmt: skip


def made(logits, true_id, **more):
    values: dict = {"same": tuple(range(logits.shape[1]))}
    values |= {"weights_sha256": "a" * 64, "size": "square:224", "sizes": {"preprocess": "native"}, "precision": "fp32"}
    return calibrate(logits, outcomes_of(logits, true_id), **{**values, **more})


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_with_which_classes_were_drawn_is_found(temperature):
    logits, true_id = drawn(8000, temperature)
    assert fit_temperature(logits, true_id) == pytest.approx(temperature, rel=0.06)


def test_the_loss_is_smallest_at_the_temperature():
    logits, true_id = drawn(2000, 1.7)
    best = fit_temperature(logits, true_id)
    assert log_loss(logits, true_id, best) < min(log_loss(logits, true_id, best * factor) for factor in (0.9, 1.1))


def test_a_network_that_is_always_right_gets_scores_that_so_many_images_can_show():
    logits, _ = drawn(200, 1.0)
    found = fit_temperature(logits, logits.argmax(1))
    assert LEAST < found < 1
    assert 0.9 < scores_at(logits, found).max(1).mean() < 0.9999


def test_one_class_has_one_score_whatever_the_temperature():
    assert LEAST <= fit_temperature(np.zeros((60, 1), np.float32), np.zeros(60, np.int64)) <= MOST


def test_scores_that_are_right_have_no_calibration_error():
    assert calibration_error(np.array([0.8] * 10, np.float32), np.array([True] * 8 + [False] * 2)) == pytest.approx(0)
    assert calibration_error(np.array([1.0, 1.0], np.float32), np.array([True, False])) == pytest.approx(0.5)


def test_half_of_the_images_choose_and_the_others_judge():
    logits, true_id = drawn(3000, 2.0)
    found = made(logits, true_id)
    chooses = found.rows.column("chooses").to_numpy(zero_copy_only=False)
    assert (found.figures.chose, found.figures.judged) == (chooses.sum(), (~chooses).sum())
    assert 1300 < chooses.sum() < 1700
    assert found.temperature == pytest.approx(fit_temperature(logits[chooses], true_id[chooses]))
    judged = ~chooses
    assert found.figures.error_before == calibration_error(
        scores_at(logits[judged], 1.0).max(1), true_id[judged] == logits[judged].argmax(1)
    )
    assert found.figures.error_after < 0.03 < found.figures.error_before
    assert found.figures.loss_after < found.figures.loss_before
    np.testing.assert_allclose(
        found.rows.column("score").to_numpy(), scores_at(logits, found.temperature).max(1), atol=1e-6
    )


def test_an_image_has_the_same_part_at_every_size_and_in_every_evaluation():
    ids = np.array([f"image {index}" for index in range(1000)])
    assert (choosers(ids)[::7] == choosers(ids[::7])).all()


def test_classes_of_one_name_are_right_for_each_other():
    """Each name has two classes. The network gives either of them, and the truth knows the name alone."""
    logits, true_id = drawn(4000, 1.0, num_classes=4)
    same = (0, 0, 2, 2)
    found = calibrate(
        logits, replace(outcomes_of(logits, np.asarray(same)[true_id]), label_id=np.asarray(same)[logits.argmax(1)]),
        same=same, weights_sha256="a" * 64, size="native", sizes={}, precision="fp32",
    )  # fmt: skip
    assert found.temperature < 1.05
    apart = made(logits, np.asarray(same)[true_id])
    assert apart.temperature > 1.5, "without the names, every second right answer is wrong"


def test_a_sample_takes_images_of_all_folders():
    ids = np.array([f"class {index // 100:02d}/{index:05d}" for index in range(2000)])
    taken = sample(ids, 300)
    assert len(taken) == 300
    assert (np.diff(taken) > 0).all()
    assert len({ids[index][:8] for index in taken}) == 20
    assert 100 < choosers(ids[taken]).sum() < 200
    assert (sample(ids, 5000) == np.arange(2000)).all()


def test_a_damaged_calibration_is_refused_or_read_as_it_was(place):
    body = made(*drawn(300, 1.4)).to_parquet()
    whole = read_calibration(place(body))
    for at in range(0, len(body), 37):
        damaged = bytearray(body)
        damaged[at] ^= 0xFF
        try:
            found = read_calibration(place(bytes(damaged)))
        except ConfigError:
            continue
        assert found.rows.column("score").equals(whole.rows.column("score"))


def test_too_few_images_calibrate_nothing():
    logits, true_id = drawn(LEAST_IMAGES, 1.0)
    assert made(logits, true_id) is None


@pytest.fixture
def place(tmp_path):
    def at(body):
        (tmp_path / "c.parquet").write_bytes(body)
        return StorePath(f"file://{tmp_path}/c.parquet", StoreConfig())

    return at


def test_a_calibration_is_read_back(place):
    found = made(*drawn(300, 1.4))
    again = read_calibration(place(found.to_parquet()))
    assert {**again.__dict__, "rows": None} == {**found.__dict__, "rows": None}
    assert again.rows.equals(found.rows)


def parquet(table):
    body = io.BytesIO()
    pq.write_table(table, body)
    return body.getvalue()


@pytest.mark.parametrize("body", [b"", b"no parquet", parquet(pa.table({"x": [1]}))])
def test_another_file_is_no_calibration(place, body):
    with pytest.raises(ConfigError, match="is no calibration: give a file"):
        read_calibration(place(body))


@pytest.mark.parametrize("temperature", [float("nan"), 0.0, -1.0, 1e9])
def test_a_temperature_that_cannot_be_is_refused(place, temperature):
    broken = replace(made(*drawn(300, 1.4)), temperature=temperature)
    with pytest.raises(ConfigError, match="is no calibration"):
        read_calibration(place(broken.to_parquet()))


def test_a_missing_calibration_says_so(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_calibration(StorePath(f"file://{tmp_path}/none.parquet", StoreConfig()))
