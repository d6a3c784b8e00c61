"""A chunk of encoded bytes becomes a chunk of pixels, record by record; only the child process is made to crash."""

import io
import signal
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline.chunks.chunk import Chunk, Header
from pipeline.chunks.columns import BASE_COLUMNS, PAYLOAD_COLUMNS, record_schema
from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.chunks.measures import NOTHING
from pipeline.chunks.size_policy import IMAGENET, Resize, SizePolicy
from pipeline.decode import decode_chunk as decode_step
from pipeline.decode.decode_chunk import decode_chunk, decode_chunk_at_sizes
from pipeline.decode.decode_image import DecodedImage, FailedImage, decode_at_sizes, decode_image
from pipeline.decode.thumbnail import with_thumbnails

POLICY = SizePolicy()
ODD_MODES = (("L", "PNG"), ("RGBA", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("I;16", "PNG"), ("1", "TIFF"))


@pytest.fixture
def read_chunk():
    """(encoded image or failure code, ...) -> a chunk as it leaves the read step, with one kept column."""

    def make(*records):
        rows, payload = [], b""
        for row, record in enumerate(records):
            data = record if isinstance(record, bytes) else b""
            failed = record if isinstance(record, str) else None
            rows.append(
                {
                    "image_id": f"s3://b/x.tar#{row}", "shard": "s3://b/x.tar", "key": str(row), "row": row,
                    "source_etag": "e", "status": "failed" if failed else "ok", "error_code": failed,
                    "error_message": "gone" if failed else None, "encoded_bytes": None if failed else len(data),
                    "true_label": "cat", "caption": f"caption {row}",
                    "payload_offset": len(payload), "payload_length": len(data),
                }
            )  # fmt: skip
            payload += data
        header = Header(
            shard="s3://b/x.tar", name="x", hash16="0123456789abcdef", source_etag="e", slice=0, first_row=0,
            num_rows=len(rows), slice_first_row=0, slice_rows=None, end=False, ignored=0,
        )  # fmt: skip
        schema = pa.schema([*record_schema(("caption",)), *PAYLOAD_COLUMNS])
        return Chunk(
            header=header, attempt="aaaaaaaa", pass_number=2, measured={**NOTHING, "read_s": 0.5},
            rows=pa.Table.from_pylist(rows, schema=schema), payload=pa.py_buffer(payload),
        )  # fmt: skip

    return make


def encode_as(mode, image_format):
    body = io.BytesIO()
    Image.linear_gradient("L").resize((60, 50)).convert(mode).save(body, image_format)
    return body.getvalue()


def images_of(chunk):
    """The pixels of each record by its own columns; None where it has none."""
    pixels = np.frombuffer(chunk.payload, np.uint8)
    images = []
    for row in chunk.rows.to_pylist():
        start, length = row["payload_offset"], row["payload_length"]
        shape = (row["net_height"], row["net_width"], 3)
        images.append(pixels[start : start + length].reshape(shape) if length else None)
    return images


def test_pixels_lie_one_image_after_the_other_without_padding(read_chunk, encode):
    data = [encode(40, 36, 1), encode(33, 50, 2), encode(64, 32, 3)]
    chunk = decode_chunk(read_chunk(*data), POLICY)
    lengths = [3 * 40 * 36, 3 * 33 * 50, 3 * 64 * 32]
    assert chunk.rows.column("payload_length").to_pylist() == lengths
    assert chunk.rows.column("payload_offset").to_pylist() == [0, lengths[0], lengths[0] + lengths[1]]
    assert chunk.payload.size == sum(lengths)
    for found, encoded in zip(images_of(chunk), data, strict=True):
        np.testing.assert_array_equal(found, decode_image(encoded, POLICY).pixels)


def test_a_decoded_chunk_says_what_it_said_before_and_what_was_found(read_chunk, encode):
    before = read_chunk(encode(40, 36))
    after = decode_chunk(before, POLICY)
    assert (after.header, after.attempt, after.pass_number) == (before.header, before.attempt, before.pass_number)
    assert after.measured["read_s"] == 0.5
    assert after.measured["decode_s"] > 0
    assert after.measured["compute_s"] == 0
    assert after.rows.schema == before.rows.schema
    assert after.rows.to_pylist() == [
        before.rows.to_pylist()[0]
        | {"width": 40, "height": 36, "net_width": 40, "net_height": 36, "scale": 1.0, "payload_length": 3 * 40 * 36}
    ]
    assert Chunk.from_table(after.to_table()).rows.equals(after.rows)


def test_what_cannot_be_decoded_fails_in_its_place_and_costs_no_other_its_pixels(read_chunk, encode):
    data = [b"", encode(40, 36, 1), b"no image", encode(33, 50, 2)[:-200], "source.missing", encode(36, 40, 3)]
    chunk = decode_chunk(read_chunk(*data), POLICY)
    rows = chunk.rows.to_pylist()
    assert [(row["status"], row["error_code"]) for row in rows] == [
        ("failed", "decode.empty"), ("ok", None), ("failed", "decode.unsupported"), ("failed", "decode.corrupt"),
        ("failed", "source.missing"), ("ok", None),
    ]  # fmt: skip
    assert [(row["width"], row["height"]) for row in rows] == [
        (None, None), (40, 36), (None, None), (33, 50), (None, None), (36, 40),
    ]  # fmt: skip
    for row in rows:
        assert (row["error_message"] is None) == (row["status"] == "ok")
        if row["status"] == "failed":
            assert (row["net_width"], row["net_height"], row["scale"], row["payload_length"]) == (None, None, None, 0)
    assert rows[4]["error_message"] == "gone"
    found = images_of(chunk)
    np.testing.assert_array_equal(found[1], decode_image(data[1], POLICY).pixels)
    np.testing.assert_array_equal(found[5], decode_image(data[5], POLICY).pixels)
    assert chunk.payload.size == 2 * 3 * 40 * 36


def test_pixels_that_are_more_than_a_chunk_mostly_has_are_all_there(read_chunk, encode, monkeypatch):
    data = [encode(40, 36, 1, "JPEG"), encode(33, 50, 2), encode(64, 32, 3, "JPEG"), encode(90, 90, 4, "JPEG")]
    expected = decode_chunk(read_chunk(*data), POLICY)
    for room in (0, 3 * 40 * 36, 3 * 40 * 36 + 1, 3 * (40 * 36 + 33 * 50 + 64 * 32)):
        monkeypatch.setattr(decode_step, "CHUNK_MAX_BYTES", room)
        chunk = decode_chunk(read_chunk(*data), POLICY)
        assert chunk.payload.equals(expected.payload)
        assert chunk.rows.equals(expected.rows)
    for found, encoded in zip(images_of(chunk), data, strict=True):
        np.testing.assert_array_equal(found, decode_image(encoded, POLICY).pixels)


@pytest.mark.parametrize("records", [(), (b"no image",), ("source.missing", "source.missing")])
def test_a_chunk_without_an_image_has_no_pixels(read_chunk, records):
    chunk = decode_chunk(read_chunk(*records), POLICY)
    assert chunk.payload.size == 0
    assert chunk.rows.num_rows == len(records)
    assert Chunk.from_table(chunk.to_table()).payload.size == 0


def test_sizes_are_changed_or_refused_as_the_policy_says(read_chunk, encode):
    data = [encode(64, 32), encode(20, 40), encode(100, 50)]
    limit = 64 * 32
    chunk = decode_chunk(read_chunk(*data), SizePolicy(max_image_pixels=limit))
    rows = chunk.rows.select(["width", "height", "net_width", "net_height", "scale"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (64, 32, 64, 32, 1.0),
        (20, 40, 32, 64, pytest.approx(1.6)),
        (100, 50, 64, 32, pytest.approx((limit / 5000) ** 0.5)),
    ]
    assert [image.shape for image in images_of(chunk)] == [(32, 64, 3), (64, 32, 3), (32, 64, 3)]

    policy = SizePolicy(max_image_pixels=limit, small_images="reject", large_images="reject")
    chunk = decode_chunk(read_chunk(*data), policy)
    assert chunk.rows.column("error_code").to_pylist() == [None, "image.too_small", "image.too_large"]
    assert chunk.rows.column("width").to_pylist() == [64, 20, 100]
    assert chunk.rows.column("net_width").to_pylist() == [64, None, None]


def test_columns_keep_their_types_where_every_value_is_missing(read_chunk):
    schema = decode_chunk(read_chunk(b"no image"), POLICY).rows.schema
    assert schema == pa.schema([*BASE_COLUMNS, pa.field("caption", pa.string()), *PAYLOAD_COLUMNS])


def test_careful_decoding_gives_the_same_chunk_and_thumbnails(read_chunk, encode):
    odd = [encode_as(mode, image_format) for mode, image_format in ODD_MODES]
    chunk = read_chunk(encode(40, 36, 1), b"no image", encode(20, 20, 2), "source.missing", encode(1, 300, 3), *odd)
    quick, careful = (with_thumbnails(decode_chunk(chunk, POLICY, careful=value), 99) for value in (False, True))
    made = [value is not None for value in quick.rows.column("sample_jpeg").to_pylist()]
    assert made == [True, False, True, False, *[True] * (1 + len(odd))]
    assert careful.rows.equals(quick.rows)
    assert careful.payload.equals(quick.payload)
    decode_step._isolated().close()


def test_an_image_that_crashes_careful_decoding_is_one_failed_row(read_chunk, encode, monkeypatch):
    class Crashing:
        """Stands for the child process, which `test_isolation` crashes for real."""

        def decode_at_sizes(self, data: bytes, policies: Sequence[SizePolicy]) -> list[DecodedImage | FailedImage]:
            if data == b"crash":
                message = f"decoding ended its process with status {-signal.SIGSEGV}"
                return [FailedImage(failure=Failure(ErrorCode.DECODE_CRASHED, message)) for _ in policies]
            return decode_at_sizes(data, policies)

    monkeypatch.setattr(decode_step, "_isolated", Crashing)
    data = [encode(40, 36, 1), b"crash", encode(36, 40, 2)]
    chunk = decode_chunk(read_chunk(*data), POLICY, careful=True)
    assert chunk.rows.column("error_code").to_pylist() == [None, "decode.crashed", None]
    np.testing.assert_array_equal(images_of(chunk)[2], decode_image(data[2], POLICY).pixels)


POLICIES = (
    SizePolicy(), SizePolicy(resize=IMAGENET), SizePolicy(max_image_pixels=1200),
    SizePolicy(max_image_pixels=1200, large_images="reject"),
)  # fmt: skip


@pytest.mark.parametrize("careful", [False, True])
def test_an_image_at_several_sizes_is_what_each_size_alone_gives(read_chunk, encode, careful):
    exif = Image.Exif()
    exif[274] = 6
    turned = io.BytesIO()
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (60, 90, 3), np.uint8)).save(turned, "JPEG", exif=exif)
    odd = [encode_as(mode, image_format) for mode, image_format in ODD_MODES]
    data = [encode(40, 36, 1), b"no image", turned.getvalue(), "source.missing", encode(20, 20, 2, "JPEG"), *odd]
    chunk = decode_chunk_at_sizes(read_chunk(*data), POLICIES, careful=careful)
    alone = [decode_chunk(read_chunk(*data), policy) for policy in POLICIES]
    assert chunk.rows.num_rows == len(POLICIES) * len(data)
    for index, policy in enumerate(POLICIES):
        rows = chunk.rows.take(list(range(index, chunk.rows.num_rows, len(POLICIES))))
        names = [name for name in rows.column_names if name != "payload_offset"]
        assert rows.select(names).equals(alone[index].rows.select(names)), policy
        for image, expected in zip(images_of(replace(chunk, rows=rows)), images_of(alone[index]), strict=True):
            np.testing.assert_array_equal(image, expected)
    if careful:
        decode_step._isolated().close()


def test_sizes_that_leave_an_image_as_it_is_have_pixels_of_their_own(read_chunk, encode):
    same = (SizePolicy(), SizePolicy(), SizePolicy(resize=Resize(to="longer", width=64, height=64)))
    data = encode(40, 36, 1, "JPEG")
    chunk = decode_chunk_at_sizes(read_chunk(data, data), same)
    expected = decode_image(data, SizePolicy()).pixels
    assert len(chunk.payload) == 6 * expected.nbytes
    for image in images_of(chunk):
        np.testing.assert_array_equal(image, expected)
