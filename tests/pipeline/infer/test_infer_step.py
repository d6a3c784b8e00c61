"""A tiny real network turns chunks of pixels into rows; only the device's memory is made up where it must run out."""

import json
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from model.checkpoints.load import save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.gpu.engine import DeviceSeconds
from model.network.config import PVTv2Config
from model.network.cost import count_macs
from model.packed import PackedPVTv2
from pipeline.chunks.columns import BASE_COLUMNS, CLASSIFY_COLUMNS, COST_COLUMNS
from pipeline.chunks.measures import process_number
from pipeline.chunks.size_policy import SizePolicy
from pipeline.chunks.task import Classify, ClassifyAtSizes, ExtractFeatures, ScoreScaling
from pipeline.infer import infer_step as infer
from pipeline.infer.config import InferConfig
from pipeline.infer.infer_step import InferStep
from pipeline.infer.packs import Budget, num_tokens
from tests.support.chunks import decoded_chunk, pixels

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
    """(labels, top_k, precision) -> the step that classifies."""

    def make(labels=LABELS, top_k=3, precision="fp32", task=None):
        (weights, config_json, preprocessor_json), _ = checkpoint
        described = {"config_json": config_json.decode(), "preprocessor_json": preprocessor_json.decode()}
        settings = {"device": "cpu", "precision": precision, "task": task or Classify(top_k=top_k)}
        return InferStep(weights, InferConfig(**described, **settings, variant=None, labels=labels))

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
    rows = classifier(top_k=10).infer(decoded_chunk(*images)).rows.to_pylist()
    for image, row in zip(images, rows, strict=True):
        expected = scores_alone(checkpoint[1], image)
        best = expected.argsort(descending=True)
        assert row["topk_ids"] == best.tolist()
        # Packed or alone, sums are taken in another order and by other kernels; norms over 8 channels enlarge that.
        np.testing.assert_allclose(row["topk_scores"], expected[best], rtol=0, atol=5e-6)
        assert (row["label_id"], row["score"]) == (row["topk_ids"][0], row["topk_scores"][0])
        assert row["label"] == f"class {row['label_id']}"
    assert len({tuple(row["topk_ids"]) for row in rows}) > 1


def test_packs_smaller_than_a_chunk_change_nothing(classifier, checkpoint):
    images = [pixels(40 + 4 * (seed % 3), 36, seed) for seed in range(9)]
    whole, in_packs = classifier(), classifier()
    in_packs.budget = Budget(tokens=200, pairs=10**9)  # two images each
    expected, found = (each.infer(decoded_chunk(*images)).rows.to_pylist() for each in (whole, in_packs))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other.pop("topk_scores"), one.pop("topk_scores"), rtol=0, atol=1e-6)
        np.testing.assert_allclose(other.pop("score"), one.pop("score"), rtol=0, atol=1e-6)
        assert other == one


def test_an_answered_chunk_has_the_jobs_columns_behind_its_own_and_no_pixels(classifier):
    before = decoded_chunk(pixels(40, 36), "decode.corrupt")
    after = classifier().infer(before)
    caption = pa.field("caption", pa.string())
    assert after.rows.schema == pa.schema([*BASE_COLUMNS, caption, *CLASSIFY_COLUMNS, *COST_COLUMNS])
    kept = [*BASE_COLUMNS.names, "caption"]
    assert after.rows.select(kept).equals(before.rows.select(kept))
    assert after.payload.size == 0
    assert after.header == before.header
    assert (after.attempt, after.measured["decode_s"]) == ("aaaaaaaa", 0.5)
    found = after.measured
    assert min(found[name] for name in ("unpack_s", "compute_s", "rows_s", "packs", "peak_gflops")) > 0
    assert found["download_s"] == 0
    assert found["pack_room"] >= found["tokens"] > 0
    assert found["compute_process"] == process_number()
    assert abs(found["compute_ended"] - time.time()) < 60


def test_failed_rows_stay_as_they_are_and_have_no_label(classifier, checkpoint):
    image = pixels(40, 36)
    chunk = classifier().infer(decoded_chunk("decode.corrupt", image, "source.missing"))
    first, answered, last = chunk.rows.to_pylist()
    for row, code in ((first, "decode.corrupt"), (last, "source.missing")):
        assert (row["status"], row["error_code"], row["error_message"]) == ("failed", code, "broken")
        assert [row[name] for name in CLASSIFY_COLUMNS.names] == [None] * 5
        assert row["macs"] == 0
    assert answered["label_id"] == int(scores_alone(checkpoint[1], image).argmax())


@pytest.mark.parametrize("images", [(), ("decode.corrupt",) * 3])
def test_a_chunk_without_an_image_is_answered_without_the_network(classifier, monkeypatch, images):
    monkeypatch.delattr(PackedPVTv2, "submit")
    rows = classifier().infer(decoded_chunk(*images)).rows
    assert rows.num_rows == len(images)
    assert rows.schema.field("topk_ids").type == pa.list_(pa.int32())


def test_the_work_of_each_image_is_counted_by_the_size_that_the_network_saw(classifier):
    rows = classifier().infer(decoded_chunk(pixels(40, 36), "decode.corrupt", pixels(128, 64))).rows
    assert rows.column("macs").to_pylist() == [count_macs(NETWORK, 36, 40), 0, count_macs(NETWORK, 64, 128)]


def test_more_classes_than_there_are_cannot_be_listed(classifier):
    (row,) = classifier(top_k=50).infer(decoded_chunk(pixels(40, 36))).rows.to_pylist()
    assert sorted(row["topk_ids"]) == list(range(10))
    assert row["topk_scores"] == sorted(row["topk_scores"], reverse=True)
    assert sum(row["topk_scores"]) == pytest.approx(1)


def test_a_network_whose_classes_have_no_names_gives_their_numbers(classifier):
    (row,) = classifier(labels=None).infer(decoded_chunk(pixels(40, 36))).rows.to_pylist()
    assert row["label"] is None
    assert row["label_id"] in range(10)


def test_the_step_is_built_from_bytes_that_lie_in_shared_memory(classifier, checkpoint):
    image = pixels(40, 36)
    (weights, config_json, preprocessor_json), _ = checkpoint
    config = InferConfig(
        config_json=config_json.decode(), preprocessor_json=preprocessor_json.decode(), variant=None, labels=None,
        task=Classify(top_k=1), device="cpu", precision="fp32",
    )  # fmt: skip
    shared = InferStep(memoryview(bytearray(weights)), config).infer(decoded_chunk(image)).rows
    assert shared.column("score").equals(classifier(labels=None, top_k=1).infer(decoded_chunk(image)).rows["score"])


# Features.


@pytest.fixture
def extractor(checkpoint):
    """(settings of the features) -> the step that extracts them."""

    def make(**settings):
        (weights, config_json, preprocessor_json), _ = checkpoint
        described = {"config_json": config_json.decode(), "preprocessor_json": preprocessor_json.decode()}
        settings = {"device": "cpu", "precision": "fp32", "task": ExtractFeatures(**settings)}
        return InferStep(weights, InferConfig(**described, **settings, variant=None, labels=None))

    threads = torch.get_num_threads()
    yield make
    torch.set_num_threads(threads)


@torch.inference_mode()
def features_alone(model, image):
    """The embedding and the four maps of one image, normalised step by step."""
    normalised = (torch.from_numpy(image) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    maps = model.forward_features(normalised.permute(2, 0, 1)[None])
    return maps[-1].mean((2, 3))[0].numpy(), [map_BCHW[0].numpy() for map_BCHW in maps]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 4e-3)])  # half of float16's last bit
def test_images_of_mixed_sizes_have_the_embeddings_and_maps_of_each_alone(extractor, checkpoint, dtype, tolerance):
    sizes = [(40, 36), (64, 32), (40, 36), (33, 90), (128, 100)]
    images = [pixels(*size, seed) for seed, size in enumerate(sizes)]
    chunk = decoded_chunk(*images[:2], "decode.corrupt", *images[2:])
    rows = extractor(dtype=dtype, stages=(1, 2, 3, 4)).infer(chunk).rows
    assert rows.schema.names[-6:] == ["embedding", "stage1", "stage2", "stage3", "stage4", "macs"]
    assert rows.schema.field("embedding").type == pa.list_(pa.from_numpy_dtype(dtype), 64)
    found = rows.to_pylist()
    failed = found.pop(2)
    assert [failed[name] for name in ("embedding", "stage1", "stage4", "macs")] == [None, None, None, 0]
    for image, row in zip(images, found, strict=True):
        embedding, maps = features_alone(checkpoint[1], image)
        np.testing.assert_allclose(row["embedding"], embedding, rtol=0, atol=tolerance)
        for stage, map_CHW in enumerate(maps, start=1):
            assert row[f"stage{stage}"]["shape"] == list(map_CHW.shape)
            values = np.reshape(row[f"stage{stage}"]["data"], map_CHW.shape)
            np.testing.assert_allclose(values, map_CHW, rtol=0, atol=tolerance)
        assert row["macs"] == count_macs(replace(NETWORK, num_classes=0), *image.shape[:2])


def test_only_the_stages_that_are_asked_for_are_given(extractor):
    schema = extractor(stages=(3,)).infer(decoded_chunk(pixels(40, 36))).rows.schema
    assert [name for name in schema.names if name.startswith("stage")] == ["stage3"]
    schema = extractor().infer(decoded_chunk(pixels(40, 36))).rows.schema
    assert [name for name in schema.names if name.startswith("stage")] == []


def test_a_normalised_embedding_has_length_one_and_the_direction_of_the_other(extractor):
    image = pixels(40, 36)
    rows = [extractor(dtype="float32", l2_normalize=flag).infer(decoded_chunk(image)).rows for flag in (False, True)]
    plain, unit = (np.array(each["embedding"][0].as_py()) for each in rows)
    assert np.linalg.norm(plain) > 1.5
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain), rtol=0, atol=1e-6)


@pytest.mark.parametrize("images", [(), ("decode.corrupt",) * 3])
def test_a_chunk_without_an_image_has_columns_of_nulls(extractor, images):
    rows = extractor(stages=(1, 4)).infer(decoded_chunk(*images)).rows
    assert rows.num_rows == len(images)
    assert rows.schema.field("stage4") == ExtractFeatures(stages=(4,)).columns(NETWORK).field("stage4")
    assert [rows[name].null_count for name in ("embedding", "stage1", "stage4")] == [len(images)] * 3


def test_an_image_that_does_not_fit_leaves_no_features_and_the_others_theirs(extractor, memory_for):
    images = [pixels(40, 36, 0), pixels(300, 200, 1), pixels(40, 36, 2)]
    expected = extractor(stages=(1,)).infer(decoded_chunk(*images)).rows.to_pylist()
    memory_for(10, too_large={(200, 300)})
    found = extractor(stages=(1,)).infer(decoded_chunk(*images)).rows.to_pylist()
    assert (found[1]["error_code"], found[1]["embedding"], found[1]["stage1"]) == ("infer.out_of_memory", None, None)
    for i in (0, 2):
        assert found[i]["stage1"]["shape"] == expected[i]["stage1"]["shape"]
        np.testing.assert_allclose(found[i]["stage1"]["data"], expected[i]["stage1"]["data"], rtol=0, atol=4e-3)


# When memory runs out.


@pytest.fixture
def memory_for(monkeypatch):
    """(images, error): from now on more images than that at once run out of memory; gives the sizes of all packs."""

    def install(num_images, error=None, too_large=()):
        packs = []
        real = PackedPVTv2.submit

        def submit(network, images, outputs):
            packs.append(len(images))
            if len(images) > num_images or any(tuple(image.shape[:2]) in too_large for image in images):
                raise error or torch.OutOfMemoryError("out of memory")
            return real(network, images, outputs)

        monkeypatch.setattr(PackedPVTv2, "submit", submit)
        return packs

    return install


def test_a_pack_that_runs_out_of_memory_is_halved_until_it_fits(classifier, memory_for, caplog):
    images = [pixels(40 + 4 * (seed % 3), 36, seed) for seed in range(7)]
    expected = classifier().infer(decoded_chunk(*images)).rows.to_pylist()
    packs = memory_for(2)
    found = classifier().infer(decoded_chunk(*images)).rows.to_pylist()
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
    small.infer(chunk)
    packs.clear()
    small.infer(chunk)
    assert packs == [2, 2, 2, 2]


def test_an_image_that_alone_runs_out_of_memory_fails_and_costs_no_other_its_row(classifier, memory_for):
    images = [pixels(40, 36, 0), pixels(300, 200, 1), pixels(40, 36, 2), "decode.corrupt", pixels(200, 300, 3)]
    expected = classifier().infer(decoded_chunk(*images)).rows.to_pylist()
    memory_for(10, too_large={(200, 300), (300, 200)})
    found = classifier().infer(decoded_chunk(*images)).rows.to_pylist()
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
    rows = classifier().infer(decoded_chunk(pixels(40, 36), pixels(40, 36))).rows
    assert rows.column("status").to_pylist() == ["ok", "ok"]
    assert packs == [2, 1, 1]


def test_an_error_that_is_none_of_memory_is_not_hidden(classifier, memory_for):
    memory_for(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        classifier().infer(decoded_chunk(pixels(40, 36)))


def test_a_cpu_classifier_computes_with_one_thread(classifier):
    torch.set_num_threads(2)
    classifier()
    assert torch.get_num_threads() == 1


# Half precision.


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_nearly_the_same_rows_of_the_same_types(classifier, precision):
    images = [pixels(40, 36), pixels(64, 33)]
    exact = classifier().infer(decoded_chunk(*images)).rows
    rows = classifier(precision=precision).infer(decoded_chunk(*images)).rows
    assert rows.schema == exact.schema
    assert rows["score"].to_pylist() != exact["score"].to_pylist()
    assert rows["score"].to_pylist() == pytest.approx(exact["score"].to_pylist(), abs=0.05)


# On a device that computes while the next pack is handed over.


@pytest.fixture
def queued(monkeypatch):
    """Packs are computed when their outputs are asked for; gives what was done in which order.

    What is given takes the most images whose output fits into memory.
    """

    def install(num_images=100):
        done = []

        real = PackedPVTv2.submit

        def submit(network, images, outputs):
            done.append(("submit", len(images)))

            def output():
                done.append(("wait", len(images)))
                if len(images) > num_images:
                    raise torch.OutOfMemoryError("out of memory")
                return replace(real(network, images, outputs)(), device_s=lambda: DeviceSeconds(0.5, 0.125))

            return output

        monkeypatch.setattr(PackedPVTv2, "submit", submit)
        monkeypatch.setitem(infer.BUDGETS, "cpu", Budget(tokens=4 * num_tokens(40, 36), pairs=2**24))
        monkeypatch.setitem(infer._AHEAD, "cpu", 1)
        return done

    return install


def test_all_packs_of_a_chunk_are_handed_over_before_one_is_waited_for(classifier, queued):
    chunks = [decoded_chunk(*(pixels(40, 36, seed) for seed in range(start, start + 8))) for start in (0, 8)]
    expected = [classifier().infer(chunk).rows.to_pylist() for chunk in chunks]
    done = queued()
    step = classifier()
    assert step.ahead == 1
    waits = [step.submit(step.unpack(chunk)) for chunk in chunks]
    assert done == [("submit", 4)] * 4
    answered = [step.pack(wait()) for wait in waits]
    assert [chunk.measured["compute_s"] for chunk in answered] == [1.0, 1.0]  # what the device says, of two packs
    assert [chunk.measured["upload_s"] for chunk in answered] == [0.25, 0.25]
    assert all(chunk.measured["download_s"] > 0 for chunk in answered)
    found = [chunk.rows.to_pylist() for chunk in answered]
    assert done[4:] == [("wait", 4)] * 4
    assert [[row["topk_ids"] for row in rows] for rows in found] == [
        [row["topk_ids"] for row in rows] for rows in expected
    ]


def test_a_pack_that_runs_out_of_memory_when_it_is_waited_for_is_halved(classifier, queued):
    chunk = decoded_chunk(*(pixels(40, 36, seed) for seed in range(6)))
    expected = classifier().infer(chunk).rows.to_pylist()
    done = queued(num_images=1)
    answered = classifier().infer(chunk)
    found, measured = answered.rows.to_pylist(), answered.measured
    assert [(row["status"], row["topk_ids"]) for row in found] == [("ok", row["topk_ids"]) for row in expected]
    assert (measured["packs"], measured["tokens"]) == (6, 6 * num_tokens(40, 36))  # those that ran
    assert done[:5] == [("submit", 3), ("submit", 3), ("wait", 3), ("submit", 1), ("submit", 2)]
    assert done.count(("submit", 1)) == done.count(("wait", 1)) == 6


# Several sizes, and scores with a temperature.


def scaled(temperature):
    return ScoreScaling(temperature=temperature, weights_sha256="a" * 64, size="native", policy=SizePolicy())


@pytest.mark.parametrize("temperature", [0.05, 0.7, 3.0])
def test_a_temperature_changes_the_scores_and_nothing_else(classifier, checkpoint, temperature):
    chunk = decoded_chunk(*(pixels(40 + 8 * index, 64, index) for index in range(6)))
    plain = classifier(top_k=4).infer(chunk).rows
    found = classifier(task=Classify(top_k=4, scaling=scaled(temperature))).infer(chunk).rows
    others = [name for name in plain.column_names if "score" not in name]
    assert found.select(others).equals(plain.select(others))
    all_plain = classifier(top_k=10).infer(chunk).rows
    for row, whole in zip(found.to_pylist(), all_plain.to_pylist(), strict=True):
        logits = np.log(np.array(whole["topk_scores"]))
        powers = np.exp((logits - logits.max()) / temperature)
        np.testing.assert_allclose(row["topk_scores"], (powers / powers.sum())[:4], rtol=1e-3, atol=1e-6)
        assert row["score"] == row["topk_scores"][0]


def at_sizes(num):
    return ClassifyAtSizes(top_k=3, policies=tuple(SizePolicy(max_image_pixels=2000 + size) for size in range(num)))


def test_rows_of_several_sizes_are_one_row_with_the_answers_of_each(classifier, checkpoint):
    images = [
        pixels(40, 36, 0),
        pixels(64, 32, 1),
        "decode.corrupt",
        "decode.corrupt",
        pixels(33, 90, 2),
        "image.too_large",
    ]
    chunk = decoded_chunk(*images)
    alone = classifier(top_k=3).infer(chunk).rows.to_pylist()
    rows = classifier(task=at_sizes(2)).infer(chunk).rows
    assert rows.num_rows == 3
    assert rows.column("image_id").to_pylist() == ["i0", "i2", "i4"]
    assert rows.column("error_code").to_pylist() == [None, "decode.corrupt", "image.too_large"]
    assert rows.column("macs").to_pylist() == [alone[0]["macs"] + alone[1]["macs"], 0, alone[4]["macs"]]
    answers = [answer for of_record in rows.column("at_sizes").to_pylist() for answer in of_record]
    for answer, row in zip(answers, alone, strict=True):
        assert {name: answer[name] for name in ("status", "net_width", "label_id", "topk_ids", "error_code")} == {
            name: row[name] for name in ("status", "net_width", "label_id", "topk_ids", "error_code")
        }
        if row["status"] == "ok":
            logits = torch.tensor(answer["logits"])
            np.testing.assert_allclose(logits.softmax(-1)[row["topk_ids"]], row["topk_scores"], atol=5e-6)
            assert answer["compute_s"] > 0
        else:
            assert (answer["logits"], answer["score"], answer["compute_s"]) == (None, None, 0)


def test_a_chunk_without_records_has_no_rows_at_any_size(classifier):
    assert classifier(task=at_sizes(3)).infer(decoded_chunk()).rows.num_rows == 0


def test_images_of_different_sizes_policies_are_in_packs_of_their_own(classifier):
    step = classifier(task=at_sizes(2))
    chunk = decoded_chunk(*(pixels(40, 36, index) for index in range(8)))
    assert step.infer(chunk).measured["packs"] == 2
    assert classifier().infer(chunk).measured["packs"] == 1
