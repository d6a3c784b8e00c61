"""A tiny real network turns chunks of pixels into rows; only the device's memory is made up where it must run out."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from model.config import PVTv2Config
from model.cost import count_macs
from model.random_weights import random_weights
from model.weights import save_checkpoint
from pipeline import infer
from pipeline.config import InferConfig
from pipeline.infer import Classifier
from pipeline.schema import BASE_COLUMNS, CLASSIFY_COLUMNS, COST_COLUMNS
from tests.chunks import decoded_chunk, pixels

NETWORK = PVTv2Config(
    embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2),
    sr_ratios=(8, 4, 2, 1), num_classes=10,
)  # fmt: skip
LABELS = tuple(f"class {i}" for i in range(10))
MEAN, STD = (0.4, 0.5, 0.6), (0.25, 0.3, 0.2)  # not ImageNet's, which are taken where a checkpoint has none


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The files of a checkpoint, and the network that they hold."""
    folder = tmp_path_factory.mktemp("weights")
    model = random_weights(NETWORK, 0)
    save_checkpoint(model, NETWORK, LABELS, folder)
    preprocessor = json.dumps({"image_mean": MEAN, "image_std": STD}).encode()
    return [*((folder / name).read_bytes() for name in ("model.safetensors", "config.json")), preprocessor], model


@pytest.fixture
def classifier(checkpoint):
    """(changes of the config) -> a classifier."""

    def make(**changes):
        (weights, config_json, preprocessor_json), _ = checkpoint
        config = {"labels": LABELS, "top_k": 3} | changes
        described = {"config_json": config_json.decode(), "preprocessor_json": preprocessor_json.decode()}
        return Classifier(weights, InferConfig(**described, variant=None, device="cpu", **config))

    threads = torch.get_num_threads()
    yield make
    torch.set_num_threads(threads)


@torch.inference_mode()
def scores_alone(model, image):
    """Softmax of the network's logits for one image, normalised step by step."""
    normalised = (torch.from_numpy(image) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return model(normalised.permute(2, 0, 1)[None]).softmax(-1)[0]


# What is answered.


def test_images_of_mixed_sizes_are_classified_as_each_alone(classifier, checkpoint):
    sizes = [(40, 36), (64, 32), (40, 36), (33, 90), (64, 32), (128, 100)]
    images = [pixels(*size, seed) for seed, size in enumerate(sizes)]
    rows = classifier(top_k=10).classify(decoded_chunk(*images)).rows.to_pylist()
    for image, row in zip(images, rows, strict=True):
        expected = scores_alone(checkpoint[1], image)
        best = expected.argsort(descending=True)
        assert row["topk_ids"] == best.tolist()
        # Packed or alone, sums are taken in another order: the last bits move.
        np.testing.assert_allclose(row["topk_scores"], expected[best], rtol=0, atol=1e-6)
        assert (row["label_id"], row["score"]) == (row["topk_ids"][0], row["topk_scores"][0])
        assert row["label"] == f"class {row['label_id']}"
    assert len({tuple(row["topk_ids"]) for row in rows}) > 1


def test_packs_smaller_than_a_chunk_change_nothing(classifier, checkpoint):
    images = [pixels(40 + 4 * (seed % 3), 36, seed) for seed in range(9)]
    whole, in_packs = classifier(), classifier()
    in_packs.token_budget = 200  # two images each
    expected, found = (each.classify(decoded_chunk(*images)).rows.to_pylist() for each in (whole, in_packs))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other.pop("topk_scores"), one.pop("topk_scores"), rtol=0, atol=1e-6)
        np.testing.assert_allclose(other.pop("score"), one.pop("score"), rtol=0, atol=1e-6)
        assert other == one


def test_an_answered_chunk_has_the_jobs_columns_behind_its_own_and_no_pixels(classifier):
    before = decoded_chunk(pixels(40, 36), "decode.corrupt")
    after = classifier().classify(before)
    caption = pa.field("caption", pa.string())
    assert after.rows.schema == pa.schema([*BASE_COLUMNS, caption, *CLASSIFY_COLUMNS, *COST_COLUMNS])
    kept = [*BASE_COLUMNS.names, "caption"]
    assert after.rows.select(kept).equals(before.rows.select(kept))
    assert after.payload.size == 0
    assert after.header == before.header
    assert (after.attempt, after.seconds["decode_s"]) == ("aaaaaaaa", 0.5)
    assert after.seconds["infer_s"] > 0


def test_failed_rows_stay_as_they_are_and_have_no_label(classifier, checkpoint):
    image = pixels(40, 36)
    chunk = classifier().classify(decoded_chunk("decode.corrupt", image, "source.missing"))
    first, answered, last = chunk.rows.to_pylist()
    for row, code in ((first, "decode.corrupt"), (last, "source.missing")):
        assert (row["status"], row["error_code"], row["error_message"]) == ("failed", code, "broken")
        assert [row[name] for name in CLASSIFY_COLUMNS.names] == [None] * 5
        assert row["macs"] == 0
    assert answered["label_id"] == int(scores_alone(checkpoint[1], image).argmax())


@pytest.mark.parametrize("images", [(), ("decode.corrupt",) * 3])
def test_a_chunk_without_an_image_is_answered_without_the_network(classifier, monkeypatch, images):
    monkeypatch.delattr(infer, "run_packed")
    rows = classifier().classify(decoded_chunk(*images)).rows
    assert rows.num_rows == len(images)
    assert rows.schema.field("topk_ids").type == pa.list_(pa.int32())


def test_the_work_of_each_image_is_counted_by_the_size_that_the_network_saw(classifier):
    rows = classifier().classify(decoded_chunk(pixels(40, 36), "decode.corrupt", pixels(128, 64))).rows
    assert rows.column("macs").to_pylist() == [count_macs(NETWORK, 36, 40), 0, count_macs(NETWORK, 64, 128)]


def test_more_classes_than_there_are_cannot_be_listed(classifier):
    (row,) = classifier(top_k=50).classify(decoded_chunk(pixels(40, 36))).rows.to_pylist()
    assert sorted(row["topk_ids"]) == list(range(10))
    assert row["topk_scores"] == sorted(row["topk_scores"], reverse=True)
    assert sum(row["topk_scores"]) == pytest.approx(1)


def test_a_network_whose_classes_have_no_names_gives_their_numbers(classifier):
    (row,) = classifier(labels=None).classify(decoded_chunk(pixels(40, 36))).rows.to_pylist()
    assert row["label"] is None
    assert row["label_id"] in range(10)


def test_a_classifier_is_built_from_bytes_that_lie_in_shared_memory(classifier, checkpoint):
    image = pixels(40, 36)
    (weights, config_json, preprocessor_json), _ = checkpoint
    config = InferConfig(
        config_json=config_json.decode(), preprocessor_json=preprocessor_json.decode(), variant=None, labels=None,
        top_k=1, device="cpu",
    )  # fmt: skip
    shared = Classifier(memoryview(bytearray(weights)), config).classify(decoded_chunk(image)).rows
    assert shared.column("score").equals(classifier(labels=None, top_k=1).classify(decoded_chunk(image)).rows["score"])


# When memory runs out.


@pytest.fixture
def memory_for(monkeypatch):
    """(images, error): from now on more images than that at once run out of memory; gives the sizes of all packs."""

    def install(num_images, error=None, too_large=()):
        packs = []
        real = infer.run_packed

        def run_packed(model, images, **options):
            packs.append(len(images))
            if len(images) > num_images or any(tuple(image.shape[:2]) in too_large for image in images):
                raise error or torch.OutOfMemoryError("out of memory")
            return real(model, images, **options)

        monkeypatch.setattr(infer, "run_packed", run_packed)
        return packs

    return install


def test_a_pack_that_runs_out_of_memory_is_halved_until_it_fits(classifier, memory_for, caplog):
    images = [pixels(40 + 4 * (seed % 3), 36, seed) for seed in range(7)]
    expected = classifier().classify(decoded_chunk(*images)).rows.to_pylist()
    packs = memory_for(2)
    found = classifier().classify(decoded_chunk(*images)).rows.to_pylist()
    assert packs == [7, 3, 1, 2, 4, 2, 2]
    assert [(row["status"], row["topk_ids"]) for row in found] == [(row["status"], row["topk_ids"]) for row in expected]
    scores, expected_scores = ([row["score"] for row in rows] for rows in (found, expected))
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-6)
    assert "pack.halved images=7" in caplog.text


def test_packs_of_later_chunks_are_planned_as_small_as_those_that_fitted(classifier, memory_for):
    """The budget was only halved, so that small images ran out of memory again in every chunk."""
    chunk = decoded_chunk(*(pixels(40, 36, seed) for seed in range(8)))
    small = classifier()
    packs = memory_for(2)
    small.classify(chunk)
    packs.clear()
    small.classify(chunk)
    assert packs == [2, 2, 2, 2]


def test_an_image_that_alone_runs_out_of_memory_fails_and_costs_no_other_its_row(classifier, memory_for):
    images = [pixels(40, 36, 0), pixels(300, 200, 1), pixels(40, 36, 2), "decode.corrupt", pixels(200, 300, 3)]
    expected = classifier().classify(decoded_chunk(*images)).rows.to_pylist()
    memory_for(10, too_large={(200, 300), (300, 200)})
    found = classifier().classify(decoded_chunk(*images)).rows.to_pylist()
    codes = [None, "infer.out_of_memory", None, "decode.corrupt", "infer.out_of_memory"]
    assert [row["error_code"] for row in found] == codes
    for row in (found[1], found[4]):
        assert row["status"] == "failed"
        assert "--max-image-pixels" in row["error_message"]
        assert [row[name] for name in CLASSIFY_COLUMNS.names] == [None] * 5
        assert row["macs"] == 0
    assert [found[i]["topk_ids"] for i in (0, 2)] == [expected[i]["topk_ids"] for i in (0, 2)]


def test_the_processors_own_way_to_say_so_is_understood(classifier, memory_for):
    message = (
        "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"
    )
    packs = memory_for(1, RuntimeError(message))
    rows = classifier().classify(decoded_chunk(pixels(40, 36), pixels(40, 36))).rows
    assert rows.column("status").to_pylist() == ["ok", "ok"]
    assert packs == [2, 1, 1]


def test_an_error_that_is_none_of_memory_is_not_hidden(classifier, memory_for):
    memory_for(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        classifier().classify(decoded_chunk(pixels(40, 36)))


def test_a_cpu_classifier_computes_with_one_thread(classifier):
    torch.set_num_threads(2)
    classifier()
    assert torch.get_num_threads() == 1
