"""Tables say where each token is; the images that fit into a capacity have room in its tables."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.gpu.tables import (
    BLOCK,
    NO_IMAGE,
    capacity_for,
    capacity_of,
    device_tables,
    fits,
    needs,
    split,
    table_length,
    view_tables,
    write_tables,
)
from model.network.config import VARIANTS, stage_sides

CONFIGS = {name: VARIANTS[name] for name in ("b0", "b2-linear")}
SIZES = st.lists(st.tuples(st.integers(29, 150), st.integers(29, 150)), min_size=1, max_size=8)
CPU = torch.device("cpu")


def tokens_of(maps):
    """Returns (image, row of the matrix) of each token that the blocks cover, in the order of the blocks."""
    found = []
    places = maps.images.tolist()
    for image, first in maps.blocks.tolist():
        if image != NO_IMAGE:
            start, height, width = places[image]
            found += [(image, start + token) for token in range(first, min(first + BLOCK, height * width))]
    return found


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@settings(max_examples=30, deadline=None)
@given(sizes=SIZES, budget=st.integers(64, 20_000))
def test_what_fits_is_covered_by_blocks_once_and_without_gaps(config, sizes, budget):
    needed, capacity = needs(config, sizes), capacity_of(config, budget)
    if not fits(needed, capacity):
        capacity = capacity_for(needed)
    tables = device_tables(config, sizes, capacity, CPU)
    for stage, maps in enumerate(tables.tokens):
        sides = [stage_sides(*size)[stage] for size in sizes]
        assert [tuple(place[1:]) for place in maps.places()] == sides
        expected = [(image, height * width) for image, (height, width) in enumerate(sides)]
        rows = sum(count for _, count in expected)
        owners = [image for image, count in expected for _ in range(count)]
        assert tokens_of(maps) == list(zip(owners, range(rows), strict=True))
        assert rows <= maps.num_rows


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@settings(max_examples=30, deadline=None)
@given(sizes=SIZES)
def test_keys_are_the_windows_of_each_image_or_its_tokens(config, sizes):
    tables = device_tables(config, sizes, capacity_for(needs(config, sizes)), CPU)
    for stage, (tokens, keys) in enumerate(zip(tables.tokens, tables.keys, strict=True)):
        sides = [stage_sides(*size)[stage] for size in sizes]
        if config.linear:
            expected = [(7, 7)] * len(sizes)
        else:
            ratio = config.sr_ratios[stage]
            expected = [(height // ratio, width // ratio) for height, width in sides]
            assert (keys is tokens) == (ratio == 1)
        assert [tuple(place[1:]) for place in keys.places()] == expected
        areas = [height * width for height, width in expected]
        assert [place[0] for place in keys.places()] == [sum(areas[:index]) for index in range(len(areas))]
        assert sum(areas) <= keys.num_rows


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@settings(max_examples=30, deadline=None)
@given(sizes=SIZES, budget=st.integers(64, 3000))
def test_images_are_split_into_parts_that_fit(config, sizes, budget):
    needed, capacity = needs(config, sizes), capacity_of(config, budget)
    parts = split(needed, capacity)
    assert [index for part in parts for index in part] == list(range(len(sizes)))
    for part, following in zip(parts, [*parts[1:], []], strict=True):
        assert fits(needed[part], capacity) or len(part) == 1
        if following:  # no part ends early
            assert not fits(needed[[*part, following[0]]], capacity)


@settings(max_examples=30, deadline=None)
@given(sizes=SIZES)
def test_a_pack_does_not_fit_if_any_of_its_counts_does_not(sizes):
    config = VARIANTS["b0"]
    needed = needs(config, sizes)
    just = capacity_for(needed)
    assert fits(needed, just)
    counts = just.counts()
    assert counts[0] == len(sizes)
    for column in range(needed.shape[1]):
        more = needed.copy()
        more[0, column] += 1
        assert not fits(more, just)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_common_sizes_fill_a_capacity_nearly(config):
    capacity = capacity_of(config, 64 * 1024)
    for size in [(224, 224), (375, 500), (480, 640), (333, 500)]:
        needed = needs(config, [size] * 500)
        first = split(needed, capacity)[0]
        assert needed[first].sum(axis=0)[2] > 0.8 * capacity.tokens[0], size


def test_sides_that_are_rounded_up_fill_a_later_stage_first():
    capacity = capacity_of(VARIANTS["b0"], 64 * 1024)
    needed = needs(VARIANTS["b0"], [(100, 100)] * 104)  # 625 tokens each in stage 1, 16 in stage 4
    assert (capacity.tokens[0] >= 104 * 625, capacity.tokens[3]) == (True, 1280)
    assert [len(part) for part in split(needed, capacity)] == [1280 // 16, 24]


def test_a_pack_leaves_nothing_of_the_one_before():
    config, capacity = VARIANTS["b0"], capacity_of(VARIANTS["b0"], 4096)
    flat, fresh = (np.empty(table_length(capacity), np.int32) for _ in range(2))
    write_tables(config, [(100, 200)] * 3, capacity, flat)
    write_tables(config, [(64, 64)], capacity, flat)
    fresh[:] = 77
    write_tables(config, [(64, 64)], capacity, fresh)
    assert (flat == fresh).all()
    tables = view_tables(torch.from_numpy(flat), capacity)
    assert len(tables.pixels.places()) == 1


def test_thin_images_need_more_than_a_quarter_in_the_next_stage():
    config = VARIANTS["b2-linear"]
    assert needs(config, [(1, 33)]).tolist() == [[1, 33, 9, 5, 3, 2, 49, 49, 49, 49]]
    assert needs(VARIANTS["b0"], [(33, 70)]).tolist() == [[1, 2310, 162, 45, 15, 6, 2, 2, 2, 0]]
