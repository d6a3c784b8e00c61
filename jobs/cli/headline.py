"""One sentence about a run that has ended, for a chat."""

from collections.abc import Mapping
from typing import Any

_MAX_REASON_CHARS = 300
# Chats read these characters as links and mentions, and a run's error may quote the name of any file.
_PLAIN = str.maketrans({"<": "‹", ">": "›", "@": "＠"})


def headline(summary: Mapping[str, Any]) -> str:
    """Returns one sentence about a run, without the parts that the summary lacks or holds in an unexpected form.

        done: 1,204 images labelled (3 failed) in 212 s; data set 50,310 rows, 812 to review
        exit 9: stopped: bounded by --max-hours 6; 1,204 images in 21,600 s

    Args:
        summary: Summary of the run, as on the last line of stdout.
    """
    code, error = summary.get("exit_code"), _text(summary.get("error"))
    is_well = code in (0, None) and not error
    status = _text(summary.get("status")) or "ended"
    head = status if is_well else f"exit {code}" if code else "failed"
    # The message of a successful run repeats the status, unless the run had nothing to do.
    message = _text(summary.get("message"))
    reason = error or (message if message != status else "") or ("" if is_well else status)
    images, data_set = _images(summary), _data_set(summary.get("dataset"))
    parts = [reason if not (is_well and images) else "", images, data_set]
    tail = "; ".join(part for part in parts if part)
    return f"{head}: {tail}" if tail else head


def _images(summary: Mapping[str, Any]) -> str:
    ok, failed, seconds = (_number(summary.get(name)) for name in ("ok", "failed", "seconds"))
    if not ok and not failed:
        return ""
    # Only the summary of `jobs/label_dataset.py` shows that the images were labelled.
    text = _counted(ok or 0, "image") + (" labelled" if summary.get("dataset") else "")
    text += f" ({failed:,} failed)" if failed else ""
    return text + (f" in {seconds:,.0f} s" if seconds is not None else "")


def _data_set(found: object) -> str:
    if not isinstance(found, Mapping) or (rows := _number(found.get("rows"))) is None:
        return ""
    review = _number(found.get("review"))
    return f"data set {_counted(rows, 'row')}" + (f", {review:,} to review" if review else "")


def _counted(count: float, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: object) -> str:
    """Returns a text on one line, shortened, without characters that a chat interprets; "" if the value is no text."""
    text = " ".join(value.split()).translate(_PLAIN) if isinstance(value, str) else ""
    return text if len(text) <= _MAX_REASON_CHARS else text[: _MAX_REASON_CHARS - 1] + "…"
