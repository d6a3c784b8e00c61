"""Real chunks in a real collector on a local disk, asked as the driver asks its actors; no Ray here."""

import threading
import time
from types import SimpleNamespace

import pytest

from model.network.config import VARIANTS
from pipeline.chunks.columns import CLASSIFY_COLUMNS, output_schema
from pipeline.flow.collectors import CollectorActor
from pipeline.publish.config import SinkConfig
from pipeline.run.ledger import Ledger
from pipeline.run.stopper import Ending
from pipeline.run.watch import NoProgress, Watch
from pipeline.store.store_path import StorePath
from pipeline.store.uris import canonical_uri
from pipeline.workers.activity import Holding, Note, describe

PUBLISHING = Holding("publish", "s3://b/x.tar", 0, 0)


class Collectors:
    """One collector, without an actor around it."""

    def __init__(self, actor):
        self.actor, self.seen, self.finished = actor, 0, False

    def poll(self, timeout_s):
        state = self.actor.answer(self.seen).state
        self.seen += len(state.receipts)
        return [state]

    def describe_activity(self):
        return describe(self.actor.notes(), [])

    def finish(self, timeout_s):
        self.actor.close()
        self.finished = True


@pytest.fixture
def actor(tmp_path):
    config = SinkConfig(
        output=StorePath(canonical_uri(str(tmp_path))), schema=output_schema(CLASSIFY_COLUMNS, ()),
        identity="i", run_id="r", network=VARIANTS["b0"],
    )  # fmt: skip
    actor = CollectorActor(config)
    actor.start_pass(1)
    return actor


@pytest.fixture
def watch(actor, monkeypatch):
    """(timeout, ...) -> a watch that polls quickly, the run's ledger, and the endings that it asked for."""
    monkeypatch.setattr("pipeline.run.watch._POLL_S", 0.02)

    def make(timeout_s=1000.0, **options):
        plan, ledger = SimpleNamespace(num_uncounted=0, num_images=8, num_bytes=600), Ledger(time.time())
        endings, seen = [], []
        stopper = SimpleNamespace(stop=endings.append)
        collectors = Collectors(actor)
        watch = Watch(plan, ledger, collectors, seen.append, stopper, timeout_s, **options)
        return watch, ledger, endings, seen, collectors

    return make


def wait_for(endings):
    deadline = time.monotonic() + 10
    while not endings and time.monotonic() < deadline:
        time.sleep(0.01)
    return endings


def test_time_without_progress_begins_anew_with_every_change():
    now = [0.0]
    patience = NoProgress(10.0, clock=lambda: now[0])
    told = []
    for second, marker in [(1, "a"), (9, "a"), (10, "b"), (19.9, "b"), (20, "b"), (25, "b"), (26, "a"), (35, "a")]:
        now[0] = second
        told.append(patience.since(marker))
    assert told == [None, None, None, None, 10.0, 15.0, None, None]


def test_rows_and_files_are_told_as_they_come_and_once_more_at_the_end(watch, actor, answered_chunk):
    watcher, ledger, endings, seen, _ = watch()
    with watcher:
        actor.take(answered_chunk(0, 3, slice_rows=3, failed=(1,)).to_table(), 1, PUBLISHING)
    last = seen[-1]
    assert (last.arrived.listed, last.arrived.failed, last.published.files, last.total, last.share) == (3, 1, 1, 8, 0.5)
    assert [receipt.footer.slice for receipt in ledger.receipts] == [0]
    assert ledger.first_row_at == last.first_row_at
    assert ledger.first_row_at <= time.time()
    assert endings == []


def test_a_pass_in_which_nothing_arrives_ends_and_says_who_holds_what(watch, actor):
    watcher, _, endings, _, _ = watch(timeout_s=0.2)
    actor.post(Note("a", 7, Holding("decode", "s3://b/x.tar", 3, 12288, 1800.0)))
    with watcher:
        (ending,) = wait_for(endings)
    assert ending.status == "stalled"
    assert "nothing arrived and no file was published for 0 s: decode holds slice 3 of" in ending.reason


def test_a_pass_in_which_nothing_arrives_may_be_given_up_before_it_is_ended(watch, caplog):
    again = Ending("stalled", "2 CPUs are left", is_pass_only=True)
    answers = [None, again]
    watcher, _, endings, _, _ = watch(timeout_s=60.0, stop_if_quiet=(lambda: answers.pop(0),))
    watcher._quiet = NoProgress(0.1)
    with watcher:
        assert wait_for(endings) == [again]
    assert answers == []
    assert "pass.given_up reason=2 CPUs are left; what it had not published is begun again" in caplog.text


def test_a_chunk_that_arrives_is_progress_and_so_is_one_that_arrives_again(watch, actor, answered_chunk):
    watcher, _, _, _, _ = watch(timeout_s=1e-9)

    def look():
        watcher._poll(1.0)
        return watcher._why_end()

    assert look() is None
    assert look().status == "stalled"
    for chunk in (answered_chunk(0, 1), answered_chunk(0, 1), answered_chunk(1, 1, slice_rows=2)):
        actor.take(chunk.to_table(), 1, PUBLISHING)
        assert look() is None
        assert look().status == "stalled"


def test_a_put_that_hangs_is_named_while_it_hangs(watch, actor, answered_chunk, monkeypatch):
    released = threading.Event()
    real_put = StorePath.put

    def hang(*arguments, **options):
        released.wait(30)
        return real_put(*arguments, **options)

    monkeypatch.setattr(StorePath, "put", hang)
    chunk = answered_chunk(0, 3, slice_rows=3).to_table()
    worker = threading.Thread(target=actor.take, args=(chunk, 1, Holding("publish", "s3://b/x.tar", 0, 0)))
    watcher, _, endings, _, _ = watch(timeout_s=0.2)
    worker.start()
    try:
        with watcher:
            (ending,) = wait_for(endings)
    finally:
        released.set()
        worker.join()
    assert "publish holds slice 0 of s3://b/x.tar from row 0" in ending.reason


def test_somebody_else_s_reason_ends_the_pass(watch):
    lost = Ending("failed", "the lease went to another run")
    asked = []
    watcher, _, endings, _, _ = watch(stop_if=[lambda: asked.append(1), lambda: lost])
    with watcher:
        assert wait_for(endings) == [lost]
    assert asked


def test_a_store_that_refuses_for_good_ends_the_pass_at_once(watch, actor, answered_chunk, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x-0123456789abcdef-00000.parquet").write_bytes(b"something else, long enough to have a tail")
    watcher, _, endings, _, _ = watch()
    with watcher:
        actor.take(answered_chunk(0, 2, slice_rows=2).to_table(), 1, PUBLISHING)
        (ending,) = wait_for(endings)
    assert ending.status == "failed"
    assert "is none" in ending.reason


def test_an_interrupted_pass_drops_what_is_unfinished_and_tells_what_was_published(watch, actor, answered_chunk):
    watcher, ledger, _, _, collectors = watch()
    with pytest.raises(KeyboardInterrupt), watcher:
        actor.take(answered_chunk(0, 2, slice_rows=2).to_table(), 1, PUBLISHING)
        raise KeyboardInterrupt
    assert collectors.finished
    assert len(ledger.receipts) == 1
    actor.take(answered_chunk(9, 1, slice_number=1, slice_first_row=9, slice_rows=1).to_table(), 1, PUBLISHING)
    assert len(actor.answer(0).state.receipts) == 1
