"""An answer that is no number is a failed row of its image alone, on every engine and in every precision.

The weights of these tests are finite. A single image of a chunk makes a layer overflow, and its pack mates do not.
"""

import math

import numpy as np
import pytest
import torch

from model import packed
from model.checkpoints.load import save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.gpu import plain
from model.gpu.engine import Engine
from model.network.config import PVTv2Config
from model.packed import PackedPVTv2
from pipeline.chunks.failures import TRANSIENT_CODES, ErrorCode
from pipeline.chunks.task import Classify, ExtractFeatures
from pipeline.infer.config import InferConfig
from pipeline.infer.infer_step import InferStep
from pipeline.infer.isolated import IsolatedInferStep
from pipeline.infer.output_columns import ClassAnswers, FeatureAnswers, _are_finite
from tests.support.chunks import decoded_chunk, pixels

NETWORK = PVTv2Config(
    embed_dims=(16, 32, 80, 128), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2),
    sr_ratios=(8, 4, 2, 1), num_classes=10,
)  # fmt: skip
WHITE = np.full((36, 40, 3), 255, np.uint8)
MATES = [pixels(40, 36, 1), pixels(64, 33, 2), pixels(40, 36, 3)]
MIXED = (MATES[0], WHITE, MATES[1], "decode.corrupt", MATES[2])
PLACE = 1  # of the white image


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["compiled", "torch", "tables"])
def engine(request, monkeypatch):
    """Each way in which packs run; `tables` is the way of GPUs, with operations in torch."""
    if request.param == "torch":
        monkeypatch.setattr("model.cpu.compiled._library", lambda: None)
    if request.param == "tables":
        monkeypatch.setattr(packed, "_engine", lambda model, mean, std: Engine(model, plain, mean=mean, std=std))
    return request.param


@pytest.fixture
def settings(tmp_path):
    """(model, task, precision) -> what a step is made of."""

    def make(model, task, precision):
        save_checkpoint(model, NETWORK, None, tmp_path)
        config = InferConfig(
            config_json=(tmp_path / "config.json").read_text(), preprocessor_json=None, variant=None, labels=None,
            task=task, device="cpu", precision=precision,
        )  # fmt: skip
        return (tmp_path / "model.safetensors").read_bytes(), config

    return make


@torch.inference_mode()
def outputs(model, *images):
    return PackedPVTv2(model).run([torch.from_numpy(image) for image in images], ("logits", "embedding", "maps"))


def first_layer_overflows_in_fp16():
    """A network whose first convolution sums a white image to more than 65504, and images of noise to far less."""
    model = random_weights(NETWORK, 0)
    model.stages[0].embed.conv.weight[0] = 250.0
    return model


def head_overflows():
    """A network whose first logit is infinite in float32 for a white image alone."""
    model = random_weights(NETWORK, 0)
    white, *mates = outputs(model, WHITE, *MATES).embedding.abs()
    channel = int((white / torch.stack(mates).max(0).values).argmax())
    limit = 16 * float((white[channel] + max(mate[channel] for mate in mates)) / 2)
    model.stages[3].norm.weight[channel] *= 16  # so that a weight below the largest number suffices
    model.stages[3].norm.bias[channel] *= 16
    model.head.weight[0] = 0.0
    model.head.weight[0, channel] = 2.0**128 / limit
    return model


def last_map_exceeds(most):
    """A network whose last map is larger than a number for a white image alone."""
    model = random_weights(NETWORK, 0)
    white, *mates = (of_image[-1].abs().flatten(1).max(1).values for of_image in outputs(model, WHITE, *MATES).maps)
    channel = int((white / torch.stack(mates).max(0).values).argmax())
    largest_mate = max(mate[channel] for mate in mates)
    assert white[channel] > 1.1 * largest_mate
    factor = most / float((white[channel] + largest_mate) / 2)
    model.stages[3].norm.weight[channel] *= factor
    model.stages[3].norm.bias[channel] *= factor
    return model


CASES = {
    "classify fp16": (first_layer_overflows_in_fp16, Classify(top_k=3), "fp16"),
    "classify fp32": (head_overflows, Classify(top_k=3), "fp32"),
    "classify bf16": (head_overflows, Classify(top_k=3), "bf16"),
    "embedding fp16": (first_layer_overflows_in_fp16, ExtractFeatures(), "fp16"),
    "unit embedding fp16": (first_layer_overflows_in_fp16, ExtractFeatures(l2_normalize=True), "fp16"),
    "map fp16": (lambda: last_map_exceeds(65504), ExtractFeatures(stages=(1, 4)), "fp16"),
    "map fp32": (lambda: last_map_exceeds(2.0**128), ExtractFeatures(stages=(1, 4), dtype="float32"), "fp32"),
    "map fp32 as float16": (lambda: last_map_exceeds(65504), ExtractFeatures(stages=(1, 4)), "fp32"),
    "map bf16 as float16": (lambda: last_map_exceeds(65504), ExtractFeatures(stages=(4,)), "bf16"),
}
MESSAGES = {
    "fp16": "the answer is not finite in fp16; --precision fp32, into another --output, has a wider range",
    "as float16": "is not finite as float16; --feature-dtype float32, into another --output, has a wider range",
    "fp32": "the answer is not finite in fp32: the weights overflow for this image",
    "bf16": "the answer is not finite in bf16: the weights overflow for this image",
}


@pytest.mark.parametrize("case", CASES)
def test_the_image_alone_fails_and_its_pack_mates_stay_as_they_are(case, engine, settings):
    make_model, task, precision = CASES[case]
    step = InferStep(*settings(make_model(), task, precision))
    rows = step.infer(decoded_chunk(*MIXED)).rows
    found = rows.to_pylist()
    failed = found.pop(PLACE)
    message = next(text for name, text in MESSAGES.items() if case.endswith(name))
    assert (failed["status"], failed["error_code"]) == ("failed", "infer.not_finite")
    assert failed["error_message"].endswith(message)
    assert failed["error_message"] == step.infer(decoded_chunk(*MIXED)).rows["error_message"][PLACE].as_py()
    columns = step._config.task.columns(step._network).names
    assert [failed[name] for name in columns] == [None] * len(columns)
    assert failed["macs"] == 0
    assert [row["error_code"] for row in found] == [None, None, "decode.corrupt", None]
    # The mates' rows, bit by bit, are those of the same pack with an image that does not overflow.
    harmless = (*MIXED[:PLACE], MATES[2], *MIXED[PLACE + 1 :])
    expected = step.infer(decoded_chunk(*harmless)).rows.to_pylist()
    assert expected[PLACE]["status"] == "ok"
    assert found == [row for place, row in enumerate(expected) if place != PLACE]


@pytest.mark.parametrize("case", ["classify fp16", "map fp32 as float16"])
def test_the_careful_pass_gives_the_same_failure(case, settings):
    make_model, task, precision = CASES[case]
    made = settings(make_model(), task, precision)
    isolated = IsolatedInferStep(*made, task.network(NETWORK))
    try:
        found = isolated.infer(decoded_chunk(*MIXED)).rows
    finally:
        isolated.close()
    expected = InferStep(*made).infer(decoded_chunk(*MIXED)).rows
    names = ["status", "error_code", "error_message", "macs"]
    assert found.select(names).equals(expected.select(names))
    assert found["error_code"].to_pylist() == [None, "infer.not_finite", None, "decode.corrupt", None]


def test_a_later_run_does_not_try_such_an_image_again():
    assert ErrorCode.INFER_NOT_FINITE not in TRANSIENT_CODES


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 7, 9])
def test_any_logit_that_is_not_finite_counts_also_below_the_best(value, place):
    answers = ClassAnswers(Classify(top_k=2), NETWORK, None, num_rows=3)
    logits = torch.arange(30.0).view(3, 10)
    plain_scores = ClassAnswers(Classify(top_k=2), NETWORK, None, num_rows=3)
    plain_scores.take(range(3), packed.PackedOutput(logits=logits, embedding=None, maps=None))
    changed = logits.clone()
    changed[1, place] = value
    answers.take(range(3), packed.PackedOutput(logits=changed, embedding=None, maps=None))
    assert [answers.is_finite(row) for row in range(3)] == [True, False, True]
    assert [plain_scores.is_finite(row) for row in range(3)] == [True] * 3
    good = [True, False, True]
    assert answers.columns(good)["topk_scores"].equals(plain_scores.columns(good)["topk_scores"])
    assert plain_scores._scores[0].tolist() == logits[0].softmax(-1).topk(2).values.tolist()


@pytest.mark.parametrize(
    "task", [ExtractFeatures(dtype="float32", l2_normalize=True), ExtractFeatures(dtype="float16")]
)
def test_an_embedding_that_is_too_long_for_its_type_is_not_made_zero_or_infinite(task):
    answers = FeatureAnswers(task, NETWORK, num_rows=4)
    embedding = torch.ones(4, 128)
    embedding[1, 5], embedding[2, 5] = 1e30, math.nan
    answers.take(range(4), packed.PackedOutput(logits=None, embedding=embedding, maps=None))
    assert [answers.is_finite(row) for row in range(4)] == [True, False, False, True]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_arrays_are_looked_through_to_the_last_number(dtype):
    values = np.random.default_rng(0).normal(size=(3, 50, 7)).astype(dtype)
    values[0, 0, :2] = np.finfo(dtype).max, -np.finfo(dtype).max
    assert _are_finite(values)
    assert _are_finite(np.empty((2, 0), dtype))
    for value in (np.nan, np.inf, -np.inf):
        for place in ((0, 0, 0), (1, 30, 3), (2, 49, 6)):
            changed = values.copy()
            changed[place] = value
            assert not _are_finite(changed)
