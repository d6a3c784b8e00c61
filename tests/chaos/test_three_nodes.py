"""A run on nodes of different kinds, one of which is lost: what `make cluster-demo` shows, in a process of its own."""

import pytest

from tests.chaos.nodes import NUM_ROWS, told_by

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    file = tmp_path_factory.mktemp("nodes") / "told.json"
    found, done = told_by("tests.chaos.three_nodes", file, timeout_s=900)
    print(done.stdout, done.stderr[-3000:], f"exit {done.returncode}", sep="\n")
    return found | {"exit": done.returncode}


def test_every_node_does_what_it_is_for_and_the_head_nothing(told):
    done = {step: set(images) for step, images in told["done"].items()}
    assert set(done) == {"read", "decode", "compute", "write"}
    assert done["compute"] == {"gpu"}
    # Before the node is lost and after it: what it had begun, or had handed to nobody yet, is decoded again.
    assert done["decode"] == {"decode", "decode again"}
    assert not {"head", "unknown"} & set.union(*done.values())


def test_no_row_is_lost_with_a_node_in_the_middle_of_its_work(told):
    assert (told["lost"], told["status"], told["rows"], told["listed"]) == ("decode", "done", NUM_ROWS, NUM_ROWS)
    assert 0 < told["lost_at_rows"] < NUM_ROWS
    assert told["is_exact"]
    assert told["audit"] == 0
    assert told["exit"] == 0


def test_a_cluster_that_asks_for_no_token_is_refused_after_it_was_joined(told):
    assert told["refused"]["exit_code"] == 2
    assert "asks for no token" in told["refused"]["error"]
    assert "--allow-no-token" in told["refused"]["error"]
