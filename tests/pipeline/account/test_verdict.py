"""The verdict names the step that is slow, also where the figures are others than any that were tried."""

import random

import pytest

from pipeline.account.verdict import SteadyPart, find_verdict


def line(seconds=100.0, *, num_actors=2, compute=0.5, decode=0.2, read=0.2, write=0.01, store_share=0.1, **others):
    """A run of so many seconds; shares are of each step's slots."""
    slots = {"compute": num_actors, "decode": 3.0, "read": 4.0, "write": 1.0}
    shares = {"compute": compute, "decode": decode, "read": read, "write": write}
    busy_s = {step: share * slots[step] * seconds for step, share in shares.items()}
    return SteadyPart(
        seconds=seconds, num_actors=num_actors, busy_s=busy_s, slots=slots, store_share=store_share,
        **{"tail_share": 0.0, "device": "cuda", "precision": "bf16", **others},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "bound_by"),
    [
        ({"compute": 0.97}, "network"),
        ({"compute": 0.97, "decode": 0.99}, "network"),
        ({"compute": 0.3, "decode": 0.98, "read": 0.5}, "decode"),
        ({"compute": 0.3, "read": 0.95, "store_share": 0.9}, "store"),
        ({"compute": 0.3, "read": 0.95, "store_share": 0.1}, "read"),
        ({"compute": 0.3, "write": 0.9}, "sink"),
        ({"compute": 0.95, "tail_share": 0.5}, "sink"),
    ],
)
def test_the_fullest_step_is_named(shares, bound_by):
    assert find_verdict(line(**shares)).bound_by == bound_by


def test_sentences_say_how_long_actors_waited_and_what_would_balance():
    found = find_verdict(line(compute=0.4, decode=1.0, num_actors=2))
    assert found.sentence == "decode-bound: the actors waited 60% of the time, while decoding used 100% of its room"
    # Three processors keep two actors busy 40 % of the time: 1.5 for each, and 1.5 / 0.4 would be needed.
    assert found.advice[0] == "2.2 more processors for decoding to each actor would balance the two"
    assert "GPUs" in " ".join(find_verdict(line(compute=0.99, device="cpu")).advice)


def test_a_run_in_which_nothing_was_computed_has_none():
    assert find_verdict(line(seconds=0.0)) is None
    assert find_verdict(line(num_actors=0)) is None


@pytest.mark.parametrize("seed", range(20))
def test_in_a_line_that_is_simulated_the_slowest_step_is_named(seed):
    """Work passes through steps with slots for some pieces each; how busy each was then follows from the slowest."""
    rng = random.Random(seed)
    slots = {"read": rng.uniform(1, 8), "decode": rng.uniform(1, 8), "compute": rng.randint(1, 8), "write": 1.0}
    seconds_each = {step: rng.uniform(0.001, 0.02) * slots[step] for step in slots}
    slowest = rng.choice(list(slots))
    seconds_each[slowest] = 0.03 * slots[slowest]
    count, wall = 1000, 1000 * 0.03
    found = find_verdict(
        SteadyPart(
            seconds=wall,
            num_actors=int(slots["compute"]),
            busy_s={step: count * each for step, each in seconds_each.items()},
            slots=slots,
            store_share=0.9,
            tail_share=0.0,
            device="cuda",
            precision="bf16",
        )
    )
    assert found.bound_by == {"read": "store", "decode": "decode", "compute": "network", "write": "sink"}[slowest]
