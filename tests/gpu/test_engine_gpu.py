"""The engine on a real GPU: exact, whatever ran before, and within the memory that there is."""

import pytest
import torch

from model.checkpoints.random_weights import random_weights
from model.gpu.engine import Engine
from model.network.config import IMAGENET_MEAN, IMAGENET_STD, VARIANTS
from model.packed import PackedPVTv2, run_packed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SIZES = [(224, 224), (375, 500), (333, 229), (32, 640), (224, 224), (45, 61)]
OTHER_SIZES = [(64, 64)] * 9 + [(500, 333)]


def drawn(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes]


def network(variant, dtype=torch.float32):
    return random_weights(VARIANTS[variant], 0).to("cuda", dtype)


def engine_of(model, **flags):
    from model.gpu import kernels as gpu

    return Engine(model, gpu, mean=IMAGENET_MEAN, std=IMAGENET_STD, **flags)


@torch.inference_mode()
def alone(model, images):
    """The logits of the plain network, image by image, without TF32; float64 on the CPU."""
    mean, std = (torch.tensor(values).view(3, 1, 1).double() for values in (IMAGENET_MEAN, IMAGENET_STD))
    parameter = next(model.parameters())
    logits = []
    for image_HWC in images:
        pixels_CHW = (image_HWC.permute(2, 0, 1).double() / 255 - mean) / std
        logits.append(model(pixels_CHW[None].to(parameter.device, parameter.dtype))[0].double().cpu())
    return torch.stack(logits)


@pytest.fixture(autouse=True)
def exact_convolutions():
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def test_a_packs_time_on_the_device_is_told_and_is_its_own():
    packed = PackedPVTv2(network("b0"))
    packed.run(drawn(SIZES))  # captures graphs
    outputs = [packed.submit(drawn(SIZES)) for _ in range(3)]
    found = []
    for output in outputs:
        of_pack = output()
        of_pack.logits.cpu()
        found.append(of_pack.device_s())
    assert all(0 < seconds.compute < 1 and 0 < seconds.upload < 1 for seconds in found)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_errs_no_more_than_the_plain_network(variant):
    images = drawn(SIZES)
    expected = alone(random_weights(VARIANTS[variant], 0).double(), images)
    for dtype, allowed in ((torch.float32, 2.0), (torch.bfloat16, 1.5)):
        model = network(variant, dtype)
        theirs = (alone(model, images) - expected).abs().max()
        ours = (engine_of(model).submit(images).result().logits.double().cpu() - expected).abs().max()
        # Errors of single precision are a few last digits, of which one more or less is chance.
        assert ours <= max(allowed * theirs, 1e-5), (dtype, ours, theirs)


def test_tf32_that_the_process_allows_is_not_used():
    images = drawn(SIZES)
    expected = engine_of(network("b0")).submit(images).result().logits
    torch.set_float32_matmul_precision("high")
    try:
        found = engine_of(network("b0")).submit(images).result().logits
    finally:
        torch.set_float32_matmul_precision("highest")
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("variant", ["b0", "b2-linear"])
def test_graphs_give_what_single_launches_give(variant):
    model, images = network(variant), drawn(SIZES)
    captured, launched = engine_of(model), engine_of(model, use_graphs=False)
    for _ in range(2):
        found = captured.submit(images, maps=True).result()
        expected = launched.submit(images, maps=True).result()
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-6, rtol=0)
        for ours, theirs in zip(sum(found.maps, ()), sum(expected.maps, ()), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (captured.num_graphs(), launched.num_graphs()) == (1, 0)


def test_packs_in_turn_do_not_touch_one_another():
    """The packs have several capacities, are submitted ahead, and their outputs are kept."""
    engine = engine_of(network("b0"), max_tokens=64 * 1024)
    packs = [drawn(SIZES, 1), drawn(OTHER_SIZES, 2), drawn([(224, 224)] * 16, 3), drawn([(32, 32)], 4)]
    first = [engine.submit(pack, maps=True).result() for pack in packs]
    kept = [output.logits.clone() for output in first]
    kept_maps = [output.maps[0][0].clone() for output in first]
    tickets = [engine.submit(pack, maps=True) for _ in range(5) for pack in packs]
    for index, ticket in enumerate(tickets):
        found = ticket.result()
        assert found.logits.equal(kept[index % 4])
        assert found.maps[0][0].equal(kept_maps[index % 4])
    for output, logits, map_CHW in zip(first, kept, kept_maps, strict=True):
        assert output.logits.equal(logits)
        assert output.maps[0][0].equal(map_CHW)
    assert engine.num_graphs() >= 2


def test_images_may_lie_on_the_gpu():
    engine, images = engine_of(network("b0")), drawn(SIZES)
    expected = engine.submit(images).result().logits
    found = engine.submit([images[0], *(image.cuda() for image in images[1:])]).result().logits
    assert found.equal(expected)


def test_an_image_beyond_the_largest_capacity_runs_alone():
    engine, images = engine_of(network("b0"), max_tokens=4096), drawn([(64, 64), (512, 700), (100, 90)])
    found = engine.submit(images).result().logits.cpu().double()
    torch.testing.assert_close(found, alone(network("b0"), images), atol=1e-4, rtol=0)


def test_out_of_memory_leaves_room_for_smaller_packs():
    model = network("b2")
    engine = engine_of(model)
    images = drawn([(224, 224)] * 80)
    small = images[:2]
    expected = engine.submit(small).result().logits
    engine.release()
    total = torch.cuda.get_device_properties(0).total_memory
    # Room for the small pack; the large one's hidden layer alone takes 0.5 GB.
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 300e6) / total)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            engine.submit(images)
        assert engine.num_graphs() == 0
        torch.testing.assert_close(engine.submit(small).result().logits, expected, atol=1e-6, rtol=0)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_run_packed_uses_the_engine_and_gives_what_the_cpu_gives():
    images = drawn(SIZES)
    expected = run_packed(random_weights(VARIANTS["b0"], 0), images, outputs=("logits", "maps"))
    model = network("b0")
    found = run_packed(model, images, outputs=("logits", "maps"))
    torch.testing.assert_close(found.logits.cpu(), expected.logits, atol=1e-4, rtol=0)
    for ours, theirs in zip(sum(found.maps, ()), sum(expected.maps, ()), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, atol=1e-4, rtol=0)
    packed = PackedPVTv2(model)
    later = [packed.submit(drawn(SIZES, seed)) for seed in range(3)]
    assert later[0]().logits.equal(found.logits)


def test_without_kernels_packs_run_group_by_group(monkeypatch, caplog):
    import model.gpu

    monkeypatch.setattr(model.gpu, "kernels", object())
    images = drawn(SIZES)
    found = run_packed(network("b0"), images).logits.cpu()
    assert "engine.unusable" in caplog.text
    torch.testing.assert_close(found, run_packed(random_weights(VARIANTS["b0"], 0), images).logits, atol=1e-4, rtol=0)
