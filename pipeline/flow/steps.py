"""The decode step and the infer step, as values that a benchmark or a test can replace.

The flow calls the infer step through the protocols of this module, so the driver does not load PyTorch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pipeline.chunks.chunk import Chunk
from pipeline.chunks.size_policy import SizePolicy
from pipeline.chunks.task import ClassifyAtSizes, Task
from pipeline.decode.decode_chunk import decode_chunk, decode_chunk_at_sizes
from pipeline.infer.config import InferConfig


class DecodeStep(Protocol):
    """A function from a chunk of encoded images to a chunk of pixels, such as `decode_chunk`."""

    def __call__(self, chunk: Chunk, sizes: SizePolicy, *, careful: bool = False) -> Chunk:
        """Returns the chunk with pixels in place of encoded bytes."""


class ActorStep(Protocol):
    """The infer step of one actor: turns pixels into answers in three parts. Only `submit` needs the accelerator.

    Attributes:
        ahead: Number of chunks to submit before waiting for the oldest one: 0 if `submit` itself computes, more if an
            accelerator computes after `submit` has returned.
    """

    ahead: int

    def unpack(self, chunk: Chunk) -> Any:
        """Returns the argument of `submit`; called in any thread, while another chunk is computed."""

    def submit(self, unpacked: Any) -> Callable[[], Any]:
        """Starts the computation; returns a function that waits for its end and returns the argument of `pack`.

        The thread that made the step calls `submit` and the returned functions, in the order of the chunks.
        """

    def pack(self, computed: Any) -> Chunk:
        """Returns the chunk with answers in place of pixels; called in any thread, while another chunk is computed."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps between reading and collecting.

    Attributes:
        decode: Decode step, which runs in tasks of one core.
        infer: Function from weights and settings to the infer step of one actor.
    """

    decode: DecodeStep
    infer: Callable[[memoryview | bytes, InferConfig], ActorStep]


def _network(weights: memoryview | bytes, config: InferConfig) -> ActorStep:
    # Imported here, so that the driver and the workers of the other steps do not load PyTorch.
    from pipeline.infer.infer_step import InferStep

    return InferStep(weights, config)


NETWORK = Steps(decode=decode_chunk, infer=_network)
"""The steps of a real run."""


@dataclass(frozen=True)
class _DecodeAtSizes:
    policies: Sequence[SizePolicy]

    def __call__(self, chunk: Chunk, sizes: SizePolicy, *, careful: bool = False) -> Chunk:
        return decode_chunk_at_sizes(chunk, self.policies, careful=careful)


def steps_of(task: Task) -> Steps:
    """Returns the steps of a real run of a task."""
    return replace(NETWORK, decode=_DecodeAtSizes(task.policies)) if isinstance(task, ClassifyAtSizes) else NETWORK
