"""The table of variants and the checks of a configuration."""

from dataclasses import replace

import pytest

from model.network.config import VARIANTS, stage_sides, variant_of

B0 = VARIANTS["b0"]


def test_the_table_has_the_seven_published_variants():
    assert list(VARIANTS) == ["b0", "b1", "b2", "b2-linear", "b3", "b4", "b5"]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_recognised_whatever_its_classes_and_epsilons(name):
    assert variant_of(replace(VARIANTS[name], num_classes=7, embed_eps=1e-5)) == name


def test_a_linear_variant_is_recognised_whatever_its_unused_reduction_ratios():
    assert variant_of(replace(VARIANTS["b2-linear"], sr_ratios=(1, 1, 1, 1))) == "b2-linear"


def test_another_structure_is_no_variant():
    assert variant_of(replace(B0, depths=(2, 2, 2, 3))) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embed_dims": (32, 64, 160)}, "embed_dims must be a tuple of four"),
        ({"depths": (2, 2, 0, 2)}, "depths must be a tuple of four whole numbers above 0"),
        ({"depths": [2, 2, 2, 2]}, "depths must be a tuple"),
        ({"mlp_ratios": (8, 8, 4, 0.5)}, "mlp_ratios must be"),
        ({"num_heads": (1, 2, 5, 7)}, "256 channels cannot be shared by 7 heads"),
        ({"num_classes": -1}, "num_classes must be 0"),
        ({"block_eps": 0.0}, "must be above 0"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(B0, **change)


def test_standard_attention_needs_29_px_a_side_and_linear_attention_one():
    assert {name: config.min_side_px for name, config in VARIANTS.items()} == {
        "b0": 29,
        "b1": 29,
        "b2": 29,
        "b2-linear": 1,
        "b3": 29,
        "b4": 29,
        "b5": 29,
    }


def test_sides_of_maps_are_rounded_up_at_each_stage():
    assert stage_sides(229, 333) == ((58, 84), (29, 42), (15, 21), (8, 11))
