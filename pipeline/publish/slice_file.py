"""The bytes of one output file: rows as Parquet, with the footer."""

import secrets
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.network.config import PVTv2Config
from model.network.cost import count_macs
from pipeline.account.totals import Totals
from pipeline.chunks.chunk import Header
from pipeline.chunks.columns import AT_SIZES
from pipeline.inputs.formats import FILES_SCHEME
from pipeline.inputs.ids import loose_uri
from pipeline.output.footer import Footer
from pipeline.output.layout import version_of
from pipeline.output.published import FOOTER_KEY
from pipeline.publish.config import SinkConfig
from pipeline.publish.spill import in_memory, on_disk_if_it_can

# Row groups have about this size: Arrow needs seven times the memory of a float16 column to write it.
_ROW_GROUP_BYTES = 16 * 2**20
# Files whose rows take more than this are made on the disk.
_MEMORY_BYTES = 64 * 2**20


def macs_of(rows: pa.Table, network: PVTv2Config) -> int:
    """Returns the number of multiply-accumulates of the network for all rows together."""
    return sum(macs_by_row(rows, network))


def macs_by_row(rows: pa.Table, network: PVTv2Config) -> list[int]:
    """Returns the number of multiply-accumulates of the network for each row; 0 for a failed row.

    A row with answers at several sizes has the sum over the sizes.
    """
    names = ("status", "net_height", "net_width")
    if AT_SIZES not in rows.column_names:
        return [_macs(row, network) for row in rows.select(names).to_pylist()]
    # The logits stay in Arrow's memory.
    answers = rows.column(AT_SIZES).combine_chunks().flatten()
    columns = pa.table({name: answers.field(name) for name in names}).to_pylist()
    num_sizes = len(columns) // max(1, rows.num_rows)
    macs = [_macs(answer, network) for answer in columns]
    return [sum(macs[first : first + num_sizes]) for first in range(0, rows.num_rows * num_sizes, num_sizes or 1)]


def _macs(row: dict[str, Any], network: PVTv2Config) -> int:
    return count_macs(network, row["net_height"], row["net_width"]) if row["status"] == "ok" else 0


def serialise(
    rows: pa.Table, totals: Totals, own: Totals | None, last: Header, attempt: str, config: SinkConfig
) -> tuple[Footer, memoryview]:
    """Returns the footer and the bytes of an output file."""
    assert last.slice_last_row is not None
    started = time.perf_counter()
    is_group = last.shard.startswith(FILES_SCHEME)
    columns = rows.select(config.schema.names).cast(config.schema)
    version = last.source_etag
    if is_group:
        ids, etags = columns.column("image_id").to_pylist(), columns.column("source_etag").to_pylist()
        version = version_of(zip(map(loose_uri, ids), etags, strict=True))
    last_row = last.slice_last_row
    made: list[Footer] = []

    def write(sink: Any) -> None:
        with _writer(sink, config.schema) as writer:
            writer.write_table(columns, max(1, columns.num_rows * _ROW_GROUP_BYTES // max(1, columns.nbytes)))
            spent = Totals(seconds={"serialise": time.perf_counter() - started})
            footer = Footer(
                shard=last.shard,
                hash16=last.hash16,
                slice=last.slice,
                end=last.end,
                source_etag=version,
                first_row=last.slice_first_row,
                last_row=last_row,
                identity=config.identity,
                run_id=config.run_id,
                attempt=attempt,
                nonce=secrets.token_hex(8),
                totals=totals + spent,
                pruned=last.pruned,
                own=None if own is None else own + spent,
            )
            writer.add_key_value_metadata({FOOTER_KEY.decode(): footer.to_json()})
            made.append(footer)

    body = on_disk_if_it_can(write) if columns.nbytes > _MEMORY_BYTES else in_memory(write)
    return made[-1], _bytes(body)


def empty_parquet(footer: Footer, schema: pa.Schema) -> memoryview:
    """Returns the bytes of an output file without rows."""

    def write(sink: Any) -> None:
        with _writer(sink, schema) as writer:
            writer.write_table(schema.empty_table())
            writer.add_key_value_metadata({FOOTER_KEY.decode(): footer.to_json()})

    return _bytes(in_memory(write))


def _writer(sink: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """Returns a writer for the rows of a job.

    Columns of features get no dictionary and no statistics, which are useful for labels only.
    """
    flat: list[str] | bool = [field.name for field in schema if not pa.types.is_nested(field.type)]
    if "embedding" not in schema.names:
        flat = True
    return pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=flat, write_statistics=flat)


def _bytes(body: pa.Buffer) -> memoryview:
    """Returns a view of the buffer as unsigned bytes; Arrow's own view has signed bytes, which compare unequal."""
    return memoryview(body).cast("B")
