"""Makes the report of a run from the footers of the published files, the receipts and the timeline."""

import importlib.metadata
import platform
import time
from dataclasses import replace
from typing import Any

from pipeline.account.report import Report, Seconds, Status
from pipeline.account.timeline import Timeline
from pipeline.account.totals import Totals
from pipeline.account.verdict import SteadyPart, find_verdict
from pipeline.account.work import Work
from pipeline.cluster.processors import Processors
from pipeline.config.identity import reported_identity
from pipeline.run.ledger import Ledger
from pipeline.run.run import Run
from pipeline.run.summary import describe_left_out

_REPORTED_PACKAGES = ("ray", "torch", "pyarrow", "pillow", "obstore", "pvtv2-batch")
# A run is steady while the finished share of the network's work lies between these two shares. Before that, some actors
# have not started yet; after that, some actors have no work left.
_STEADY = (0.1, 0.9)


def build_report(run: Run, ledger: Ledger, status: Status, problems: list[str], reason: str | None = None) -> Report:
    """Returns the report of a run. The totals in the report are the sums over the footers of the published files.

    Args:
        problems: one sentence for each disagreement between the plan and the output.
        reason: why the run left work undone; None if no work is left or no reason is known.
    """
    footers = [file.footer for file in ledger.files.values() if not file.emptied]
    own = sum((footer.own or footer.totals for footer in footers if footer.run_id == run.run_id), Totals())
    own = replace(own, counts={**own.counts, "bytes_out": sum(receipt.bytes_out for receipt in ledger.receipts)})
    wall_s = time.time() - run.started_at
    ends = ledger.timeline.ends("compute")
    processors, part = ledger.processors, _steady_part(run, ledger, own)
    steady = None if part is None else _steady(ledger.timeline)
    return Report(
        run_id=run.run_id,
        status=status,
        started_at=run.started_at,
        identity=reported_identity(run.identity),
        run=own,
        output=sum((footer.totals for footer in footers), Totals()),
        ignored=run.plan.num_ignored,
        passed_over=run.plan.passed_over,
        left_out=describe_left_out(run.plan.summary),
        size_check=ledger.size_check,
        problems=tuple(problems),
        seconds=Seconds(
            wall=wall_s,
            model_load=run.checkpoint.load_s,
            listing=run.listing_s,
            first_row=None if ledger.first_row_at is None else ledger.first_row_at - run.started_at,
            steady=None if steady is None else steady.seconds,
            drain=None if ends is None else max(0.0, wall_s - ends[1]),
            steps={**own.seconds, "put": sum(receipt.put_s for receipt in ledger.receipts)}
            if ledger.receipts
            else own.seconds,
        ),
        steady=steady,
        num_actors=_num_actors(ledger),
        price_per_hour=run.config.compute.price_per_hour,
        breakdown=replace(ledger.breakdown, samples=ledger.breakdown.samples[: run.config.thumbnails]),
        processes=_processes(ledger.timeline),
        verdict=None if part is None else find_verdict(part),
        actors={} if processors is None else _described(processors),
        versions=_versions(),
        passes=ledger.num_passes,
        replayed_chunks=ledger.num_replayed_chunks,
        operators=ledger.operators,
        reason="; ".join(filter(None, (reason, _describe_bugs(own)))) or None,
    )


def _describe_bugs(totals: Totals) -> str | None:
    """Returns a text with the number of rows that failed because of each bug; None without such rows."""
    found = [f"rows that failed because of a bug at {place}: {rows}" for place, rows in totals.failed_by_bug.items()]
    return "; ".join(found) or None


def _steady(timeline: Timeline) -> Work | None:
    moments = timeline.between("compute", *_STEADY)
    if moments is None:
        return None
    done = timeline.within("compute", *moments)
    return Work(seconds=moments[1] - moments[0], images=done["images"], pixels=done["pixels"], macs=done["macs"])


def _steady_part(run: Run, ledger: Ledger, own: Totals) -> SteadyPart | None:
    """Returns the measurements of all steps in the steady part of the run; None if the run had no steady part."""
    moments, processors = ledger.timeline.between("compute", *_STEADY), ledger.processors
    if moments is None or processors is None:
        return None
    num_actors, within = _num_actors(ledger), ledger.timeline.within
    free_cpus = max(0.0, processors.num_cpus - num_actors * processors.actor_cpus)
    # One task reads one shard, so there are at most as many read tasks as shards.
    readers = min(run.plan.num_shards, free_cpus / processors.read_cpus)
    return SteadyPart(
        seconds=moments[1] - moments[0],
        num_actors=num_actors,
        busy_s={step: within(step, *moments)["busy_s"] for step in ("read", "decode", "compute", "write")},
        slots={
            "read": max(1.0, readers),
            "decode": max(1.0, (free_cpus - processors.read_cpus) / processors.decode_cpus),
            "compute": num_actors,
            "write": processors.num_collectors,
        },
        store_share=own.seconds.get("read_wait", 0.0) / max(own.seconds.get("read", 0.0), 1e-9),
        tail_share=_tail_share(ledger.timeline, processors.num_collectors),
        device=processors.device,
        precision=run.identity["precision"],
    )


def _tail_share(timeline: Timeline, num_collectors: int) -> float:
    """Returns the share of the working time that the collectors spent writing after the network had ended.

    The working time lasts from the network's first work to the last write.
    """
    computed, written = timeline.ends("compute"), timeline.ends("write")
    if computed is None or written is None:
        return 0.0
    # Only busy seconds count, because a collector's last rows may also wait for a process to start.
    busy_s = timeline.within("write", computed[1], max(computed[1], written[1]))["busy_s"]
    return busy_s / num_collectors / max(written[1] - computed[0], 1e-9)


def _num_actors(ledger: Ledger) -> int:
    """Returns the number of actors that worked at the same time.

    A restarted actor is another process in the timeline, so the largest number of actors bounds the result.
    """
    seen = sum(step == "compute" for step, _ in ledger.timeline.processes())
    return seen if ledger.processors is None else min(seen, ledger.processors.num_actors[1])


def _processes(timeline: Timeline) -> list[dict[str, Any]]:
    """Returns the number of images, the busy seconds and the busy share of each process.

    The busy share refers to the time from the network's first work to the network's last work.
    """
    ends = timeline.ends("compute")
    span_s = ends[1] - ends[0] if ends else 0.0
    return [
        {
            "process": process,
            "step": step,
            "images": round(images),
            "busy_s": round(busy_s, 3),
            "busy_share": round(min(1.0, busy_s / span_s), 4) if span_s else None,
        }
        for (step, process), (busy_s, images) in timeline.processes().items()
    ]


def _described(processors: Processors) -> dict[str, Any]:
    return {"device": processors.device, "min": processors.num_actors[0], "max": processors.num_actors[1]}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
