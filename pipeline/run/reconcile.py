"""Compares plan and output, and says in sentences what does not add up."""

import logging
from collections.abc import Mapping, Sequence

from pipeline.output.footer import Footer
from pipeline.output.published import PublishedFile
from pipeline.output.slice_chain import by_shard, chain_of
from pipeline.plan.plan import Plan
from pipeline.run.remaining import missing

logger = logging.getLogger(__name__)


def find_problems(plan: Plan, published: Mapping[str, PublishedFile]) -> list[str]:
    """Returns one sentence for each way in which plan and output do not add up; none if they do."""
    problems = []
    for shard in missing(plan, published):
        if shard.action == "rewrite":
            # Every record has its row. Some rows are older than they could be, and the next run plans them again.
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


def discrepancies(footers: Sequence[Footer], num_records: int | None) -> list[str]:
    """Returns one sentence for each way in which the slices of one shard do not add up.

    Slices add up if they follow one another from row 0 without gap or overlap; if the rows of each file are `ok` or
    `failed`, and together with the rows that were taken out are as many as the file spans; and if they cover all
    records of the shard.

    Args:
        footers: footers of the shard's slices, in order.
        num_records: records in the shard; None if the plan does not know.
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
