"""Flags become configs, and whatever a command comes to, one line of JSON and an exit code. No Ray is started."""

import io
import json
import logging
import os
import signal
import sys
from contextlib import contextmanager

import pytest

from jobs.cli import progress
from jobs.cli.command import configure_logging, run_command
from jobs.cli.flags import (
    compute_config,
    input_config,
    job_config,
    make_parser,
    output_config,
    size_policy,
)
from jobs.cli.progress import ProgressDisplay
from jobs.cli.run_job import Upkeep, _kept, output_lease, verdicts
from pipeline import errors
from pipeline.account.progress import Progress
from pipeline.account.report import Report, Seconds
from pipeline.account.totals import Totals
from pipeline.chunks.size_policy import SizePolicy
from pipeline.chunks.task import Classify
from pipeline.cluster.config import ComputeConfig
from pipeline.config.job_config import BoundsConfig, JobConfig
from pipeline.errors import EXIT_CODES, ConfigError, PipelineError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.names import NameFilter
from pipeline.output.config import OutputConfig
from pipeline.run.stopper import Stopper
from pipeline.store.config import StoreConfig

REQUIRED = ("--input", "/in", "--output", "/out", "--weights", "/w")


@pytest.fixture(autouse=True)
def signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def parse(*arguments):
    return make_parser("A job.").parse_args([*REQUIRED, *arguments])


# Flags.


def test_flags_that_are_not_given_are_the_configs_own_defaults():
    flags = parse()
    assert input_config(flags) == InputConfig(uris=("/in",))
    assert output_config(flags) == OutputConfig(uri="/out")
    assert compute_config(flags) == ComputeConfig()
    assert size_policy(flags) == SizePolicy()
    assert job_config(flags, Classify()) == JobConfig(
        task=Classify(), input=InputConfig(uris=("/in",)), output=OutputConfig(uri="/out"), weights="/w"
    )


def test_the_precision_is_the_machines_choice_unless_it_is_asked_for():
    assert job_config(parse(), Classify()).precision == "auto"
    assert job_config(parse("--precision", "fp16"), Classify()).precision == "fp16"


def test_pictures_are_shown_of_as_many_images_as_are_asked_for():
    assert job_config(parse(), Classify()).thumbnails == 0
    assert job_config(parse("--thumbnails", "24"), Classify()).thumbnails == 24
    with pytest.raises(ConfigError, match="--thumbnails"):
        job_config(parse("--thumbnails", "201"), Classify())


def test_every_flag_of_the_input_has_its_place():
    flags = parse(
        "--input", "s3://bucket/x", "--include", "*.png", "--include", "0*.tar", "--exclude", "a*", "--exclude", "b*",
        "--include-also", "*.img", "--input-format", "tar", "--image-column", "img", "--keep-columns", "caption, url,",
        "--limit", "7",
        "--input-profile", "p", "--input-endpoint-url", "http://127.0.0.1:1", "--input-anonymous",
    )  # fmt: skip
    assert input_config(flags) == InputConfig(
        uris=("/in", "s3://bucket/x"),
        names=NameFilter(include=("*.png", "0*.tar"), include_also=("*.img",), exclude=("a*", "b*")),
        format="tar", image_column="img", keep_columns=("caption", "url"), limit=7,
        store=StoreConfig(profile="p", endpoint_url="http://127.0.0.1:1", anonymous=True),
    )  # fmt: skip


def test_every_bound_of_a_run_has_its_place():
    flags = parse("--since", "1970-01-02", "--max-images", "1000", "--max-hours", "0.5")
    assert job_config(flags, Classify()).bounds == BoundsConfig(since_s=86400.0, max_images=1000, max_hours=0.5)


def test_a_time_of_another_form_is_refused_with_forms_that_work():
    with pytest.raises(ConfigError, match=r"argument --since: .* such as 2026-11-27, .*\+01:00, not 'yesterday'; see"):
        parse("--since", "yesterday")


def test_every_flag_of_the_output_has_its_place():
    flags = parse(
        "--rows-per-file", "9", "--max-file-mib", "8", "--wait-for-lease-s", "7.5", "--output-profile", "q",
        "--output-endpoint-url", "http://h:2",
    )  # fmt: skip
    assert output_config(flags) == OutputConfig(
        uri="/out", rows_per_file=9, max_file_mib=8, wait_for_lease_s=7.5,
        store=StoreConfig(profile="q", endpoint_url="http://h:2"),
    )  # fmt: skip


def test_a_run_is_at_least_as_patient_with_its_lease_as_with_its_store():
    for deadline_s, expected in ((5.0, 60.0), (300.0, 300.0)):
        lease = output_lease(OutputConfig(uri="/out", store=StoreConfig(deadline_s=deadline_s)), "run-1", Stopper())
        assert lease.timing.expiry_s == expected


def test_one_deadline_holds_for_both_stores():
    flags = parse("--store-deadline-s", "12.5")
    assert input_config(flags).store == output_config(flags).store == StoreConfig(deadline_s=12.5)
    for wrong in ("-1", "nan", "inf"):
        with pytest.raises(ConfigError, match="--store-deadline-s must be a number of seconds"):
            input_config(parse("--store-deadline-s", wrong))


def test_inputs_and_outputs_have_accounts_of_their_own():
    flags = parse("--input-profile", "a", "--input-anonymous")
    assert output_config(flags).store == StoreConfig()
    flags = parse("--output-profile", "b")
    assert input_config(flags).store == StoreConfig()


@pytest.mark.parametrize(("text", "expected"), [("3", (3, 3)), ("1,4", (1, 4)), ("2, 2", (2, 2))])
def test_actors_are_one_number_or_two(text, expected):
    flags = parse("--num-actors", text, "--device", "cuda", "--ray-address", "auto")
    assert compute_config(flags) == ComputeConfig(device="cuda", num_actors=expected, ray_address="auto")


@pytest.mark.parametrize("text", ["", "x", "1,2,3", "1.5", "2,"])
def test_actors_of_another_form_are_refused(text):
    with pytest.raises(ConfigError, match="argument --num-actors: must be N or MIN,MAX; see --help"):
        parse("--num-actors", text)


def test_sizes_have_their_place_and_name_their_flag():
    flags = parse("--max-image-pixels", "5000", "--large-images", "reject", "--small-images", "reject")
    assert size_policy(flags) == SizePolicy(max_image_pixels=5000, large_images="reject", small_images="reject")
    with pytest.raises(ConfigError, match=r"--max-image-pixels: must lie in 1024\.\."):
        size_policy(parse("--max-image-pixels", "1023"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "the following arguments are required: --input, --output, --weights"),
        ((*REQUIRED, "--row", "5"), "unrecognized arguments: --row 5"),
        ((*REQUIRED, "--rows-per-fil", "5"), "unrecognized arguments"),
        ((*REQUIRED, "/more"), "unrecognized arguments: /more"),
        ((*REQUIRED, "--variant", "b9"), "--variant: invalid choice: 'b9'"),
        ((*REQUIRED, "--limit", "many"), "--limit: invalid int value: 'many'"),
        ((*REQUIRED, "--weights"), "--weights: expected one argument"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_a_wrong_config(arguments, expected):
    with pytest.raises(ConfigError, match=r"; see --help$") as raised:
        make_parser("A job.").parse_args(arguments)
    assert expected in str(raised.value)


def test_help_says_every_flag_with_its_default_and_every_exit_code(capsys):
    with pytest.raises(SystemExit) as ended:
        parse("--help")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.rstrip().endswith(EXIT_CODES)
    for action in make_parser("A job.")._actions:
        assert action.option_strings[-1] in said
        assert action.help or action.choices
    for default in ("4096", "512", "4194304", "0.1"):
        assert f"default: {default}" in said


# The end of a command.


def ended(capsys, command, *arguments):
    """(exit code, last line as JSON, stderr); the last line is all that stdout has."""
    code = run_command(command, arguments)
    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()
    return code, json.loads(line), captured.err


def failing(error):
    def command(arguments, stopper):
        raise error

    return command


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PipelineError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_of_ours_is_a_sentence_and_its_exit_code(capsys, kind):
    code, summary, said = ended(capsys, failing(kind("what to do:\n  this")))
    assert code == kind.exit_code
    status = "stopped" if kind is errors.StoppedError else "failed"
    assert summary == {"status": status, "exit_code": code, "error": "what to do: this"}
    assert said == "error: what to do: this\n"


def test_every_exit_code_is_explained():
    codes = {kind.exit_code for kind in KINDS} | {0}
    explained = {word for line in EXIT_CODES.splitlines()[1:] for word in line.split() if word.isdigit()}
    assert explained == {str(code) for code in codes}


def test_arguments_reach_the_command_and_its_summary_is_the_last_line(capsys):
    code, summary, said = ended(capsys, lambda arguments, stopper: {"given": arguments, "exit_code": 0}, "--a", "b")
    assert (code, summary, said) == (0, {"given": ["--a", "b"], "exit_code": 0}, "")
    assert ended(capsys, lambda arguments, stopper: {"exit_code": 6})[0] == 6


def test_an_error_that_nobody_foresaw_says_where_and_shows_no_traceback(capsys):
    def command(arguments, stopper):
        return {}["a key"]

    code, summary, said = ended(capsys, command)
    assert code == 1
    assert summary["error"].startswith("internal error: KeyError: 'a key' (command, line ")
    assert summary["error"].endswith("--log-level debug tells more")
    assert said == f"error: {summary['error']}\n"


def test_an_unforeseen_error_has_its_traceback_in_the_log_where_that_is_asked_for(capsys, caplog):
    with caplog.at_level("DEBUG", "jobs"):
        assert ended(capsys, failing(ZeroDivisionError("why")))[0] == 1
    assert "Traceback" in caplog.text
    assert "ZeroDivisionError: why" in caplog.text


def test_ctrl_c_before_the_work_is_a_stop(capsys):
    code, summary, _ = ended(capsys, failing(KeyboardInterrupt()))
    assert (code, summary["status"]) == (9, "stopped")


def test_a_request_to_end_is_a_stop(capsys):
    def command(arguments, stopper):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    code, summary, said = ended(capsys, command)
    assert (code, summary["status"]) == (9, "stopped")
    assert "Traceback" not in said


# What a finished run comes to.


def report(status="done", problems=(), **totals):
    return Report(
        run_id="r", status=status, identity={}, run=Totals(**totals), output=Totals(), ignored=0,
        problems=tuple(problems), seconds=Seconds(wall=1.0, model_load=0.0, first_row=None, steady=None), actors={},
        versions={}, passes=1, replayed_chunks=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("listed", "failed", "fraction", "passes"),
    [
        (100, 10, 0.1, True), (100, 11, 0.1, False), (0, 0, 0.0, True), (100, 0, 0.0, True), (100, 1, 0.0, False),
        (100, 100, 1.0, True), (100, 29, 0.29, True), (10, 7, 0.7, True), (3, 1, 1 / 3, True), (30, 3, 0.1, True),
    ],
)  # fmt: skip
def test_as_many_records_may_fail_as_the_flag_says(listed, failed, fraction, passes):
    found = verdicts(report(listed=listed, ok=listed - failed, failed=failed, failed_by_code={"x": failed}), fraction)
    assert (not found) == passes
    for error in found:
        assert error.exit_code == 6
        assert f"{failed} of {listed} records failed ({{'x': {failed}}})" in str(error)
        assert f"--max-failed-fraction {fraction:g}" in str(error)


@pytest.mark.parametrize("status", ["stopped", "stalled", "failed"])
def test_a_run_that_did_not_end_is_incomplete(status):
    (error,) = verdicts(report(status, listed=10, failed=10), 0.1)
    assert error.exit_code == 9
    assert str(error).startswith(f"{status}; ")


def test_records_that_failed_again_are_no_share_of_what_failed_now():
    again = report(listed=5, ok=0, failed=5)
    assert verdicts(again, 0.1, failed_again=5) == []
    assert [error.exit_code for error in verdicts(again, 0.1, failed_again=4)] == [6]
    assert verdicts(report(listed=30, ok=24, failed=6), 0.1, failed_again=5) == []
    # What was tried again with success takes nothing away from what failed for the first time.
    assert [error.exit_code for error in verdicts(report(listed=30, ok=25, failed=5), 0.1, failed_again=0)] == [6]


def test_what_the_upkeep_fails_with_stands_beside_what_it_found():
    def fails(run, ledger):
        raise errors.OutputError("no room")

    more, found = _kept(Upkeep(check=lambda run: None, keep=fails), None, None)
    assert (more, [error.exit_code for error in found]) == ({}, [5])


def test_a_run_that_was_bounded_tells_of_its_failures_first():
    found = verdicts(report("stopped", listed=10, failed=10), 0.1, is_bound=True)
    assert [error.exit_code for error in found] == [6, 9]
    assert [error.exit_code for error in verdicts(report("stopped", listed=10), 0.1, is_bound=True)] == [9]


def test_accounts_that_do_not_close_come_before_everything_else():
    (error,) = verdicts(report("stopped", [f"problem {i}" for i in range(5)], listed=10, failed=10), 0.1)
    assert error.exit_code == 7
    assert str(error) == "the accounts do not close: problem 0; problem 1; problem 2 (and 2 more)"
    assert str(*verdicts(report("failed", ["one"]), 0.1)) == "the accounts do not close: one"


# Progress and logs.


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def at(rows, failed=0, files=0, **values):
    return Progress(arrived=Totals(listed=rows, failed=failed), published=Totals(files=files), **values)


def test_on_a_terminal_there_is_a_bar(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    display = ProgressDisplay()
    clock[0] += 10
    display(at(50, failed=2, files=1, total=200))
    display(at(300, failed=2, files=2, total=200))
    display(at(50, failed=2, files=1))
    display.close()
    first, beyond, unknown = terminal.getvalue().split("\r")[1:]
    assert first == "[######------------------] 50/200 images, 2 failed, 1 files, 5.0 images/s\x1b[K"
    assert beyond.startswith("[########################] 300/200 images")
    assert unknown.startswith("[........................] 50 images, 2 failed")
    assert unknown.endswith("\n")


def test_elsewhere_there_is_a_line_every_ten_seconds(clock, monkeypatch, caplog):
    caplog.set_level("INFO", "jobs")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    display = ProgressDisplay()
    for rows in range(25):
        clock[0] += 1
        display(at(rows))
    display.close()
    assert [record.getMessage() for record in caplog.records] == [
        "progress 9 images, 0 failed, 0 files, 0.9 images/s",
        "progress 19 images, 0 failed, 0 files, 0.9 images/s",
    ]  # fmt: skip
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("share", "spent_s", "said"),
    [
        (0.5, 20.0, ", 50% of the work done, 20 s left"),
        (0.1, 60.0, ", 10% of the work done, 9 min 00 s left"),
        (0.1, 6000.0, ", 10% of the work done, 15 h 00 min left"),
        (0.01, 60.0, ", 1% of the work done"),
        (1.0, 60.0, ", 100% of the work done"),
        (None, 60.0, ""),
    ],
)
def test_it_is_told_how_much_of_the_work_is_done_and_how_long_the_rest_takes(monkeypatch, share, spent_s, said):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress.time, "time", lambda: 1000.0 + spent_s)
    ProgressDisplay()(at(5, share=share, first_row_at=1000.0))
    assert terminal.getvalue().removesuffix("\x1b[K").endswith(f" images/s{said}")


def test_a_display_before_any_row_divides_by_no_zero(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    ProgressDisplay()(at(0, total=0))
    assert "0/0 images" in terminal.getvalue()


@contextmanager
def no_logging_yet():
    """The root logger without the handlers that pytest gave it; every level as it was afterwards."""
    names = ("", "jobs", "pipeline", "model", "__main__")
    levels = {name: logging.getLogger(name).level for name in names}
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        yield
    finally:
        root.handlers = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(("level", "ours"), [("debug", ["DEBUG", "INFO"]), ("info", ["INFO"]), ("warning", [])])
def test_our_own_log_lines_go_to_stderr_from_the_level_on_and_libraries_warn_only(capsys, level, ours):
    with no_logging_yet():
        configure_logging(level)
        for name in ("pipeline.read.read_shard", "jobs.cli.command", "model.checkpoints.load", "obstore"):
            logging.getLogger(name).debug("told by %s", name)
            logging.getLogger(name).info("told by %s", name)
        logging.getLogger("obstore").warning("warned by obstore")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line.split(" ", 1)[1] for line in captured.err.splitlines()]
    told = [
        f"{each} told by {name}"
        for name in ("pipeline.read.read_shard", "jobs.cli.command", "model.checkpoints.load")
        for each in ours
    ]
    assert lines == [*told, "WARNING warned by obstore"]
