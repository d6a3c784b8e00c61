"""The engine with plain operations: parts, capacities, memory that runs out. `tests/gpu` tests it on a GPU."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.checkpoints.random_weights import random_weights
from model.gpu import plain
from model.gpu.engine import Engine
from tests.support.ragged_checks import MEAN, STD, assert_like_alone, memory_without_numbers

SIZES = [(64, 48), (33, 70), (64, 48), (40, 97), (29, 29)]


def engine_of(model, max_tokens=1024, operations=plain):
    return Engine(model, operations, mean=MEAN, std=STD, max_tokens=max_tokens)


@pytest.mark.parametrize("variant", ["b0", "b1", "b2", "b2-linear", "b3", "b4", "b5"])
def test_each_image_gives_what_it_gives_alone(variant, narrow, photos):
    model = random_weights(narrow(variant), 2)
    images = photos(*SIZES)
    with memory_without_numbers():
        found = engine_of(model).submit(images, maps=True).result()
    # Narrow networks round worse than real ones, since norms over few channels enlarge what is lost.
    assert_like_alone(found, model, images, MEAN, STD, atol=2e-5)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.tuples(st.integers(29, 110), st.integers(29, 110)), min_size=1, max_size=6),
    st.sampled_from([64, 300, 1500]),
)
def test_packs_of_any_sizes_run_in_parts_that_fit(narrow, photos, sizes, max_tokens):
    """Single images may be larger than the largest capacity."""
    model = random_weights(narrow("b0"), 2)
    images = photos(*sizes)
    assert_like_alone(engine_of(model, max_tokens).submit(images).result(), model, images, MEAN, STD, atol=3e-5)


def test_linear_attention_takes_images_down_to_one_pixel(narrow, photos):
    model = random_weights(narrow("b2-linear"), 2)
    images = photos((1, 1), (3, 20), (64, 48), (1, 300))
    assert_like_alone(engine_of(model).submit(images, maps=True).result(), model, images, MEAN, STD, atol=1e-5)


def test_maps_are_given_only_if_asked_for_and_a_network_may_have_no_head(narrow, photos):
    model = random_weights(narrow("b0"), 2)
    model.head = None
    found = engine_of(model).submit(photos((32, 40))).result()
    assert (found.maps, found.logits) == ((), None)
    assert found.embedding.shape == (1, 64)


class OutOfMemory:
    """Plain operations that run out of memory for packs of more than `max_rows` tokens of stage 1."""

    def __init__(self, max_rows):
        self.max_rows = max_rows
        self.rows = []

    def __getattr__(self, name):
        return getattr(plain, name)

    def pixel_patches(self, *arguments, **flags):
        rows_TP = plain.pixel_patches(*arguments, **flags)
        self.rows.append(len(rows_TP))
        if len(rows_TP) > self.max_rows:
            raise torch.OutOfMemoryError("no room")
        return rows_TP


def test_a_capacity_for_which_there_is_no_room_is_not_used_again(narrow, photos):
    model = random_weights(narrow("b0"), 2)
    operations = OutOfMemory(max_rows=800)
    engine = engine_of(model, 1024, operations)
    images = photos(*[(64, 48)] * 5)  # 192 tokens each, 960 in all
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        engine.submit(images)
    assert operations.rows == [1024]
    found = engine.submit(images).result()
    assert max(operations.rows[1:]) <= 768
    assert_like_alone(found, model, images, MEAN, STD, atol=1e-5)


def test_an_image_that_does_not_fit_alone_is_out_of_memory_every_time(narrow, photos):
    engine = engine_of(random_weights(narrow("b0"), 2), 64, OutOfMemory(max_rows=200))
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            engine.submit(photos((64, 64)))
    assert engine.submit(photos((32, 32))).result().logits.isfinite().all()


def test_other_errors_than_memory_stay_as_they_are(narrow, photos):
    class Broken(OutOfMemory):
        def pixel_patches(self, *arguments, **flags):
            raise RuntimeError("misaligned address")

    engine = engine_of(random_weights(narrow("b0"), 2), 1024, Broken(0))
    with pytest.raises(RuntimeError, match="misaligned"):
        engine.submit(photos((32, 32)))
