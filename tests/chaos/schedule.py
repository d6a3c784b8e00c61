"""The drill of a seed: one seed always gives the same drill."""

import random

from tests.chaos.drill import Drill, Late, Night
from tests.chaos.strikes import FAULTS, POINTS, TITLES, Inject, Kill, Strike
from tests.chaos.world import FIRST_NIGHT, NAMES, VERSIONS, State

_DRIVER_POINTS = [point for point in POINTS if point != "after some files are emptied"]
_WORK_POINTS = ["in the middle of reading", "before a slice's PUT", "after a slice's PUT"]
_NODE_POINTS = [*_WORK_POINTS, "in the middle of decoding"]
# Requests of an attempt that a fault may begin at.
_FIRST_REQUESTS = 60


def drill_of(seed: int) -> Drill:
    """The drill of a seed."""
    draw = random.Random(seed)
    kind = draw.choices(("one night", "two nights", "late writer", "lost node"), (55, 27, 10, 8))[0]
    if kind == "two nights":
        second, prune = _changed(draw), draw.random() < 0.5
        attempts = (_strikes(draw, changed=True),) if draw.random() < 0.8 else ()
        nights = (Night(FIRST_NIGHT, (_strikes(draw),)), Night(second, attempts, prune))
        return Drill(f"{seed}: two nights", nights)
    if kind == "late writer":
        return Drill(f"{seed}: late writer", _late(draw))
    if kind == "lost node":
        kill = Kill("node", draw.choice(_NODE_POINTS), draw.randrange(6))
        return Drill(f"{seed}: lost node", (Night(FIRST_NIGHT, ((kill,),)),), loses_node=True)
    attempts = tuple(_strikes(draw) for _ in range(draw.choice((1, 1, 2))))
    return Drill(f"{seed}: one night", (Night(FIRST_NIGHT, attempts),))


def _strikes(draw: random.Random, *, changed: bool = False) -> tuple[Strike, ...]:
    """What befalls one attempt: one to three things, of which at most one kills the driver."""
    strikes: list[Strike] = [_inject(draw) for _ in range(draw.choice((0, 1, 1)))]
    if draw.random() < 0.5:
        strikes.append(_worker(draw))
    if not strikes or draw.random() < 0.5:
        points = [*_DRIVER_POINTS, *(["after some files are emptied"] * 4 if changed else [])]
        point = draw.choice(points)
        strikes.append(Kill("driver", point, draw.randrange(6) if "slice" in point or "reading" in point else 0))
    # The first that a request meets strikes it.
    return tuple(sorted(strikes, key=lambda strike: isinstance(strike, Inject)))


def _late(draw: random.Random) -> tuple[Night, ...]:
    """A new slice that was on the way, or an emptying by a driver that was suspended; mostly, the inputs change."""
    then = _changed(draw) if draw.random() < 0.7 else None
    if draw.random() < 0.6:
        return (Night(FIRST_NIGHT, late=Late(nth=draw.randrange(8), then=then)),)
    # Only whole shards go, so that nothing is left to do but to empty their files.
    gone = draw.sample(["t0.tar", "t1.tar", "t2.tar", "p0.parquet"], 2)
    left = {name: 1 for name in FIRST_NIGHT if name not in gone}
    return Night(FIRST_NIGHT), Night(left, prune=True, late=Late(suspended=True, then=then))


def _worker(draw: random.Random) -> Kill:
    victim = draw.choice(list(TITLES))
    if victim == "read":
        return Kill("read", "in the middle of reading", draw.randrange(10))
    if victim == "collector":
        return Kill("collector", draw.choice(_WORK_POINTS[1:]), draw.randrange(8))
    point = {"decode": "in the middle of decoding", "infer": "in the middle of inference"}[victim]
    return Kill("decode" if victim == "decode" else "infer", point, draw.randrange(6))


def _inject(draw: random.Random) -> Inject:
    fault = draw.choice(list(FAULTS))
    first = 6 if FAULTS[fault].request.startswith("^PUT") else _FIRST_REQUESTS
    return Inject(fault, draw.randrange(first))


def _changed(draw: random.Random) -> State:
    """The inputs of a second night: of each object its old version, mostly, or another, or none."""
    state = dict(FIRST_NIGHT)
    for name in NAMES:
        what = draw.random()
        if what < 0.2:
            state.pop(name, None)
        elif what < 0.5:
            state[name] = draw.choice(VERSIONS)
    return state
