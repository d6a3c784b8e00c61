"""The page as a browser shows it: Chromium, where there is one."""

import pytest

from pipeline.page.page import render_page
from tests.support.page_reports import IMAGE, SCRIPT, full_report, timeline_rows

pytestmark = [
    # The client's own pipes and loops are closed by its own process' end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HOSTILE = full_report(run_id=f"{SCRIPT}{IMAGE}", reason=IMAGE, problems=[SCRIPT])
SCREENS = [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    pages = {
        "run": render_page([HOSTILE], [timeline_rows()]),
        "runs": render_page([full_report(run_id=f"{SCRIPT} {index}") for index in range(12)], []),
    }
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page)
    return folder


@pytest.mark.parametrize(("width_px", "scheme"), SCREENS)
@pytest.mark.parametrize("name", ["run", "runs"])
def test_the_page_fits_the_screen_draws_its_charts_and_asks_for_nothing(browser, files, name, width_px, scheme):
    context = browser.new_context(viewport={"width": width_px, "height": 800}, color_scheme=scheme)
    page, complaints, requests = context.new_page(), [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    uri = (files / f"{name}.html").as_uri()
    page.goto(uri)
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [uri]
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg[role=img]')].map(svg => "
        "[svg.getBoundingClientRect().width, svg.getBoundingClientRect().height])"
    )
    assert len(sizes) == (11 if name == "run" else 3)
    assert all(width > 200 and height > 100 for width, height in sizes)
    for opened in (False, True):
        page.evaluate(f"document.querySelectorAll('details').forEach(part => part.open = {str(opened).lower()})")
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px
    assert page.title() != "planted"
    assert page.locator("script").count() == 0
    pictures = page.evaluate(
        "[...document.images].map(image => [image.naturalWidth > 0, image.alt.length > 0, "
        "image.getBoundingClientRect().width >= 80, image.src.startsWith('data:image/jpeg;base64,')])"
    )
    assert pictures == ([[True] * 4] * 5 if name == "run" else [])
    assert SCRIPT in page.inner_text("body")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (light > 200) == (scheme == "light")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_and_bars_stand_out_from_what_is_behind_them(browser, files, scheme):
    """4.5 to 1 for letters and 3 to 1 for bars: WCAG 2.2, 1.4.3 and 1.4.11."""
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto((files / "run.html").as_uri())
    names = ["card", "page", "ink", "muted", "accent", *(f"series-{index}" for index in range(6))]
    colors = page.evaluate(
        "names => Object.fromEntries(names.map(name => [name, "
        "getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()]))",
        names,
    )
    context.close()
    for name in names[2:]:
        for behind in ("card", "page"):
            least = 3 if name.startswith("series") else 4.5
            assert contrast(colors[name], colors[behind]) >= least, (name, behind)


def test_the_first_key_leads_past_the_head_and_every_table_has_heads(browser, files):
    context = browser.new_context()
    page = context.new_page()
    page.goto((files / "run.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    for landmark in ("header", "nav", "main", "footer"):
        assert page.locator(landmark).count() == 1
    assert page.locator("h1").count() == 1
    assert page.locator("table:not(:has(caption)), th:not([scope])").count() == 0
    context.close()


def contrast(one, other):
    """The ratio of WCAG 2.2."""

    def luminance(color):
        digits = color[1:] if len(color) == 7 else "".join(digit * 2 for digit in color[1:])
        parts = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
