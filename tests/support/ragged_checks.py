"""Checks of any implementation of the operations on ragged maps, on any device; a check that fails raises.

Expected is what torch's own operations make of each map alone, in float64. Rows that belong to no map hold what is no
number, so that reading one of them shows.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d, gelu, layer_norm, scaled_dot_product_attention

from model.gpu.engine import PackOutputs
from model.gpu.operations import Operations, patch_row
from model.gpu.tables import BLOCK, NO_IMAGE, Maps
from model.network.config import RGB
from model.network.pvt_v2 import PVTv2

Sides = Sequence[tuple[int, int]]

SIDES = [(1, 1), (1, 66), (66, 1), (9, 8)]  # the last three have more tokens than a block
CHANNELS = 40  # not a power of two
# Of float32: sums are taken in another order. Of the others: results are rounded to 8 and 11 bits, and inputs of a
# second product before.
TOLERANCES = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (0.02, 0.02), torch.float16: (2e-3, 2e-3)}


MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@contextmanager
def memory_without_numbers() -> Iterator[None]:
    """Within it, new tensors of floats hold no numbers until they are written to."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def laid(sides: Sides, device: str, *, spare: int = 2) -> Maps:
    """Maps of these sides end to end, then as many images, blocks and rows as `spare` that are nobody's."""
    starts = [0, *accumulate(height * width for height, width in sides)]
    images = [[start, *side] for start, side in zip(starts, sides, strict=False)]
    blocks = [
        [image, first] for image, (height, width) in enumerate(sides) for first in range(0, height * width, BLOCK)
    ]
    return Maps(
        torch.tensor(images + [[0, 0, 0]] * spare, dtype=torch.int32, device=device).view(-1, 3),
        torch.tensor(blocks + [[NO_IMAGE, 0]] * spare, dtype=torch.int32, device=device).view(-1, 2),
        starts[-1] + spare,
    )


def drawn(rows: int, columns: int, like: Maps, dtype: torch.dtype, *, seed: int = 0) -> Tensor:
    """Random tokens of all maps; rows of none are no numbers."""
    generator = torch.Generator().manual_seed(seed)
    x_TC = torch.randn(rows, columns, generator=generator).to(dtype)
    x_TC[sum(height * width for _, height, width in like.places()) :] = float("nan")
    return x_TC.to(like.images.device)


def weights(*shape: int, device: str, seed: int = 9) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def map_of(x_TC: Tensor, place: tuple[int, int, int]) -> Tensor:
    """One map 1CHW, in float64."""
    return rows_of(x_TC, place).unflatten(0, place[1:]).permute(2, 0, 1)[None].double()


def rows_of(x_TC: Tensor, place: tuple[int, int, int]) -> Tensor:
    start, height, width = place
    return x_TC[start : start + height * width]


def assert_near(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    atol, rtol = TOLERANCES[dtype]
    torch.testing.assert_close(found.double(), expected, atol=atol, rtol=rtol)


def patches_of_pixels(operations: Operations, device: str, dtype: torch.dtype) -> None:
    sizes = [(1, 1), (29, 5), (3, 64), (40, 33)]
    images, tokens = laid(sizes, device), laid([(-(-h // 4), -(-w // 4)) for h, w in sizes], device)
    generator = torch.Generator().manual_seed(0)
    pixels_X3 = torch.randint(0, 256, (images.num_rows, 3), dtype=torch.uint8, generator=generator).to(device)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    scale_shift = torch.cat((1 / (255 * std), -mean / std)).to(device)
    rows_TP = operations.pixel_patches(pixels_X3, scale_shift, images, tokens, kernel=7, stride=4, dtype=dtype)
    assert (rows_TP.shape, rows_TP.dtype) == ((tokens.num_rows, 7 * patch_row(7)), dtype)
    weight_O377 = weights(8, 3, 7, 7, device=device) / 12
    for place, to in zip(images.places(), tokens.places(), strict=True):
        x_13HW = (map_of(pixels_X3, place) / 255 - mean.to(device)[:, None, None]) / std.to(device)[:, None, None]
        expected = conv2d(x_13HW, weight_O377.double(), stride=4, padding=3)[0].flatten(1).t()
        patch_TKR = rows_of(rows_TP, to).double().unflatten(1, (7, -1))
        assert (patch_TKR[:, :, 21:] == 0).all()
        found = patch_TKR[:, :, :21].flatten(1) @ weight_O377.permute(2, 3, 1, 0).flatten(0, 2).double()
        assert_near(found, expected, dtype)


def _patches(operations: Operations, device: str, dtype: torch.dtype, kernel: int, stride: int, padding: int) -> None:
    sides = [side for side in SIDES if min(side) + 2 * padding >= kernel]
    to_sides = [tuple((n + 2 * padding - kernel) // stride + 1 for n in side) for side in sides]
    maps, to = laid(sides, device), laid(to_sides, device)
    x_TC = drawn(maps.num_rows, CHANNELS, maps, dtype)
    rows_TP = operations.patches(x_TC, maps, to, kernel=kernel, stride=stride, padding=padding)
    weight = weights(8, CHANNELS, kernel, kernel, device=device).double() / 8
    for place, target in zip(maps.places(), to.places(), strict=True):
        expected = conv2d(map_of(x_TC, place), weight, stride=stride, padding=padding)[0].flatten(1).t()
        found = rows_of(rows_TP, target).double() @ weight.permute(2, 3, 1, 0).flatten(0, 2)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)  # values are only moved


def patches_of_embeddings(operations: Operations, device: str, dtype: torch.dtype) -> None:
    _patches(operations, device, dtype, 3, 2, 1)


def patches_of_windows(operations: Operations, device: str, dtype: torch.dtype) -> None:
    _patches(operations, device, dtype, 2, 2, 0)
    _patches(operations, device, dtype, 7, 7, 0)


def convolutions(operations: Operations, device: str, dtype: torch.dtype) -> None:
    maps = laid(SIDES, device)
    taps_9E, bias_E = weights(9, CHANNELS, device=device) / 3, weights(CHANNELS, device=device, seed=3)
    for relu in (False, True):
        x_TE = drawn(maps.num_rows, CHANNELS, maps, dtype)
        y_TE = operations.dwconv_gelu(x_TE, taps_9E, bias_E, maps, relu=relu)
        assert (y_TE.shape, y_TE.dtype) == (x_TE.shape, dtype)
        for place in maps.places():
            x_1EHW = map_of(x_TE, place)
            x_1EHW = x_1EHW.relu() if relu else x_1EHW
            weight = taps_9E.t().reshape(-1, 1, 3, 3).double()
            expected = gelu(conv2d(x_1EHW, weight, bias_E.double(), padding=1, groups=CHANNELS))[0].flatten(1).t()
            assert_near(rows_of(y_TE, place), expected, dtype)


def what_is_no_number(operations: Operations, device: str, dtype: torch.dtype) -> None:
    """It reaches its neighbours in its own channel and map, also through the ReLU, and nobody else."""
    maps = laid([(3, 3), (3, 4)], device)
    for relu in (False, True):
        x_TE = torch.zeros(maps.num_rows, 16, dtype=dtype, device=device)
        x_TE[4, 3] = float("nan")
        y_TE = operations.dwconv_gelu(
            x_TE, torch.ones(9, 16, device=device), torch.zeros(16, device=device), maps, relu=relu
        )
        assert y_TE[:9, 3].isnan().all()
        assert int(y_TE[: 9 + 12].isnan().sum()) == 9


def norms(operations: Operations, device: str, dtype: torch.dtype) -> None:
    maps = laid([(5, 5)], device, spare=3)
    weight_C, bias_C = weights(CHANNELS, device=device), weights(CHANNELS, device=device, seed=3)
    x_TC = drawn(maps.num_rows, CHANNELS, maps, dtype) * 3
    y_TC = drawn(maps.num_rows, CHANNELS, maps, dtype, seed=1)
    for eps in (1e-6, 1e-2):

        def normed(x_TC: Tensor, eps: float = eps) -> Tensor:
            return layer_norm(x_TC.double()[:25], (CHANNELS,), weight_C.double(), bias_C.double(), eps)

        assert_near(operations.norm(x_TC, weight_C, bias_C, eps)[:25], normed(x_TC), dtype)
        assert_near(operations.norm(x_TC, weight_C, bias_C, eps, gelu=True)[:25], gelu(normed(x_TC)), dtype)
        sum_TC, normed_TC = operations.add_norm(x_TC, y_TC, weight_C, bias_C, eps)
        assert (sum_TC.dtype, normed_TC.dtype) == (dtype, dtype)
        assert_near(sum_TC[:25], (x_TC.double() + y_TC.double())[:25], dtype)
        assert_near(normed_TC[:25], normed(x_TC.double() + y_TC.double()), dtype)


def attentions(operations: Operations, device: str, dtype: torch.dtype) -> None:
    fewer = [(max(1, height // 4), max(1, width // 4)) for height, width in SIDES]
    for dim, num_heads, key_sides in ((32, 2, fewer), (64, 1, SIDES), (8, 1, fewer)):
        _attention(operations, device, dtype, dim, num_heads, key_sides)


def _attention(
    operations: Operations, device: str, dtype: torch.dtype, dim: int, num_heads: int, key_sides: Sides
) -> None:
    maps, keys = laid(SIDES, device), laid(key_sides, device)
    channels = dim * num_heads
    # Queries, keys and values are columns of larger matrices, and some scores are large.
    q_TC = drawn(maps.num_rows, 3 * channels, maps, dtype)[:, :channels] * 2
    k_MC, v_MC = drawn(keys.num_rows, 2 * channels, keys, dtype, seed=1).split(channels, dim=1)
    y_TC = operations.attention(q_TC, k_MC, v_MC, maps, keys, num_heads=num_heads)
    assert (y_TC.shape, y_TC.dtype) == ((maps.num_rows, channels), dtype)
    for place, of_place in zip(maps.places(), keys.places(), strict=True):
        q, k, v = (
            rows_of(x, where).double().unflatten(1, (num_heads, dim)).transpose(0, 1)
            for x, where in ((q_TC, place), (k_MC, of_place), (v_MC, of_place))
        )
        expected = scaled_dot_product_attention(q[None], k[None], v[None])[0].transpose(0, 1).flatten(1)
        assert_near(rows_of(y_TC, place), expected, dtype)


def pools(operations: Operations, device: str, dtype: torch.dtype) -> None:
    sides = [(1, 1), (3, 26), (15, 8)]
    maps, to = laid(sides, device), laid([(7, 7)] * len(sides), device)
    x_TC = drawn(maps.num_rows, CHANNELS, maps, dtype)
    y_MC = operations.pooled(x_TC, maps, to)
    for place, target in zip(maps.places(), to.places(), strict=True):
        expected = adaptive_avg_pool2d(map_of(x_TC, place), 7)[0].flatten(1).t()
        assert_near(rows_of(y_MC, target), expected, dtype)


def means(operations: Operations, device: str, dtype: torch.dtype) -> None:
    maps = laid(SIDES, device)
    x_TC = drawn(maps.num_rows, CHANNELS, maps, dtype)
    y_NC = operations.mean(x_TC, maps)
    assert y_NC.dtype == torch.float32
    for index, place in enumerate(maps.places()):
        assert_near(y_NC[index], rows_of(x_TC, place).double().mean(dim=0), torch.float32)


def assert_like_alone(
    found: PackOutputs, model: PVTv2, images: Sequence[Tensor], mean: RGB, std: RGB, *, atol: float
) -> None:
    """Embedding, logits and maps of each image are what the plain network gives for it alone, in double precision.

    In its own precision the plain network is as far from the truth as ours is.
    """
    device, exact = next(model.parameters()).device, copy.deepcopy(model).double()
    for index, image_HWC in enumerate(images):
        pixels_HWC = (image_HWC.double() / 255 - torch.tensor(mean).double()) / torch.tensor(std).double()
        maps = exact.forward_features(pixels_HWC.permute(2, 0, 1)[None].to(device))
        embedding = maps[-1].mean(dim=(2, 3))
        torch.testing.assert_close(found.embedding[index].double(), embedding[0], atol=atol, rtol=0)
        torch.testing.assert_close(found.logits[index].double(), exact.head(embedding)[0], atol=atol, rtol=0)
        if found.maps:
            for ours, alone in zip(found.maps[index], maps, strict=True):
                torch.testing.assert_close(ours.double(), alone[0], atol=atol, rtol=0)


CHECKS: dict[str, Callable[[Operations, str, torch.dtype], None]] = {
    check.__name__: check
    for check in (
        patches_of_pixels,
        patches_of_embeddings,
        patches_of_windows,
        convolutions,
        what_is_no_number,
        norms,
        attentions,
        pools,
        means,
    )
}
