import gzip
import io
import json
import subprocess
import tarfile
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.chunks.failures import ErrorCode, Failure
from pipeline.chunks.passed_over import LATE_SIDECARS
from pipeline.inputs import tar, tar_links
from pipeline.inputs.names import NameFilter
from pipeline.inputs.record import ReaderOptions, Record, ShardEnd
from pipeline.inputs.rules import FIRST_RULES, RULES
from pipeline.inputs.tar import read_tar
from tests.support.planted_bugs import planted_bug

END = bytes(1024)


def tar_bytes(*members, tar_format=tarfile.GNU_FORMAT, end=END):
    """A tar of (name, data) pairs or headers, padded to no more than its end marker."""
    parts = []
    for member in members:
        header, data = (member, b"") if isinstance(member, tarfile.TarInfo) else (tarfile.TarInfo(member[0]), member[1])
        header.size = len(data)
        parts += [header.tobuf(tar_format, "utf-8", "surrogateescape"), data, bytes(-len(data) % 512)]
    return b"".join(parts) + end


def special(name, kind, target=""):
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def read(data, names=None, keep_columns=(), start_row=0, rules=RULES):
    """(records, ignored at the end)"""
    file = data if hasattr(data, "read") else io.BytesIO(data)
    names = replace(names or NameFilter(), rules=rules)
    options = ReaderOptions(
        takes_image=names.takes_image,
        ending_left_out=names.ending_left_out,
        keep_columns=keep_columns,
        rules=rules,
    )
    *records, end = read_tar(file, options, start_row)
    assert isinstance(end, ShardEnd)
    assert all(isinstance(record, Record) for record in records)
    return records, end.ignored


def keys(data, **options):
    return [record.key for record in read(data, **options)[0]]


def broken(data):
    """The whole images' keys, and the one failure behind them."""
    *whole, last = read(data)[0]
    assert (last.key, last.data) == (None, None)
    assert all(record.failure is None and record.data is not None for record in whole)
    assert len(last.failure.message) <= 200
    return [record.key for record in whole], last.failure.code


def test_images_come_in_the_order_of_the_tar():
    data = tar_bytes(("b.jpg", b"B"), ("a.PNG", b""), ("c/d.webp", b"D"))
    assert read(data) == ([Record("b.jpg", b"B"), Record("a.PNG", b""), Record("c/d.webp", b"D", true_label="c")], 0)


@pytest.mark.parametrize("start_row", [0, 1, 2, 3, 4])
def test_reading_may_start_at_any_row(start_row):
    data = tar_bytes(("a.jpg", b"0"), ("x.bin", b""), ("b.jpg", b"1"), ("a.jpg", b"2"), ("y.bin", b""))
    records, at_end = read(data)
    assert read(data, start_row=start_row) == (records[start_row:], at_end)


def test_gzip_is_told_by_its_content():
    data = tar_bytes(("a.jpg", b"A" * 5000), ("b.jpg", b"B"))
    assert read(gzip.compress(data)) == read(data)
    two_parts = gzip.compress(data[:700]) + gzip.compress(data[700:])
    assert read(two_parts) == read(data)


@pytest.mark.parametrize("size", [1, 7, 511, 1000])
@pytest.mark.parametrize("packed", [False, True])
def test_reads_may_be_short(size, packed):
    data = tar_bytes(("a.jpg", bytes(range(256)) * 9), ("a.cls", b"5"), ("b.jpg", b"B"))
    stream = io.BytesIO(gzip.compress(data) if packed else data)

    class Short:
        def read(self, wanted):
            return stream.read(min(wanted, size))

    assert read(Short()) == read(data)


def test_what_is_no_image_is_counted_once():
    data = tar_bytes(
        ("readme.md", b"x"),
        special("folder/", tarfile.DIRTYPE),
        ("a.jpg", b"A"),
        special("link.jpg", tarfile.SYMTYPE, "a.jpg"),
        special("hard.jpg", tarfile.LNKTYPE, "a.jpg"),
        ("._b.jpg", b"mac"),
        ("b.jpg", b"B"),
        ("lonely.txt", b"x"),
        ("end.bin", b"x"),
    )
    records, at_end = read(data)
    assert [record.key for record in records] == ["a.jpg", "link.jpg", "hard.jpg", "b.jpg"]
    assert sum(record.ignored for record in records) + at_end == 4
    assert records[0].ignored >= 1
    records, at_end = read(data, rules=FIRST_RULES)
    assert [record.key for record in records] == ["a.jpg", "b.jpg"]
    assert sum(record.ignored for record in records) + at_end == 6


def test_the_filter_chooses_the_images():
    data = tar_bytes(("a.jpg", b"A"), ("b.dat", b"B"), ("c.jpg", b"C"))
    assert keys(data, names=NameFilter(include=("*.dat",))) == ["b.dat"]
    assert keys(data, names=NameFilter(exclude=("c*",))) == ["a.jpg"]


def test_a_name_that_repeats_gets_its_row():
    data = tar_bytes(("a.jpg", b"0"), ("b.jpg", b"1"), ("a.jpg", b"2"), ("a.jpg", b"3"))
    assert keys(data) == ["a.jpg", "b.jpg", "a.jpg@2", "a.jpg@3"]


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "f/" * 90 + "ü.jpg", "漢字.jpg"])
def test_long_and_foreign_names_are_kept(tar_format, name):
    data = tar_bytes((name, b"A"), ("b.jpg", b"B"), tar_format=tar_format)
    assert keys(data) == [name, "b.jpg"]


def test_a_name_that_is_not_utf_8_is_escaped():
    assert keys(tar_bytes(("caf\udce9.jpg", b"A"))) == ["caf\\xe9.jpg"]


def test_a_member_too_large_for_an_image_is_not_read(monkeypatch):
    monkeypatch.setattr(tar, "MAX_ENCODED_BYTES", 1000)
    records, _ = read(tar_bytes(("a.jpg", bytes(1001)), ("a.cls", b"3"), ("b.jpg", bytes(1000))))
    assert [(record.key, record.failure is None) for record in records] == [("a.jpg", False), ("b.jpg", True)]
    assert records[0] == Record(
        "a.jpg",
        None,
        true_label="3",
        failure=Failure(ErrorCode.IMAGE_TOO_LARGE, "the member has 1001 bytes, more than an image may have"),
    )


# Links.


def hard(name, target):
    return special(name, tarfile.LNKTYPE, target)


def soft(name, target):
    return special(name, tarfile.SYMTYPE, target)


def told(data, **options):
    """The bytes of each record, or the code of its failure, by key."""
    records, _ = read(data, **options)
    assert len({record.key for record in records}) == len(records)
    return {record.key: record.data if record.failure is None else str(record.failure.code) for record in records}


PACKED = pytest.mark.parametrize("pack", [bytes, gzip.compress])


@PACKED
@pytest.mark.parametrize(
    ("name", "link", "key"),
    [
        ("a.jpg", hard("b.jpg", "a.jpg"), "b.jpg"),
        ("a.jpg", hard("b.jpg", "./a.jpg"), "b.jpg"),
        ("./d/a.jpg", hard("d/b.jpg", "d/a.jpg"), "d/b.jpg"),
        ("store/4f", hard("d/b.jpg", "store/4f"), "d/b.jpg"),
        ("store/4f", soft("d/b.jpg", "../store/4f"), "d/b.jpg"),
        ("d/a.jpg", soft("d/b.jpg", "a.jpg"), "d/b.jpg"),
        ("x" * 150 + ".jpg", hard("b.jpg", "x" * 150 + ".jpg"), "b.jpg"),
        ("caf\udce9.jpg", hard("b.jpg", "caf\udce9.jpg"), "b.jpg"),
    ],
)
def test_a_link_has_the_bytes_of_the_member_before_it(pack, name, link, key):
    data = pack(tar_bytes((name, b"A" * 700), ("c.jpg", b"C"), link, ("z.jpg", b"Z")))
    assert told(data)[key] == b"A" * 700
    assert list(told(data))[-1] == "z.jpg"
    assert key not in told(data, rules=FIRST_RULES)


@PACKED
def test_a_link_to_a_link_has_the_bytes_of_the_first(pack):
    data = pack(tar_bytes(("a.jpg", b"A"), soft("b.lnk", "a.jpg"), hard("c.jpg", "b.lnk"), soft("d.jpg", "c.jpg")))
    assert told(data) == {"a.jpg": b"A", "c.jpg": b"A", "d.jpg": b"A"}


@PACKED
def test_a_link_has_the_bytes_of_the_last_member_of_that_name(pack):
    data = pack(tar_bytes(("a.jpg", b"1"), hard("b.jpg", "a.jpg"), ("a.jpg", b"2"), hard("c.jpg", "a.jpg")))
    assert told(data) == {"a.jpg": b"1", "b.jpg": b"1", "a.jpg@2": b"2", "c.jpg": b"2"}


@PACKED
@pytest.mark.parametrize(
    "link",
    [
        hard("b.jpg", "gone.jpg"),
        hard("b.jpg", "later.jpg"),
        hard("b.jpg", "b.jpg"),
        hard("b.jpg", "folder"),
        soft("b.jpg", "../a.jpg"),
        soft("b.jpg", "/a.jpg"),
        soft("b.jpg", "later.jpg"),
    ],
)
def test_a_link_to_no_earlier_member_is_one_failed_record(pack, link):
    data = pack(tar_bytes(("a.jpg", b"A"), special("folder/", tarfile.DIRTYPE), link, ("later.jpg", b"L")))
    assert told(data) == {"a.jpg": b"A", "b.jpg": "source.missing", "later.jpg": b"L"}
    failure = read(data)[0][1].failure
    assert "stands before it in the tar" in failure.message and len(failure.message) <= 200


def test_a_linked_label_is_joined_and_so_is_the_label_of_a_link():
    data = tar_bytes(("a.jpg", b"A"), ("a.cls", b"7"), hard("b.jpg", "a.jpg"), hard("b.cls", "a.cls"), ("c.cls", b"1"))
    assert [(record.key, record.true_label) for record in read(data)[0]] == [("a.jpg", "7"), ("b.jpg", "7")]


def test_bytes_that_a_gzipped_tar_does_not_keep_are_a_failed_record(monkeypatch):
    monkeypatch.setattr(tar_links, "KEPT_BYTES", 1000)
    members = [("a.jpg", b"A" * 600), ("b.jpg", b"B" * 600), hard("x.jpg", "a.jpg"), hard("y.jpg", "b.jpg")]
    data = tar_bytes(*members)
    assert list(told(gzip.compress(data)).values())[2:] == ["source.unreadable", b"B" * 600]
    assert list(told(data).values())[2:] == [b"A" * 600, b"B" * 600]


def test_a_linked_member_too_large_for_an_image_is_not_read(monkeypatch):
    monkeypatch.setattr(tar, "MAX_ENCODED_BYTES", 1000)
    assert told(tar_bytes(("a.bin", bytes(1001)), hard("b.jpg", "a.bin"))) == {"b.jpg": "image.too_large"}


def test_links_are_bounded_in_number(monkeypatch):
    monkeypatch.setattr(tar_links, "_MAX_FILES", 2)
    data = tar_bytes(*((f"{n}.jpg", b"%d" % n) for n in range(3)), hard("x.jpg", "0.jpg"), hard("y.jpg", "2.jpg"))
    assert list(told(data).values())[3:] == ["source.missing", b"2"]


def test_a_store_that_fails_where_a_link_is_read_again_raises_its_error():
    class Failing(io.BytesIO):
        def seek(self, position, whence=0):
            self.is_again = True
            return super().seek(position, whence)

        def read(self, size=-1):
            if getattr(self, "is_again", False):
                raise ConnectionError("the store is gone")
            return super().read(size)

    with pytest.raises(ConnectionError, match="the store is gone"):
        read(Failing(tar_bytes(("a.jpg", b"A"), hard("b.jpg", "a.jpg"))))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_links_give_one_record_for_each_name(data):
    """Links as GNU tar and `extractall` understand them: the bytes that the target has when the link is met."""
    names = st.sampled_from([f"{folder}{n}.jpg" for folder in ("", "d/") for n in range(4)])
    members, content, expected = [], {}, []
    for number in range(data.draw(st.integers(0, 12))):
        name = data.draw(names)
        if data.draw(st.booleans()):
            content[name] = b"%d" % number
            members.append((name, content[name]))
            expected.append(content[name])
            continue
        target = data.draw(names)
        members.append(hard(name, target))
        expected.append(content.get(target, "source.missing"))
        if target in content:
            content[name] = content[target]
    whole = tar_bytes(*members)
    for packed in (whole, gzip.compress(whole)):
        assert list(told(packed).values()) == expected


# Labels.


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("cat/1.jpg", "cat"),
        ("./cat/1.jpg", "cat"),
        ("train/cat/1.jpg", "cat"),
        ("cat//1.jpg", "cat"),
        ("1.jpg", None),
        ("./1.jpg", None),
        ("../1.jpg", None),
        ("/1.jpg", None),
    ],
)
def test_the_folder_of_a_member_is_its_label(name, label):
    assert [record.true_label for record in read(tar_bytes((name, b"A")))[0]] == [label]
    assert [record.true_label for record in read(tar_bytes((name, b"A")), rules=FIRST_RULES)[0]] == [None]


def test_sidecars_come_before_the_folder():
    data = tar_bytes(
        ("cat/1.jpg", b"A"), ("cat/1.json", b'{"label": "lion"}'),
        ("cat/2.jpg", b"A"), ("cat/2.cls", b"puma"), ("cat/2.json", b'{"label": "lion"}'),
        ("cat/3.jpg", b"A"), ("cat/3.cls", b" "),
    )  # fmt: skip
    assert [record.true_label for record in read(data)[0]] == ["lion", "puma", "cat"]


# Headers of GNU's older format.


def test_access_times_in_a_header_are_no_part_of_the_name(tmp_path):
    folder = tmp_path / "in" / "cat"
    folder.mkdir(parents=True)
    for name in ("1.jpg", "2.jpg", "x" * 120 + ".jpg"):
        (folder / name).write_bytes(name.encode())
        (folder / name).with_suffix(".cls").write_bytes(name[:1].encode())
    command = ["tar", "--format=gnu", "--sort=name", "-g", tmp_path / "state", "-C", tmp_path / "in", "-cf"]
    subprocess.run([*command, tmp_path / "x.tar", "cat"], check=True)
    data = (tmp_path / "x.tar").read_bytes()
    listed = subprocess.run(["tar", "-tf", tmp_path / "x.tar"], check=True, capture_output=True, text=True).stdout
    records, ignored = read(data)
    assert [record.key for record in records] == [name for name in listed.split() if name.endswith(".jpg")]
    assert [record.true_label for record in records] == ["1", "2", "x"]
    assert ignored == 0
    assert all(record.key.endswith(".jpg") and record.key != "cat/1.jpg" for record in read(data, rules=FIRST_RULES)[0])


def test_a_prefix_of_the_name_is_read_where_the_header_has_one():
    name = "f/" * 60 + "a.jpg"
    plain = tar_bytes((name, b"A"), tar_format=tarfile.USTAR_FORMAT)
    assert plain[:1024].count(b"f/") == 59 and keys(plain) == [name]
    header = tarfile.TarInfo("a.jpg").tobuf(tarfile.GNU_FORMAT)
    timed = header[:345] + b"14712345671\0" * 2 + header[369:]
    checked = timed[:148] + b"%06o\0 " % (256 + sum(timed[:148]) + sum(timed[156:])) + timed[156:]
    assert keys(checked + END) == ["a.jpg"]
    assert keys(checked + END, rules=FIRST_RULES) == ["14712345671/a.jpg"]


@pytest.mark.parametrize(
    ("tar_format", "options"),
    [
        *((name, [option]) for name in ("v7", "oldgnu", "gnu", "ustar", "posix") for option in ("-v", "-z")),
        *((name, ["-g", "state"]) for name in ("oldgnu", "gnu", "posix")),
        *((name, ["--sparse"]) for name in ("oldgnu", "gnu", "posix")),
        *((name, ["--hard-dereference"]) for name in ("v7", "gnu", "ustar", "posix")),
    ],
)
def test_what_gnu_tar_packs_has_the_bytes_that_lie_on_the_disk(tmp_path, tar_format, options):
    folder = tmp_path / "in"
    (folder / "b").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"A" * 3000)
    (folder / "c.jpg").write_bytes(bytes(200_000) + b"hole")
    (folder / "b" / "hard.jpg").hardlink_to(folder / "a.jpg")
    (folder / "b" / "hard.2.jpg").hardlink_to(folder / "c.jpg")
    (folder / "b" / "soft.jpg").symlink_to("../a.jpg")
    (folder / "b" / "early.jpg").symlink_to("hard.2.jpg")
    (folder / "b" / "gone.jpg").symlink_to("../../gone.jpg")
    command = ["tar", f"--format={tar_format}", "--sort=name", *options, "-cf", tmp_path / "x.tar", "-C", "in", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = told((tmp_path / "x.tar").read_bytes())
    assert sorted(key.removeprefix("./") for key in found) == sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*.jpg")
    )
    for key, content in found.items():
        is_lost = key.endswith(("early.jpg", "gone.jpg"))
        assert content == ("source.missing" if is_lost else (folder / key).read_bytes()), key


# What is passed over.


def passed_over(data, **options):
    names = NameFilter(**options)
    reader = ReaderOptions(takes_image=names.takes_image, ending_left_out=names.ending_left_out, rules=names.rules)
    total = Counter()
    for item in read_tar(io.BytesIO(data), reader):
        total.update(dict(item.passed_over))
    return total


def test_what_is_passed_over_is_counted_by_ending():
    data = tar_bytes(
        ("a.jpg", b"A"), ("a.cls", b"1"), ("b.img", b""), ("c.IMG", b""), ("README", b""), ("._a.jpg", b""),
        ("_SUCCESS", b""), ("lonely.txt", b""), ("d.heic", b""), ("e.bin", b""),
    )  # fmt: skip
    assert passed_over(data) == {".img": 2, "(none)": 1, ".bin": 1}
    assert passed_over(data, exclude=("*.heic", "*.bin")) == {".img": 2, "(none)": 1, ".heic": 1}
    assert passed_over(data, rules=FIRST_RULES) == {".img": 2, "(none)": 1, ".heic": 1, ".bin": 1}
    assert passed_over(data, include_also=("*.img",)) == {"(none)": 1, ".bin": 1}


def test_members_without_number_have_a_bounded_count():
    data = tar_bytes(*((f"{n}.e{n}", b"") for n in range(300)))
    found = passed_over(data)
    assert len(found) < 50 and found.total() == 300


def test_a_sidecar_that_comes_too_late_is_counted(monkeypatch):
    monkeypatch.setattr("pipeline.inputs.tar_sidecars.WINDOW_MEMBERS", 2)
    images = [(f"{n}.jpg", b"") for n in range(6)]
    sidecars = [(f"{n}.cls", b"1") for n in range(6)]
    assert passed_over(tar_bytes(*images, *sidecars)) == {LATE_SIDECARS: 6}
    assert passed_over(tar_bytes(*sidecars, *images)) == {LATE_SIDECARS: 6}
    assert passed_over(tar_bytes(*(member for pair in zip(images, sidecars, strict=True) for member in pair))) == {}
    assert passed_over(tar_bytes(("a.jpg", b""), *((f"x{n}.cls", b"") for n in range(9)))) == {}


def test_a_sidecar_behind_the_image_that_another_sidecar_still_waits_for_is_late(monkeypatch):
    monkeypatch.setattr("pipeline.inputs.tar_sidecars.WINDOW_MEMBERS", 2)
    data = tar_bytes(("a.jpg", b""), ("a.txt", b"x"), ("b.jpg", b""), ("a.cls", b"1"))
    assert passed_over(data) == {LATE_SIDECARS: 1}


# The inputs that others met.


def test_the_hard_link_that_others_met_has_its_image_and_label(test_data):
    records, _ = read((test_data / "cases/shards/tar_hardlinks.tar").read_bytes())
    assert [(record.key, record.true_label) for record in records] == [("a.jpg", None), ("b.jpg", "2")]
    assert records[0].data == records[1].data


def test_a_tar_of_unknown_endings_has_no_record_and_names_them(test_data):
    data = (test_data / "cases/shards/tar_img_endings.tar").read_bytes()
    assert read(data) == ([], 8)
    assert passed_over(data) == {".img": 8}


def test_a_member_that_is_named_as_a_lost_record_gets_its_row():
    data = tar_bytes(("a.jpg", b""), ("@3", b""), ("@x", b""))
    assert keys(data, names=NameFilter(include=("*",))) == ["a.jpg", "@3@1", "@x"]
    assert keys(data, names=NameFilter(include=("*",)), rules=FIRST_RULES) == ["a.jpg", "@3", "@x"]


# Broken tars.


def test_an_empty_tar_has_no_records():
    assert read(END) == ([], 0)
    assert read(bytes(10240)) == ([], 0)
    assert read(gzip.compress(END)) == ([], 0)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("data", [b"", b"no tar " * 100])
def test_what_is_no_tar_is_one_unreadable_record(data, packed):
    data = gzip.compress(data) if packed else data
    assert broken(data) == ([], ErrorCode.SOURCE_UNREADABLE)


def test_gzip_that_is_none_is_unreadable():
    assert broken(b"\x1f\x8b" + b"junk" * 200) == ([], ErrorCode.SOURCE_UNREADABLE)


MEMBERS = (("a.jpg", b"A" * 700), ("b.cls", b"1"), ("b.jpg", b"B" * 512), ("c.jpg", b"C"))
WHOLE = tar_bytes(*MEMBERS)
# Where each image's last byte is: header, data, padding of each member before.
IMAGE_ENDS = {"a.jpg": 512 + 700, "b.jpg": 512 * 6 + 512, "c.jpg": 512 * 8 + 1}


def test_a_tar_cut_at_any_byte_gives_its_whole_images_and_one_failure():
    for cut in range(1, len(WHOLE)):
        if cut >= len(WHOLE) - 512:  # one block of zeros is an end
            assert keys(WHOLE[:cut]) == list(IMAGE_ENDS), cut
        else:
            expected = [key for key, end in IMAGE_ENDS.items() if end <= cut]
            assert broken(WHOLE[:cut]) == (expected, ErrorCode.SOURCE_TRUNCATED), cut


def test_a_gzipped_tar_cut_at_any_byte_gives_its_whole_images_and_one_failure():
    packed = gzip.compress(WHOLE)
    for cut in range(1, len(packed)):
        whole, code = broken(packed[:cut])
        assert whole == list(IMAGE_ENDS)[: len(whole)], cut
        assert code == ErrorCode.SOURCE_TRUNCATED, cut
    assert broken(packed[:-1])[0] == list(IMAGE_ENDS)


def test_a_gzipped_tar_gives_what_stands_before_a_cut():
    noise = [(f"{n}.jpg", bytes((n * i * i) % 251 for i in range(20_000))) for n in range(1, 40)]
    packed = gzip.compress(tar_bytes(*noise), 1)
    whole, code = broken(packed[: len(packed) * 3 // 4])
    assert code == ErrorCode.SOURCE_TRUNCATED
    assert 25 <= len(whole) < 39


def test_a_wrong_checksum_of_gzip_is_told():
    packed = bytearray(gzip.compress(WHOLE))
    packed[-8] ^= 1
    assert broken(bytes(packed)) == (list(IMAGE_ENDS), ErrorCode.SOURCE_TRUNCATED)


def test_a_header_that_is_broken_in_the_middle_is_told():
    data = bytearray(WHOLE)
    data[512 * 3 + 3] ^= 0x55
    assert broken(bytes(data)) == (["a.jpg"], ErrorCode.SOURCE_TRUNCATED)


def test_tars_put_one_behind_the_other_are_all_read():
    first, second = tar_bytes(("a.jpg", b"0"), ("a.cls", b"x")), tar_bytes(("a.jpg", b"1"), ("a.cls", b"y"))
    records, _ = read(first + bytes(512 * 5) + second)
    assert [(record.key, record.true_label) for record in records] == [("a.jpg", "x"), ("a.jpg@1", "y")]


def test_bytes_behind_the_end_that_are_no_tar_are_told():
    assert broken(WHOLE + b"more" * 200) == (list(IMAGE_ENDS), ErrorCode.SOURCE_TRUNCATED)


def test_a_name_of_gigabytes_is_not_read():
    header = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    header.size = 2**33
    data = tar_bytes(("a.jpg", b"A"), end=b"") + header.tobuf(tarfile.GNU_FORMAT) + bytes(2048)
    assert broken(data) == (["a.jpg"], ErrorCode.SOURCE_TRUNCATED)


def sparse_without_end():
    """A map of a sparse file, as GNU tar has it, each block of which says that another follows."""
    header = special("b.jpg", tarfile.GNUTYPE_SPARSE)
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block), b"00000000001\0" * 42 + b"\1" + bytes(7)


def pax_sparse_without_end():
    """The same as POSIX has it: decimal numbers, of which there are said to be any many."""
    header = tarfile.TarInfo("b.jpg")
    header.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    return header.tobuf(tarfile.PAX_FORMAT) + b"999999999999\n" + b"1\n" * 249 + b"\n", b"1\n" * 256


@pytest.mark.parametrize("make", [sparse_without_end, pax_sparse_without_end])
def test_a_header_that_goes_on_for_ever_is_not_read_to_its_end(make):
    begin, more = make()
    read_bytes = 0

    class Endless:
        def __init__(self):
            self.ahead = io.BytesIO(tar_bytes(("a.jpg", b"A"), end=b"") + begin)

        def read(self, size):
            nonlocal read_bytes
            block = self.ahead.read(size) or more * (size // len(more))
            read_bytes += len(block)
            assert read_bytes < 2**24, "it reads on and on"
            return block

    assert broken(Endless()) == (["a.jpg"], ErrorCode.SOURCE_TRUNCATED)


def test_what_headers_say_of_all_later_members_is_kept_no_longer_than_it_is_of_use(monkeypatch):
    seen = []
    real = tar._Archive.next

    def next_member(archive):
        seen.append(dict(archive.pax_headers))
        return real(archive)

    monkeypatch.setattr(tar._Archive, "next", next_member)
    said = [tarfile.TarInfo.create_pax_global_header({f"note{index}": "x" * 99}) for index in range(9)]
    members = [tar_bytes((f"{index}.jpg", b"A"), end=b"") for index in range(9)]
    data = b"".join(header + member for header, member in zip(said, members, strict=True)) + END
    assert keys(data) == [f"{index}.jpg" for index in range(9)]
    assert len(seen) > 9 and max(map(len, seen)) == 1


def test_ignored_members_before_a_break_are_counted():
    *_, last = read(tar_bytes(("x.bin", b""), ("y.bin", b""), end=b""))[0]
    assert (last.failure.code, last.ignored) == (ErrorCode.SOURCE_TRUNCATED, 2)


class StoreError(Exception):
    pass


@pytest.mark.parametrize("error", [StoreError("gone"), OSError("disk"), EOFError("odd"), tarfile.ReadError("odd")])
@pytest.mark.parametrize("packed", [False, True])
def test_a_storage_that_fails_is_not_taken_for_a_broken_tar(error, packed):
    data = gzip.compress(WHOLE) if packed else WHOLE
    for good_bytes in (0, 1, 100, len(data) - 100):
        stream = io.BytesIO(data[:good_bytes])

        class Failing:
            def read(self, size, stream=stream):
                if not (block := stream.read(min(size, 64))):
                    raise error
                return block

        with pytest.raises(type(error)) as raised:
            read(Failing())
        assert raised.value is error


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6), st.booleans())
@example([(124, 128), (125, 255)], False)  # a size below zero
@example([(156, ord("x"))], False)
@example([(156, ord("S"))], False)
def test_no_bytes_make_it_raise(changes, packed):
    data = bytearray(gzip.compress(WHOLE) if packed else WHOLE)
    for position, value in changes:
        data[position % len(data)] = value
    assert read(bytes(data)) == read(bytes(data))


# Real tars.


def test_real_tars_give_what_tarfile_finds_in_them(test_data):
    paths = sorted(path for path in (test_data / "shards").rglob("*") if path.suffix in (".tar", ".tgz"))
    assert len(paths) >= 6
    num_images = 0
    for path in paths:
        with tarfile.open(path) as archive:
            members = [member for member in archive if member.isreg()]
            images = [member for member in members if NameFilter().takes_image(member.name)]
            expected = [(member.name, archive.extractfile(member).read()) for member in images]
        with path.open("rb") as file:
            records, ignored = read(file)
        assert [(record.key, record.data) for record in records] == expected
        # What is neither an image nor joined to one.
        joined = len(members) - len(images) - ignored - sum(record.ignored for record in records)
        assert joined == sum(record.true_label is not None for record in records)
        num_images += len(images)
    assert num_images > 90


def test_labels_of_a_real_tar_are_joined(test_data):
    path = test_data / "shards/webdataset/testdata/sample.tgz"
    with tarfile.open(path) as archive:
        labels = {m.name: archive.extractfile(m).read().decode() for m in archive if m.name.endswith(".cls")}
    with path.open("rb") as file:
        records, _ = read(file, keep_columns=("cls",))
    assert {record.key.replace(".png", ".cls"): record.true_label for record in records} == labels
    assert all(record.kept == (record.true_label,) for record in records)


def test_json_fields_can_be_kept():
    sidecar = json.dumps({"caption": "a cat", "width": 5, "tags": ["x", "y"], "none": None}).encode()
    data = tar_bytes(("a.jpg", b"A"), ("a.json", sidecar), ("b.jpg", b"B"))
    records, _ = read(data, keep_columns=("width", "tags", "caption", "none", "absent"))
    assert records[0].kept == ("5", '["x", "y"]', "a cat", None, None)
    assert records[1].kept == (None,) * 5


@pytest.mark.parametrize("where", ["_check_begins_as_tar", "is_sidecar"])
def test_a_bug_in_the_reader_is_a_failed_record_whose_message_names_it(monkeypatch, where):
    monkeypatch.setattr(tar, where, planted_bug("pipeline/inputs/tar.py"))
    records, _ = read(tar_bytes(("a.jpg", b"A"), ("a.txt", b"a caption")))
    num_images = len(records) - 1
    assert records[-1].failure == Failure(
        ErrorCode.SOURCE_TRUNCATED,
        "bug at pipeline/inputs/tar.py:41: AttributeError: planted bug 4711 "
        f"(the tar breaks off after image {num_images})",
    )


def test_bytes_that_end_too_early_or_lie_are_no_bug():
    for data in (tar_bytes(("a.jpg", b"A"))[:700], tar_bytes(("a.jpg", b"A"), end=b"")):
        assert read(data)[0][-1].failure.message.startswith("the tar breaks off after image ")
