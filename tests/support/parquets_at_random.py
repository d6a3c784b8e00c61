"""Hypothesis strategies for Parquet files of images with odd cells in the columns beside the images."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

RAW = st.one_of(st.none(), st.binary(max_size=6))
BIG = st.one_of(st.none(), st.integers(-(2**63) + 1, 2**63 - 1))
SHORT = st.binary(max_size=20)
SMALL = st.one_of(st.none(), st.integers(-(2**31) + 1, 2**31 - 1))


def as_strings(kind):
    """Returns a function that makes strings of any bytes, which need be no UTF-8."""

    def make(values):
        raw = pa.array(values, pa.binary() if kind == pa.string() else pa.large_binary())
        return pa.Array.from_buffers(kind, len(raw), raw.buffers())

    return make


def as_view(kind, width):
    """Returns a function that makes values of a type from whole numbers of a width in bits."""
    return lambda values: pa.array(values, pa.int64() if width == 64 else pa.int32()).view(kind)


def in_lists(make):
    """Returns a function that makes lists of one value each."""
    return lambda values: pa.ListArray.from_arrays(list(range(len(values) + 1)), make(values))


KINDS = [
    (RAW, as_strings(pa.string())),
    (RAW, as_strings(pa.large_string())),
    (RAW, lambda values: as_strings(pa.string())(values).dictionary_encode()),
    (RAW, in_lists(as_strings(pa.string()))),
    (RAW, lambda values: pa.StructArray.from_arrays([as_strings(pa.string())(values)] * 2, ["a", "a"])),
    *[(BIG, as_view(pa.timestamp(unit, zone), 64)) for unit in ("ms", "us", "ns") for zone in (None, "UTC", "No/Zone")],
    *[(BIG, as_view(pa.duration(unit), 64)) for unit in ("s", "ms", "us", "ns")],
    *[(BIG, as_view(pa.time64(unit), 64)) for unit in ("us", "ns")],
    (SMALL, as_view(pa.date32(), 32)),
    (SMALL, as_view(pa.time32("ms"), 32)),
    (st.floats(width=64), lambda values: pa.array(values, pa.float64())),
    (st.booleans(), pa.array),
]


@st.composite
def parquet_files(
    draw: Any, max_rows: int = 40, contents: st.SearchStrategy[bytes] = SHORT
) -> tuple[list[bytes | None], bytes]:
    """(the images of a file, the file's bytes)."""
    rows = draw(st.integers(0, max_rows))
    images = draw(st.lists(st.one_of(st.none(), contents), min_size=rows, max_size=rows))
    names, columns = ["image"], [pa.array(images, pa.binary())]
    if draw(st.booleans()):
        paths = as_strings(pa.string())(draw(st.lists(RAW, min_size=rows, max_size=rows)))
        columns = [pa.StructArray.from_arrays([columns[0], paths], ["bytes", "path"])]
    for _ in range(draw(st.integers(0, 4))):
        values, make = draw(st.sampled_from(KINDS))
        names.append(draw(st.sampled_from(["label", "Label", "category", "x", "y", "image"])))
        columns.append(make(draw(st.lists(values, min_size=rows, max_size=rows))))
    order = draw(st.permutations(range(len(columns)))) if names.count("image") == 1 else range(len(columns))
    table = pa.Table.from_arrays([columns[at] for at in order], [names[at] for at in order])
    buffer = io.BytesIO()
    options = {"compression": "none", "write_page_checksum": True, "use_dictionary": draw(st.booleans())}
    pq.write_table(table, buffer, row_group_size=draw(st.integers(1, 50)), **options)
    return images, buffer.getvalue()
