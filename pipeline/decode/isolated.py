"""Decodes images in a child process that may die."""

from collections.abc import Callable
from typing import Any

from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.decode.decode_image import DecodedImage, FailedImage, SizePolicy, decode_image
from pipeline.workers.isolation import Crash, IsolatedService
from pipeline.workers.time_limits import DECODE_IMAGE_S


class IsolatedDecoder:
    """Decodes one image at a time in a child process."""

    def __init__(self, timeout_s: float = DECODE_IMAGE_S) -> None:
        self._timeout_s = timeout_s
        self._service = IsolatedService(__name__)

    def decode(self, data: bytes, policy: SizePolicy) -> DecodedImage | FailedImage:
        """Returns the result of `decode_image`.

        An image that kills the child process or takes too long fails with the code `decode.crashed`.

        Raises:
            ChildError: No child process could be started.
        """
        answer = self._service.ask((data, policy), self._timeout_s)
        if isinstance(answer, Crash):
            return FailedImage(failure=Failure(ErrorCode.DECODE_CRASHED, answer.explain("decoding")))
        return answer

    def close(self) -> None:
        """Ends the child process."""
        self._service.close()


def start_service(_: object) -> Callable[[Any], Any]:
    """Returns the function that answers requests; the child process calls this at its start."""
    return lambda request: decode_image(*request)
