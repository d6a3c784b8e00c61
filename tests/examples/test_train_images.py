"""Training on a tree of class folders, and the plain loop that classifies one."""

import csv
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from examples import predict_images, train_images
from model.checkpoints.load import load_checkpoint, save_checkpoint
from model.checkpoints.random_weights import random_weights
from model.network.config import VARIANTS
from model.packed import run_packed

COLOURS = {"red": 0, "green": 1, "blue": 2}
ORIENTATION = 274  # in EXIF


@pytest.fixture
def tree(tmp_path):
    """Four images of three classes, of mixed sizes, one of them turned by its EXIF; and a file that is no image."""
    rng = np.random.default_rng(0)
    for name, channel in COLOURS.items():
        folder = tmp_path / "tree" / name
        folder.mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 120, (*rng.integers(40, 80, 2), 3), dtype=np.uint8)
            pixels[..., channel] += 120
            exif = Image.Exif()
            exif[ORIENTATION] = 6 if number == 0 else 1
            Image.fromarray(pixels).save(folder / f"{number}.jpg", exif=exif)
    (tmp_path / "tree" / "blue" / "notes.txt").write_text("no image")
    return tmp_path / "tree"


def run(main, monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["example", *map(str, flags)])
    main()


@pytest.fixture
def tiny_variant(monkeypatch):
    """Makes b0 a small network, in the flag and in the written file."""
    config = replace(VARIANTS["b0"], embed_dims=(8, 16, 20, 32), depths=(1, 1, 1, 1))
    monkeypatch.setitem(VARIANTS, "b0", config)
    return config


def test_a_tree_is_learned_and_saved_with_its_folders_as_labels(tree, tmp_path, tiny_variant, monkeypatch, capsys):
    monkeypatch.setattr(train_images, "RATE", 5e-3)
    run(train_images.main, monkeypatch, *f"--epochs 25 --shorter-px 32 48 --images {tree} --out {tmp_path}/out".split())
    output = capsys.readouterr()
    assert "notes.txt is left out: begins as no image" in output.err
    assert "Trained on 12 images of 3 classes" in output.out
    loaded = load_checkpoint(tmp_path / "out")
    assert loaded.labels == ("blue", "green", "red")
    assert loaded.config == replace(tiny_variant, num_classes=3)
    assert predict_images.write_predictions(loaded, tree, tmp_path / "out.csv") == (12, 12)


@pytest.mark.parametrize(("labels", "keeps_head"), [(("cat", "dog", "hen"), True), (("cat", "dog", "cow"), False)])
def test_training_begins_from_a_checkpoint_but_for_a_head_of_other_labels(tmp_path, tiny_variant, labels, keeps_head):
    saved = random_weights(replace(tiny_variant, num_classes=3), seed=3)
    save_checkpoint(saved, saved.config, ("cat", "dog", "hen"), tmp_path)
    model = train_images.first_weights(str(tmp_path), "b0", labels, seed=0)
    tensors = saved.state_dict()
    equal = {name: torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items()}
    assert equal.pop("head.weight") == equal.pop("head.bias") == keeps_head
    assert all(equal.values())


def test_the_plain_loop_gives_what_packs_give_for_each_image(tree, tmp_path, tiny_variant, monkeypatch):
    model = random_weights(replace(tiny_variant, num_classes=3), seed=0)
    save_checkpoint(model, model.config, ("blue", "green", "red"), tmp_path / "weights")
    flags = ["--weights", tmp_path / "weights", "--images", tree, "--out", tmp_path / "out.csv"]
    run(predict_images.main, monkeypatch, *flags)
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"{name}/{n}.jpg" for name in ("blue", "green", "red") for n in range(4)]
    assert all(row["label"] == row["path"].partition("/")[0] for row in rows)
    images = [torch.from_numpy(pixels.copy()) for _, _, pixels in predict_images.read_tree(tree)]
    with Image.open(tree / "blue" / "0.jpg") as image:
        assert images[0].shape[:2] == image.size  # its width became its height
    scores, numbers = run_packed(model, images).logits.softmax(dim=1).max(dim=1)
    assert [row["prediction"] for row in rows] == [("blue", "green", "red")[number] for number in numbers]
    np.testing.assert_allclose([float(row["score"]) for row in rows], scores, atol=1e-5)
