"""Replaces output files by empty files if the source of their rows has changed or is gone.

The name of an emptied file stays taken, so a late writer cannot create the file again. The empty file names a version
of the source, and only a slice of that version may replace the empty file.
"""

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from pipeline.errors import OutputError
from pipeline.output.published import PublishedFile
from pipeline.output.slice_chain import by_shard, chain_of
from pipeline.plan.plan_summary import Emptying
from pipeline.publish.publish import empty_file
from pipeline.run.ledger import Ledger
from pipeline.run.run import Run
from pipeline.run.step_settings import sink_config

logger = logging.getLogger(__name__)

_THREADS = 16


def empty_files(run: Run, ledger: Ledger, emptyings: Iterable[Emptying]) -> None:
    """Replaces some files of the output by empty files, and notes the empty files in the ledger.

    Raises:
        OutputError: another program changed one of the files after this run had listed the output.
    """
    todo = list(emptyings)
    config = sink_config(run)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="empty") as pool:
        receipts = list(pool.map(lambda entry: empty_file(entry.file, entry.awaits, config), todo))
    emptied = []
    for entry, receipt in zip(todo, receipts, strict=True):
        if receipt is None:
            raise OutputError(f"{entry.file.file} changed while this run wanted to empty it; start the command again")
        emptied.append(PublishedFile.of(receipt.file, receipt.etag, receipt.footer))
    ledger.take_files(emptied)
    if todo:
        logger.info("files.emptied files=%d", len(todo))


def empty_late_files(run: Run, ledger: Ledger) -> None:
    """Empties surplus files of complete shards: files that do not belong to the current slices of the shard.

    Such a file comes from another run that had lost the output to this run, but still published a slice.
    """
    files = by_shard(ledger.files.values())
    late: list[Emptying] = []
    for shard in run.plan.shards:
        there = [file for file in files.get(shard.hash16, []) if not file.emptied]
        current = [file for file in there if shard.etag is None or file.source_etag == shard.etag]
        chain = chain_of(current)
        if chain.complete:
            names = {file.file for file in chain.files}
            late += [Emptying(file, shard.etag) for file in there if file.file not in names]
    empty_files(run, ledger, late)
