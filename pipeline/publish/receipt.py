"""The sums of a published slice: for its footer, and for the receipt that goes to the driver."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.account.breakdown import Breakdown, breakdown_of
from pipeline.account.totals import Totals
from pipeline.chunks.bugs import bug_in
from pipeline.chunks.chunk import Chunk
from pipeline.chunks.measures import Span, counts_of, process_number, seconds_of, spans_of
from pipeline.chunks.passed_over import add_up
from pipeline.output.footer import Footer

BUSY_STEPS = ("read", "decode", "compute", "rows")
"""Steps before the write; the seconds of these steps show which shards are slow."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The report of a collector on one published slice.

    Attributes:
        file: Name of the file below `data/`.
        etag: ETag of the file.
        footer: Footer of the file.
        put_s: Seconds that the PUT took.
        bytes_out: Size of the file in bytes.
        breakdown: Breakdown of the rows that this run made.
        work: Spans of the work on these rows, each with its numbers of images, pixels and multiply-accumulates.
    """

    file: str
    etag: str
    footer: Footer
    put_s: float
    bytes_out: int = 0
    breakdown: Breakdown = field(default_factory=Breakdown)
    work: Sequence[tuple[Span, int, int, int]] = ()

    def bare(self) -> "Receipt":
        """Returns the receipt without the parts that the driver needs only once."""
        return replace(self, breakdown=Breakdown(), work=())


def slice_totals(rows: pa.Table, chunks: Sequence[Chunk]) -> Totals:
    """Returns the totals of the rows of some chunks, with the seconds and counts that were measured for the chunks."""
    measured = [chunk.measured for chunk in chunks]
    ignored = sum(chunk.header.ignored for chunk in chunks)
    totals = count_rows(rows, _sum(rows, "macs"), ignored, seconds_of(measured))
    passed_over = add_up(chunk.header.passed_over for chunk in chunks)
    return replace(totals, passed_over=passed_over, counts={**counts_of(measured), "chunks": len(chunks)})


def receipt_of(
    name: str, etag: str, footer: Footer, put_began: float, bytes_out: int, chunks: Sequence[Chunk]
) -> Receipt:
    """Returns the receipt of a file that has just been written."""
    put_s = time.perf_counter() - put_began
    own = footer.own or footer.totals
    work: list[tuple[Span, int, int, int]] = []
    for chunk in chunks:
        totals = count_rows(chunk.rows, _sum(chunk.rows, "macs"), 0, {})
        work += [(span, totals.listed, totals.pixels, totals.macs) for span in spans_of(chunk.measured)]
    write_s = put_s + own.seconds.get("serialise", 0.0)
    work.append((Span("write", process_number(), time.time(), write_s), own.listed, own.pixels, own.macs))
    seconds = own.seconds
    breakdown = breakdown_of(
        pa.concat_tables([chunk.rows for chunk in chunks]),
        compute_s=seconds.get("compute", 0.0),
        busy_s=write_s + sum(seconds.get(step, 0.0) for step in BUSY_STEPS),
        peak_gflops=max((chunk.measured["peak_gflops"] for chunk in chunks), default=0.0),
    )
    return Receipt(name, etag, footer, put_s, bytes_out, breakdown, work)


def num_ok(rows: pa.Table) -> int:
    """Returns the number of rows that are not failed records."""
    return pc.sum(pc.equal(rows.column("status"), "ok")).as_py() or 0


def count_rows(rows: pa.Table, macs: int, ignored: int, seconds: Mapping[str, float]) -> Totals:
    """Returns the totals of the rows of one output file, including the given `macs`, `ignored` and `seconds`."""
    ok = num_ok(rows)
    codes = Counter(code for code in rows.column("error_code").to_pylist() if code is not None)
    bugs = Counter(bug for message in rows.column("error_message").to_pylist() if (bug := bug_in(message)) is not None)
    sizes = rows.select(["status", "net_width", "net_height"])
    seen = sizes.filter(pc.equal(sizes.column("status"), "ok"))
    pixels = pc.sum(pc.multiply(seen.column("net_width").cast(pa.int64()), seen.column("net_height").cast(pa.int64())))
    return Totals(
        listed=rows.num_rows,
        ok=ok,
        failed=rows.num_rows - ok,
        failed_by_code=dict(sorted(codes.items())),
        failed_by_bug=dict(sorted(bugs.items())),
        ignored=ignored,
        bytes=_sum(rows, "encoded_bytes"),
        pixels=pixels.as_py() or 0,
        macs=macs,
        files=1,
        seconds=seconds,
    )


def _sum(rows: pa.Table, name: str) -> int:
    return pc.sum(rows.column(name)).as_py() or 0
