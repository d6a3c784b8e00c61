"""The read step: turns a planned shard into chunks of encoded images, in an order and at bounds that never vary."""

import logging
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from model.network.config import PVTv2Config
from pipeline.chunks.chunk import Chunk
from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.chunks.size_policy import NetSize, SizePolicy, net_size
from pipeline.chunks.task import Task
from pipeline.decode.decode_image import probe_size
from pipeline.inputs.config import InputConfig
from pipeline.inputs.formats import FORMATS
from pipeline.inputs.loose_files import read_files
from pipeline.inputs.record import BAD_URI, Record, ShardEnd
from pipeline.inputs.rules import FIRST_RULES
from pipeline.plan.planned_shard import PlannedShard
from pipeline.read.build_chunk import CutConfig, Placed
from pipeline.read.cut import cut_rewrites, cut_slices
from pipeline.store.errors import ChangedError, NotFoundError, StoreError, UnaddressableError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """Settings of the read step.

    Attributes:
        input: settings of the inputs.
        rows_per_file, max_file_bytes: largest number of rows, and largest predicted size in bytes, of a slice.
        task, network: the job's task and network, which decide the size of a row.
        sizes: policy for small and large images, which decides their decoded size.
        pass_number: number of the run's pass.
        last_pass: True turns a source that the store cannot read into failed rows; False leaves the source to the next
            pass.
    """

    input: InputConfig
    rows_per_file: int
    max_file_bytes: int
    task: Task
    network: PVTv2Config
    sizes: SizePolicy
    pass_number: int
    last_pass: bool


def read_shard(shard: PlannedShard, config: ReadConfig) -> Iterator[Chunk]:
    """Yields the chunks of the slices of a shard that are not done, then the chunks of the shard's rewrites.

    If the store cannot read a source that is neither gone nor changed, the iteration ends early: slices that are not
    complete stay unpublished, and the next pass reads these slices again. In the last pass, records that cannot be read
    become failed rows instead. Rewrites of an object that cannot be read always end early: slices that are not complete
    keep their rows.
    """
    cut = CutConfig(
        rows_per_file=config.rows_per_file,
        max_file_bytes=config.max_file_bytes,
        attempt=secrets.token_hex(4),
        pass_number=config.pass_number,
        keep_columns=config.input.keep_columns,
        rules=config.input.names.rules,
    )
    try:
        if shard.action != "rewrite":
            yield from cut_slices(_missing_records(shard, config), shard, cut)
        if shard.rewrites:
            yield from cut_rewrites(_redone_records(shard, config), shard, cut)
    except StoreError as error:
        logger.warning("shard.postponed shard=%s pass=%d error=%s", shard.shard, config.pass_number, error)


def _missing_records(shard: PlannedShard, config: ReadConfig) -> Iterator[Placed | ShardEnd]:
    """Yields the records outside the done slices, each with its row, then a `ShardEnd`."""
    done_rows = [range(done.first_row, done.last_row + 1) for done in shard.done]
    if shard.is_group:
        wanted = [row for row in range(len(shard.members)) if not any(row in rows for rows in done_rows)]
        yield from _member_records(shard, wanted, config)
        return
    # The reader begins behind the done slices at the head of the shard. Later done slices are read and left out.
    row = 0
    for rows in done_rows:
        if rows.start <= row:
            row = max(row, rows.stop)
    try:
        for item in _object_records(shard, config, row):
            if isinstance(item, ShardEnd):
                yield item
                return
            if shard.num_records is not None and row >= shard.num_records:
                yield ShardEnd(0)
                return
            if not any(row in rows for rows in done_rows):
                yield _place(row, item, config)
            row += 1
    except NotFoundError:
        failure = Failure(ErrorCode.SOURCE_MISSING, "the object was listed but is gone")
    except ChangedError:
        failure = Failure(ErrorCode.SOURCE_CHANGED, "the object changed after it was listed")
    except UnaddressableError:
        failure = Failure(ErrorCode.SOURCE_BAD_URI, BAD_URI)
    except StoreError as error:
        if not config.last_pass:
            raise
        failure = Failure(ErrorCode.SOURCE_UNREADABLE, f"the object could not be read ({type(error).__name__})")
    for lost, key in _lost_records(shard, row, done_rows):
        yield _place(lost, Record(key=key, data=None, failure=failure), config)
    yield ShardEnd(0)


def _redone_records(shard: PlannedShard, config: ReadConfig) -> Iterator[Placed | ShardEnd]:
    """Yields the records that are read again, each with its row, then a `ShardEnd`.

    Records that an object does not give any more are left out, and their rows stay as they are.
    """
    wanted = [row for rewrite in shard.rewrites for row in rewrite.redo]
    if shard.is_group:
        yield from _member_records(shard, wanted, config)
        return
    if wanted:
        row = wanted[0]
        for item in _object_records(shard, config, row):
            if isinstance(item, ShardEnd) or row > wanted[-1]:
                break
            if row in wanted:
                yield _place(row, item, config)
            row += 1
    yield ShardEnd(0)


def _member_records(shard: PlannedShard, rows: Sequence[int], config: ReadConfig) -> Iterator[Placed | ShardEnd]:
    """Yields the records of some members of a group, then a `ShardEnd`; pruned members are not fetched."""
    pruned = set(shard.pruned)
    fetched = read_files(
        [shard.members[row] for row in rows if row not in pruned], config.input.store, give_up_failed=config.last_pass
    )
    for row in rows:
        if row in pruned:
            member = shard.members[row]
            record = Record(key=member.key, data=None, true_label=member.true_label)
            yield _place(row, record, config, pruned=True)
        else:
            yield _place(row, next(fetched), config)
    yield ShardEnd(0)


def _object_records(shard: PlannedShard, config: ReadConfig, start: int) -> Iterator[Record | ShardEnd]:
    """Yields the records of an object from row `start` on, then a `ShardEnd`."""
    with config.input.place(shard.shard).open(size=shard.size, etag=shard.etag) as file:
        yield from FORMATS[shard.format].read(file, config.input.options_for(shard.shard), start)


def _lost_records(shard: PlannedShard, row: int, done_rows: Sequence[range]) -> list[tuple[int, str | None]]:
    """Returns (row, key) of the records from `row` on that are lost with their source.

    A record is known to exist if it lies before a done slice, or if the plan counts it; each such record gets an entry.
    If the plan has no count and no known record is lost, one entry without a key stands for the rest of the shard:
    without that entry, a shard whose known records are all done would not be read again.
    """
    num_known = shard.num_records
    if num_known is None:
        num_known = max((rows.stop for rows in done_rows), default=0)
    missing = [at for at in range(row, num_known) if not any(at in rows for rows in done_rows)]
    if missing or shard.num_records is not None:
        return [(at, FORMATS[shard.format].lost_key(at)) for at in missing]
    return [(max(row, num_known), None)]


def _place(row: int, record: Record, config: ReadConfig, *, pruned: bool = False) -> Placed:
    """Returns the record with its row and its sizes.

    A chunk carries an image first encoded and then decoded, so the larger size counts.
    """
    num_bytes, net = 0, None
    if record.data is not None and record.failure is None:
        size = probe_size(record.data, pillow_only=config.input.names.rules == FIRST_RULES)
        policies = () if size is None else config.task.size_policies(config.sizes)
        seen = [found for policy in policies if size and isinstance(found := net_size(*size, policy), NetSize)]
        net = seen[0] if seen else None
        num_bytes = max(len(record.data), sum(3 * found.width * found.height for found in seen))
    texts = (record.key, record.true_label, *record.kept)
    output_bytes = config.task.row_bytes(config.network, net) + sum(len(text) for text in texts if text is not None)
    return Placed(row, record, num_bytes, output_bytes, pruned)
