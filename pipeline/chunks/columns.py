"""Columns of the output, and of the table of records that each chunk carries."""

from collections.abc import Sequence

import pyarrow as pa

from pipeline.errors import ConfigError

SCHEMA_VERSION = 1

# Columns of every job's output, in the order that they have in the files.
BASE_COLUMNS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("source_etag", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_code", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("encoded_bytes", pa.int64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("net_width", pa.int32()),
        pa.field("net_height", pa.int32()),
        pa.field("scale", pa.float32()),
        pa.field("true_label", pa.string()),
    ]
)

CLASSIFY_COLUMNS = pa.schema(
    [
        pa.field("label_id", pa.int32()),
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("topk_ids", pa.list_(pa.int32())),
        pa.field("topk_scores", pa.list_(pa.float32())),
    ]
)


AT_SIZES = "at_sizes"
"""Name of the column with the answers at several sizes."""

# The answer to one image at the size of one policy: the columns of a row of `CLASSIFY_COLUMNS`, and what differs from
# policy to policy in the base columns.
_AT_SIZE = pa.schema(
    [
        *(
            BASE_COLUMNS.field(name)
            for name in ("status", "error_code", "error_message", "net_width", "net_height", "scale")
        ),
        *CLASSIFY_COLUMNS,
        pa.field("compute_s", pa.float32()),
    ]
)


def at_sizes_field(num_classes: int) -> pa.Field:
    """Returns the column `at_sizes`: a list with the answer of each size policy.

    An answer has the columns of a classification, `logits` (`num_classes` values; null without an answer) and
    `compute_s`, the image's share of the seconds that its pack took in the network.
    """
    logits = pa.field("logits", pa.list_(pa.float32(), num_classes))
    return pa.field(AT_SIZES, pa.list_(pa.struct([*_AT_SIZE, logits])))


def embedding_field(num_channels: int, dtype: pa.DataType) -> pa.Field:
    """Returns the column `embedding`: the mean of the last map, `num_channels` values; null in failed rows."""
    return pa.field("embedding", pa.list_(dtype, num_channels))


def stage_field(stage: int, dtype: pa.DataType) -> pa.Field:
    """Returns a column `stage1` to `stage4`: a map's shape (channels, height, width), and its values in CHW order."""
    columns = [pa.field("shape", pa.list_(pa.int32(), 3)), pa.field("data", pa.large_list(dtype))]
    return pa.field(f"stage{stage}", pa.struct(columns))


# Offset and length of a record's bytes in the payload of its chunk. The infer step removes these columns.
PAYLOAD_COLUMNS = pa.schema([pa.field("payload_offset", pa.int64()), pa.field("payload_length", pa.int64())])

# Multiply-accumulates of a row. The collector adds the values up, and removes the column before a file is written.
COST_COLUMNS = pa.schema([pa.field("macs", pa.int64())])

# Thumbnails for the run's page: a few rows of each chunk have one if the job asks for thumbnails. The column is removed
# before a file is written.
SAMPLE_COLUMNS = pa.schema([pa.field("sample_jpeg", pa.binary())])


def record_schema(keep_columns: Sequence[str]) -> pa.Schema:
    """Returns the schema of a chunk's table of records: the base columns, then the kept source columns as text."""
    return pa.schema([*BASE_COLUMNS, *(pa.field(name, pa.string()) for name in keep_columns)])


def output_schema(job_columns: pa.Schema, keep_columns: Sequence[str]) -> pa.Schema:
    """Returns the schema of an output file: the base columns, the kept source columns, then the job's own columns.

    Raises:
        ConfigError: A kept column has the name of a column of the output or of a chunk.
    """
    ours = {*BASE_COLUMNS.names, *job_columns.names, *COST_COLUMNS.names, *PAYLOAD_COLUMNS.names, *SAMPLE_COLUMNS.names}
    if taken := sorted(ours.intersection(keep_columns)):
        raise ConfigError(
            f"--keep-columns {','.join(taken)}: a column of ours has that name already; "
            "leave it out, or rename it in the source"
        )
    return pa.schema([*record_schema(keep_columns), *job_columns])
