"""All seven variants at full size: packs of mixed sizes against the plain network, image by image; `make exact`.

Minutes, and so not among the tests; pytest collects no file of this name by itself. Neighbours, order and budget of the
packs are drawn anew for each variant.

Logits, embeddings and maps agree within 1e-5. For logits, which are the sums of all that was rounded before, the plain
network runs in double precision: in float32 it is itself up to 9.5e-6 from that, and so two networks that both round
are up to 1.2e-5 apart, where an image of 32x32 px has a single token in the last map. Both figures are printed.
"""

import copy
import math
import random

import pytest
import torch

from model.checkpoints.random_weights import random_weights
from model.network.config import IMAGENET_MEAN, IMAGENET_STD, VARIANTS
from model.network.normalise import normalised
from model.packed import run_packed

WITHIN = 1e-5
NUM_IMAGES = 14
SIDES = (32, 1024)
MAX_ASPECT = 16
# Of one image, so that a variant takes a minute or so; the extremes come in as thin images and as one large square.
MAX_PIXELS = 420_000
ALWAYS = [(32, 32), (32, 512), (1024, 64), (33, 527), (640, 640), (224, 224), (224, 224)]


def drawn_sizes(rng):
    """Returns (height, width) of some images, whose logarithms are spread evenly."""
    sizes = list(ALWAYS)
    while len(sizes) < NUM_IMAGES:
        size = tuple(round(math.exp(rng.uniform(*map(math.log, SIDES)))) for _ in range(2))
        if max(size) <= MAX_ASPECT * min(size) and math.prod(size) <= MAX_PIXELS:
            sizes.append(size)
    return sizes


def drawn_packs(sizes, rng):
    """Returns the positions of the images of each pack: a few, in any order."""
    order = rng.sample(range(len(sizes)), len(sizes))
    packs = []
    while order:
        packs.append([order.pop() for _ in range(min(len(order), rng.randint(1, 6)))])
    return packs


def alone(model, image_HWC):
    """Returns logits, embedding and maps of one image in the plain network, in its dtype."""
    if model.head.weight.dtype == torch.float64:
        mean, std = (torch.tensor(of_rgb, dtype=torch.float64) for of_rgb in (IMAGENET_MEAN, IMAGENET_STD))
        pixels_BHWC = (image_HWC[None].double() / 255 - mean) / std
    else:
        pixels_BHWC = normalised(image_HWC[None], IMAGENET_MEAN, IMAGENET_STD)
    maps = model.forward_features(pixels_BHWC.permute(0, 3, 1, 2))
    embedding = maps[-1].mean(dim=(2, 3))
    return [model.head(embedding)[0], embedding[0], *(map_BCHW[0] for map_BCHW in maps)]


def farthest(found, expected):
    """The largest difference of any two numbers, part by part."""
    return [float((a.double() - b.double()).abs().max()) for a, b in zip(found, expected, strict=True)]


@torch.inference_mode()
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_in_a_pack_gives_what_it_gives_alone(variant):
    model, rng = random_weights(VARIANTS[variant], seed=1), random.Random(variant)
    generator = torch.Generator().manual_seed(0)
    sizes = drawn_sizes(rng)
    images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes]
    plain = [alone(model, image) for image in images]
    double = copy.deepcopy(model).double()
    truth = [alone(double, image)[:2] for image in images]
    largest = max(float(logits.abs().max()) for logits, *_ in plain)
    apart, ours, reference = [[0.0] * 6], [[0.0] * 2], [[0.0] * 2]
    for _ in range(2):
        for pack in drawn_packs(sizes, rng):
            output = run_packed(model, [images[i] for i in pack], outputs=("logits", "embedding", "maps"))
            for place, index in enumerate(pack):
                found = [output.logits[place], output.embedding[place], *output.maps[place]]
                apart.append(farthest(found, plain[index]))
                ours.append(farthest(found[:2], truth[index]))
                reference.append(farthest(plain[index][:2], truth[index]))
    apart, ours, reference = (
        [max(of_part) for of_part in zip(*of_images, strict=True)] for of_images in (apart, ours, reference)
    )
    names = ("logits", "embedding", "map 1", "map 2", "map 3", "map 4")
    print(f"\n{variant}: " + ", ".join(f"{name} {value:.1e}" for name, value in zip(names, apart, strict=True)))
    print(
        f"{'':{len(variant)}}  from double precision: logits {ours[0]:.1e}, the plain network's {reference[0]:.1e}; ",
        end="",
    )
    print(f"embedding {ours[1]:.1e}, {reference[1]:.1e}; largest logit {largest:.1f}")
    assert max(apart[1:]) <= WITHIN
    assert max(ours) <= WITHIN
