"""The audit and the job, which share no code, find the same images in tars."""

import gzip
import io
import tarfile

import pytest

from infra.audit.tars import tar_images
from pipeline.inputs.names import NameFilter
from pipeline.inputs.record import ReaderOptions, Record
from pipeline.inputs.rules import FIRST_RULES, RULES
from pipeline.inputs.tar import read_tar
from tests.support.tars import tar_of

TAKES = NameFilter().takes_image
MEMBERS = (
    ("a/0.jpg", b"0" * 700), ("a/0.cls", b"7"), ("./b.png", b"x" * 512), ("._b.png", b"mac"), ("readme.md", b"hi"),
    ("b.png", b"again"), ("b.png", b"and again"), ("e.webp", b""), ("a/" + "long" * 40 + ".jpg", b"l" * 100),
    ("caf\u00e9.jpg", b"c" * 1025),
)  # fmt: skip


def tar_with_folder(members, tar_format=tarfile.PAX_FORMAT):
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


def by_audit(path, data, rules=RULES):
    path.write_bytes(data)
    images, broken = tar_images(path, TAKES, rules)
    return [(image.key, image.label) for image in images], broken is not None


def by_job(data, rules=RULES):
    items = read_tar(io.BytesIO(data), ReaderOptions(takes_image=TAKES, rules=rules))
    records = [item for item in items if isinstance(item, Record)]
    return [(record.key, record.true_label) for record in records if record.key is not None], records[
        -1:
    ] != [] and records[-1].key is None


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("rules", [FIRST_RULES, RULES])
def test_images_are_those_that_the_job_reads(tmp_path, tar_format, pack, rules):
    data = tar_with_folder(MEMBERS, tar_format)
    for body in (data, data + tar_with_folder(MEMBERS[:3], tar_format), bytes(1024), data + bytes(99)):
        found = by_audit(tmp_path / "x.tar", pack(body), rules)
        assert found == by_job(pack(body), rules)
        assert not found[1]


def test_keys_and_sizes_are_told_in_the_order_of_the_tar(tmp_path):
    (tmp_path / "x.tar").write_bytes(
        tar_with_folder((("b.png", b"1"), ("a.cls", b"5"), ("b.png", b"22"), ("b.png@1", b"")))
    )
    images, broken = tar_images(tmp_path / "x.tar", TAKES)
    assert [(image.key, image.size) for image in images] == [("b.png", 1), ("b.png@1", 2)]
    assert broken is None


def test_a_tar_that_is_cut_anywhere_breaks_off_behind_the_same_image(tmp_path):
    data = tar_with_folder(MEMBERS)
    for length in (*range(0, len(data) - 1024, 173), *range(512, len(data) - 10_240, 512)):
        assert by_audit(tmp_path / "x.tar", data[:length]) == by_job(data[:length]), length


@pytest.mark.parametrize("data", [b"", b"no tar", b"no tar" * 1000, b"\x1f\x8bno gzip"], ids=repr)
def test_what_is_no_tar_has_no_images(tmp_path, data):
    assert by_audit(tmp_path / "x.tar", data) == by_job(data) == ([], True)


def test_rubbish_between_two_archives_is_where_it_breaks_off(tmp_path):
    data = tar_with_folder(MEMBERS[:2]) + b"r" * 512 + tar_with_folder(MEMBERS[2:])
    assert by_audit(tmp_path / "x.tar", data) == by_job(data) == ([("a/0.jpg", "7")], True)


def tar_with_links(links):
    return tar_of([("d/a.jpg", b"12345"), ("a.cls", b"4"), ("e.JSON", b'{"labels": 3.0}'), ("@7", b"1")], links)


LINKS = (
    (tarfile.LNKTYPE, "b.jpg", "d/a.jpg"), (tarfile.LNKTYPE, "b2.jpg", "./d/a.jpg"),
    (tarfile.SYMTYPE, "d/c.jpg", "a.jpg"), (tarfile.SYMTYPE, "e.jpg", "d/../b.jpg"),
    (tarfile.SYMTYPE, "f.jpg", "/d/a.jpg"), (tarfile.LNKTYPE, "g.jpg", "no.jpg"),
    (tarfile.LNKTYPE, "h.txt", "d/a.jpg"), (tarfile.SYMTYPE, "i.jpg", "h.txt"),
)  # fmt: skip


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("rules", [FIRST_RULES, RULES])
def test_links_are_images_under_the_present_rules_only(tmp_path, pack, rules):
    data = pack(tar_with_links(LINKS))
    assert by_audit(tmp_path / "x.tar", data, rules) == by_job(data, rules)
    images, _ = tar_images(tmp_path / "x.tar", TAKES, rules)
    options = ReaderOptions(takes_image=TAKES, rules=rules)
    records = [item for item in read_tar(io.BytesIO(data), options) if isinstance(item, Record)]
    assert [image.size for image in images] == [None if item.data is None else len(item.data) for item in records]
    failed = [image.key for image in images if image.refused is not None]
    assert failed == ([] if rules == FIRST_RULES else ["f.jpg", "g.jpg"])


def test_labels_of_sidecars_that_stand_far_away_are_not_told(tmp_path):
    far = [(f"{number}.jpg", b"x") for number in range(300)]
    data = tar_with_folder([("a/x.jpg", b"1"), *far, ("a/x.cls", b"7"), ("a/y.jpg", b"2"), ("a/y.cls", b"5")])
    (tmp_path / "x.tar").write_bytes(data)
    images, _ = tar_images(tmp_path / "x.tar", TAKES, RULES)
    told = {image.key: image.label for image in images if image.is_known}
    assert "a/x.jpg" not in told
    assert told["a/y.jpg"] == "5"
    assert len(told) == 301
