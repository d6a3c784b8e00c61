"""Text from outside, such as names of images, as it may be shown on a terminal or written as one line of a log."""

import logging
from typing import Any


def printable(text: str) -> str:
    """The text with whatever is no visible character escaped: line ends, terminals' commands, turns of direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class OneLine(logging.Formatter):
    """Each event is one line, but for a traceback behind it, whose lines are marked as such."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback, each line behind a bar: what an error says may look like the next event."""
        return "\n".join(f"| {printable(line)}" for line in super().formatException(ei).split("\n"))
