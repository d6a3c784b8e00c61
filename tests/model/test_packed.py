"""Images of mixed sizes give what each gives alone, in their order."""

import gc
import weakref
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import packed
from model.checkpoints.random_weights import random_weights
from model.network.config import VARIANTS
from model.packed import PackedPVTv2, run_packed

SIZES = [(64, 48), (33, 70), (64, 48), (48, 64), (33, 70), (64, 48)]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module", params=["b0", "b2-linear"])
def model(request, narrow):
    return random_weights(narrow(request.param), seed=2)


@pytest.fixture(scope="module", params=["b0", "b1", "b2", "b2-linear", "b3", "b4", "b5"])
def any_variant(request, narrow):
    return random_weights(narrow(request.param), seed=2)


def plainly(model, image_HWC):
    """The maps of one image, normalised step by step."""
    pixels = ((image_HWC / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).to(model.stages[0].norm.weight.dtype)
    return model.forward_features(pixels.permute(2, 0, 1)[None])


def test_mixed_sizes_give_what_each_image_alone_gives(model, photos):
    images = photos(*SIZES)
    output = run_packed(model, images, mean=MEAN, std=STD, outputs=("logits", "embedding", "maps"))
    # Alone or in a batch, sums are taken in another order: the last digits of values up to 5 move.
    for index, image in enumerate(images):
        maps = plainly(model, image)
        embedding = maps[-1].mean(dim=(2, 3))
        torch.testing.assert_close(output.embedding[index], embedding[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(output.logits[index], model.head(embedding)[0], atol=1e-5, rtol=0)
        for ours, alone in zip(output.maps[index], maps, strict=True):
            torch.testing.assert_close(ours, alone[0], atol=1e-5, rtol=0)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(32, 160), st.integers(32, 160)), min_size=1, max_size=6), st.integers(0, 99))
def test_whatever_its_neighbours_an_image_gives_what_it_gives_alone(any_variant, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes]
    output = run_packed(any_variant, images, mean=MEAN, std=STD, outputs=("logits", "embedding", "maps"))
    for index, image in enumerate(images):
        maps = plainly(any_variant, image)
        embedding = maps[-1].mean(dim=(2, 3))
        # Narrow networks round worse than real ones, since norms over few channels enlarge what is lost.
        for ours, alone in zip(output.maps[index], maps, strict=True):
            torch.testing.assert_close(ours, alone[0], atol=2e-5, rtol=0)
        torch.testing.assert_close(output.embedding[index], embedding[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(output.logits[index], any_variant.head(embedding)[0], atol=2e-5, rtol=0)


def test_weights_that_change_are_used_as_they_are_then(narrow, photos):
    model = random_weights(narrow("b0"), seed=2)
    images = photos(*SIZES)
    before = run_packed(model, images).logits
    model.load_state_dict(random_weights(narrow("b0"), seed=3).state_dict())
    after = run_packed(model, images).logits
    assert (before - after).abs().max() > 1e-2
    assert after.equal(run_packed(random_weights(narrow("b0"), seed=3), images).logits)


def test_what_was_prepared_is_used_again_until_the_model_is_gone(narrow, photos):
    model, images = random_weights(narrow("b0"), seed=2), photos(*SIZES)
    run_packed(model, images)
    _, prepared = packed._PREPARED[model]
    run_packed(model, images)
    assert packed._PREPARED[model][1] is prepared
    run_packed(model, images, mean=MEAN)
    assert packed._PREPARED[model][1] is not prepared
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_a_prepared_network_gives_what_run_packed_gives(model, photos):
    images = photos(*SIZES)
    prepared = PackedPVTv2(model, mean=MEAN, std=STD)
    expected = run_packed(model, images, mean=MEAN, std=STD, outputs=("logits", "maps"))
    for found in (prepared.run(images, ("logits", "maps")), prepared.submit(images, ("logits", "maps"))()):
        assert found.logits.equal(expected.logits)
        assert all(ours.equal(theirs) for ours, theirs in zip(found.maps[0], expected.maps[0], strict=True))
        assert (found.embedding, found.device_s) == (None, None)


def test_the_order_of_the_images_is_kept(model, photos):
    images = photos(*SIZES)
    forward = run_packed(model, images).logits
    backward = run_packed(model, images[::-1]).logits
    torch.testing.assert_close(forward, backward.flip(0), atol=1e-5, rtol=0)
    distances = torch.cdist(forward, forward) + torch.eye(len(images)) * 9
    assert distances.min() > 1e-2  # every image has logits of its own, so an exchange would show


def test_only_what_is_asked_for_is_given(model, photos):
    images = photos((32, 40), (40, 32))
    output = run_packed(model, images)
    assert output.logits.shape == (2, 11)
    assert (output.embedding, output.maps) == (None, None)
    output = run_packed(model, images, outputs=("embedding",))
    assert output.embedding.shape == (2, model.config.embed_dims[-1])
    assert (output.logits, output.maps) == (None, None)
    output = run_packed(model, images, outputs=["maps"])
    assert [tuple(each.shape[1:]) for each in output.maps[0]] == [(8, 10), (4, 5), (2, 3), (1, 2)]
    assert (output.logits, output.embedding) == (None, None)


def test_no_images_give_empty_outputs(model):
    output = run_packed(model, [], outputs=("logits", "embedding", "maps"))
    assert (output.logits.shape, output.embedding.shape) == ((0, 11), (0, model.config.embed_dims[-1]))
    assert output.maps == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "variant", ["b0", "b2", "b2-linear", "b2 of one block a stage", "b2-linear of one block a stage"]
)
def test_half_precision_is_as_near_to_the_truth_as_the_plain_network_is_in_it(narrow, photos, variant, dtype):
    # As wide as they are published, networks go ways of their own in compiled code.
    name, is_short, _ = variant.partition(" of ")
    config = replace(VARIANTS[name], depths=(1, 1, 1, 1), num_classes=11) if is_short else narrow(variant)
    exact, half = (random_weights(config, seed=2).to(to) for to in (torch.float64, dtype))
    images = photos(*SIZES, (160, 37), (97, 97))
    output = run_packed(half, images, mean=MEAN, std=STD, outputs=("logits", "embedding", "maps"))
    assert output.logits.dtype == output.embedding.dtype == torch.float32
    errors = defaultdict(list)
    for index, image in enumerate(images):
        truth = [map_BCHW.float() for map_BCHW in plainly(exact, image)]
        plain = plainly(half, image)
        for stage, each in enumerate(zip(output.maps[index], plain, truth, strict=True)):
            errors[f"map {stage + 1}"].append([part.reshape(-1).float() for part in each])
        of_plain, of_truth = (maps[-1].mean(dim=(2, 3)) for maps in (plain, truth))
        errors["embedding"].append([output.embedding[index], of_plain[0].float(), of_truth[0]])
        logits = [half.head(of_plain)[0].float(), exact.head(of_truth.double())[0].float()]
        errors["logits"].append([output.logits[index], *logits])
    for name, of_images in errors.items():
        ours, plain, truth = (torch.cat(parts) for parts in zip(*of_images, strict=True))
        assert rms(ours - truth) <= 1.5 * rms(plain - truth), name


def rms(x):
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 40, 40, dtype=torch.uint8), r"Image 1 must be HWC with 3 channels of uint8, not \(3, 40, 40\)"),
        (torch.zeros(40, 40, dtype=torch.uint8), r"Image 1 must be HWC .* not \(40, 40\)"),
        (torch.zeros(40, 40, 3), "not .* of torch.float32"),
        (torch.zeros(28, 40, 3, dtype=torch.uint8), "28x40 px is too small"),
    ],
)
def test_an_image_that_cannot_run_is_refused(narrow, photos, image, message):
    with pytest.raises(ValueError, match=message):
        run_packed(random_weights(narrow("b0"), seed=2), [*photos((32, 40)), image])


def test_unknown_outputs_are_refused(model, photos):
    with pytest.raises(ValueError, match="outputs must be some of logits, embedding, maps"):
        run_packed(model, photos((32, 40)), outputs=("scores",))


@torch.inference_mode()
def test_a_network_made_in_inference_mode_runs_too(narrow, photos):
    images = photos((32, 40))
    assert run_packed(random_weights(narrow("b0"), seed=2), images).logits.shape == (1, 11)
