import pyarrow as pa
import pytest

from pipeline.account.breakdown import SCORE_BINS, SIZE_BANDS_PX, Breakdown, breakdown_of

ROW = {
    "image_id": "i", "key": "i", "shard": "s", "status": "ok", "error_code": None, "error_message": None,
    "net_width": 100, "net_height": 100, "macs": 10, "label": "cat", "score": 0.5,
}  # fmt: skip
FAILED = {**ROW, "status": "failed", "net_width": None, "net_height": None, "macs": 0, "label": None, "score": None}
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("image_id", "key", "shard", "status")),
        *(pa.field(name, pa.string()) for name in ("error_code", "error_message")),
        *(pa.field(name, pa.int32()) for name in ("net_width", "net_height")),
        pa.field("macs", pa.int64()), pa.field("label", pa.string()), pa.field("score", pa.float32()),
    ]
)  # fmt: skip


def breakdown(*rows, shard="s", compute_s=1.0, busy_s=2.0):
    table = pa.Table.from_pylist([{**row, "shard": shard} for row in rows], schema=SCHEMA)
    return breakdown_of(table, compute_s, busy_s, 5.0)


def test_images_are_counted_by_size_and_the_networks_time_goes_by_work():
    found = breakdown(ROW, {**ROW, "net_width": 1000, "net_height": 1000, "macs": 90}, compute_s=2.0)
    bands = dict(zip(SIZE_BANDS_PX, found.bands, strict=True))
    assert (bands[64].images, bands[64].pixels, bands[64].macs) == (1, 10_000, 10)
    assert (bands[512].images, bands[512].pixels, bands[512].macs) == (1, 1_000_000, 90)
    assert (bands[64].compute_s, bands[512].compute_s) == pytest.approx((0.2, 1.8))


@pytest.mark.parametrize(("side", "band"), [(32, 0), (63, 0), (64, 64), (127, 64), (2048, 2048), (9000, 2048)])
def test_a_band_begins_with_its_lower_bound(side, band):
    found = breakdown({**ROW, "net_width": side, "net_height": side})
    assert dict(zip(SIZE_BANDS_PX, found.bands, strict=True))[band].images == 1


def test_labels_scores_and_failures_add_up():
    broken = {**FAILED, "error_code": "decode.corrupt", "error_message": "broken"}
    parts = [
        breakdown(ROW, broken),
        breakdown({**ROW, "label": "dog", "score": 1.0}, ROW, *[{**broken, "image_id": f"{i}"} for i in range(9)]),
        breakdown({**ROW, "label": None, "score": 0.25}),
        # Of an earlier version, in a slice that was written again.
        breakdown({**ROW, "label": "cow", "score": float("nan")}),
    ]
    found = sum(parts, Breakdown())
    assert found.labels == {"cat": 2, "dog": 1, None: 1}
    assert (sum(found.scores), found.scores[SCORE_BINS // 2], found.scores[-1]) == (4, 2, 1)
    assert found.examples == {"decode.corrupt": (("i", "broken"), ("0", "broken"), ("1", "broken"))}
    assert found.peak_gflops == 5.0


def test_the_slowest_shards_are_named_and_others_let_go():
    parts = [breakdown(ROW, shard=f"{i}.tar", busy_s=float(i)) for i in range(100)]
    found = sum([*parts, breakdown(ROW, shard="99.tar", busy_s=1.0)], Breakdown())
    assert found.shards["99.tar"] == (100.0, 2)
    assert sorted(int(shard.removesuffix(".tar")) for shard in found.shards) == list(range(80, 100))


def test_a_slice_without_rows_has_an_empty_breakdown():
    assert breakdown() == Breakdown(scores=[0] * SCORE_BINS, peak_gflops=5.0, bands=list(Breakdown().bands))


def test_images_of_formats_that_are_not_decoded_are_counted_by_ending():
    refused = {**FAILED, "error_code": "decode.unsupported", "error_message": "HEIC is not decoded"}
    rows = [{**refused, "key": key} for key in ("a.heic", "d/b.HEIC", "c.jxl", "7", None)]
    corrupt = {**FAILED, "error_code": "decode.corrupt", "key": "d.heic"}
    parts = [breakdown(*rows, corrupt, {**ROW, "key": "e.heic"}), breakdown(*rows)]
    assert sum(parts, Breakdown()).unsupported == {".heic": 4, ".jxl": 2, "(none)": 2}
