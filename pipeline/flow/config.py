"""Settings of one pass."""

from dataclasses import dataclass
from typing import Any

from model.network.config import PVTv2Config
from pipeline.chunks.size_policy import SizePolicy
from pipeline.cluster.processors import Processors
from pipeline.flow.steps import NETWORK, Steps
from pipeline.infer.config import InferConfig
from pipeline.read.read_shard import ReadConfig
from pipeline.workers.activity import Notify


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """What the steps of one pass need.

    Attributes:
        read: settings of the read step.
        sizes: the policy for images that are too small or too large.
        infer: settings of the infer step.
        weights: reference to the checkpoint's bytes in Ray's object store, which moves them to each node once.
        network: the network that the weights are for.
        processors: the share of the cluster that each step asks for.
        careful: every image goes to a child process that may die.
        notify: called in every process of every step with a note of the records that the process works on.
        steps: the decode step and the infer step, where no child processes do their work.
        thumbnails: number of images of each chunk that get a thumbnail for the report.
    """

    read: ReadConfig
    sizes: SizePolicy
    infer: InferConfig
    weights: Any
    network: PVTv2Config
    processors: Processors
    careful: bool
    notify: Notify
    steps: Steps = NETWORK
    thumbnails: int = 0
