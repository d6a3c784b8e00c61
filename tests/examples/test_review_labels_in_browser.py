"""The review page as a browser runs it: Chromium, where there is one."""

import csv
import re

import pytest

from examples.review_images import SIDE_PX
from pipeline.dataset.overrides import find_overrides, read_overrides
from pipeline.store.store_path import StorePath
from tests.support.review_rows import HOSTILE, make_output, make_page, sheet_of

TYPED = "owl, \"barn\" 'white'"

pytestmark = [
    # The client's own pipes and loops are closed by its own process' end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return make_output(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="module")
def page(output, tmp_path_factory):
    html = tmp_path_factory.mktemp("page") / "review.html"
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_page(output, html, monkeypatch=monkeypatch)
    return html


@pytest.fixture
def tab(browser, page):
    """The page at 1280 px, which must neither complain nor ask for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    tab, complaints, requests = context.new_page(), [], []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page.as_uri())
    yield tab
    assert complaints == []
    assert {url.partition(":")[0] for url in requests if url != page.as_uri()} <= {"data", "blob"}
    assert tab.title() != "planted"
    context.close()


def saved(tab, tmp_path):
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save overrides").click()
    assert re.fullmatch(r"overrides-\d{8}T\d{6}Z\.csv", download.value.suggested_filename)
    download.value.save_as(tmp_path / "overrides.csv")
    with (tmp_path / "overrides.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, strict=True))


def test_choices_outlive_a_reload_and_are_saved_as_rows(tab, page, output, tmp_path):
    rows = sheet_of(page.read_text())["rows"]
    cards = tab.locator("article")
    assert cards.count() == 6
    assert tab.get_by_role("button", name="Save overrides").is_disabled()
    tab.get_by_label("Your name").fill("Zoë, 3rd")
    cards.nth(0).focus()
    tab.keyboard.press("Enter")  # confirmed
    tab.keyboard.press("2")  # the second label: the model's own
    tab.keyboard.press("l")
    tab.keyboard.type(TYPED)
    tab.keyboard.press("Enter")
    tab.keyboard.press("d")  # dropped
    tab.keyboard.press("1")  # another label than the model's
    tab.keyboard.press("s")  # skipped
    verdicts = ["✓ cat", "✓ dog", f"→ {TYPED}", "dropped", "→ cat", ""]
    assert tab.locator(".verdict").all_text_contents() == verdicts
    tab.reload()
    assert tab.locator(".verdict").all_text_contents() == verdicts
    assert tab.locator("#counts").text_content() == "5 of 6 decided"
    head, *lines = saved(tab, tmp_path)
    assert head == ["image_id", "label", "source_etag", "by", "at"]
    labels = ["cat", "dog", TYPED, "", "cat"]
    assert [line[:4] for line in lines] == [
        [row["id"], label, row["etag"], "Zoë, 3rd"] for row, label in zip(rows[:5], labels, strict=True)
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line[4]) for line in lines)
    # What the job reads of it, which takes the empty label for none.
    folder = StorePath(f"file://{tmp_path}")
    (batch,) = read_overrides(folder, find_overrides(folder, [f"{folder}/overrides.csv"]))
    assert [tuple(row.values())[:3] for row in batch.to_pylist()] == [
        (row["id"], label or None, row["etag"]) for row, label in zip(rows[:5], labels, strict=True)
    ]
    assert f"{output}/overrides/" in tab.inner_text("main")
    assert tab.get_by_role("status").filter(has_text="5 rows saved as overrides-").count() == 1


def test_buttons_and_fields_do_what_keys_do(tab, page, tmp_path):
    cards = tab.locator("article")
    cards.nth(4).get_by_role("button", name="Confirm").click()
    assert cards.nth(5).evaluate("card => card === document.activeElement")
    assert cards.nth(5).get_by_role("button", name="Confirm").count() == 0
    cards.nth(5).get_by_role("button", name="Drop").click()
    cards.nth(5).get_by_role("button", name="Skip").click()
    field = cards.nth(0).get_by_label("Another label")
    field.fill("fox")
    cards.nth(1).get_by_role("button", name="Drop").click()
    field.fill("not this")
    field.press("Escape")
    assert field.input_value() == "fox"
    lines = saved(tab, tmp_path)[1:]
    rows = sheet_of(page.read_text())["rows"]
    assert [line[:2] for line in lines] == [[rows[0]["id"], "fox"], [rows[1]["id"], ""], [rows[4]["id"], HOSTILE]]
    field.fill("")
    field.press("Tab")
    assert tab.locator("#counts").text_content() == "2 of 6 decided"
    tab.once("dialog", lambda dialog: dialog.accept())
    tab.get_by_role("button", name="Start over").click()
    assert tab.locator("#counts").text_content() == "0 of 6 decided"
    assert tab.evaluate("localStorage.length") == 0


def test_keys_move_about_and_settings_hide_what_is_not_asked_for(tab):
    def number():
        return tab.evaluate("[...document.querySelectorAll('article')].indexOf(document.activeElement)")

    tab.locator("article").nth(0).focus()
    steps = [
        ("ArrowRight", 1),
        ("j", 2),
        ("k", 1),
        ("ArrowLeft", 0),
        ("ArrowLeft", 0),
        ("ArrowDown", 4),
        ("j", 5),
        ("j", 5),
    ]
    for key, expected in [*steps, ("ArrowUp", 1)]:
        tab.keyboard.press(key)
        assert number() == expected, key
    tab.locator("#filter").select_option("cat")
    assert tab.locator("article:visible").count() == 2
    tab.get_by_label("only undecided").check()
    tab.locator("article").nth(0).focus()
    tab.keyboard.press("Enter")
    assert number() == 2
    tab.keyboard.press("Enter")
    assert tab.locator("article:visible").count() == 0
    assert tab.get_by_text("No image is left").is_visible()


@pytest.mark.parametrize(("width_px", "scheme"), [(1280, "light"), (360, "dark")])
def test_it_fits_the_screen_shows_its_pictures_and_names_its_controls(browser, page, width_px, scheme):
    context = browser.new_context(viewport={"width": width_px, "height": 800}, color_scheme=scheme)
    tab = context.new_page()
    tab.goto(page.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width_px
    pictures = tab.evaluate("[...document.images].map(image => [image.naturalWidth, image.alt.length > 0])")
    assert pictures == [[SIDE_PX, True]] * 4
    assert tab.locator("article").filter(has_text="No picture").count() == 2
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (light > 200) == (scheme == "light")
    nameless = "[...document.querySelectorAll('input, select')].filter(it => !it.labels.length && !it.ariaLabel)"
    assert tab.evaluate(f"{nameless}.length") == 0
    # Its policy refuses every other script, wherever it came from.
    planted = "Object.assign(document.createElement('script'), {textContent: 'document.title = 1'})"
    tab.evaluate(f"document.body.append({planted})")
    assert tab.title().startswith("Review of ")
    context.close()
