"""A run without Ray and without a network: plan, read, collect and close are the real ones, on a real store.

Images need not be images: every record that was read becomes an ok row.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.checkpoints.checkpoint import CheckpointInfo
from model.checkpoints.files import CheckpointFiles
from model.checkpoints.rename import NAMINGS
from model.network.config import VARIANTS
from model.network.cost import count_macs
from pipeline.account.report import Report
from pipeline.chunks.chunk import Chunk, set_columns
from pipeline.chunks.columns import CLASSIFY_COLUMNS, PAYLOAD_COLUMNS
from pipeline.chunks.task import Classify
from pipeline.config.checkpoint import Checkpoint
from pipeline.config.identity import claim_identity, job_identity
from pipeline.config.job_config import BoundsConfig, JobConfig
from pipeline.inputs.config import InputConfig
from pipeline.inputs.rules import RULES
from pipeline.output.config import OutputConfig
from pipeline.publish.collector import Collector
from pipeline.read.read_shard import ReadConfig, read_shard
from pipeline.run import prepare
from pipeline.run.emptying import empty_files, empty_late_files
from pipeline.run.execute import write_plan
from pipeline.run.finish import finish
from pipeline.run.remaining import missing, refresh
from pipeline.run.step_settings import sink_config

CHECKPOINT = Checkpoint(
    files=CheckpointFiles(weights=b"", config_json=None, preprocessor_json=None), labels=None, load_s=0.0,
    network=VARIANTS["b0"],
    info=CheckpointInfo(
        config=VARIANTS["b0"], labels=None, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), digest="d" * 64,
        naming=NAMINGS[0], base="", largest=("head.weight", 1.0),
    ),
)  # fmt: skip


NO_BOUNDS = BoundsConfig()
# Every image is 32 pixels wide and high to the network.
_MACS = count_macs(VARIANTS["b0"], 32, 32)
_ANSWER: dict[str, Any] = {"label_id": 0, "label": "0", "score": 0.5, "topk_ids": [0], "topk_scores": [0.5]}


class KilledError(Exception):
    """The run's process is gone."""


class _NoFence:
    def check(self) -> None:
        """Lets everyone write."""


class _NoLease:
    """Lets runs overlap as they please: what must hold does not rest on the lease."""

    fence = _NoFence()

    def take(self, wait_s: float) -> None:
        """Nothing is taken."""


class SimulatedRun:
    """One run over an input folder and an output folder.

    Args:
        number: makes the run's name, by which earlier and later runs are told apart.
        bounds: how much of the work it does.
        rules: version of the rules of reading that a new output gets.
        options: of `OutputConfig`.
    """

    def __init__(
        self,
        source: Path,
        output: Path,
        number: int,
        rows_per_file: int = 3,
        bounds: BoundsConfig = NO_BOUNDS,
        rules: int = RULES,
        **options: Any,
    ) -> None:
        self.config = JobConfig(
            task=Classify(),
            input=InputConfig(uris=(str(source),)).under_rules(rules),
            output=OutputConfig(uri=str(output), rows_per_file=rows_per_file, **options),
            weights="/weights",
            bounds=bounds,
            run_id=f"run-{number:04d}",
        )
        identity = job_identity(self.config, CHECKPOINT, "fp32")
        self.run, self.ledger = prepare.prepare_with(self.config, time.time(), _NoLease(), CHECKPOINT, identity)

    def begin(self) -> None:
        """Writes identity and plan, and empties what is out of date."""
        claim_identity(self.config.output.folder, self.run.identity, self.run.older)
        write_plan(self.run)
        empty_files(self.run, self.ledger, self.run.plan.summary.emptied)

    def work(self, may_publish: Callable[[], None] = lambda: None, passes: int = 2) -> None:
        """Reads and publishes what is missing.

        Args:
            may_publish: called before every PUT of a slice; may raise `KilledError`.
        """
        for number in range(1, passes + 1):
            if next(missing(self.run.plan, self.ledger.files), None) is None:
                return
            self.ledger.begin_pass()
            collector = Collector(replace(sink_config(self.run), may_write=may_publish))
            collector.start_pass(number)
            for shard in missing(self.run.plan, self.ledger.files):
                for chunk in read_shard(shard, self._read_config(number, number == passes)):
                    collector.add(_answered(chunk).to_table())
            state = collector.state()
            assert state.fatal is None, state.fatal
            self.ledger.take_receipts(state.receipts)
            refresh(self.run, self.ledger)

    def work_until_killed(self, files: int | None) -> bool:
        """Works, and is killed before it publishes more than `files` files; None lets it work to its end.

        Returns:
            True if the run came to the end of its work.
        """
        published = 0

        def may_publish() -> None:
            nonlocal published
            if published == files:
                raise KilledError
            published += 1

        try:
            self.work(may_publish)
        except KilledError:
            return False
        return True

    def finish(self) -> Report:
        """Closes the accounts."""
        empty_late_files(self.run, self.ledger)
        return finish(self.run, self.ledger, None)

    def _read_config(self, number: int, last: bool) -> ReadConfig:
        return ReadConfig(
            input=self.config.input,
            rows_per_file=self.config.output.rows_per_file,
            max_file_bytes=2**30,
            task=self.config.task,
            network=CHECKPOINT.network,
            sizes=self.config.sizes,
            pass_number=number,
            last_pass=last,
        )


def _answered(chunk: Chunk) -> Chunk:
    """The chunk as it would leave the infer step; `encoded_bytes` tells which version of an image was read."""
    rows = chunk.rows.drop_columns(PAYLOAD_COLUMNS.names)
    ok = [status == "ok" for status in rows.column("status").to_pylist()]
    sizes = {name: pa.array([32 if good else None for good in ok], pa.int32()) for name in ("net_width", "net_height")}
    answers = {
        name: pa.array([answer if good else None for good in ok], CLASSIFY_COLUMNS.field(name).type)
        for name, answer in _ANSWER.items()
    }
    rest = {"width": pa.nulls(rows.num_rows, pa.int32()), "height": pa.nulls(rows.num_rows, pa.int32())}
    rest["scale"] = pa.nulls(rows.num_rows, pa.float32())
    macs = {"macs": pa.array([_MACS if good else 0 for good in ok], pa.int64())}
    return replace(chunk, rows=set_columns(rows, {**rest, **sizes, **answers, **macs}), payload=pa.py_buffer(b""))


def run_once(source: Path, output: Path, number: int, **options: Any) -> Report:
    """A whole run."""
    run = SimulatedRun(source, output, number, **options)
    run.begin()
    run.work()
    return run.finish()


def published_rows(output: Path) -> Iterator[dict[str, Any]]:
    """Every row of the output."""
    for path in sorted((output / "data").glob("*.parquet")):
        yield from pq.read_table(path).to_pylist()
