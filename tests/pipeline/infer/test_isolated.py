"""A real child hosts a tiny real network; where it must die, a `sitecustomize` of the test's makes it do so."""

from dataclasses import replace

import numpy as np
import pytest

from model.checkpoints.load import save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import PVTv2Config
from pipeline.chunks.chunk import Chunk
from pipeline.chunks.columns import CLASSIFY_COLUMNS
from pipeline.chunks.size_policy import SizePolicy
from pipeline.chunks.task import Classify, ClassifyAtSizes
from pipeline.decode.thumbnail import with_thumbnails
from pipeline.infer.config import InferConfig
from pipeline.infer.infer_step import InferStep
from pipeline.infer.isolated import IsolatedInferStep
from tests.support.chunks import decoded_chunk, pixels

NETWORK = PVTv2Config(
    embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), mlp_ratios=(2, 2, 2, 2),
    sr_ratios=(8, 4, 2, 1), num_classes=10,
)  # fmt: skip
# Only in the child: a finder patches the network's module when it is imported there. An image tells by its height.
MISBEHAVIOUR = """
import os, signal, sys

if any("pipeline.infer.isolated" in argument for argument in sys.orig_argv):
    import model.packed

    real = model.packed.PackedPVTv2.submit

    def submit(network, images, outputs):
        heights = {image.shape[0] for image in images}
        if 41 in heights or os.environ.get("BROKEN_DEVICE"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if 47 in heights:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return real(network, images, outputs)

    model.packed.PackedPVTv2.submit = submit
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_checkpoint(random_weights(NETWORK, 0), NETWORK, None, folder)
    config = InferConfig(
        config_json=(folder / "config.json").read_text(), preprocessor_json=None, variant=None, labels=None,
        task=Classify(top_k=3), device="cpu", precision="fp32",
    )  # fmt: skip
    return (folder / "model.safetensors").read_bytes(), config


@pytest.fixture
def misbehaving(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(MISBEHAVIOUR)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def isolated(weights):
    step = IsolatedInferStep(*weights, NETWORK)
    yield step
    step.close()


def test_a_child_gives_what_the_network_here_gives(isolated, weights):
    for images in [(pixels(40, 36), "decode.corrupt", pixels(40, 90, 1), pixels(40, 33, 2)), ("decode.corrupt",), ()]:
        chunk = with_thumbnails(decoded_chunk(*images), 2)
        found, expected = isolated.infer(chunk), InferStep(*weights).infer(chunk)
        assert found.rows.schema == expected.rows.schema
        assert (found.header, found.payload.size) == (chunk.header, 0)
        assert found.measured["compute_s"] > 0
        for one, other in zip(found.rows.to_pylist(), expected.rows.to_pylist(), strict=True):
            # Alone, sums are taken in another order than among pack mates: the last bits move.
            for name in ("score", "topk_scores"):
                np.testing.assert_allclose(
                    np.float32(one.pop(name) or 0), np.float32(other.pop(name) or 0), rtol=0, atol=1e-6
                )
            assert one == other


def test_an_image_that_crashes_the_network_is_one_failed_row_and_its_neighbours_are_fine(
    misbehaving, isolated, monkeypatch
):
    monkeypatch.setattr("pipeline.workers.isolation._ATTEMPTS", 1)
    chunk = decoded_chunk(pixels(40, 36), pixels(40, 41), "decode.corrupt", pixels(40, 47), pixels(40, 38))
    rows = isolated.infer(chunk).rows.to_pylist()
    codes = [None, "infer.crashed", "decode.corrupt", "infer.crashed", None]
    assert [row["error_code"] for row in rows] == codes
    assert [row["status"] for row in rows] == ["failed" if code else "ok" for code in codes]
    assert rows[1]["error_message"] == "inference ended its process with status -11"
    assert rows[3]["error_message"] == "inference ended its process with status 1"
    for row in rows:
        assert all((row[name] is None) == (row["status"] == "failed") for name in CLASSIFY_COLUMNS.names[:1])
        assert (row["macs"] == 0) == (row["status"] == "failed")


def test_a_device_that_is_broken_for_every_image_is_no_images_fault(misbehaving, isolated, monkeypatch):
    monkeypatch.setenv("BROKEN_DEVICE", "1")
    monkeypatch.setattr("pipeline.workers.isolation._ATTEMPTS", 1)
    with pytest.raises(RuntimeError, match="did not start: it ended its process with status -11"):
        isolated.infer(decoded_chunk(pixels(40, 36)))


def test_a_record_travels_to_the_child_with_its_own_pixels_only(isolated, monkeypatch):
    sent = []
    monkeypatch.setattr(isolated._service, "ask", lambda table, timeout_s: sent.append(table) or table)
    monkeypatch.setattr("pipeline.infer.isolated.pa.concat_tables", lambda tables: tables[0])
    isolated.infer(decoded_chunk(pixels(40, 36), "decode.corrupt", pixels(40, 90, 1)))
    parts = [Chunk.from_table(table) for table in sent]
    assert [part.payload.size for part in parts] == [36 * 40 * 3, 0, 90 * 40 * 3]
    assert parts[2].payload.to_pybytes() == pixels(40, 90, 1).tobytes()
    assert [part.rows.column("payload_offset").to_pylist() for part in parts] == [[0], [0], [0]]


def test_a_record_at_several_sizes_stays_one_record_in_a_child(weights):
    task = ClassifyAtSizes(top_k=3, policies=(SizePolicy(), SizePolicy(max_image_pixels=2000)))
    settings = (weights[0], replace(weights[1], task=task))
    step = IsolatedInferStep(*settings, NETWORK)
    images = [pixels(40, 36), pixels(33, 32), "decode.corrupt", "decode.corrupt", pixels(40, 90, 1), "image.too_small"]
    for some in (images, []):
        chunk = decoded_chunk(*some)
        found, expected = step.infer(chunk).rows, InferStep(*settings).infer(chunk).rows
        assert found.schema == expected.schema
        for row, same in zip(found.to_pylist(), expected.to_pylist(), strict=True):
            assert (row["status"], row["error_code"], row["macs"]) == (same["status"], same["error_code"], same["macs"])
            assert [answer["topk_ids"] for answer in row["at_sizes"]] == [
                answer["topk_ids"] for answer in same["at_sizes"]
            ]
    step.close()


def test_a_record_of_several_sizes_that_kills_the_child_is_one_failed_record(misbehaving, weights):
    task = ClassifyAtSizes(top_k=3, policies=(SizePolicy(), SizePolicy(max_image_pixels=2000)))
    step = IsolatedInferStep(weights[0], replace(weights[1], task=task), NETWORK)
    rows = step.infer(decoded_chunk(pixels(40, 36), pixels(33, 32), pixels(40, 41), pixels(33, 32))).rows
    assert rows.column("error_code").to_pylist() == [None, "infer.crashed"]
    assert [answer["status"] for answer in rows.column("at_sizes")[1].as_py()] == ["failed", "failed"]
    step.close()
