"""A dozen drills, each of which strikes at one point of the protocol.

docs/design/commit-protocol.md has the protocol, docs/design/chaos.md the drills.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.chaos.drill import Drill, Late, Night, run_drill
from tests.chaos.ground import Ground, prepared_ground
from tests.chaos.strikes import Inject, Kill
from tests.chaos.world import FIRST_NIGHT, NAMES

TARS = ("t0.tar", "t1.tar", "t2.tar")
# t0.tar has fewer slices now, t1.tar more; loose files came, changed and went.
CHANGED = {name: 2 for name in NAMES if name not in ("t2.tar", "loose/05.png")} | {"loose/00.png": 1, "loose/01.png": 1}


def without(*names):
    return {name: 1 for name in FIRST_NIGHT if name not in names}


def one_night(*attempts):
    return (Night(FIRST_NIGHT, attempts),)


DRILLS = [
    Drill(
        "the driver dies before any work: after the lease, after _job.json, after plan.parquet",
        one_night(
            (Kill("driver", "after the lease"),),
            (Kill("driver", "after _job.json"),),
            (Kill("driver", "after plan.parquet"),),
        ),
    ),
    Drill("the driver dies before a slice's PUT", one_night((Kill("driver", "before a slice's PUT", 3),))),
    Drill("the driver dies after a slice's PUT", one_night((Kill("driver", "after a slice's PUT", 3),))),
    Drill(
        "the driver dies on nights that prune: after an emptied file, before and after the index, after the report",
        (
            Night(FIRST_NIGHT),
            Night(without("t1.tar"), ((Kill("driver", "after some files are emptied"),),), prune=True),
            Night(without("t1.tar", "t2.tar"), ((Kill("driver", "before the index"),),), prune=True),
            Night(without("t0.tar", "t1.tar", "t2.tar"), ((Kill("driver", "after the index"),),), prune=True),
            Night(without(*TARS, "p0.parquet"), ((Kill("driver", "after the report"),),), prune=True),
        ),
    ),
    Drill(
        "a collector dies before a slice's PUT, and another after one",
        one_night((Kill("collector", "before a slice's PUT", 1), Kill("collector", "after a slice's PUT", 6))),
    ),
    Drill("an infer actor dies in the middle of its work", one_night((Kill("infer", "in the middle of inference"),))),
    Drill(
        "a read worker and a decode worker die in the middle of their work",
        one_night((Kill("read", "in the middle of reading", 2), Kill("decode", "in the middle of decoding"))),
    ),
    Drill(
        "a node of three is lost while it works",
        one_night((Kill("node", "in the middle of reading", 2),)),
        loses_node=True,
    ),
    Drill("answers to PUTs are lost", one_night((Inject("lost answer to a PUT", 1), Inject("hung answer to a PUT")))),
    Drill(
        "the store is overloaded, resets, and breaks off bodies",
        one_night(
            (
                Inject("truncated body", 9),
                Inject("reset in an upload", 3),
                Inject("reset", 20),
                Inject("503 storm", 30),
            )
        ),
    ),
    Drill("permission to write is lost and comes back", one_night((Inject("write permission lost", 9),))),
    Drill(
        "a slice's PUT arrives when another run has finished over changed inputs",
        (Night(FIRST_NIGHT, late=Late("t0-.*-00002-end", then=CHANGED)),),
    ),
    Drill(
        "a driver that was suspended before it empties a file goes on, and the file's source is back",
        (Night(FIRST_NIGHT), Night(without("t1.tar"), prune=True, late=Late(suspended=True, then=FIRST_NIGHT))),
    ),
]


# `make test` has time for this one alone.
QUICK = "the driver dies after a slice's PUT"


def named(drill: Drill) -> Any:
    return pytest.param(drill, id=drill.name, marks=() if drill.name == QUICK else pytest.mark.drill)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with prepared_ground(tmp_path_factory.mktemp("chaos")) as prepared:
        yield prepared


@pytest.mark.parametrize("drill", [named(drill) for drill in DRILLS])
def test_no_row_is_lost_or_doubled_when(drill: Drill, ground: Ground) -> None:
    outcome = run_drill(drill, ground)
    assert outcome.problems == []
    assert outcome.missed == []
    assert [compared.is_equal for compared in outcome.compared] == [True] * len(drill.nights)
