"""Checks whether a cluster that changes still has the processors that a pass needs.

If a node is lost for good, a pass may stand still for one of two reasons. Ray may restart the actors of the node on
other nodes, so that the read and decode steps find no processors there. Or Ray may wait for a GPU that does not come
back, and hold the work of the lost actor. In both cases the pass ends, and the next pass has fewer actors. Once the
nodes are back, another pass begins with as many actors as at first.
"""

import time
from collections.abc import Callable

from pipeline.cluster.cluster import Cluster, look_at_cluster
from pipeline.cluster.processors import Processors, divide_again

_LOOK_EVERY_S = 30.0


class Capacity:
    """Compares the present processors of the cluster with the processors that a pass needs.

    Attributes:
        now: Division of the processors in this pass.
    """

    def __init__(
        self,
        before: Processors,
        now: Processors,
        look: Callable[[], Cluster | None] = look_at_cluster,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the comparison for one pass, without asking the cluster yet.

        Args:
            before: Division of the processors when the run began.
            now: Division of the processors in this pass.
            look: Function that returns the processors of the cluster; None if the cluster does not answer.
            clock: Function that returns the time in seconds.
        """
        self._before, self.now, self._look, self._clock = before, now, look, clock
        self._looked_at = clock()

    def lost(self) -> str | None:
        """Returns why the pass cannot go on; None if the pass can go on.

        The run calls this method only after nothing has arrived for a while.
        """
        cluster = self._look()
        if cluster is None or self.now.fits(cluster.num_cpus, cluster.num_gpus):
            return None
        fewer = self._divided(cluster)
        if fewer is None or fewer == self.now:
            return None
        return f"{_has(cluster)} left, too few for {_needs(self.now)}"

    def regained(self) -> str | None:
        """Returns why another pass would have more actors; None if the cluster has not regained enough processors.

        The cluster is asked at most once in 30 s.
        """
        if self.now.num_actors[1] >= self._before.num_actors[1] or self._clock() - self._looked_at < _LOOK_EVERY_S:
            return None
        self._looked_at = self._clock()
        cluster = self._look()
        if cluster is None or not self._before.fits(cluster.num_cpus, cluster.num_gpus):
            return None
        return f"{_has(cluster)} there again, enough for {_needs(self._before)}"

    def divided(self) -> Processors:
        """Returns a division of the present processors; the division of this pass if they are unknown or too few."""
        cluster = self._look()
        return self.now if cluster is None else self._divided(cluster) or self.now

    def _divided(self, cluster: Cluster) -> Processors | None:
        return divide_again(self._before, cluster.num_cpus, cluster.num_gpus, cluster.idle_nodes)


def _has(cluster: Cluster) -> str:
    gpus = f" and {cluster.num_gpus:g} GPUs" if cluster.num_gpus else ""
    return f"{cluster.num_cpus:g} CPUs{gpus} are"


def _needs(processors: Processors) -> str:
    return f"{processors.num_actors[1]} {processors.device} actors beside the steps that feed them"
