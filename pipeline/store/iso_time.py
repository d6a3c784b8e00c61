"""Times in the form of ISO 8601."""

from datetime import UTC, datetime


def unix_s(text: str) -> float:
    """Returns the Unix seconds of a date, or of a date and time, in a form of ISO 8601; a missing zone means UTC.

    Raises:
        ValueError: The text is neither.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
