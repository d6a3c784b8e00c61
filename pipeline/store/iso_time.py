"""Times as text."""

from datetime import UTC, datetime


def unix_s(text: str) -> float:
    """Unix seconds of a date, or a date and time, in a form of ISO 8601; without a zone it is UTC.

    Raises:
        ValueError: it is neither.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
