"""Files of checkpoints say how images are resized, and how large they were in training."""

import pytest

from model.checkpoints.input_size import InputSize, SizeAdvice, read_size_advice

PVT = {
    "do_resize": True,
    "image_processor_type": "PvtImageProcessor",
    "resample": 2,
    "size": {"height": 224, "width": 224},
}
TIMM = {"input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic", "crop_mode": "center"}


def shorter(px, crop=None, filter="bicubic"):
    return InputSize(to="shorter", width=px, height=px, crop=None if crop is None else (crop, crop), filter=filter)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (PVT, InputSize(to="stretch", width=224, height=224, filter="bilinear")),
        ({**PVT, "resample": 3}, InputSize(to="stretch", width=224, height=224)),
        (
            {**PVT, "size": {"height": 256, "width": 512}},
            InputSize(to="stretch", width=512, height=256, filter="bilinear"),
        ),
        ({"size": 512}, InputSize(to="stretch", width=512, height=512, filter="bilinear")),
        ({"size": 256, "do_center_crop": True, "crop_size": 224}, shorter(256, 224, "bilinear")),
        (
            {"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            InputSize(to="stretch", width=256, height=256, crop=(224, 224), filter="bilinear"),
        ),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}, shorter(256, 224, "bilinear")),
        ({"size": {"shortest_edge": 384}}, shorter(384, filter="bilinear")),
        ({"size": {"longest_edge": 384}}, InputSize(to="longest", width=384, height=384, filter="bilinear")),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}, shorter(256, 224)),
        (
            {"size": {"shortest_edge": 384}, "crop_pct": 0.875},
            InputSize(to="stretch", width=384, height=384, filter="bilinear"),
        ),
        ({"do_resize": True, "size_divisor": 32}, InputSize(to="multiple", width=32, height=32, filter="bilinear")),
        ({**PVT, "do_resize": False}, None),
        ({"image_mean": [0.5] * 3}, None),
    ],
)
def test_transformers_preprocessor(raw, expected):
    assert read_size_advice({"model_type": "pvt_v2"}, raw).resize == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, shorter(248, 224)),
        ({"crop_pct": None}, shorter(256, 224)),
        ({"test_input_size": [3, 288, 288], "test_crop_pct": 1.0}, shorter(288, 288)),
        ({"test_input_size": [3, 288, 288]}, shorter(320, 288)),
        ({"interpolation": "bilinear"}, shorter(248, 224, "bilinear")),
        ({"crop_mode": "squash"}, InputSize(to="stretch", width=248, height=248, crop=(224, 224))),
        (
            {"crop_mode": "squash", "input_size": [3, 180, 90]},
            InputSize(to="stretch", width=100, height=200, crop=(90, 180)),
        ),
    ],
)
def test_timms_configuration(changes, expected):
    advice = read_size_advice({"architecture": "pvt_v2_b0", "pretrained_cfg": {**TIMM, **changes}}, None)
    assert (advice.resize, advice.problem) == (expected, None)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"size": {"shortest_edge": 800, "longest_edge": 1333}}, "'longest_edge': 1333"),
        ({"size": {"max_height": 800, "max_width": 800}}, "max_height"),
        ({"size": "large"}, "'large'"),
        ({"size": 0}, "0 is no side"),
        ({"size": True}, "True is no side"),
        ({"size": 224, "resample": 9}, "the filter 9"),
        ({"size": 224, "resample": "bicubically"}, "bicubically"),
        ({"size": 224, "do_pad": True}, "do_pad True"),
        ({"size": 224, "do_center_crop": True, "crop_size": 256}, "256x256 px is larger"),
        ({"size": {"shortest_edge": 224}, "crop_pct": 7}, "crop_pct 7"),
    ],
)
def test_a_form_that_is_not_understood_is_told_with_its_text(raw, text):
    advice = read_size_advice(None, raw)
    assert advice.resize is None
    assert str(advice.problem).startswith("preprocessor_config.json: ")
    assert text in str(advice.problem)


@pytest.mark.parametrize(
    "changes", [{"crop_mode": "border"}, {"input_size": [3, 224, 288]}, {"interpolation": "random"}]
)
def test_what_timm_pads_or_draws_is_not_followed(changes):
    advice = read_size_advice({"architecture": "pvt_v2_b0", "pretrained_cfg": {**TIMM, **changes}}, None)
    assert advice.resize is None
    assert str(advice.problem).startswith("timm's pretrained_cfg: ")


def test_the_preprocessor_comes_before_the_configuration_and_both_are_told():
    advice = read_size_advice({"model_type": "pvt_v2", "image_size": 224}, {"size": {"height": 512, "width": 512}})
    assert (advice.source, advice.resize.width, advice.trained_px) == ("preprocessor_config.json", 512, 224)
    advice = read_size_advice({"model_type": "pvt_v2", "image_size": 288}, {"do_resize": False})
    assert (advice.source, advice.resize, advice.trained_px) == ("config.json's image_size", shorter(320, 288), 288)
    assert read_size_advice({"image_size": [224, 288]}, None).problem is not None


def test_a_square_takes_share_and_filter_from_the_checkpoint():
    advice = read_size_advice({"architecture": "pvt_v2_b0", "pretrained_cfg": {**TIMM, "crop_pct": 0.8}}, None)
    assert (advice.crop_share, advice.filter, advice.trained_px) == (0.8, "bicubic", 224)


@pytest.mark.parametrize("config", [None, {}, {"model_type": "pvt_v2"}, {"architecture": "pvt_v2_b0"}, {"architecture": "pvt_v2_b0", "pretrained_cfg": 3}])  # fmt: skip  # noqa: E501
def test_weights_that_say_nothing(config):
    assert read_size_advice(config, None) == SizeAdvice()
    assert read_size_advice(config, {"do_resize": False}) == SizeAdvice()


@pytest.mark.parametrize(
    ("stored", "expected"),
    [([32, 512], (32, 512)), ([32], None), ("32", None), ([0, 9], None), ([9, 10**400], None), ([512, 32], (32, 512))],
)
def test_a_range_of_sizes_in_training(stored, expected):
    advice = read_size_advice({"model_type": "pvt_v2", "trained_shorter_px": stored}, None)
    assert (advice.trained_range_px, advice.resize) == (expected, None)
