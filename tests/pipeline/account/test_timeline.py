import io

import pyarrow.parquet as pq
import pytest

from pipeline.account.timeline import FIRST_WIDTH_S, MOST_PROCESSES, NUM_BUCKETS, SCHEMA, Timeline
from pipeline.chunks.measures import Span

WORK = ("busy_s", "images", "pixels", "macs")


def totals(timeline, step):
    rows = [row for row in timeline.rows() if row["step"] == step]
    return [sum(row[name] for row in rows) for name in WORK]


def test_work_is_spread_over_the_time_that_it_took():
    timeline = Timeline(started_at=1000.0)
    timeline.add(Span("compute", 1.0, ended=1000.0 + 4 * FIRST_WIDTH_S, seconds=2 * FIRST_WIDTH_S), 8, 80, 800)
    rows = list(timeline.rows())
    assert [(row["begins_at"].timestamp(), row["images"], row["busy_s"]) for row in rows] == [
        (1000.0 + 2 * FIRST_WIDTH_S, 4.0, FIRST_WIDTH_S),
        (1000.0 + 3 * FIRST_WIDTH_S, 4.0, FIRST_WIDTH_S),
    ]


def test_nothing_is_lost_however_long_a_run_goes_on_and_the_table_does_not_grow():
    timeline = Timeline(started_at=0.0)
    for hour in range(100):
        timeline.add(Span("compute", hour % 3, ended=hour * 3600.0 + 7, seconds=9.0), 5, 50, 500)
    assert totals(timeline, "compute") == pytest.approx([900.0, 500.0, 5000.0, 50_000.0])
    assert len(list(timeline.rows())) <= 3 * NUM_BUCKETS
    assert timeline.width_s * NUM_BUCKETS > 99 * 3600


def test_a_cluster_of_many_processes_is_told_by_machine():
    timeline = Timeline(started_at=0.0)
    for pid in range(1, 2000):
        timeline.add(Span("decode", float((7 << 22) | pid), ended=1.0, seconds=0.1), 1, 2, 3)
    assert len(timeline.processes()) == MOST_PROCESSES + 1
    assert timeline.processes()["decode", "00007/0"][1] == pytest.approx(1999 - MOST_PROCESSES)
    assert totals(timeline, "decode")[1] == pytest.approx(1999)


def test_what_ends_before_the_start_by_another_machines_clock_counts_for_the_first_span():
    timeline = Timeline(started_at=1000.0)
    timeline.add(Span("read", 1.0, ended=990.0, seconds=3.0), 5, 50, 500)
    (row,) = timeline.rows()
    assert (row["begins_at"].timestamp(), row["busy_s"], row["images"]) == (1000.0, 3.0, 5.0)


def test_the_steady_part_leaves_out_a_slow_start_and_what_is_late():
    timeline = Timeline(started_at=0.0)
    timeline.add(Span("compute", 1.0, ended=10.0, seconds=10.0), 1, 1, 5)
    timeline.add(Span("compute", 1.0, ended=20.0, seconds=10.0), 100, 100, 90)
    timeline.add(Span("compute", 1.0, ended=30.0, seconds=10.0), 1, 1, 5)
    begin, end = timeline.between("compute", 0.1, 0.9)
    assert (begin, end) == pytest.approx((10 + 5 / 9, 20 - 5 / 9))
    inside = timeline.within("compute", begin, end)
    assert inside["macs"] == pytest.approx(80)
    assert inside["busy_s"] == pytest.approx(end - begin)


def test_without_multiply_accumulates_images_tell_when_the_steady_part_is():
    timeline = Timeline(started_at=0.0)
    timeline.add(Span("compute", 1.0, ended=10.0, seconds=10.0), 10, 0, 0)
    assert timeline.between("compute", 0.1, 0.9) == pytest.approx((1.0, 9.0))
    assert timeline.between("decode", 0.1, 0.9) is None


def test_a_parquet_file_has_every_span_step_and_process():
    timeline = Timeline(started_at=0.0)
    for step, process in (("read", 1.0), ("compute", 2.0), ("compute", 3.0)):
        timeline.add(Span(step, process, ended=FIRST_WIDTH_S / 2, seconds=0.1), 1, 2, 3)
    table = pq.read_table(io.BytesIO(timeline.to_parquet()))
    assert table.schema == SCHEMA
    assert table.column("process").to_pylist() == ["00000/2", "00000/3", "00000/1"]
    assert timeline.processes()["read", "00000/1"] == pytest.approx((0.1, 1.0))
    assert Timeline(0.0).to_parquet()
