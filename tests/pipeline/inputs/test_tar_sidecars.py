import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs import tar_sidecars as join
from pipeline.inputs.rules import FIRST_RULES, RULES
from pipeline.inputs.tar_sidecars import Joiner, Member, is_sidecar


def member(name, data=b"x"):
    return Member(name=name, is_image=name.endswith(".jpg"), data=data)


def passed_over():
    return Member(name="x.bin")


def joined(*members, keep_columns=()):
    """(records, ignored at the end)"""
    joiner = Joiner(keep_columns)
    records = [record for one in members for record in joiner.add(one)]
    records += joiner.flush()
    return records, joiner.take_ignored()


def labels(*members):
    return {record.key: record.true_label for record in joined(*members)[0]}


SAMPLES = [member(f"{n}.{ending}", str(n).encode()) for n in (1, 2, 3) for ending in ("jpg", "cls", "txt")]


@given(st.permutations(SAMPLES))
def test_labels_are_joined_in_any_order(members):
    records, ignored = joined(*members, keep_columns=("txt",))
    assert [record.key for record in records] == [one.name for one in members if one.is_image]
    assert all((record.true_label, record.kept) == (record.key[0], (record.key[0],)) for record in records)
    assert ignored + sum(record.ignored for record in records) == 0


def test_members_belong_together_up_to_the_first_dot_of_the_name():
    found = labels(
        member("a.b/1.left.jpg"),
        member("a.b/1.right.jpg"),
        member("a.b/1.cls", b"one"),
        member("other/1.jpg"),
        member("1.jpg"),
        member("a.cls", b"wrong"),
    )
    assert found == {"a.b/1.left.jpg": "one", "a.b/1.right.jpg": "one", "other/1.jpg": "other", "1.jpg": None}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("1.cls", True), ("1.JSON", True), ("f.d/1.txt", True), ("1.seg.json", False), ("f.txt/1", False), ("txt", False)],
)
def test_a_sidecar_has_nothing_between_key_and_ending(name, expected):
    assert is_sidecar(name) is expected


@pytest.mark.parametrize("first_pair_turned", [False, True])
@pytest.mark.parametrize("second_pair_turned", [False, True])
def test_a_name_that_comes_again_begins_another_sample(first_pair_turned, second_pair_turned):
    first, second = ([member("1.jpg", value), member("1.cls", value)] for value in (b"x", b"y"))
    members = first[:: -1 if first_pair_turned else 1] + second[:: -1 if second_pair_turned else 1]
    assert [(record.key, record.true_label) for record in joined(*members)[0]] == [("1.jpg", "x"), ("1.jpg@1", "y")]


def test_a_sidecar_is_joined_over_the_whole_window_and_no_further():
    def at_distance(distance, image_first):
        between = [member(f"{n}.jpg") for n in range(100, 100 + distance - 1)]
        ends = [member("1.jpg"), member("1.cls", b"one")]
        first, last = ends if image_first else ends[::-1]
        records, at_end = joined(first, *between, last)
        label = next(record.true_label for record in records if record.key == "1.jpg")
        return label, sum(record.ignored for record in records) + at_end

    for image_first in (True, False):
        assert at_distance(join.WINDOW_MEMBERS, image_first) == ("one", 0)
        assert at_distance(join.WINDOW_MEMBERS + 1, image_first) == (None, 1)


def test_waiting_images_are_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(join, "WINDOW_BYTES", 100)
    joiner = Joiner(())
    keys = [[record.key for record in joiner.add(member(f"{n}.jpg", bytes(40)))] for n in range(4)]
    assert keys == [[], [], ["0.jpg"], ["1.jpg"]]


def test_an_image_larger_than_the_window_still_meets_its_neighbours(monkeypatch):
    monkeypatch.setattr(join, "WINDOW_BYTES", 100)
    members = (
        member("0.cls", b"0"),
        member("0.jpg", bytes(500)),
        member("1.jpg", bytes(500)),
        member("1.txt", b"text"),
        member("1.cls", b"1"),
    )
    records, ignored = joined(*members, keep_columns=("txt",))
    assert [(record.key, record.true_label, record.kept) for record in records] == [
        ("0.jpg", "0", (None,)),
        ("1.jpg", "1", ("text",)),
    ]
    assert ignored + sum(record.ignored for record in records) == 0


@given(st.lists(st.sampled_from(("1.jpg", "2.jpg", "1.cls", "2.cls", "3.txt", "x.bin")), max_size=40))
def test_every_member_is_a_record_or_joined_or_counted(names):
    members = [passed_over() if name == "x.bin" else member(name) for name in names]
    records, at_end = joined(*members)
    assert len(records) == sum(name.endswith(".jpg") for name in names)
    assert len({record.key for record in records}) == len(records)
    ignored = sum(record.ignored for record in records) + at_end
    assert names.count("x.bin") + names.count("3.txt") <= ignored <= len(names) - len(records)


@pytest.mark.parametrize(
    ("sidecars", "expected"),
    [
        ({"cls": b" 7\n"}, "7"),
        ({"cls": b"\xef\xbb\xbfcat"}, "cat"),
        ({"cls": b"caf\xe9"}, "caf\\xe9"),
        ({"cls": b"  ", "json": b'{"label": "dog"}'}, "dog"),
        ({"cls": b"7", "json": b'{"label": 8}'}, "7"),
        ({"json": b'{"label": 3}'}, "3"),
        ({"json": b'{"class": 1.5}'}, "1.5"),
        ({"json": b'{"cls": true}'}, "true"),
        ({"json": b'{"label": null, "class": "c"}'}, "c"),
        ({"json": b'{"label": ["no", "scalar"]}'}, None),
        ({"json": b'{"label": "\\ud800"}'}, "\\ud800"),
        ({"json": b'["label"]'}, None),
        ({"json": b"{broken"}, None),
        ({"json": b"[" * 100_000}, None),
        ({"txt": b"7"}, None),
    ],
)
def test_the_label_is_the_cls_or_else_a_scalar_of_the_json(sidecars, expected):
    found = labels(member("1.jpg"), *(member(f"1.{ending}", data) for ending, data in sidecars.items()))
    assert found == {"1.jpg": expected}


@pytest.mark.parametrize(
    ("fields", "first", "now"),
    [
        ({"label": 3.0}, "3.0", "3"),
        ({"label": float("nan"), "class": "c"}, "NaN", "c"),
        ({"category": "c", "Label": "L", "labels": "ls", "class": "k", "cls": "cl", "label": "l"}, "l", "l"),
        ({"category": "c", "Label": "L", "labels": "ls", "class": "k", "cls": "cl"}, "cl", "cl"),
        ({"category": "c", "Label": "L", "labels": "ls", "class": "k"}, "k", "k"),
        ({"category": "c", "Label": "L", "labels": "ls"}, None, "ls"),
        ({"category": "c", "Label": "L", "labels": ["a", "list"]}, None, "c"),
        ({"Category": "c", "Label": "L"}, None, "L"),
        ({"category": "c"}, None, "c"),
    ],
)
def test_the_fields_of_the_json_have_an_order_and_whole_floats_are_numbers(fields, first, now):
    members = member("1.jpg"), member("1.json", json.dumps(fields).encode())
    for rules, expected in ((FIRST_RULES, first), (RULES, now)):
        joiner = Joiner((), rules)
        (record,) = [record for one in members for record in joiner.add(one)] + list(joiner.flush())
        assert record.true_label == expected


def test_columns_come_from_the_json_or_from_a_sidecar():
    fields = {"a": "text", "b": 1, "c": {"d": [None, "ü"]}, "e": None, "f": False, "caption": None}
    sidecars = (member("1.json", json.dumps(fields).encode()), member("1.txt", b"a cat\n"), member("1.cls", b"4"))
    columns = ("f", "a", "b", "c", "e", "absent", "caption", "txt", "cls")
    (record,), _ = joined(member("1.jpg"), *sidecars, keep_columns=columns)
    assert record.kept == ("false", "text", "1", '{"d": [null, "ü"]}', None, None, "a cat", "a cat", "4")
