"""A format is added by a reader and an entry in each of two tables, the job's and the audit's, and nothing else."""

import zipfile

import pytest

from infra.audit import formats as audit_formats
from infra.audit.audit import Request, audit
from infra.audit.findings import Findings
from infra.audit.tars import ShardImage
from jobs.cli.flags import make_parser
from model.network.config import VARIANTS
from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.chunks.size_policy import SizePolicy
from pipeline.errors import ConfigError
from pipeline.inputs import formats
from pipeline.inputs.config import InputConfig
from pipeline.inputs.formats import InputFormat
from pipeline.inputs.listing import Survey
from pipeline.inputs.record import Record, ShardEnd
from pipeline.read.header_sample import planned_work
from pipeline.read.input_checks import count_records
from tests.support.simulated import KilledError, SimulatedRun, published_rows, run_once

NUM_IMAGES = 8


def read_zip(file, options, start_row):
    """The images of a zip, in the order of its directory."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        yield Record(key=None, data=None, failure=Failure(ErrorCode.SOURCE_UNREADABLE, str(error)))
        yield ShardEnd()
        return
    names = [name for name in archive.namelist() if options.takes_image(name)]
    for name in names[start_row:]:
        yield Record(key=name, data=archive.read(name))
    yield ShardEnd(len(archive.namelist()) - len(names))


def zip_images(path, takes_image, rules):
    """(images, reason why there are none)."""
    try:
        entries = zipfile.ZipFile(path).infolist()
    except zipfile.BadZipFile as error:
        return [], str(error)
    return [ShardImage(entry.filename, entry.file_size) for entry in entries if takes_image(entry.filename)], None


@pytest.fixture(autouse=True)
def zip_format(monkeypatch):
    """Zips are known to the job and to the audit."""
    monkeypatch.setitem(formats.FORMATS, "zip", InputFormat(name="zip", endings=(".zip",), read=read_zip))
    in_audit = audit_formats.ShardFormat(name="zip", endings=(".zip",), images=zip_images)
    monkeypatch.setitem(audit_formats.FORMATS, "zip", in_audit)


@pytest.fixture
def source(tmp_path, encode, make_tar):
    """A folder with a zip of images, a file that is no zip, and what the other readers take."""
    folder = tmp_path / "in"
    folder.mkdir()
    with zipfile.ZipFile(folder / "photos.ZIP", "w") as archive:
        for number in range(NUM_IMAGES):
            archive.writestr(f"a/{number}.png", encode(64, 64, number))
        archive.writestr("a/.hidden.png", b"")
        archive.writestr("readme.txt", b"")
    (folder / "broken.zip").write_bytes(b"no zip")
    (folder / "loose.png").write_bytes(encode())
    (folder / "x.tar").write_bytes(make_tar({"0.png": encode()}))
    return folder


def formats_of(config):
    return {found.name: found.format for found in Survey(config, "file:///nowhere/out")}


def test_the_listing_knows_a_new_format_by_its_ending_and_by_its_flag(source):
    everything = InputConfig(uris=(str(source),))
    assert formats_of(everything) == {"broken.zip": "zip", "loose.png": "files", "photos.ZIP": "zip", "x.tar": "tar"}
    flags = make_parser("", required=False).parse_args(["--input-format", "zip"])
    assert formats_of(InputConfig(uris=(str(source),), format=flags.input_format)).keys() == {
        "broken.zip",
        "photos.ZIP",
    }
    (source / "photos.ZIP").rename(source / "photos")
    assert formats_of(InputConfig(uris=(str(source / "photos"),), format="zip")) == {"photos": "zip"}
    with pytest.raises(ConfigError, match="--input-format must be one of auto, tar, parquet, zip, files, not arj"):
        InputConfig(uris=(str(source),), format="arj")


def test_a_run_over_a_new_format_is_planned_read_and_published_and_its_audit_agrees(source, tmp_path):
    run = SimulatedRun(source, tmp_path / "out", 1)
    assert run.run.plan.by_format == {"zip": 2, "tar": 1, "files": 1}
    run.begin()
    run.work()
    report = run.finish()
    assert (report.run.ok, report.run.failed_by_code) == (NUM_IMAGES + 2, {"source.unreadable": 1})
    rows = [row for row in published_rows(tmp_path / "out") if row["shard"].endswith("photos.ZIP")]
    assert [(row["row"], row["key"]) for row in rows] == [(number, f"a/{number}.png") for number in range(NUM_IMAGES)]
    assert {row["image_id"] for row in rows} == {f"{row['shard']}#{row['key']}" for row in rows}
    findings = Findings()
    tables = audit(Request(input=[str(source)], output=str(tmp_path / "out")), findings)
    assert findings.problems == []
    (listed,) = [line.audited for line in tables["the inputs"] if line.what == "records in the inputs"]
    assert listed == NUM_IMAGES + 2


def test_a_run_that_was_killed_within_a_new_format_is_finished_by_the_next(source, tmp_path):
    run = SimulatedRun(source, tmp_path / "out", 1, rows_per_file=3)
    run.begin()
    puts = iter(range(3))

    def die_at_the_fourth():
        if next(puts, None) is None:
            raise KilledError

    with pytest.raises(KilledError):
        run.work(die_at_the_fourth)
    assert run_once(source, tmp_path / "out", 2, rows_per_file=3).output.ok == NUM_IMAGES + 2
    assert run_once(source, tmp_path / "out", 3, rows_per_file=3).run.listed == 0


def test_the_work_in_a_new_format_is_estimated(source, tmp_path):
    run = SimulatedRun(source / "photos.ZIP", tmp_path / "out", 1).run
    work = planned_work(
        list(run.plan.shards), 4, plan_bytes=run.plan.num_bytes, config=run.config.input, network=VARIANTS["b0"],
        sizes=(SizePolicy(),),
    )  # fmt: skip
    assert work.images_sampled == 4
    assert work.images == pytest.approx(NUM_IMAGES, rel=0.15)


def test_records_of_a_new_format_are_counted_under_a_limit(source):
    config = InputConfig(uris=(str(source / "photos.ZIP"),), limit=5)
    (found,) = Survey(config, "file:///nowhere/out")
    assert [count_records(found, at_most, config) for at_most in (5, 100)] == [5, NUM_IMAGES]
