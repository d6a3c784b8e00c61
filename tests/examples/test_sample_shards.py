"""The sample shards: repeatable, labelled, held out, and broken where they say so."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from examples import sample_shards
from examples.digits import load_digits, split
from examples.sample_shards import write_shards
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_image import DecodedImage, decode_image


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 2, 40)
    return folder


def contents(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_the_same_seed_writes_the_same_bytes(shards, tmp_path):
    write_shards(tmp_path, 2, 40)
    names = ["sample-000.tar", "sample-001.tar"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert all((tmp_path / name).read_bytes() == (shards / name).read_bytes() for name in names)


@pytest.mark.parametrize(("name", "num_readable", "num_broken"), [("sample-000", 40, 3), ("sample-001", 40, 0)])
def test_each_image_has_its_label_beside_it(shards, name, num_readable, num_broken):
    files = contents(shards / f"{name}.tar")
    images = {key: data for key, data in files.items() if not key.endswith(".cls")}
    assert {key.partition(".")[0] + ".cls" for key in images} == files.keys() - images.keys()
    assert {data.decode() for key, data in files.items() if key.endswith(".cls")} <= set("0123456789")
    decoded = [decode_image(data, SizePolicy()) for data in images.values()]
    assert sum(isinstance(each, DecodedImage) for each in decoded) == num_readable
    assert len(decoded) == num_readable + num_broken


def test_all_formats_and_sizes_from_tiny_to_large_occur(shards):
    images = [
        Image.open(io.BytesIO(data)) for key, data in contents(shards / "sample-001.tar").items() if key[-3:] != "cls"
    ]
    assert {image.format for image in images} == {"JPEG", "PNG", "WEBP"}
    shorter = [min(image.size) for image in images]
    assert [sum(first <= side <= last for side in shorter) for first, last in [(20, 31), (32, 255), (256, 512)]] == [
        8,
        24,
        8,
    ]


def test_only_digits_that_were_held_out_are_drawn(monkeypatch):
    digits, labels = load_digits()
    drawn = []
    monkeypatch.setattr(
        sample_shards, "render", lambda digit, *_: drawn.append(digit.tobytes()) or Image.new("RGB", (32, 32))
    )
    held_out = split(labels)[1]
    list(sample_shards.members(len(held_out), np.random.default_rng(0)))
    assert sorted(drawn) == sorted(digits[index].tobytes() for index in held_out)
