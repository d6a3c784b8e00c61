"""Untrusted text, such as names of images, made safe for a terminal and for one line of a log."""

import logging
from typing import Any


def printable(text: str) -> str:
    """Returns a text whose invisible characters are escaped: line ends, terminal commands, changes of direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class OneLine(logging.Formatter):
    """A log formatter that writes each event on one line; a traceback follows in lines that begin with a bar."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Returns the line of an event."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Returns a traceback whose lines begin with a bar, since the text of an error may look like the next event."""
        return "\n".join(f"| {printable(line)}" for line in super().formatException(ei).split("\n"))
