import pyarrow as pa
import pytest

from pipeline.chunks.columns import BASE_COLUMNS, CLASSIFY_COLUMNS, output_schema, record_schema
from pipeline.errors import ConfigError

PROMISED = {
    "image_id": "string", "shard": "string", "key": "string", "row": "int64", "source_etag": "string",
    "status": "string", "error_code": "string", "error_message": "string", "encoded_bytes": "int64", "width": "int32",
    "height": "int32", "net_width": "int32", "net_height": "int32", "scale": "float", "true_label": "string",
}  # fmt: skip
CLASSIFY = {
    "label_id": "int32", "label": "string", "score": "float", "topk_ids": "list<item: int32>",
    "topk_scores": "list<item: float>",
}  # fmt: skip


def types_of(schema):
    return {field.name: str(field.type) for field in schema}


def test_a_file_has_the_promised_columns_then_the_kept_ones_then_the_jobs_own():
    schema = output_schema(CLASSIFY_COLUMNS, ("caption", "url"))
    assert list(types_of(schema).items()) == [
        *PROMISED.items(), ("caption", "string"), ("url", "string"), *CLASSIFY.items(),
    ]  # fmt: skip


def test_only_what_every_record_has_may_not_be_null():
    required = [field.name for field in output_schema(CLASSIFY_COLUMNS, ("caption",)) if not field.nullable]
    assert required == ["image_id", "shard", "row", "status"]


def test_a_record_on_its_way_has_the_base_columns_and_the_kept_ones():
    assert record_schema(()) == BASE_COLUMNS
    assert record_schema(("x",)) == pa.schema([*BASE_COLUMNS, pa.field("x", pa.string())])


@pytest.mark.parametrize("name", [*PROMISED, *CLASSIFY, "macs", "payload_offset", "payload_length"])
def test_a_kept_column_cannot_take_a_name_of_ours(name):
    with pytest.raises(ConfigError, match=f"--keep-columns {name}: a column of ours has that name already"):
        output_schema(CLASSIFY_COLUMNS, ("caption", name))


def test_every_name_that_is_taken_is_said():
    with pytest.raises(ConfigError, match="--keep-columns score,width: "):
        output_schema(CLASSIFY_COLUMNS, ("width", "caption", "score"))
