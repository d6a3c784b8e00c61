"""Converts times in the form of ISO 8601."""

from datetime import UTC, datetime


def unix_s(text: str) -> float:
    """Returns the time in Unix seconds of an ISO 8601 date, or date and time; a missing time zone means UTC.

    Raises:
        ValueError: The text is neither an ISO 8601 date nor an ISO 8601 date and time.
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
