"""Empty objects that stand for folders are recognised during the listing."""

import pytest

from pipeline.store import placeholders
from pipeline.store.placeholders import mark_unaddressable, size_of_marked, without_placeholders


def kept(sizes: dict[str, int]) -> tuple[list[str], list[str]]:
    """The keys that are no placeholders, and the folders that the store was asked about."""
    asked: list[str] = []

    def holds_something(folder: str) -> bool:
        asked.append(folder)
        return any(key.startswith(folder) for key in sizes)

    entries = [(key, size, "e", 1.5) for key, size in sorted(sizes.items())]
    return [entry[0] for entry in without_placeholders(iter(entries), holds_something)], asked


def test_an_empty_object_with_something_below_it_is_a_placeholder() -> None:
    assert kept({"a": 0, "a-b": 1, "a/x": 1, "b": 0, "b0": 1}) == (["a-b", "a/x", "b", "b0"], [])
    assert kept({"a": 0, "a-": 0, "a-/x": 1, "a/b": 0, "a/b/c": 0}) == (["a-/x", "a/b/c"], [])
    assert kept({"a": 1, "a/x": 1, "b": 0}) == (["a", "a/x", "b"], [])


def test_what_cannot_be_addressed_makes_no_folder() -> None:
    assert kept({"a": 0, "a//x": -1})[0] == ["a", "a//x"]


@pytest.mark.parametrize("below", [{}, {"a/x": 1}])
def test_the_store_is_asked_once_about_what_comes_much_later(
    monkeypatch: pytest.MonkeyPatch, below: dict[str, int]
) -> None:
    monkeypatch.setattr(placeholders, "_MAX_WAITING", 5)
    between = {f"a-{number}": 1 for number in range(20)}
    assert kept({"a": 0} | between | below) == (["a"] * (not below) + [*sorted(between), *below], ["a/"])


def test_keys_are_told_apart_by_whether_a_request_can_name_them() -> None:
    keys = {"a/b": 0, "a/": 0, "b/": 5, "/": 0, "a//b": 1, "a//": 0, "x/../y": 1, "new\nline": 1, "caf\udce9": 1}
    entries = mark_unaddressable((key, size, "e", 1.5) for key, size in keys.items())
    found = {key: size for key, size, etag, modified_s in entries if (etag, modified_s) == ("e", 1.5)}
    marked = ["b/", "a//b", "a//", "x/../y", "new\nline", "caf\udce9"]
    assert found == {"a/b": 0} | {key: -1 - keys[key] for key in marked}
    assert [size_of_marked(found[key]) for key in marked] == [keys[key] for key in marked]
