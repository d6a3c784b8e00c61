"""Labels are read from lines and from JSON; texts that do not name every class once are refused."""

import pytest

from model.errors import LabelsError
from model.network.labels import parse_labels, read_labels


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\nhen\n",
        "cat\r\ndog\r\nhen",
        "cat\n dog \nhen\n\n\n",
        '["cat", "dog", "hen"]',
        '\n{"0": "cat", "1": "dog", "2": "hen"}',
        '{"2": "hen", "0": "cat", "1": "dog"}',
        '{"model_type": "pvt_v2", "id2label": {"0": "cat", "1": "dog", "2": "hen"}}',
    ],
)
def test_every_layout_gives_the_labels_in_the_order_of_the_classes(text):
    assert parse_labels(text, "labels") == ("cat", "dog", "hen")


def test_classes_are_ordered_as_numbers_not_as_text():
    text = "{" + ", ".join(f'"{number}": "class {number}"' for number in sorted(map(str, range(12)))) + "}"
    assert parse_labels(text, "labels")[9:] == ("class 9", "class 10", "class 11")


def test_two_classes_may_share_a_label():
    assert parse_labels("crane\ncrane\n", "labels") == ("crane", "crane")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.txt is empty"),
        (" \n\n", "labels.txt is empty"),
        ("[]", "labels.txt is empty"),
        ("{}", "labels.txt is empty"),
        ("cat\n\nhen\n", "line 2 must be a label, not ''"),
        ('["cat", 7]', "entry 1 must be a label, not 7"),
        ('{"0": "cat", "1": null}', "class 1 must be a label, not None"),
        ('{"0": "cat", "2": "hen"}', "has 2 labels, up to class 2, but none for class 1"),
        ('{"1": "cat", "2": "hen"}', "none for class 0"),
        ('{"0": "cat", "0": "hen"}', "the key '0' appears twice"),
        ('{"0": "cat", "00": "hen"}', "names class 0 twice"),
        ('{"cat": 0, "hen": 1}', "the key 'cat', which is no class number"),
        ('{"-1": "cat"}', "the key '-1', which is no class number"),
        ('{"id2label": 3}', "must hold a list of labels or an object"),
        ('["cat", "dog"', "cannot be read as JSON"),
    ],
)
def test_labels_that_do_not_name_every_class_once_are_refused(text, message):
    with pytest.raises(LabelsError, match=message):
        parse_labels(text, "labels.txt")


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("Kätzchen\nhen\n", encoding="utf-8-sig")
    assert read_labels(path) == ("Kätzchen", "hen")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00c"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "labels.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LabelsError, match=r"labels\.txt cannot be read"):
        read_labels(path)
