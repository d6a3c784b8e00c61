"""`--size-from` takes the size that an evaluation chose, or says why it cannot."""

import json
from dataclasses import asdict

import pytest

from pipeline.chunks.size_policy import IMAGENET, Resize, SizePolicy
from pipeline.config.evaluated_size import SIZES_FILE, evaluated_size
from pipeline.errors import ConfigError
from pipeline.store.config import StoreConfig
from pipeline.store.store_path import StorePath

WEIGHTS = "a" * 64
POLICIES = {
    "native": SizePolicy(),
    "imagenet": SizePolicy(preprocess="imagenet"),
    "square:224": SizePolicy(resize=IMAGENET),
    "pixels:50000": SizePolicy(max_image_pixels=50_000),
    "stretch:96": SizePolicy(resize=Resize(to="stretch", width=96, height=96, filter="bilinear")),
}


@pytest.fixture
def evaluation(tmp_path):
    """The chosen size, and other values of `sizes.json` -> the evaluation's folder."""

    def make(chosen, **more):
        values = {
            "chosen": chosen, "weights_sha256": WEIGHTS,
            "policies": {name: asdict(policy) for name, policy in POLICIES.items()}, **more,
        }  # fmt: skip
        (tmp_path / SIZES_FILE).write_text(json.dumps(values))
        return StorePath(f"file://{tmp_path}", StoreConfig())

    return make


@pytest.mark.parametrize("chosen", POLICIES)
def test_the_chosen_size_is_taken_with_all_its_numbers(evaluation, chosen):
    folder = evaluation(chosen)
    assert evaluated_size(folder, SizePolicy(), WEIGHTS) == POLICIES[chosen]
    assert evaluated_size(folder.join(SIZES_FILE), SizePolicy(), WEIGHTS) == POLICIES[chosen]


def test_other_weights_are_refused(evaluation):
    with pytest.raises(ConfigError, match="is an evaluation of other weights"):
        evaluated_size(evaluation("native"), SizePolicy(), "b" * 64)


@pytest.mark.parametrize(
    "sizes", [SizePolicy(small_images="reject"), SizePolicy(max_image_pixels=2000), SizePolicy(jpeg_decoding="reduced")]
)
def test_other_limits_are_refused(evaluation, sizes):
    with pytest.raises(ConfigError, match="had other limits"):
        evaluated_size(evaluation("square:224"), sizes, WEIGHTS)


def test_an_evaluation_without_images_chose_nothing(evaluation):
    with pytest.raises(ConfigError, match="chose no size"):
        evaluated_size(evaluation(None), SizePolicy(), WEIGHTS)


@pytest.mark.parametrize("more", [{"policies": {}}, {"policies": {"native": {"x": 1}}}, {"policies": []}])
def test_a_file_that_is_no_evaluation_is_refused(evaluation, more):
    with pytest.raises(ConfigError, match="is no sizes"):
        evaluated_size(evaluation("native", **more), SizePolicy(), WEIGHTS)


def test_a_missing_evaluation_says_what_to_give(tmp_path):
    with pytest.raises(ConfigError, match="give the --output of jobs/evaluate"):
        evaluated_size(StorePath(f"file://{tmp_path}", StoreConfig()), SizePolicy(), WEIGHTS)
