"""Finds the work that a run still has to do: the planned shards without the slices that are published already."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa

from pipeline.config.identity import identity_digest
from pipeline.output.published import PublishedFile, published_files
from pipeline.output.slice_chain import by_shard, chain_of
from pipeline.plan.plan import Plan
from pipeline.plan.planned_shard import PlannedShard, to_table
from pipeline.publish.receipt import Receipt
from pipeline.run.ledger import Ledger
from pipeline.run.run import Run

# Largest number of shards, and of loose files in these shards, in one execution of the flow. A longer plan runs in
# several executions, so that Ray's records of its tasks do not grow with the input.
_WAVE_SHARDS = 100_000
_WAVE_MEMBERS = 4_000_000
# Largest number of shards, and of loose files in these shards, in one table of a wave.
_PART_SHARDS = 1024
_PART_MEMBERS = 65_536


def missing(plan: Plan, published: Mapping[str, PublishedFile]) -> Iterator[PlannedShard]:
    """Yields the planned shards that are not done, each with the slices that are published by now."""
    files = by_shard(published.values())
    for shard in plan.shards:
        there = [file for file in files.get(shard.hash16, []) if shard.etag is None or file.source_etag == shard.etag]
        chain = chain_of(there)
        rewrites = tuple(
            rewrite
            for rewrite in shard.rewrites
            if rewrite.file in published and published[rewrite.file].etag == rewrite.file_etag
        )
        if chain.complete and rewrites:
            yield replace(shard, action="rewrite", done=chain.done(), rewrites=rewrites)
        elif not chain.complete:
            yield replace(shard, done=chain.done(), rewrites=rewrites)


def waves(shards: Iterable[PlannedShard]) -> Iterator[list[pa.Table]]:
    """Yields the shards in waves: lists of tables that are small enough for one execution of the flow."""
    wave: list[pa.Table] = []
    part: list[PlannedShard] = []
    num_shards = num_members = 0
    for shard in shards:
        part.append(shard)
        num_shards += 1
        num_members += len(shard.members)
        is_full = num_shards >= _WAVE_SHARDS or num_members >= _WAVE_MEMBERS
        if is_full or len(part) >= _PART_SHARDS or sum(len(planned.members) for planned in part) >= _PART_MEMBERS:
            wave.append(to_table(part))
            part = []
        if is_full:
            yield wave
            wave, num_shards, num_members = [], 0, 0
    if part:
        wave.append(to_table(part))
    if wave:
        yield wave


def failed_again(run: Run, published: Mapping[str, PublishedFile]) -> int:
    """Returns how many records failed in an earlier run, were tried again by this run, and failed again.

    The failed records of the files that this run rewrote are counted. Such a file may also hold failed records whose
    source has changed, so the count is limited to the number of records that were tried again.
    """
    codes = run.config.output.retry_failed
    owns = [file.footer.own for file in published.values() if file.run_id == run.run_id]
    failed = sum(
        count
        for own in owns
        if own is not None
        for code, count in own.failed_by_code.items()
        if codes is not None and (not codes or code in codes)
    )
    return min(failed, run.plan.summary.retried_records)


def refresh(run: Run, ledger: Ledger) -> None:
    """Lists the output, and notes in the ledger which files the output has now."""
    output, identity = run.config.output.folder, identity_digest(run.identity)
    known = [*ledger.files.values(), *receipted_files(ledger.receipts)]
    ledger.take_listing(published_files(output, identity, known, run.older))


def receipted_files(receipts: Iterable[Receipt]) -> list[PublishedFile]:
    """Returns the output files that some receipts describe."""
    return [PublishedFile.of(receipt.file, receipt.etag, receipt.footer) for receipt in receipts]
