"""The two steps that do the work, as values: what a benchmark or a test puts in their place needs no other door.

The flow knows them by what is written here, and loads neither of their libraries for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.chunks.chunk import Chunk
from pipeline.chunks.size_policy import SizePolicy
from pipeline.decode.decode_chunk import decode_chunk
from pipeline.infer.config import InferConfig


class DecodeStep(Protocol):
    """Chunk of encoded images -> chunk of pixels; see `pipeline.decode.decode_chunk`."""

    def __call__(self, chunk: Chunk, sizes: SizePolicy, *, careful: bool = False) -> Chunk:
        """The chunk with pixels in place of encoded bytes."""


class ActorStep(Protocol):
    """Chunk of pixels -> chunk of answers, in three parts, of which the middle one alone needs the accelerator.

    Attributes:
        ahead: chunks that are worth submitting before the first of those under way is waited for: 0 where `submit`
            itself computes, more where an accelerator does so after it has returned.
    """

    ahead: int

    def unpack(self, chunk: Chunk) -> Any:
        """What `submit` takes; called in any thread, while another chunk is computed."""

    def submit(self, unpacked: Any) -> Callable[[], Any]:
        """Gives what waits for the chunk, and gives what `pack` takes.

        All calls of both come from one thread, that which made the step; chunks are waited for in their order.
        """

    def pack(self, computed: Any) -> Chunk:
        """The chunk with answers in place of pixels; called in any thread, while another chunk is computed."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What is done between reading and collecting.

    Attributes:
        decode: called in tasks of one core.
        infer: weights and settings -> the step that one actor hosts.
    """

    decode: DecodeStep
    infer: Callable[[memoryview | bytes, InferConfig], ActorStep]


def _network(weights: memoryview | bytes, config: InferConfig) -> ActorStep:
    # Here and not above: the driver and the workers of the other steps would load torch for nothing.
    from pipeline.infer.infer_step import InferStep

    return InferStep(weights, config)


NETWORK = Steps(decode=decode_chunk, infer=_network)
"""The real ones."""
