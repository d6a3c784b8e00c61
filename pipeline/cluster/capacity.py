"""Whether a cluster that changes still has room for the way in which its processors are divided.

Where a node is lost for good, Ray starts its actors again on what is left, and nothing may be left for the steps that
feed them; or it waits for a GPU that does not come, with the work that a lost actor had. Then the pass is ended and the
next begins with fewer actors; once the nodes are back, with as many as before.
"""

import time
from collections.abc import Callable

from pipeline.cluster.cluster import Cluster, look_at_cluster
from pipeline.cluster.processors import Processors, divide_again

_LOOK_EVERY_S = 30.0


class Capacity:
    """Whether the cluster still has the processors that a pass was divided over.

    Attributes:
        now: how the processors are divided in this pass.
    """

    def __init__(
        self,
        before: Processors,
        now: Processors,
        look: Callable[[], Cluster | None] = look_at_cluster,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Looks at nothing yet.

        Args:
            before: how the processors were divided when the run began.
        """
        self._before, self.now, self._look, self._clock = before, now, look, clock
        self._looked_at = clock()

    def lost(self) -> str | None:
        """Returns why the pass cannot go on; None if it can. It is asked when nothing has arrived for a while."""
        cluster = self._look()
        if cluster is None or self.now.fits(cluster.num_cpus, cluster.num_gpus):
            return None
        fewer = self._divided(cluster)
        if fewer is None or fewer == self.now:
            return None
        return f"{_has(cluster)} left, too few for {_needs(self.now)}"

    def regained(self) -> str | None:
        """Returns why another pass would be faster; None if it would not. The cluster is asked every 30 s at most."""
        if self.now.num_actors[1] >= self._before.num_actors[1] or self._clock() - self._looked_at < _LOOK_EVERY_S:
            return None
        self._looked_at = self._clock()
        cluster = self._look()
        if cluster is None or not self._before.fits(cluster.num_cpus, cluster.num_gpus):
            return None
        return f"{_has(cluster)} there again, enough for {_needs(self._before)}"

    def divided(self) -> Processors:
        """How what there is at the moment is divided; as in this pass where that is not known or too little."""
        cluster = self._look()
        return self.now if cluster is None else self._divided(cluster) or self.now

    def _divided(self, cluster: Cluster) -> Processors | None:
        return divide_again(self._before, cluster.num_cpus, cluster.num_gpus, cluster.idle_nodes)


def _has(cluster: Cluster) -> str:
    gpus = f" and {cluster.num_gpus:g} GPUs" if cluster.num_gpus else ""
    return f"{cluster.num_cpus:g} CPUs{gpus} are"


def _needs(processors: Processors) -> str:
    return f"{processors.num_actors[1]} {processors.device} actors beside the steps that feed them"
