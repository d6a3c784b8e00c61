"""The true labels of an output, and where they come from."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.evaluation.predictions import open_predictions
from pipeline.store.store_path import StorePath
from tests.support.shards import STORE

IDENTITY = {
    "job": "classify", "labels": ["cat", "dog"], "model": {"num_classes": 2}, "top_k": 1,
    "preprocess": {"policy": "native"}, "records": {"rules": 2},
}  # fmt: skip


@pytest.fixture
def output(tmp_path):
    place = StorePath(f"file://{tmp_path}", STORE)

    def write(identity, *files):
        place.join("_job.json").put(json.dumps(identity).encode())
        for number, rows in enumerate(files):
            table = pa.table(rows, pa.schema([("true_label", pa.string()), ("shard", pa.string())]))
            buffer = io.BytesIO()
            pq.write_table(table, buffer)
            place.join("data", f"{number}.parquet").put(buffer.getvalue())
        return open_predictions(place)

    return write


def test_true_labels_are_gathered_with_those_from_parquet_files_apart(output):
    first = {"true_label": ["0", None, "1"], "shard": ["s3://b/a.PARQUET", "s3://b/a.PARQUET", "files:0"]}
    second = {"true_label": ["0", "2"], "shard": ["s3://b/x.tar", "s3://b/x.tar"]}
    assert output(IDENTITY, first, second).true_labels() == ({"0", "1", "2"}, {"0"})


@pytest.mark.parametrize(("records", "expected"), [({"rules": 2}, False), ({"limit": None}, True), (None, True)])
def test_outputs_of_the_first_rules_hold_numbers_of_classes(output, records, expected):
    identity = {name: value for name, value in IDENTITY.items() if name != "records"}
    predictions = output(identity if records is None else {**identity, "records": records})
    assert predictions.has_class_numbers is expected


@pytest.mark.parametrize(
    ("resize", "name"),
    [
        (None, "native"),
        ({"to": "shorter", "width": 248, "height": 248, "crop": [224, 224]}, "square:224"),
        ({"to": "shorter", "width": 288, "height": 288, "crop": None}, "shorter:288"),
        ({"to": "stretch", "width": 512, "height": 256, "crop": None}, "stretch:512x256"),
    ],
)
def test_the_size_policy_has_the_name_of_its_flag(output, resize, name):
    sizes = {} if resize is None else {"resize": resize}
    assert output({**IDENTITY, "sizes": sizes}).policy == name
