"""The audit and the job, which share no code, find the same images in tars."""

import gzip
import io
import tarfile

import pytest

from infra.audit.tars import tar_images
from pipeline.inputs.names import NameFilter
from pipeline.inputs.record import ReaderOptions, Record
from pipeline.inputs.tar import read_tar

TAKES = NameFilter().takes_image
MEMBERS = (
    ("a/0.jpg", b"0" * 700), ("a/0.cls", b"7"), ("./b.png", b"x" * 512), ("._b.png", b"mac"), ("readme.md", b"hi"),
    ("b.png", b"again"), ("b.png", b"and again"), ("e.webp", b""), ("a/" + "long" * 40 + ".jpg", b"l" * 100),
    ("caf\u00e9.jpg", b"c" * 1025),
)  # fmt: skip


def tar_of(members, tar_format=tarfile.PAX_FORMAT):
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w", format=tar_format) as tar:
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return body.getvalue()


def by_audit(path, data):
    path.write_bytes(data)
    images, broken = tar_images(path, TAKES)
    return [key for key, _ in images], broken is not None


def by_job(data):
    items = read_tar(io.BytesIO(data), ReaderOptions(takes_image=TAKES))
    records = [item for item in items if isinstance(item, Record)]
    return [record.key for record in records if record.key is not None], records[-1:] != [] and records[-1].key is None


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_images_are_those_that_the_job_reads(tmp_path, tar_format, pack):
    data = tar_of(MEMBERS, tar_format)
    for body in (data, data + tar_of(MEMBERS[:3], tar_format), bytes(1024), data + bytes(99)):
        found = by_audit(tmp_path / "x.tar", pack(body))
        assert found == by_job(pack(body))
        assert not found[1]


def test_keys_and_sizes_are_told_in_the_order_of_the_tar(tmp_path):
    (tmp_path / "x.tar").write_bytes(tar_of((("b.png", b"1"), ("a.cls", b"5"), ("b.png", b"22"), ("b.png@1", b""))))
    assert tar_images(tmp_path / "x.tar", TAKES) == ([("b.png", 1), ("b.png@1", 2)], None)


def test_a_tar_that_is_cut_anywhere_breaks_off_behind_the_same_image(tmp_path):
    data = tar_of(MEMBERS)
    for length in (*range(0, len(data) - 1024, 173), *range(512, len(data) - 10_240, 512)):
        assert by_audit(tmp_path / "x.tar", data[:length]) == by_job(data[:length]), length


@pytest.mark.parametrize("data", [b"", b"no tar", b"no tar" * 1000, b"\x1f\x8bno gzip"], ids=repr)
def test_what_is_no_tar_has_no_images(tmp_path, data):
    assert by_audit(tmp_path / "x.tar", data) == by_job(data) == ([], True)


def test_rubbish_between_two_archives_is_where_it_breaks_off(tmp_path):
    data = tar_of(MEMBERS[:2]) + b"r" * 512 + tar_of(MEMBERS[2:])
    assert by_audit(tmp_path / "x.tar", data) == by_job(data) == (["a/0.jpg"], True)
