import subprocess
import sys
import threading
import time

import pytest

from pipeline.workers import activity
from pipeline.workers.activity import Board, Holding, Note, Reporter, at_work, describe
from tests.support.waiting import eventually

FIRST, SECOND, THIRD = (Holding("decode", "s3://b/x.tar", number, 100 * number) for number in range(3))


def note(step="decode", held_s=0.0, host="a", pid=1, slice_number=3):
    return Note(host, pid, Holding(step, "s3://b/x.tar", slice_number, 12288, held_s))


def slices_of(notes):
    return [note.holding and note.holding.slice for note in notes]


def test_work_that_begins_is_reported_at_once():
    notes = []
    Reporter(every_s=1000.0).change(FIRST, notes.append)
    assert slices_of(notes) == [0]


def test_a_quick_process_sends_few_notes_and_the_last_one_is_of_its_last_work():
    notes = []
    reporter = Reporter(every_s=0.3)
    for _ in range(500):
        reporter.change(FIRST, notes.append)
        reporter.change(None, notes.append)
    assert len(notes) <= 5
    reporter.change(SECOND, notes.append)
    eventually(lambda: slices_of(notes)[-1] == 1)
    assert slices_of(notes)[-1] == 1
    # The work began before the note was sent.
    assert notes[-1].holding.held_s > 0


def test_a_process_that_becomes_idle_reports_it_a_little_later():
    notes = []
    reporter = Reporter(every_s=0.1)
    reporter.change(FIRST, notes.append)
    reporter.change(None, notes.append)
    assert slices_of(notes) == [0]
    eventually(lambda: len(notes) == 2)
    assert slices_of(notes) == [0, None]
    time.sleep(0.3)
    assert len(notes) == 2


def test_a_process_is_idle_after_a_block_that_raised(monkeypatch):
    notes = []
    # Another test of this process may have left a note to be sent later.
    monkeypatch.setattr(activity, "_REPORTER", Reporter())
    with pytest.raises(ValueError, match="bad"), at_work(notes.append, "read", "s3://b/x.tar", None, 7):
        raise ValueError("bad")
    eventually(lambda: notes and notes[-1].holding is None)
    assert notes[-1].holding is None


def test_a_process_may_end_before_its_next_note():
    code = (
        "from pipeline.workers.activity import *\nreporter = Reporter(1000.0)\n"
        "for _ in range(3): reporter.change(Holding('read', 's', None, 0), print)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20, capture_output=True).returncode == 0


def test_a_board_knows_the_last_of_each_process_and_for_how_long():
    board = Board()
    board.post(note(held_s=60.0, pid=1))
    board.post(note(pid=2))
    board.post(note(pid=2, slice_number=4))
    board.post(note(pid=1, host="b"))
    board.post(Note("b", 1, None))
    found = {(each.host, each.pid): each.holding for each in board.notes()}
    assert {key: holding.slice for key, holding in found.items()} == {("a", 1): 3, ("a", 2): 4}
    assert 60 <= found["a", 1].held_s < 70
    assert 0 <= found["a", 2].held_s < 10
    board.clear()
    assert board.notes() == []


def test_a_board_is_asked_while_others_write_on_it():
    board = Board()

    def write(pid):
        for _ in range(300):
            board.post(note(pid=pid))
            board.post(Note("a", pid, None))

    writers = [threading.Thread(target=write, args=(pid,)) for pid in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert len(board.notes()) <= 4
    assert board.notes() == []


def test_the_sentence_names_what_was_held_longest_first():
    text = describe([note("decode", 12), note("publish", 1805, "b", 7), note("read", 40, slice_number=None)], [])
    assert text == (
        "publish holds slice 3 of s3://b/x.tar from row 12288 for 1805 s (host b, pid 7); "
        "read holds s3://b/x.tar from row 12288 for 40 s (host a, pid 1); "
        "decode holds slice 3 of s3://b/x.tar from row 12288 for 12 s (host a, pid 1)"
    )


def test_the_sentence_stays_one_on_a_large_cluster_and_says_who_is_silent():
    text = describe([note("infer", 1000 - pid, pid=pid) for pid in range(100)], ["collector 2"])
    assert text.startswith("collector 2 does not answer; infer holds slice 3 of s3://b/x.tar from row 12288 for 1000 s")
    assert text.endswith("pid 5); and 94 more")


def test_where_nobody_works_the_sentence_says_what_that_means():
    assert "Ray gives out no tasks" in describe([], [])


def test_a_store_that_stays_full_is_named_beside_what_is_held_and_in_place_of_busy_processors():
    full = (
        "Ray's object store is 94% full, and if it cannot be spilled, no step can hand on what it has made; "
        "is the disk that Ray spills to full or gone?"
    )
    held = "decode holds slice 3 of s3://b/x.tar from row 12288 for 12 s (host a, pid 1)"
    assert describe([note("decode", 12)], [], 0.94) == f"{held}; {full}"
    assert describe([], [], 0.94) == full
    # Below this Ray does not spill either.
    assert describe([note("decode", 12)], [], 0.8) == held
