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
    """Settings of the steps of one pass.

    Attributes:
        read: Settings of the read step.
        sizes: Policy for images that are too small or too large.
        infer: Settings of the infer step.
        weights: Reference to the checkpoint's bytes in Ray's object store, which moves them to each node once.
        network: Architecture of the network that the weights belong to.
        processors: Share of the cluster that each step asks for.
        careful: True if every image is decoded and inferred in a child process, which may die.
        notify: Function that every process of every step calls with a note of its work.
        steps: Decode step and infer step. A careful pass ignores this infer step and infers in child processes.
        thumbnails: Number of images of each chunk that get a thumbnail for the report.
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
