"""Attention in all its forms gives what each image alone gives in double precision."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from model.cpu import attention as module
from model.cpu.attention import attention
from model.cpu.layout import Group, Layout, next_layout, rounded_up

# (images, height and width in tokens, height and width in keys): around whole vectors and blocks of queries and keys.
GROUPS = [(2, 5, 7, 1, 1), (1, 8, 8, 4, 4), (3, 1, 1, 7, 7), (1, 9, 1, 3, 5), (1, 3, 11, 17, 19), (2, 16, 4, 4, 8)]


def drawn(channels, dtype=torch.float32, spread=1.0):
    tokens = next_layout([Group(count, height, width) for count, height, width, *_ in GROUPS], 1)
    keys = next_layout([Group(count, height, width) for count, _, _, height, width in GROUPS], 1)
    generator = torch.Generator().manual_seed(channels)
    q_TC = spread * torch.randn(tokens.num_rows, channels, generator=generator)
    kv_MC2 = torch.randn(keys.num_rows, 2 * channels, generator=generator)
    # Rows that mean nothing reach nobody.
    q_TC[tokens.num_tokens :] = kv_MC2[keys.num_tokens :] = float("nan")
    return q_TC.to(dtype), kv_MC2.to(dtype), tokens, keys


def exactly(q_TC, kv_MC2, tokens, keys, num_heads):
    """Returns attention that is computed image by image."""
    found, depth = [], q_TC.shape[1] // num_heads
    for group, of_group in zip(tokens.groups, keys.groups, strict=True):
        for index in range(group.count):
            rows, of_rows = (each.height * each.width for each in (group, of_group))
            q = q_TC[group.start + index * rows :][:rows].double()
            k, v = kv_MC2[of_group.start + index * of_rows :][:of_rows].double().chunk(2, dim=1)
            heads = [x.unflatten(1, (num_heads, depth)).transpose(0, 1) for x in (q, k, v)]
            found.append(scaled_dot_product_attention(*heads).transpose(0, 1).flatten(1))
    return torch.cat(found)


@pytest.mark.parametrize(("channels", "num_heads"), [(32, 1), (64, 1), (160, 5), (48, 1), (16, 1), (24, 3)])
def test_each_token_gathers_from_the_keys_of_its_image(kind, channels, num_heads):
    case = drawn(channels)
    found = attention(*case, num_heads)
    tokens = case[2]
    torch.testing.assert_close(found[: tokens.num_tokens].double(), exactly(*case, num_heads), atol=3e-6, rtol=0)
    assert (found[tokens.num_tokens :] == 0).all()


@pytest.mark.parametrize(("channels", "num_heads"), [(32, 1), (128, 2), (24, 3)])
def test_sums_of_bfloat16_are_taken_in_float32(kind, tiles, channels, num_heads, monkeypatch):
    monkeypatch.setattr(module, "_MAX_HALVES", 10**9)
    case = drawn(channels, torch.bfloat16)
    found = attention(*case, num_heads)
    assert found.dtype == torch.bfloat16
    # Only the result is rounded; but by torch, and where tiles are multiplied, so are the shares.
    shares_are_exact = kind != "torch" and channels != 24 and not tiles
    rtol, atol = (2**-8, 1e-6) if shares_are_exact else (2**-6, 2e-2)
    expected = exactly(*case, num_heads).float()
    torch.testing.assert_close(found[: case[2].num_tokens].float(), expected, atol=atol, rtol=rtol)


def test_scores_may_be_far_apart(kind):
    case = drawn(32, spread=300)
    found = attention(*case, 1)
    assert found[: case[2].num_tokens].isfinite().all()
    torch.testing.assert_close(found[: case[2].num_tokens].double(), exactly(*case, 1), atol=1e-3, rtol=0)


def test_scores_of_bfloat16_may_be_far_apart(kind):
    case = drawn(64, torch.bfloat16, spread=300)
    found = attention(*case, 2)[: case[2].num_tokens].float()
    torch.testing.assert_close(found, exactly(*case, 2).float(), rtol=2**-6, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("place", ["query", "key", "value"])
def test_what_is_no_number_stays_in_its_image(kind, place, dtype):
    q_TC, kv_MC2, tokens, keys = drawn(32, dtype)
    group, of_group = tokens.groups[1], keys.groups[1]
    if place == "query":
        q_TC[group.start + 3, 5] = float("nan")
    else:
        kv_MC2[of_group.start + 3, 5 + 32 * (place == "value")] = float("nan")
    bad = attention(q_TC, kv_MC2, tokens, keys, 1)[: tokens.num_tokens].isnan()
    of_image = bad[group.start : group.stop]
    assert bad.sum() == of_image.sum()
    expected = {"query": of_image[3], "key": of_image, "value": of_image[:, 5]}[place]
    assert expected.all()
    assert of_image.sum() == expected.numel()


def test_large_keys_in_half_precision_are_torchs(monkeypatch):
    called = []
    monkeypatch.setattr(module, "tiled", lambda *_: None)
    monkeypatch.setattr(module, "_compiled", lambda *_: called.append("compiled"))
    monkeypatch.setattr(module, "_plain", lambda *_: called.append("plain"))
    for dtype in (torch.float32, torch.bfloat16):
        for side in (16, 17):
            keys = Layout((Group(1, side, side),), rounded_up(side * side))
            attention(torch.zeros(32, 32, dtype=dtype), torch.zeros(keys.num_rows, 64, dtype=dtype), keys, keys, 1)
    assert called == ["compiled", "compiled", "compiled", "plain"]
