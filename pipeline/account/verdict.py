"""Which step bounds a run, by how much, and what would move it.

The model: a run is a line of steps, each with room for some pieces of work at a time. In the steady part of a run the
step that bounds it has its room full, and all others wait for it: those behind it for its output, those before it for
room to leave their own. So the step whose room is fullest is the one; waiting for the store is told from the work of
reading by what the read tasks say of themselves. Actors come before readers and decoders: where they are busy nearly
all of the time, nothing before them can be what bounds the run. The sink is different: rows are small, and many of them
may lie before it while the actors go on; it bounds a run that goes on writing when the network has long done its work.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# Actors that are at work for less than this part of the time wait for somebody else.
_BUSY = 0.85
# A run that writes for more than this part of its time after the network has ended waits for the sink.
_LONG_TAIL = 0.25

_FASTER_SINK = (
    "an output's store that takes writes faster, or is nearer to the workers",
    "larger files (--rows-per-file), where they are many and small",
    "of features: fewer --stages, or --feature-dtype float16",
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """What the steps of a run were doing in its steady part.

    Attributes:
        seconds: how long that was.
        num_actors: infer actors.
        busy_s: by step (`read`, `decode`, `compute`, `write`) the seconds of all processes.
        room: by step, how many pieces of work can be done at a time.
        store_share: the part of reading that is waiting for the store.
        tail_share: which part of the time from the network's first work to the last write was spent writing after its
            last.
        device: where the network runs.
        precision: of the network.
    """

    seconds: float
    num_actors: int
    busy_s: Mapping[str, float]
    room: Mapping[str, float]
    store_share: float
    tail_share: float
    device: str
    precision: str

    def fullness(self, step: str) -> float:
        """The part of a step's room that was in use, 0 to 1."""
        room = self.room.get(step, 0.0) * self.seconds
        return min(1.0, self.busy_s.get(step, 0.0) / room) if room else 0.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What bounds a run.

    Attributes:
        bound_by: `network`, `decode`, `store`, `read` or `sink`.
        fullness: of the steps' room.
        sentence: what was found.
        advice: what would move it.
    """

    bound_by: str
    fullness: Mapping[str, float]
    sentence: str
    advice: tuple[str, ...]


def find_verdict(line: Line) -> Verdict | None:
    """The verdict over a run; None where nothing ran."""
    if not line.seconds > 0 or not line.num_actors:
        return None
    fullness = {step: round(line.fullness(step), 3) for step in ("read", "decode", "compute", "write")}
    busy = fullness["compute"]
    waited = 1 - busy
    if line.tail_share > _LONG_TAIL:
        after = f"for {line.tail_share:.0%} of the time rows were written after the network had done its work"
        return Verdict(bound_by="sink", fullness=fullness, sentence=f"sink-bound: {after}", advice=_FASTER_SINK)
    if busy >= _BUSY:
        return Verdict(
            bound_by="network",
            fullness=fullness,
            sentence=f"network-bound: the actors ran the network {busy:.0%} of the time",
            advice=_more_network(line),
        )
    fullest = max(("decode", "read", "write"), key=lambda step: fullness[step])
    ahead = f"the actors waited {waited:.0%} of the time"
    if fullest == "decode":
        more = _more(line, "decode")
        return Verdict(
            bound_by="decode",
            fullness=fullness,
            sentence=f"decode-bound: {ahead}, while decoding used {fullness['decode']:.0%} of its room",
            advice=(
                f"{more:.1f} more processors for decoding to each actor would balance the two",
                "or fewer actors, which leave processors to decoding",
            ),
        )
    if fullest == "write":
        return Verdict(
            bound_by="sink",
            fullness=fullness,
            sentence=f"sink-bound: {ahead}, while writing was busy {fullness['write']:.0%} of the time",
            advice=_FASTER_SINK,
        )
    if line.store_share >= 0.5:
        return Verdict(
            bound_by="store",
            fullness=fullness,
            sentence=(
                f"store-bound: {ahead}, and readers were busy {fullness['read']:.0%} of it, of which they waited "
                f"{line.store_share:.0%} for the store"
            ),
            advice=(
                "a store nearer to the workers, or with more bandwidth",
                "shards of some hundred megabytes in place of small objects: fewer requests for the same images",
            ),
        )
    return Verdict(
        bound_by="read",
        fullness=fullness,
        sentence=f"read-bound: {ahead}, while reading used {fullness['read']:.0%} of its room",
        advice=("more processors, or more and smaller shards: one shard is read by one task",),
    )


def _more(line: Line, step: str) -> float:
    """Processors that a step lacks beside each actor to keep it busy: its work grows with what the actor takes."""
    busy = max(line.fullness("compute"), 1e-3)
    used = line.busy_s.get(step, 0.0) / line.seconds / line.num_actors
    return max(0.1, used / busy - used)


def _more_network(line: Line) -> tuple[str, ...]:
    if line.device == "cuda":
        return ("more GPUs (one actor each)", "a smaller variant, or a smaller --max-image-pixels")
    half = ("--precision bf16, if the processors multiply it",) if line.precision == "fp32" else ()
    return ("GPUs, or more processors (one actor each)", *half, "a smaller variant, or a smaller --max-image-pixels")
