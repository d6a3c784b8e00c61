"""Runs over names that nobody knows: what they say, and that their advice is true as it is printed."""

import shlex
from dataclasses import replace

import pytest

from jobs.cli.flags import input_config, make_parser
from jobs.cli.run_job import verdicts
from pipeline.account.breakdown import Breakdown
from pipeline.errors import InputError
from pipeline.inputs.config import InputConfig
from pipeline.inputs.formats import FORMATS
from pipeline.inputs.left_out import ending_glob, glob_in_any_case, how_to_include, unknown_endings
from pipeline.inputs.listing import Survey
from pipeline.inputs.names import UNDECODED_ENDINGS, NameFilter, matches
from pipeline.inputs.record import Record
from pipeline.inputs.rules import FIRST_RULES, RULES
from pipeline.run.build_report import build_report
from pipeline.run.left_out import inputs_without_images, passed_over, warn_about
from tests.support.simulated import SimulatedRun
from tests.support.tars import tar_of


def tar_named(*names):
    return tar_of([(name, b"x") for name in names])


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in files.items():
        (folder / name).write_bytes(body)


def run_of(source, output, number):
    """A whole run: the run, its report and what it ends with."""
    run = SimulatedRun(source, output, number)
    if run.run.plan.is_empty:
        report = build_report(run.run, run.ledger, "done", [])
    else:
        run.begin()
        run.work()
        report = run.finish()
    return run.run, report, [str(error) for error in inputs_without_images(run.run, run.ledger.files.values())]


def followed(sentence, source):
    """The records that the command reads when it has the flags that a sentence names."""
    flags = shlex.split(sentence[sentence.index("--") : sentence.rindex(" and ")].rstrip(","))
    parsed = make_parser("", required=False).parse_args(["--input", str(source), *flags])
    config = input_config(parsed)
    names = []
    for found in Survey(config, "file:///nowhere/out"):
        if found.is_loose:
            names.append(found.name)
            continue
        with config.place(found.info.uri).open(size=found.info.size, etag=found.info.etag) as file:
            items = FORMATS[found.format].read(file, config.reader_options, 0)
            names += [item.key for item in items if isinstance(item, Record)]
    return sorted(names)


def test_what_is_passed_over_is_warned_about_once_and_the_advice_is_true(tmp_path, caplog):
    source = tmp_path / "in"
    members = ["m.jpg", "m.IMG", "m.txt", "_SUCCESS", ".x.img", "n.we*rd"]
    write(source, **{"a.jpg": b"x", "b.img": b"x", "NOENDING": b"x", "t.tar": tar_named(*members), "notes.txt": b""})
    run, report, errors = run_of(source, tmp_path / "out", 1)
    assert errors == []
    assert passed_over(report) == {".img": 2, "(none)": 1, ".we*rd": 1}
    warn_about(run, report)
    (said,) = [record.getMessage() for record in caplog.records if "passed_over" in record.getMessage()]
    assert "4 files passed over: 2 x .img, 1 x .we*rd, 1 without ending." in said
    assert followed(said, source) == ["a.jpg", "b.img", "m.IMG", "m.jpg", "n.we*rd"]
    assert report.to_dict()["run"]["passed_over"] == {".img": 2, "(none)": 1, ".we*rd": 1}


def test_a_run_that_passes_over_only_what_it_knows_warns_of_nothing(tmp_path, caplog):
    write(tmp_path / "in", **{"a.jpg": b"x", "t.tar": tar_named("m.jpg", "m.cls", "._m.jpg", "m.txt"), ".h.img": b""})
    run, report, _ = run_of(tmp_path / "in", tmp_path / "out", 1)
    warn_about(run, report)
    assert not [record for record in caplog.records if record.name == "pipeline.run.left_out"]


def test_an_input_of_tars_without_images_is_an_error_on_every_run(tmp_path):
    write(tmp_path / "in", **{"a.tar": tar_named("1.img", "2.img"), "b.tar": tar_named("3.img", "README")})
    ends = [run_of(tmp_path / "in", tmp_path / "out", number)[2] for number in (1, 2, 3)]
    assert ends[0] == ends[1] == ends[2]
    ((message,), *_) = ends
    assert "none of its 2 shards holds an image: 4 files passed over: 3 x .img, 1 without ending." in message
    assert followed(message, tmp_path / "in") == ["1.img", "2.img", "3.img"]


@pytest.mark.parametrize(
    "more",
    [{"c.tar": tar_named("m.jpg")}, {"a.jpg": b"x"}, {"b.parquet": b"broken"}],
)
def test_an_input_that_holds_an_image_beside_is_no_error(tmp_path, more):
    write(tmp_path / "in", **{"a.tar": tar_named("1.img")}, **more)
    for number in (1, 2):
        assert run_of(tmp_path / "in", tmp_path / "out", number)[2] == []


def test_tars_that_hold_nothing_are_no_error_and_tars_of_hidden_files_are(tmp_path):
    write(tmp_path / "empty", **{"a.tar": tar_named()})
    assert run_of(tmp_path / "empty", tmp_path / "out", 1)[2] == []
    write(tmp_path / "hidden", **{"a.tar": tar_named("._a.jpg")})
    (message,) = run_of(tmp_path / "hidden", tmp_path / "other", 1)[2]
    assert "1 members passed over; see --include" in message


def test_the_tar_that_others_met_is_an_error_alone(tmp_path, test_data):
    body = (test_data / "cases/shards/tar_img_endings.tar").read_bytes()
    write(tmp_path / "in", **{"tar_img_endings.tar": body})
    for number in (1, 2):
        ((message,)) = run_of(tmp_path / "in", tmp_path / "out", number)[2]
        assert "8 files passed over: 8 x .img." in message


def test_loose_files_of_unknown_endings_are_an_error_whose_advice_is_true(tmp_path):
    write(tmp_path / "in", **{"a.img": b"x", "b.IMG": b"x"})
    with pytest.raises(InputError, match=r"2 files passed over: 2 x \.img") as raised:
        tuple(Survey(InputConfig(uris=(str(tmp_path / "in"),)), "file:///nowhere/out"))
    said = str(raised.value)
    assert followed(said[said.index("repeat the command") :], tmp_path / "in") == ["a.img", "b.IMG"]


def test_old_outputs_pass_over_what_they_always_did_and_say_so():
    counts = {".heic": 2, ".jpg": 1, ".pjpeg": 1, ".img": 1, ".tar": 1, ".gz": 1}
    assert unknown_endings(counts, RULES) == {".img": 1}
    assert unknown_endings(counts, FIRST_RULES) == {".heic": 2, ".img": 1, ".pjpeg": 1}
    assert (
        "1 file passed over: 1 without ending. If these are images, repeat the command with --include-also and a"
        in (how_to_include({"(none)": 1}))
    )
    assert "9 files passed over: 2 x .b, 3 without ending, 4 with other endings" in (
        how_to_include({"(other)": 4, "(none)": 3, ".b": 2})
    )


@pytest.mark.parametrize("ending", [".img", ".i*g", ".i?g", ".i[a]g", ".i'g", ".ı"])
def test_the_glob_of_an_ending_chooses_that_ending_alone(ending):
    assert matches(f"d/a{ending}", ending_glob(ending))
    assert not matches("d/a.ixg", ending_glob(ending)) and not matches("d/a.iag", ending_glob(ending))


def test_the_end_with_too_many_failures_names_the_flags_that_leave_formats_out(tmp_path):
    images = ("a.jpg", "b.HEIC", "c.heic", "d.jxl", "e.Cr2")
    write(tmp_path / "in", **dict.fromkeys(images, b"x"))
    _, report, _ = run_of(tmp_path / "in", tmp_path / "out", 1)
    assert report.run.listed == 5
    breakdown = Breakdown(unsupported={".heic": 2, ".jxl": 1, ".cr2": 1, ".tif": 1})
    failed = replace(report, run=replace(report.run, ok=1, failed=4), breakdown=breakdown)
    (error,) = verdicts(failed, 0.1)
    assert error.exit_code == 6
    assert ". Not decoded: 2 x HEIC, 1 x JPEG XL, 1 x camera raw. The same command with --exclude " in str(error)
    said = str(error)[str(error).index("The same command") :]
    assert followed(said, tmp_path / "in") == ["a.jpg"]
    assert verdicts(failed, 0.9) == []


def test_every_format_that_is_not_decoded_can_be_left_out_by_its_glob():
    for ending in UNDECODED_ENDINGS:
        names = NameFilter(exclude=(glob_in_any_case(ending),))
        assert not any(names.takes_image(f"d/a{spelled}") for spelled in (ending, ending.upper(), ending.title()))
        assert names.takes_image("a.jpg")
