"""Untrusted names on a terminal and in a log."""

import io
import logging

import pytest

from jobs.cli.command import run_command
from jobs.cli.printable import OneLine, printable
from jobs.diff_labels import _table
from pipeline.errors import InputError

HOSTILE = "a\x1b[2J\nWARNING all is well\r\x9b1m\u202egpj.exe\x7f\udc80.jpg"
HARMLESS = r"a\x1b[2J\nWARNING all is well\r\x9b1m\u202egpj.exe\x7f\udc80.jpg"


def test_what_is_no_visible_character_is_escaped():
    assert printable(HOSTILE) == HARMLESS
    assert printable("Fotos/Ärger 猫 #1.jpg") == "Fotos/Ärger 猫 #1.jpg"


def test_an_event_is_one_line_whatever_it_names_and_a_traceback_keeps_its_own():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine("%(levelname)s %(message)s"))
    logger = logging.Logger("of this test")
    logger.addHandler(handler)
    logger.info("image.odd key=%s", HOSTILE)
    assert stream.getvalue() == f"INFO image.odd key={HARMLESS}\n"
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logger.exception("job.broke")
    first, *more = stream.getvalue().splitlines()[1:]
    assert (first, more[0]) == ("ERROR job.broke", "| Traceback (most recent call last):")
    assert all(line.startswith("| ") and line.isprintable() for line in more)
    assert r"ValueError: a\x1b[2J" in more[-2] and more[-1].startswith("| WARNING all is well")


@pytest.mark.usefixtures("signal_handlers")
def test_an_error_is_one_line_whatever_it_names(capsys):
    def command(arguments, stopper):
        raise InputError(f"{HOSTILE} is no image")

    assert run_command(command, []) == 3
    shown = capsys.readouterr()
    assert shown.err == f"error: {HARMLESS} is no image\n".replace(r"\n", " ").replace(r"\r", " ")
    assert shown.out.isascii() and shown.out.count("\n") == 1


def test_labels_that_a_picture_s_author_wrote_are_shown_as_they_are_spelt():
    numbers = dict.fromkeys(("a_rows", "b_rows"), 1)
    flips = [{"label_a": HOSTILE, "label_b": "cat", "images": 1}]
    assert HARMLESS in _table(_Zeros(numbers, flips=flips))


class _Zeros(dict):
    """Numbers of a comparison, all of which are 0 but some."""

    def __missing__(self, name):
        return 0
