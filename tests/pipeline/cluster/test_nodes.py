"""The check of the nodes of a cluster that loses one meanwhile; `tests/jobs/test_submit.py` has a real cluster."""

import pytest
import ray

from pipeline.cluster import nodes
from pipeline.errors import ConfigError

HERE, LOST = "aa" * 28, "bb" * 28
NODES = [
    {"NodeID": node_id, "NodeManagerHostname": name, "NodeManagerAddress": f"192.0.2.{index}", "Alive": True}
    for index, (node_id, name) in enumerate(((HERE, "here"), (LOST, "lost")))
]


class Probe:
    """The remote function, whose reference is the id of the node that it was sent to."""

    def options(self, scheduling_strategy):
        self.node_id = scheduling_strategy.node_id
        return self

    def remote(self, paths):
        return self.node_id


@pytest.fixture
def answers(monkeypatch):
    """Every node but the lost one answers with the versions of this process."""

    def get(reference, timeout):
        if reference == LOST:
            raise ray.exceptions.TaskUnschedulableError("the node does not exist any more")
        return nodes._versions(), [], True

    monkeypatch.setattr(ray, "remote", lambda **options: lambda function: Probe())
    monkeypatch.setattr(ray, "get", get)


def test_a_node_that_is_lost_while_it_is_checked_is_left_out(answers, monkeypatch, caplog):
    monkeypatch.setattr(ray, "nodes", lambda: [NODES[0], NODES[1] | {"Alive": False}])
    assert nodes.check_nodes(NODES, []) == {"192.0.2.0": True}
    assert "node.gone node=lost" in caplog.text


def test_a_node_that_is_there_and_does_not_run_the_probe_is_refused(answers, monkeypatch):
    monkeypatch.setattr(ray, "nodes", lambda: NODES)
    with pytest.raises(ConfigError, match="node lost cannot run this code"):
        nodes.check_nodes(NODES, [])
