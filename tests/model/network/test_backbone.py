"""Heads of transformers find the same over our four maps as over the maps of transformers' own PVTv2.

Maps differ by 1e-5 at most. A detector looks at a few points of them, chosen by earlier ones, so that its outputs may
differ by more; 1e-4 of a logit, and of an image's side, decides nothing.
"""

import copy
import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from examples.backbone import Backbone, stored_map
from model.checkpoints.load import load_checkpoint, save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.packed import run_packed

SIZE = (2, 97, 131)  # two images of odd sides


@pytest.fixture(scope="module", params=["b0", "b2-linear"])
def folder(request, narrow, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    config = replace(narrow(request.param), num_classes=0)
    save_checkpoint(random_weights(config, seed=1), config, None, folder)
    return folder


def both(folder, stages):
    """Returns transformers' backbone and ours, loaded from one folder."""
    from transformers import PvtV2Backbone
    from transformers.utils import logging

    logging.disable_progress_bar()
    theirs = PvtV2Backbone.from_pretrained(folder, out_features=[f"stage{stage}" for stage in stages])
    return theirs.eval(), Backbone(load_checkpoint(folder).model, stages)


def vary(network):
    """Changes all weights a little: new heads have layers of zeros, which would hide the layers before them."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def over(network, place, backbone, pixels):
    """Returns the output of a network with a backbone in the given place."""
    network = copy.deepcopy(network)
    network.set_submodule(place, backbone)
    with torch.inference_mode():
        return network(pixels)


def test_a_detector_finds_the_same_over_our_maps(folder, images):
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

    theirs, ours = both(folder, (2, 3, 4))
    torch.manual_seed(0)
    config = DeformableDetrConfig(
        backbone_config=theirs.config,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=20,
        num_labels=5,
        with_box_refine=True,
    )
    detector = vary(DeformableDetrForObjectDetection(config))
    place, pixels = "model.backbone.model", images(*SIZE)
    expected, found = (over(detector, place, backbone, pixels) for backbone in (theirs, ours))
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.pred_boxes, expected.pred_boxes, atol=1e-4, rtol=0)
    others = over(detector, place, vary(ours), pixels)
    assert (others.logits - expected.logits).abs().max() > 1e-2
    assert (others.pred_boxes - expected.pred_boxes).abs().max() > 1e-3


def test_a_segmenter_draws_the_same_over_our_maps(folder, images):
    from transformers import UperNetConfig, UperNetForSemanticSegmentation

    theirs, ours = both(folder, (1, 2, 3, 4))
    torch.manual_seed(0)
    config = UperNetConfig(backbone_config=theirs.config, hidden_size=16, auxiliary_channels=8, num_labels=5)
    segmenter = vary(UperNetForSemanticSegmentation(config))
    pixels = images(*SIZE)
    expected, found = (over(segmenter, "backbone", backbone, pixels).logits for backbone in (theirs, ours))
    assert expected.shape == (2, 5, 97, 131)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (over(segmenter, "backbone", vary(ours), pixels).logits - expected).abs().max() > 1e-2


def store(folder, maps_of_images):
    """Writes an output with maps as a job writes it: half precision, CHW. The last row failed."""
    folder.mkdir(parents=True)
    count = len(maps_of_images)
    columns = {
        "image_id": [f"image-{number}" for number in range(count + 1)],
        "status": ["ok"] * count + ["failed"],
    }
    map_type = pa.struct({"shape": pa.list_(pa.int32(), 3), "data": pa.list_(pa.float16())})
    for stage in range(4):
        values = [maps[stage].half().numpy() for maps in maps_of_images]
        stored = [{"shape": value.shape, "data": value.ravel()} for value in values]
        columns[f"stage{stage + 1}"] = pa.array([*stored, None], map_type)
    pq.write_table(pa.table(columns), folder / "part.parquet")


def test_stored_maps_come_back_as_they_were(narrow, photos, tmp_path):
    model = random_weights(narrow("b0"), seed=0)
    maps_of_images = run_packed(model, photos((40, 70), (64, 32)), outputs=("maps",)).maps
    store(tmp_path / "data", maps_of_images)
    table = pq.read_table(tmp_path / "data")
    for row, maps in enumerate(maps_of_images):
        for stage, expected in enumerate(maps, start=1):
            assert torch.equal(stored_map(table[f"stage{stage}"], row), expected.half())


def test_what_the_documentation_shows_runs(photos, tmp_path, monkeypatch):
    root = Path(__file__).parents[3]
    snippets = re.findall(r"```python\n(.*?)```", (root / "docs" / "use" / "backbone.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "weights").symlink_to(root / "weights")
    model = load_checkpoint(root / "weights" / "digits").model
    store(tmp_path / "features" / "data", run_packed(model, photos((375, 500)), outputs=("maps",)).maps)
    monkeypatch.chdir(tmp_path)
    assert len(snippets) == 4
    exec("".join(snippets), {})
