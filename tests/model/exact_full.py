"""All seven variants at full size: packs of mixed sizes against the plain network, image by image; `make exact`.

Minutes, and so not among the tests; pytest collects no file of this name by itself. Neighbours, order and budget of the
packs are drawn anew for each variant.

Maps and embeddings agree within 1e-5, logits within 1e-5 of the largest: the head adds up as many products as it has
inputs, and both networks are some 5e-6 from double precision before it.
"""

import math
import random

import pytest
import torch

from model.config import VARIANTS
from model.packed import normalised, run_packed
from model.random_weights import random_weights
from model.transformers_config import IMAGENET_MEAN, IMAGENET_STD

WITHIN = 1e-5
NUM_IMAGES = 14
SIDES = (32, 1024)
MAX_ASPECT = 16
# Of one image, so that a variant takes a minute or so; the extremes come in as thin images and as one large square.
MAX_PIXELS = 420_000
ALWAYS = [(32, 32), (32, 512), (1024, 64), (33, 527), (640, 640), (224, 224), (224, 224)]


def drawn_sizes(rng):
    """(height, width), sides spread evenly over their logarithms."""
    sizes = list(ALWAYS)
    while len(sizes) < NUM_IMAGES:
        size = tuple(round(math.exp(rng.uniform(*map(math.log, SIDES)))) for _ in range(2))
        if max(size) <= MAX_ASPECT * min(size) and math.prod(size) <= MAX_PIXELS:
            sizes.append(size)
    return sizes


def drawn_packs(sizes, rng):
    """Positions of the images of each pack: a few, in any order."""
    order = rng.sample(range(len(sizes)), len(sizes))
    packs = []
    while order:
        packs.append([order.pop() for _ in range(min(len(order), rng.randint(1, 6)))])
    return packs


def alone(model, image_HWC):
    """Logits, embedding and maps of one image in the plain network."""
    maps = model.forward_features(normalised(model, image_HWC[None], IMAGENET_MEAN, IMAGENET_STD).permute(0, 3, 1, 2))
    embedding = maps[-1].mean(dim=(2, 3))
    return [model.head(embedding)[0], embedding[0], *(map_BCHW[0] for map_BCHW in maps)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_image_in_a_pack_gives_what_it_gives_alone(variant):
    model, rng = random_weights(VARIANTS[variant], seed=1), random.Random(variant)
    generator = torch.Generator().manual_seed(0)
    sizes = drawn_sizes(rng)
    images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes]
    expected = [alone(model, image) for image in images]
    largest = max(float(logits.abs().max()) for logits, *_ in expected)
    worst = [0.0] * 6
    for _ in range(2):
        for pack in drawn_packs(sizes, rng):
            output = run_packed(model, [images[i] for i in pack], outputs=("logits", "embedding", "maps"))
            for place, index in enumerate(pack):
                found = [output.logits[place], output.embedding[place], *output.maps[place]]
                for part, (ours, plain) in enumerate(zip(found, expected[index], strict=True)):
                    worst[part] = max(worst[part], float((ours - plain).abs().max()))
    names = ("logits", "embedding", "map 1", "map 2", "map 3", "map 4")
    print(f"\n{variant}: " + ", ".join(f"{name} {value:.1e}" for name, value in zip(names, worst, strict=True)))
    print(f"{'':{len(variant)}}  largest logit {largest:.1f}")
    assert worst[0] <= WITHIN * max(1, largest)
    assert max(worst[1:]) <= WITHIN
