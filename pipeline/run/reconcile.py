"""Compares the plan with the output, and describes each disagreement in one sentence."""

import logging
import time
from collections.abc import Collection, Mapping, Sequence

from pipeline.output.footer import Footer
from pipeline.output.ids import find_doubled_ids
from pipeline.output.published import PublishedFile
from pipeline.output.slice_chain import by_shard, chain_of
from pipeline.plan.plan import Plan
from pipeline.run.remaining import missing
from pipeline.store.store_path import StorePath

logger = logging.getLogger(__name__)


def find_problems(plan: Plan, published: Mapping[str, PublishedFile]) -> list[str]:
    """Returns one sentence for each disagreement between the plan and the output; an empty list if both agree."""
    problems = []
    for shard in missing(plan, published):
        if shard.action == "rewrite":
            # Every record has a row, so no row is missing. Some old rows were not replaced by newer rows, and the next
            # run plans to replace them.
            logger.warning("rewrite.left shard=%s slices=%d", shard.shard, len(shard.rewrites))
        else:
            problems.append(f"{shard.shard}: not all of its slices are published")
    files = by_shard(published.values())
    for shard in plan.shards:
        there = [file for file in files.get(shard.hash16, []) if shard.etag is None or file.source_etag == shard.etag]
        chain = chain_of(there)
        if chain.complete:
            problems += discrepancies([file.footer for file in chain.files], shard.num_records)
    return problems


def doubled_ids(output: StorePath, files: Collection[PublishedFile]) -> list[str]:
    """Returns a sentence if several rows of the output have the same image id; else an empty list."""
    began = time.monotonic()
    found = find_doubled_ids(output, files)
    logger.info("ids.compared rows=%d seconds=%.1f", sum(file.rows for file in files), time.monotonic() - began)
    if found is None:
        return []
    places = " and ".join(f"{file} (of {shard})" for file, shard in zip(found.files, found.shards, strict=True))
    return [
        f"{found.rows} rows have the image_id of another row, such as {found.image_id!r} in {places}; rename one of "
        "the two sources, or move it out of the inputs, and run again with --prune"
    ]


def discrepancies(footers: Sequence[Footer], num_records: int | None) -> list[str]:
    """Returns one sentence for each error in the row counts of one shard's slices.

    Three rules are checked. The slices follow one another from row 0 without gap or overlap. Each row of a file is `ok`
    or `failed`, and these rows and the removed rows (`pruned`) together are as many as the rows that the file spans.
    The slices together span all records of the shard.

    Args:
        footers: footers of the shard's slices, in order.
        num_records: number of records in the shard; None if the plan does not know the number.
    """
    found = []
    next_row = 0
    for footer in footers:
        where = f"{footer.shard} slice {footer.slice}"
        totals, span = footer.totals, footer.last_row - footer.first_row + 1
        if footer.first_row != next_row:
            found.append(f"{where} begins at row {footer.first_row}, expected {next_row}")
        if not span - len(footer.pruned) == totals.listed == totals.ok + totals.failed:
            found.append(
                f"{where} spans {span} rows, {len(footer.pruned)} of them taken out, but lists {totals.listed} "
                f"= {totals.ok} ok + {totals.failed} failed"
            )
        next_row = footer.last_row + 1
    if num_records is not None and next_row != num_records:
        found.append(f"{footers[0].shard} has {num_records} records but {next_row} published rows")
    return found
