"""Clusters that change, and what becomes of the division of their processors; no Ray here."""

import pytest
import ray

from pipeline.cluster.capacity import Capacity
from pipeline.cluster.cluster import Cluster, wait_until_free
from pipeline.cluster.processors import divide_again, divide_processors

GPUS = divide_processors(16, 4, "auto", None)
CPUS = divide_processors(4, 0, "auto", None)


def cluster(num_cpus, num_gpus=0, idle_nodes=()):
    return Cluster(num_cpus=num_cpus, num_gpus=num_gpus, idle_nodes=idle_nodes)


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_what_was_divided_has_room_in_what_there_was(cpus, gpus):
    if gpus and 0.2 * gpus > cpus - 1.25:
        return
    division = divide_processors(cpus, gpus, "auto", None)
    assert division.fits(cpus, gpus)
    assert divide_again(division, cpus, gpus) == division


@pytest.mark.parametrize(
    ("division", "left", "actors"),
    [
        (CPUS, (2, 0), (2, 2)),
        (CPUS, (1, 0), (1, 1)),
        (CPUS, (0, 0), None),
        (GPUS, (16, 3), (3, 3)),
        (GPUS, (1.5, 4), (1, 1)),
        (GPUS, (16, 0), None),
        # More than there were in the beginning are not asked for.
        (CPUS, (64, 0), (4, 4)),
        (divide_processors(8, 0, "cpu", (2, 6)), (2, 0), (2, 2)),
        (divide_processors(8, 0, "cpu", (2, 6)), (4, 0), (2, 6)),
        (divide_processors(8, 0, "cpu", (2, 6)), (1, 0), (1, 1)),
    ],
)
def test_as_many_actors_as_find_room_go_on(division, left, actors):
    again = divide_again(division, *left)
    assert (again and again.num_actors) == actors
    if again is not None:
        assert again.device == division.device
        assert again.fits(*left)
        # The collectors are there already.
        assert again.num_collectors == division.num_collectors


def test_a_pass_is_given_up_only_if_what_is_left_is_too_little_and_enough_for_fewer():
    found = [cluster(4)]
    capacity = Capacity(CPUS, CPUS, look=lambda: found[-1])
    assert capacity.lost() is None
    found.append(cluster(3))  # crowded, and there is room for a reader and a decoder
    assert capacity.lost() is None
    found.append(cluster(2))
    assert capacity.lost() == "2 CPUs are left, too few for 4 cpu actors beside the steps that feed them"
    assert capacity.divided().num_actors == (2, 2)
    found.append(cluster(0))  # nothing to go on with: the run waits for nodes
    assert capacity.lost() is None
    assert capacity.divided() == CPUS


def test_what_has_come_back_is_taken_again():
    now = [0.0]
    found, looked = [cluster(8, 2)], []
    few = divide_again(GPUS, 8, 2)
    capacity = Capacity(GPUS, few, look=lambda: looked.append(now[0]) or found[-1], clock=lambda: now[0])
    for now[0] in range(100):
        assert capacity.regained() is None
    assert len(looked) == 3
    found.append(cluster(16, 4, ("head",)))
    now[0] = 130.0
    assert capacity.regained() == (
        "16 CPUs and 4 GPUs are there again, enough for 4 cuda actors beside the steps that feed them"
    )
    assert capacity.divided().num_actors == (4, 4)
    assert capacity.divided().idle_nodes == ("head",)


def test_a_run_that_has_all_its_actors_does_not_look():
    capacity = Capacity(GPUS, GPUS, look=lambda: pytest.fail("it looked"), clock=lambda: 1e9)
    assert capacity.regained() is None


def test_a_cluster_that_does_not_answer_changes_nothing(monkeypatch, caplog):
    def nodes():
        raise ray.exceptions.RaySystemError("gone")

    monkeypatch.setattr(ray, "nodes", nodes)
    capacity = Capacity(CPUS, divide_again(CPUS, 2, 0), clock=lambda: 1e9)
    assert capacity.lost() is capacity.regained() is None
    assert capacity.divided() == capacity.now
    assert "cluster.unknown error=System error: gone" in caplog.text


def test_what_a_pass_that_was_given_up_had_is_waited_for(monkeypatch):
    free = [{"CPU": 0.2}, {"CPU": 1.1, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}]
    monkeypatch.setattr("pipeline.cluster.cluster._LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(ray, "available_resources", lambda: free.pop(0) if len(free) > 1 else free[0])
    one = divide_again(GPUS, 2, 1)
    assert wait_until_free(one.fits, timeout_s=10.0)
    assert len(free) == 1
    assert not wait_until_free(GPUS.fits, timeout_s=0.02)


def test_a_cluster_that_does_not_answer_is_asked_again_what_is_free(monkeypatch, caplog):
    answers = [ray.exceptions.RaySystemError("gone"), {"CPU": 4.0}]

    def available_resources():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("pipeline.cluster.cluster._LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(ray, "available_resources", available_resources)
    assert wait_until_free(CPUS.fits, timeout_s=10.0)
    assert "cluster.unknown error=System error: gone" in caplog.text
