"""Decodes images in a child process that may die."""

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.decode.decode_image import DecodedImage, FailedImage, SizePolicy, decode_at_sizes
from pipeline.workers.isolation import Crash, IsolatedService
from pipeline.workers.time_limits import DECODE_IMAGE_S


class IsolatedDecoder:
    """Decodes one image at a time in a child process."""

    def __init__(self, timeout_s: float = DECODE_IMAGE_S) -> None:
        self._timeout_s = timeout_s
        self._service = IsolatedService(__name__)

    def decode(self, data: bytes, policy: SizePolicy) -> DecodedImage | FailedImage:
        """Returns the result of `decode_image`; see `decode_at_sizes`."""
        return self.decode_at_sizes(data, (policy,))[0]

    def decode_at_sizes(self, data: bytes, policies: Sequence[SizePolicy]) -> list[DecodedImage | FailedImage]:
        """Returns the result of `decode_at_sizes`.

        An image that kills the child process or takes too long fails with the code `decode.crashed`.

        Raises:
            ChildError: No child process could be started.
        """
        answer = self._service.ask((data, policies), self._timeout_s)
        if isinstance(answer, Crash):
            failure = Failure(ErrorCode.DECODE_CRASHED, answer.explain("decoding"))
            return [FailedImage(failure=failure) for _ in policies]
        return answer

    def close(self) -> None:
        """Ends the child process."""
        self._service.close()


def start_service(_: object) -> Callable[[Any], Any]:
    """Returns the function that answers requests; the child process calls this at its start."""
    return lambda request: decode_at_sizes(*request)
