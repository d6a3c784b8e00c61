"""The verdict over a run: the step that bounds the run, the figures that show this, and advice for a faster run.

The model: a run is a line of steps, and each step has one slot for each piece of work that it can do at a time. In the
steady part of a run, the slots of the bounding step are full and all other steps wait: later steps for its output,
earlier steps for a slot to hand their output to. So the step with the fullest slots bounds the run. The read tasks
measure how long they wait for the store, which separates a slow store from slow reading. Actors are looked at before
readers and decoders: if the actors are busy nearly all of the time, no earlier step can bound the run. The sink is
different: rows are small, and many of them may wait for the sink while the actors go on. The sink bounds a run that is
still writing long after the network has done its work.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# Actors that are busy for less than this share of the time wait for another step.
_BUSY = 0.85
# A run that writes for more than this share of its time after the network's last work waits for the sink.
_LONG_TAIL = 0.25

_FASTER_SINK = (
    "an output's store that takes writes faster, or is nearer to the workers",
    "larger files (--rows-per-file), where they are many and small",
    "of features: fewer --stages, or --feature-dtype float16",
)


@dataclass(frozen=True, kw_only=True)
class SteadyPart:
    """The work of a run's steps in its steady part.

    Attributes:
        seconds: Length of the steady part.
        num_actors: Number of infer actors.
        busy_s: Busy seconds by step (`read`, `decode`, `compute`, `write`), summed over all processes.
        slots: Number of pieces of work that a step can do at a time, by step.
        store_share: Share of the read tasks' time for which the tasks waited for the store.
        tail_share: Seconds of writing after the network's last work, as a share of the time from the network's first
            work to the last write.
        device: Device of the network.
        precision: Precision of the network.
    """

    seconds: float
    num_actors: int
    busy_s: Mapping[str, float]
    slots: Mapping[str, float]
    store_share: float
    tail_share: float
    device: str
    precision: str

    def fullness(self, step: str) -> float:
        """Returns the share of a step's slots that were in use, from 0 to 1."""
        available_s = self.slots.get(step, 0.0) * self.seconds
        return min(1.0, self.busy_s.get(step, 0.0) / available_s) if available_s else 0.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict over a run.

    Attributes:
        bound_by: The bounding part of the run: `network`, `decode`, `store`, `read` or `sink`.
        fullness: Share of each step's slots that were in use.
        sentence: A sentence that states the finding with its figures.
        advice: Changes that would make the run faster.
    """

    bound_by: str
    fullness: Mapping[str, float]
    sentence: str
    advice: tuple[str, ...]


def find_verdict(part: SteadyPart) -> Verdict | None:
    """Returns the verdict over a run; None if the run had no actors or no steady part."""
    if not part.seconds > 0 or not part.num_actors:
        return None
    fullness = {step: round(part.fullness(step), 3) for step in ("read", "decode", "compute", "write")}
    bound_by, sentence, advice = _find_bound(part, fullness)
    return Verdict(bound_by=bound_by, fullness=fullness, sentence=sentence, advice=advice)


def _find_bound(part: SteadyPart, fullness: Mapping[str, float]) -> tuple[str, str, tuple[str, ...]]:
    """Returns `bound_by`, `sentence` and `advice` of the verdict."""
    busy = fullness["compute"]
    if part.tail_share > _LONG_TAIL:
        after = f"for {part.tail_share:.0%} of the time rows were written after the network had done its work"
        return "sink", f"sink-bound: {after}", _FASTER_SINK
    if busy >= _BUSY:
        sentence = f"network-bound: the actors ran the network {busy:.0%} of the time"
        return "network", sentence, _more_network(part)
    fullest = max(("decode", "read", "write"), key=lambda step: fullness[step])
    ahead = f"the actors waited {1 - busy:.0%} of the time"
    if fullest == "decode":
        return (
            "decode",
            f"decode-bound: {ahead}, while decoding used {fullness['decode']:.0%} of its room",
            (
                f"{_more(part, 'decode'):.1f} more processors for decoding to each actor would balance the two",
                "or fewer actors, which leave processors to decoding",
            ),
        )
    if fullest == "write":
        sentence = f"sink-bound: {ahead}, while writing was busy {fullness['write']:.0%} of the time"
        return "sink", sentence, _FASTER_SINK
    if part.store_share >= 0.5:
        return (
            "store",
            f"store-bound: {ahead}, and readers were busy {fullness['read']:.0%} of it, of which they waited "
            f"{part.store_share:.0%} for the store",
            (
                "a store nearer to the workers, or with more bandwidth",
                "shards of some hundred megabytes in place of small objects: fewer requests for the same images",
            ),
        )
    return (
        "read",
        f"read-bound: {ahead}, while reading used {fullness['read']:.0%} of its room",
        ("more processors, or more and smaller shards: one shard is read by one task",),
    )


def _more(part: SteadyPart, step: str) -> float:
    """Returns the number of processors that a step lacks for each actor, to keep the actor busy all the time."""
    busy = max(part.fullness("compute"), 1e-3)
    used = part.busy_s.get(step, 0.0) / part.seconds / part.num_actors
    return max(0.1, used / busy - used)


def _more_network(part: SteadyPart) -> tuple[str, ...]:
    if part.device == "cuda":
        return ("more GPUs (one actor each)", "a smaller variant, or a smaller --max-image-pixels")
    half = ("--precision bf16, if the processors multiply it",) if part.precision == "fp32" else ()
    return ("GPUs, or more processors (one actor each)", *half, "a smaller variant, or a smaller --max-image-pixels")
