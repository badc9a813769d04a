"""The pages of notebooks in a browser: screens, paper, colour schemes, many homes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aico_lab.reports.html import export_html
from tests.browser import visit
from tests.executed import execute_here
from tests.situations import SITUATIONS

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
WIDTHS = (360, 390, 768, 1280, 1920)
A4 = 718  # the width of a sheet without its margins, in pixels of CSS

# Elements and texts that stick out of the page's column, unless something around them scrolls.
STICKING_OUT = """() => {
  const column = document.querySelector("main").getBoundingClientRect(), found = [];
  const scrolls = one => { for (let up = one; up && up.tagName !== "MAIN"; up = up.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)
        && up.scrollWidth > up.clientWidth) return true; return false; };
  for (const one of document.querySelectorAll("main *")) {
    const box = one.getBoundingClientRect();
    if (!box.width || !box.height || one.closest("defs, .vg-tooltip")) continue;
    if ((box.right > column.right + 1 || box.left < column.left - 1) && !scrolls(one))
      found.push(`${one.tagName}.${one.getAttribute("class")} ${one.textContent.slice(0, 40)}`);
  }
  return found;
}"""

# Texts of HTML that stick out of the box that they stand in.
TEXTS_STICKING_OUT = """() => {
  const found = [], range = document.createRange();
  const boxes = "dd, dt, p, li, h1, h2, h3, td, th, button, label, summary, small, figcaption";
  for (const one of document.querySelectorAll(boxes)) {
    if (!one.checkVisibility() || one.closest(".aico-lab-table, .skip, svg")) continue;
    if (getComputedStyle(one).display === "inline") continue;
    const box = one.getBoundingClientRect();
    range.selectNodeContents(one);
    for (const line of range.getClientRects())
      if (line.right > box.right + 1 || line.left < box.left - 1) {
        found.push(`${one.tagName}.${one.className} ${one.textContent.slice(0, 40)}`);
        break;
      }
  }
  return found;
}"""

# Pairs of texts that lie on each other, by the boxes of their lines.
OVERLAPS = """() => {
  const boxes = [], range = document.createRange();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const around = node.parentElement;
    if (!node.data.trim() || around.closest("script, style, title, option, nav, .skip")) continue;
    if (!around.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    range.selectNodeContents(node);
    for (const box of range.getClientRects())
      if (box.width > 1 && box.height > 1) boxes.push({box, node, text: node.data.trim()});
  }
  boxes.sort((a, b) => a.box.top - b.box.top);
  const found = [];
  boxes.forEach((one, at) => {
    for (let next = at + 1; next < boxes.length; next++) {
      const other = boxes[next];
      if (other.box.top > one.box.bottom - 3) break;
      if (other.node === one.node) continue;
      if (Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left) > 2)
        found.push(`${one.text.slice(0, 30)} | ${other.text.slice(0, 30)}`);
    }
  });
  return found;
}"""

# Texts whose contrast with what is behind them is below WCAG's AA.
PALE = """() => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v =>
    v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const found = new Set();
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || one.closest("svg, script, style, option, .skip, .code, [disabled]")) continue;
    if (!one.checkVisibility()) continue;
    const around = []; for (let up = one; up; up = up.parentElement) around.unshift(up);
    pen.globalAlpha = 1; pen.fillStyle = "Canvas"; pen.fillRect(0, 0, 1, 1);
    let opacity = 1;
    for (const up of around) {
      const style = getComputedStyle(up);
      opacity *= Number(style.opacity); pen.globalAlpha = opacity;
      pen.fillStyle = style.backgroundColor; pen.fillRect(0, 0, 1, 1);
    }
    const behind = light(pen.getImageData(0, 0, 1, 1).data);
    const style = getComputedStyle(one);
    pen.fillStyle = style.color; pen.fillRect(0, 0, 1, 1);
    const before = light(pen.getImageData(0, 0, 1, 1).data);
    const [low, high] = [behind, before].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    const size = parseFloat(style.fontSize), bold = style.fontWeight >= 600;
    if (contrast < (size >= 24 || (bold && size >= 18.6) ? 3 : 4.5))
      found.add(`${one.textContent.trim().slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return [...found];
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory, homes):
    """The page of a situation, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("pages"), {}

    def page_of(situation: str, notebook: str = "pattern_analysis", **parameters: object) -> str:
        asked = (situation, notebook, *sorted(parameters.items()))
        if asked in made:
            return made[asked]
        home = folder / situation.replace(" ", "_")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AICO_LAB_HOME", str(home))
            if not home.exists():
                lines = folder / "in.jsonl"
                lines.write_text("\n".join(map(json.dumps, SITUATIONS[situation])))
                with homes.open(home, protection="none") as lab:
                    lab.import_from("jsonl", lines)
                    lab.sync()
            executed = folder / f"{situation.replace(' ', '_')}-{len(made)}.ipynb"
            execute_here(NOTEBOOKS / f"{notebook}.ipynb", executed, **parameters)
        export_html(executed, executed.with_suffix(".html"), title="Pattern analysis")
        made[asked] = executed.with_suffix(".html").as_uri()
        return made[asked]

    return page_of


def settle(seen) -> None:
    """Wait until all charts of a page are drawn."""
    seen.page.wait_for_function(
        "document.querySelectorAll('.aico-lab-plot > img').length === 0", timeout=30_000
    )


def assert_tidy(seen, width) -> None:
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen.page.evaluate(STICKING_OUT) == []
    assert seen.page.evaluate(TEXTS_STICKING_OUT) == []
    assert seen.page.evaluate(OVERLAPS) == []


def test_it_fits_every_screen_and_paper(page):
    """From a small phone to a large screen; and a sheet of A4 has no controls."""
    with visit(page("a group channel")) as seen:
        for width in WIDTHS:
            seen.page.set_viewport_size({"width": width, "height": 900})
            seen.page.wait_for_timeout(400)
            settle(seen)
            assert_tidy(seen, width)
        seen.page.set_viewport_size({"width": A4, "height": 1017})
        seen.page.emulate_media(media="print")
        seen.page.wait_for_timeout(400)
        assert_tidy(seen, A4)
        assert not seen.page.get_by_label("Show code").is_visible()
        assert not seen.page.locator("nav").is_visible()
    assert seen.requests == []
    assert seen.errors == []


@pytest.mark.parametrize("situation", [name for name in SITUATIONS if name != "a group channel"])
def test_it_is_tidy_for_every_home(page, situation):
    with visit(page(situation), width=390) as seen:
        for width in (390, 1280):
            seen.page.set_viewport_size({"width": width, "height": 900})
            seen.page.wait_for_timeout(400)
            settle(seen)
            assert_tidy(seen, width)
    assert seen.requests == []
    assert seen.errors == []


@pytest.mark.parametrize(
    "situation", ["a group channel", "hostile names", "right to left", "one message", "nothing"]
)
@pytest.mark.parametrize(
    ("notebook", "parameters"),
    [
        ("review", {"content": True, "names": True}), ("data_quality", {"names": True}),
        ("personality_adaptation", {}),
    ],
)  # fmt: skip
def test_other_notebooks_are_tidy_and_readable_everywhere(page, notebook, parameters, situation):
    with visit(page(situation, notebook, **parameters), width=390) as seen:
        for width, scheme in ((390, "light"), (1280, "dark"), (1920, "light")):
            seen.page.set_viewport_size({"width": width, "height": 900})
            seen.page.emulate_media(color_scheme=scheme)
            seen.page.wait_for_timeout(300)
            settle(seen)
            assert_tidy(seen, width)
            assert seen.page.evaluate(PALE) == []
        seen.page.set_viewport_size({"width": A4, "height": 1017})
        seen.page.emulate_media(media="print", color_scheme="light")
        seen.page.wait_for_timeout(300)
        assert_tidy(seen, A4)
        assert seen.page.locator("h1").count() == 1
        assert seen.page.locator("main b").count() == 0
    assert seen.requests == []
    assert seen.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(page, scheme):
    with visit(page("a group channel"), width=1280) as seen:
        seen.page.emulate_media(color_scheme=scheme)
        settle(seen)
        assert seen.page.evaluate(PALE) == []
        paper = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_without_scripts_it_is_complete_and_its_menu_works(page):
    with visit(page("a group channel"), javascript=False, width=390) as seen:
        assert seen.page.locator(".aico-lab-plot > img").first.is_visible()
        assert seen.page.locator("dl.aico-lab-tiles").is_visible()
        link = seen.page.locator("nav").get_by_role("link", name="Mood")
        assert not link.is_visible()
        seen.page.get_by_role("checkbox", name="Contents").check()
        link.click()
        top = seen.page.get_by_role("heading", name="Mood").bounding_box()["y"]
    assert 0 <= top < 200


def test_the_contents_stay_in_reach_and_mark_what_is_read(page):
    with visit(page("a group channel"), width=1280) as seen:
        settle(seen)
        seen.page.keyboard.press("Tab")
        assert seen.page.evaluate("document.activeElement.className") == "skip"
        link = seen.page.locator("nav").get_by_role("link", name="Words")
        link.click()
        seen.page.wait_for_function("document.querySelector('nav [aria-current]')")
        seen.page.wait_for_timeout(300)
        assert seen.page.locator("nav [aria-current]").inner_text() == "Words"
        assert link.is_visible()  # though the page is scrolled
        stops = seen.page.evaluate("document.querySelectorAll('main [tabindex=\"0\"]').length")
        seen.page.set_viewport_size({"width": 390, "height": 900})
        menu = seen.page.get_by_role("checkbox", name="Contents")
        menu.check()
        link.click()
        assert not menu.is_checked()
        landmarks = [
            seen.page.get_by_role(role).count() for role in ("banner", "navigation", "main")
        ]
        assert seen.page.evaluate("document.documentElement.lang") == "en"
    assert landmarks == [1, 1, 1]
    assert stops < 10  # cells and outputs are none


def test_names_of_people_and_channels_are_never_markup(page):
    """Those of the explorer, of charts, and of the header."""
    asked = page("hostile names", channel="Channel 1", user="</bdi></p><h1>x", names=True)
    with visit(asked, width=390) as seen:
        settle(seen)
        assert seen.page.locator("h1").count() == 1
        assert seen.page.locator("main b").count() == 0
        whose = seen.page.locator(".whose").inner_text()
        assert whose.startswith("</bdi></p><h1>x and the companion in <b>bold</b> & 🎉: ")
        assert seen.page.title().startswith("Interaction patterns · </bdi></p><h1>x")
        assert_tidy(seen, 390)
    assert seen.errors == []


def test_questions_without_an_answer_are_named_once_and_not_drawn(page):
    with visit(page("one person", role="user")) as seen:
        settle(seen)
        text = seen.page.locator("main").inner_text()
        headings = seen.page.locator("h2").all_inner_texts()
    assert text.count("How do people rate their conversations?") == 1
    assert text.count("The question is about both sides at once") == 1
    assert "Ratings" not in headings
    assert "The companion's personality" not in headings
    assert "Mood" in headings


@pytest.mark.parametrize(
    ("filters", "sentence"),
    [
        ({"since": "2030-01-01"}, "Nothing matches"),
        ({"min_people": 50}, "Too little data"),
        ({"min_people": 5}, "12 people and the companion"),
    ],
)
def test_filters_that_leave_little_or_nothing_are_said(page, filters, sentence):
    with visit(page("a group channel", **filters), width=390) as seen:
        settle(seen)
        assert_tidy(seen, 390)
        assert sentence in seen.page.locator(".whose").inner_text()
        explored = seen.page.locator(".aico-lab-explorer").count()
    assert explored == (filters == {"min_people": 5})
    assert seen.errors == []
