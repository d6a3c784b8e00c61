"""An engine is used only after it gave what the plain network gives."""

import torch

import model.gpu
from model.checkpoints.random_weights import random_weights
from model.gpu import plain
from model.gpu.trial import engine_for
from tests.support.ragged_checks import MEAN, STD, assert_like_alone


def test_an_engine_that_answers_rightly_is_used(narrow, photos, monkeypatch):
    monkeypatch.setattr(model.gpu, "kernels", plain, raising=False)
    network, images = random_weights(narrow("b0"), 2), photos((32, 40), (50, 33))
    engine = engine_for(network, mean=MEAN, std=STD)
    assert_like_alone(engine.submit(images).result(), network, images, MEAN, STD, atol=1e-5)


def test_one_that_answers_wrongly_is_not(narrow, monkeypatch, caplog):
    class Wrong:
        def __getattr__(self, name):
            return getattr(plain, name)

        def attention(self, q_TC, k_MC, v_MC, maps, keys, *, num_heads):
            return torch.zeros_like(q_TC)

    monkeypatch.setattr(model.gpu, "kernels", Wrong(), raising=False)
    assert engine_for(random_weights(narrow("b0"), 2), mean=MEAN, std=STD) is None
    assert "engine.unusable difference=" in caplog.text


def test_kernels_that_do_not_run_leave_packs_to_the_other_way(narrow, caplog):
    """The kernels cannot run because the test has no GPU."""
    assert engine_for(random_weights(narrow("b0"), 2), mean=MEAN, std=STD) is None
    assert "engine.unusable error=" in caplog.text
    assert len(caplog.records) == 1


def test_there_is_no_engine_for_double_precision(narrow, caplog):
    assert engine_for(random_weights(narrow("b0"), 2).double(), mean=MEAN, std=STD) is None
    assert "engine.unusable: there is none for torch.float64" in caplog.text


def test_weights_that_are_no_numbers_are_not_the_kernels_fault(narrow, monkeypatch):
    monkeypatch.setattr(model.gpu, "kernels", plain, raising=False)
    network = random_weights(narrow("b0"), 2)
    network.stages[0].blocks[0].mlp.fc1.weight[0, 0] = float("nan")
    assert engine_for(network, mean=MEAN, std=STD) is not None
