"""Times as users and stores write them."""

import pytest

from pipeline.store.object_info import unix_s


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-02", 86400.0),
        ("1970-01-02T00:00", 86400.0),
        ("1970-01-02 00:00:01.5", 86401.5),
        ("1970-01-02T00:00:00Z", 86400.0),
        ("1970-01-02T01:00:00+01:00", 86400.0),
        ("19700102T000000Z", 86400.0),
    ],
)
def test_a_time_without_a_zone_is_utc(monkeypatch, text, expected):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert unix_s(text) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "1970", "1970-13-01", "86400", "12:00"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"isoformat|month"):
        unix_s(text)
