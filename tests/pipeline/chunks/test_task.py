"""The task of a job decides the columns, the size of a row, and the part of the network that is run."""

from dataclasses import replace

import pyarrow as pa
import pytest

from model.network.config import VARIANTS
from pipeline.chunks.size_policy import NetSize
from pipeline.chunks.task import Classify, ExtractFeatures
from pipeline.errors import ConfigError

B2 = VARIANTS["b2"]


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda: Classify(top_k=0), "--top-k"),
        (lambda: ExtractFeatures(stages=(0,)), "--stages must be some of 1,2,3,4, not 0"),
        (lambda: ExtractFeatures(stages=(1, 5)), "--stages"),
        (lambda: ExtractFeatures(dtype="bfloat16"), "--feature-dtype"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_its_flag(make, flag):
    with pytest.raises(ConfigError, match=flag):
        make()


def test_stages_are_taken_once_and_in_their_order():
    assert ExtractFeatures(stages=(4, 1, 4)) == ExtractFeatures(stages=(1, 4))


def test_a_label_file_is_named_by_its_uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Classify(labels="l.txt").labels == f"file://{tmp_path}/l.txt"


def test_features_have_the_networks_channels_and_the_dtype_that_was_asked_for():
    columns = ExtractFeatures(dtype="float16", stages=(2, 4)).columns(B2)
    assert columns.names == ["embedding", "stage2", "stage4"]
    assert columns.field("embedding").type == pa.list_(pa.float16(), 512)
    values = pa.large_list(pa.float16())
    assert columns.field("stage4").type == pa.struct([("shape", pa.list_(pa.int32(), 3)), ("data", values)])
    assert ExtractFeatures(dtype="float32").columns(B2).field("embedding").type == pa.list_(pa.float32(), 512)


def test_features_are_extracted_without_the_head():
    assert ExtractFeatures().network(B2) == replace(B2, num_classes=0)
    assert Classify().network(B2) == B2


def test_a_row_of_maps_is_predicted_from_the_size_that_the_network_will_see():
    """B2's four maps of a 500x375 photo are some 3 MB."""
    size = NetSize(width=500, height=375)
    sides = ((94, 125, 64), (47, 63, 128), (24, 32, 320), (12, 16, 512))
    values = 512 + sum(height * width * channels for height, width, channels in sides)
    assert ExtractFeatures(stages=(1, 2, 3, 4)).row_bytes(B2, size) == 256 + 2 * values
    assert ExtractFeatures(stages=(4,), dtype="float32").row_bytes(B2, size) == 256 + 4 * (512 + 12 * 16 * 512)
    assert ExtractFeatures(stages=(1,)).row_bytes(B2, None) == 256 + 2 * 512
    assert Classify(top_k=5).row_bytes(B2, size) == Classify(top_k=5).row_bytes(B2, None) == 256 + 60


def test_every_setting_of_the_features_is_part_of_the_identity():
    changes = [{"dtype": "float32"}, {"l2_normalize": True}, {"stages": (1,)}]
    identities = [str(ExtractFeatures(**change).identity(None)) for change in ({}, *changes)]
    assert len(set(identities)) == 4
    assert ExtractFeatures().identity(None)["job"] == "extract_features"
    assert Classify().identity(("a", "b")) != Classify().identity(("a", "c"))
