"""Inputs of every reader at random, odd cells and odd members included: one row for each image that was put in."""

import io
import os
import string
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.audit.audit import Request, audit
from infra.audit.findings import Findings
from tests.support.parquets_at_random import parquet_files
from tests.support.simulated import SimulatedRun, published_rows, run_once

# `make soak` asks for more.
EXAMPLES = int(os.environ.get("EXAMPLES", "10"))

FOLDERS = ["", "", "cat/", "a b/", "ä/", "x#y/", "50%/", "z.tar#/"]
STEMS = st.text(st.sampled_from(string.ascii_lowercase + "#@%é _-3"), min_size=1, max_size=5)
IMAGES = st.sampled_from([".jpg", ".PNG", ".jfif", ".jpe", ".heic", ".JXL", ".dng", ".svg", ".webp"])
OTHERS = st.sampled_from([".txt", ".img", "", ".bin", ".json", ".cls"])
HIDDEN = st.sampled_from([".hidden.jpg", "_SUCCESS", ".cache/a.png", "__MACOSX/a.jpg"])


@st.composite
def image_names(draw):
    """Names that are read; their last parts begin with `i`."""
    return f"{draw(st.sampled_from(FOLDERS))}i{draw(STEMS)}{draw(IMAGES)}"


@st.composite
def other_names(draw):
    """Names that are passed over; their last parts do not begin with `i`."""
    return draw(HIDDEN) if draw(st.booleans()) else f"o{draw(STEMS)}{draw(OTHERS)}"


# No content begins as a format does that is not decoded: simulated runs make ok rows of all records.
contents = st.binary(max_size=30).map(lambda data: b"." + data)


def member(name, data=b"", kind=tarfile.REGTYPE, target=""):
    """The header of a member of a tar, and its data."""
    header = tarfile.TarInfo(name)
    header.size, header.type, header.linkname = len(data), kind, target
    return header, data


@st.composite
def tar_files(draw):
    """(number of images in a tar, the tar's bytes)."""
    names = st.one_of(image_names(), st.sampled_from(["a.jpg", "cat/b.png"]))
    file = st.builds(member, st.one_of(names, other_names()), contents)
    link = st.builds(member, names, st.just(b""), st.sampled_from([tarfile.LNKTYPE, tarfile.SYMTYPE]), names)
    folder = st.builds(member, st.just("cat"), st.just(b""), st.just(tarfile.DIRTYPE))
    members = draw(st.lists(st.one_of(file, file, link, folder), max_size=12))
    body = io.BytesIO()
    form = draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    with tarfile.open(fileobj=body, mode=draw(st.sampled_from(["w", "w:gz"])), format=form) as tar:
        for header, data in members:
            tar.addfile(header, io.BytesIO(data))
    return sum(not header.isdir() and is_image(header.name) for header, _ in members), body.getvalue()


def is_image(name):
    """True for the names of images."""
    return name in ("a.jpg", "cat/b.png") or name.rpartition("/")[2].startswith("i")


@st.composite
def inputs(draw):
    """The files of an input by name, each with its number of images and its bytes."""
    found = draw(st.dictionaries(st.one_of(image_names(), image_names(), other_names()), contents, max_size=12))
    files = {name: (int(is_image(name)), data) for name, data in found.items()}
    for name in draw(st.lists(st.sampled_from(["s.tar", "cat/t.tgz", "z.tar"]), unique=True)):
        files[name] = draw(tar_files())
    for name in draw(st.lists(st.sampled_from(["p.parquet", "cat/q.parquet"]), unique=True)):
        images, data = draw(parquet_files(max_rows=12, contents=contents))
        files[name] = len(images), data
    files["i.jpg"] = 1, b"a run has one image at least"
    return files


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(inputs(), st.integers(0, 3))
def test_a_run_that_was_killed_and_its_successor_leave_one_row_for_each_image(files, killed_after):
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "in"), Path(folder, "out")
        for name, (_, data) in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
        run = SimulatedRun(source, output, 1)
        run.begin()
        run.work_until_killed(killed_after)
        report = run_once(source, output, 2)
        put_in = Counter({name: number for name, (number, _) in files.items() if number})
        rows = list(published_rows(output))
        assert len({row["image_id"] for row in rows}) == len(rows) == put_in.total()
        assert report.output.listed == put_in.total()
        shards = Counter(row["shard"].removeprefix(f"file://{source}/") for row in rows if row["shard"][:6] != "files:")
        assert shards == {
            name: number for name, number in put_in.items() if name.endswith((".tar", ".tgz", ".parquet"))
        }
        findings = Findings()
        audit(Request(input=[str(source)], output=str(output)), findings)
        assert findings.problems == []
