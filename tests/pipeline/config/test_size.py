"""`--size`: its forms, what they become, and what they are refused for."""

import logging

import pytest

from model.checkpoints.input_size import InputSize, SizeAdvice, read_size_advice
from pipeline.chunks.size_policy import Resize, SizePolicy, net_size
from pipeline.config.size import SizeRequest, parse_size, resolve_size
from pipeline.errors import ConfigError, WeightsError

SILENT = SizeAdvice()
PRETRAINED = {"input_size": [3, 224, 224], "crop_pct": 0.8, "interpolation": "bilinear"}
TIMM = read_size_advice({"architecture": "pvt_v2_b0", "pretrained_cfg": PRETRAINED}, None)


def resolved(text, advice=SILENT, sizes=SizePolicy()):  # noqa: B008
    return resolve_size(parse_size(text), sizes, advice, "/weights")


@pytest.mark.parametrize(
    ("text", "resize"),
    [
        ("native", None),
        ("shorter:224", Resize(to="shorter", width=224, height=224)),
        ("longer:384", Resize(to="longer", width=384, height=384)),
        ("square:224", Resize(to="shorter", width=248, height=248, crop=(224, 224))),
        ("square:288", Resize(to="shorter", width=320, height=320, crop=(288, 288))),
        ("stretch:224", Resize(to="stretch", width=224, height=224, filter="bilinear")),
    ],
)
def test_each_form_is_one_rule(text, resize):
    assert resolved(text) == SizePolicy(resize=resize)
    assert str(parse_size(text)) == text


def test_a_number_of_pixels_is_that_of_the_older_flags():
    assert resolved("pixels:50176", sizes=SizePolicy(large_images="downscale")) == SizePolicy(max_image_pixels=50176)


def test_a_square_crops_the_share_of_the_checkpoint_by_its_filter():
    expected = Resize(to="shorter", width=280, height=280, crop=(224, 224), filter="bilinear")
    assert resolved("square:224", TIMM).resize == expected
    assert resolved("checkpoint", TIMM).resize == expected
    assert resolved("shorter:224", TIMM).resize == Resize(to="shorter", width=224, height=224)


def test_the_published_protocol_is_a_square_of_224():
    for native in ((500, 375), (31, 64), (224, 9000)):
        assert net_size(*native, resolved("square:224")) == net_size(*native, SizePolicy(preprocess="imagenet"))


@pytest.mark.parametrize(
    "text",
    ["", "224", "shorter", "shorter:", "shorter:0", "shorter:31", "shorter:-5", "shorter:2٣", "square:8",
     "square:16385", "stretch:1e3", "pixels:10", "pixels:999999999999",
     "native:3", "checkpoint:224", "Shorter:224", "box:224"],
)  # fmt: skip
def test_a_value_that_cannot_work_is_refused_with_a_sentence(text):
    with pytest.raises(ConfigError, match="--size") as caught:
        parse_size(text)
    assert len(str(caught.value)) > 30


def test_what_a_checkpoint_does_not_say_or_says_in_a_way_that_is_not_known_is_refused():
    with pytest.raises(WeightsError, match=r"does not say which size its images had.*--size square:224"):
        resolved("checkpoint")
    problem = read_size_advice(None, {"size": {"max_height": 3}})
    with pytest.raises(WeightsError, match="max_height"):
        resolved("checkpoint", problem)
    tiny = SizeAdvice(resize=InputSize(to="stretch", width=16, height=16))
    with pytest.raises(WeightsError, match="not 16"):
        resolved("checkpoint", tiny)


def test_what_contradicts_itself_is_refused():
    with pytest.raises(ConfigError, match="--size square:224 and --preprocess imagenet"):
        resolved("square:224", sizes=SizePolicy(preprocess="imagenet"))
    with pytest.raises(ConfigError, match="4096x4096 px is more than 4194304 px; see --max-image-pixels"):
        resolved("square:4096")
    assert resolved("native", sizes=SizePolicy(preprocess="imagenet")).preprocess == "imagenet"


def test_the_log_has_the_numbers_and_where_they_stand(caplog):
    with caplog.at_level(logging.INFO):
        resolved("checkpoint", TIMM)
    assert "size=checkpoint" in caplog.text
    assert "timm's pretrained_cfg" in caplog.text
    assert SizeRequest() == parse_size("native")
