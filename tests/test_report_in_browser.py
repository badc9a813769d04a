"""Reports as their readers see them, in a browser without a network."""

from __future__ import annotations

from urllib.parse import unquote

import nbformat
import pytest

from aico_lab.errors import NotebookFailed
from aico_lab.reports.html import export_html
from aico_lab.reports.runner import run_notebook
from tests.browser import visit
from tests.messages import add, message
from tests.notebooks import write_notebook
from tests.two_charts import BARS, CHART, DAYS, DRAWN, PANELS, PICTURE, SETUP, TALL, WIDE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of a notebook with two charts."""
    folder = tmp_path_factory.mktemp("report")
    notebook = write_notebook(folder / "charts.ipynb", SETUP, BARS, DAYS)
    (folder / "out").mkdir()
    return run_notebook(
        notebook, parameters={}, destination=folder / "out", title="Two charts", timeout=120
    )


def test_a_report_draws_its_charts_and_asks_the_network_for_nothing(report):
    with visit(report.html.as_uri()) as seen:
        seen.page.locator(DRAWN).nth(1).wait_for()
        assert seen.page.locator(DRAWN).count() == 2
        assert seen.page.locator(PICTURE).count() == 0
        assert seen.page.title() == "Two charts"
        assert "</script><b>" in seen.page.locator(DRAWN).first.text_content()
        assert seen.page.locator(f"{CHART} [aria-label='Bars']").count() >= 1
    assert seen.requests == []
    assert seen.errors == []


def test_without_scripts_the_pictures_show(report):
    with visit(report.html.as_uri(), javascript=False) as seen:
        pictures = seen.page.locator(PICTURE)
        assert pictures.count() == 2
        boxes = [pictures.nth(index).bounding_box() for index in range(2)]
        assert pictures.first.get_attribute("alt") == "Bars"
    assert all(box["width"] > 50 and box["height"] > 100 for box in boxes)
    assert seen.requests == []


@pytest.mark.parametrize("timezone", ["America/Los_Angeles", "Pacific/Auckland"])
def test_days_are_the_same_wherever_the_reader_is(report, timezone):
    """A browser takes a bare date as midnight in UTC: a day earlier in America."""
    with visit(report.html.as_uri(), timezone=timezone) as seen:
        seen.page.locator(DRAWN).nth(1).wait_for()
        text = seen.page.locator(DRAWN).nth(1).text_content()
    assert "2018-04-01" in text
    assert "2018-04-02" in text
    assert "2018-03-31" not in text


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The page of a notebook whose charts are wider or higher than most pages."""
    folder = tmp_path_factory.mktemp("large")
    notebook = write_notebook(folder / "large.ipynb", SETUP, WIDE, PANELS, TALL)
    (folder / "out").mkdir()
    return run_notebook(
        notebook, parameters={}, destination=folder / "out", title="Large", timeout=120
    )


A4 = 718  # the width of a sheet without its margins, in pixels of CSS, of which 96 are an inch
A4_HEIGHT = 1017
SCALES = """charts => charts.filter(chart => chart.isConnected).map(chart => {
    const box = chart.getBoundingClientRect(), page = document.documentElement;
    let room = page.clientWidth;
    const scrolls = getComputedStyle(chart.closest(".aico-lab-plot")).overflowX === "auto";
    for (let around = chart.parentElement; around; around = around.parentElement)
        room = Math.min(room, around.getBoundingClientRect().right);
    const [_x, _y, width, height] = (chart.getAttribute("viewBox") ?? "").split(" ").map(Number);
    return {cut: box.right > room + 1 && !scrolls, box: [box.width, box.height],
            drawn: [width, height]};
})"""


@pytest.mark.parametrize("javascript", [True, False], ids=["charts", "pictures"])
@pytest.mark.parametrize(("width", "media"), [(1280, "screen"), (390, "screen"), (A4, "print")])
def test_no_chart_is_cut_off(large, width, media, javascript):
    """A large one is drawn smaller, in its proportions, on paper so that it fits on a sheet.

    On narrow screens, pictures scroll.
    """
    with visit(large.html.as_uri(), javascript=javascript, width=width) as seen:
        seen.page.locator(DRAWN if javascript else PICTURE).nth(2).wait_for()
        seen.page.emulate_media(media=media)
        shown = seen.page.locator(DRAWN if javascript else PICTURE)
        for _ in range(50):  # a change of medium draws them again
            charts = shown.evaluate_all(SCALES)
            if len(charts) == 3 and all(chart["box"][0] for chart in charts):
                break
            seen.page.wait_for_timeout(100)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert [chart["cut"] for chart in charts] == [False] * 3
    for chart in charts:
        assert chart["box"][0] > 100
        if media == "print":
            assert chart["box"][1] < A4_HEIGHT
        elif javascript:
            assert chart["box"][0] / chart["drawn"][0] == pytest.approx(
                chart["box"][1] / chart["drawn"][1], rel=0.02
            )


def test_the_code_is_hidden_until_it_is_asked_for(report):
    with visit(report.html.as_uri(), javascript=False) as seen:
        code = seen.page.get_by_text("charts.enable").first
        assert not code.is_visible()
        seen.page.get_by_label("Show code").check()
        assert code.is_visible()


def test_whatever_a_cell_shows_the_page_asks_the_network_for_nothing(tmp_path):
    shown = (
        "<img src='https://example.org/a.png'><script src='https://example.org/b.js'></script>"
        "<link rel='stylesheet' href='https://example.org/c.css'>"
        "<iframe src='https://example.org/d.html'></iframe>"
        "<script>fetch('https://example.org/e'); new Image().src = 'https://example.org/f';"
        "import('https://example.org/g.js')</script>"
    )
    cell = nbformat.v4.new_code_cell("1", execution_count=1)
    cell.outputs = [
        nbformat.v4.new_output("display_data", {"text/html": shown}),
        nbformat.v4.new_output("display_data", {"text/vnd.mermaid": "graph TD; A-->B"}),
    ]
    text = nbformat.v4.new_markdown_cell("![](https://example.org/h.png) $x^2$")
    nbformat.write(nbformat.v4.new_notebook(cells=[text, cell]), tmp_path / "n.ipynb")
    export_html(tmp_path / "n.ipynb", tmp_path / "n.html", title="Loads")
    with visit((tmp_path / "n.html").as_uri()) as seen:
        seen.page.wait_for_timeout(1000)
    # The browser logs what its policy refused, which proves that these were tried.
    assert sum("Content Security Policy" in error for error in seen.errors) >= 6
    assert seen.requests == []

    page = (tmp_path / "n.html").read_text(encoding="utf-8")
    (tmp_path / "open.html").write_text(page.replace("Content-Security-Policy", "X"))
    with visit((tmp_path / "open.html").as_uri()) as seen:
        seen.page.wait_for_timeout(1000)
    assert len(seen.requests) >= 6  # and this proves that it was the policy


def test_the_list_of_all_runs_fits_a_phone_and_leads_to_pages_and_partial_notebooks(lab, tmp_path):
    """Without a network, in the dark, and on paper."""
    add(lab.primary, message(0))
    lab.sync()
    broken = write_notebook(tmp_path / "my #1: broken.ipynb", "1 / 0")
    with pytest.raises(NotebookFailed):
        lab.reports.run(broken)
    (run,) = lab.reports.list()
    with visit((lab.home.reports / "index.html").as_uri(), width=390) as seen:
        page = seen.page
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        cells = page.locator("tbody td").all_inner_texts()
        assert "failed" in cells
        assert "my #1: broken.ipynb stopped in cell 2: ZeroDivisionError" in cells[-1]
        colours = []
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.emulate_media(media="print", color_scheme="dark")
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert colours[0] == colours[2] != colours[1]
        partial = page.get_by_text("the notebook up to there").get_attribute("href")
        page.get_by_role("link", name="my #1: broken").first.click()
        assert page.url == run.html.as_uri()
        assert "division by zero" in page.content()
    assert unquote(partial) == f"./my #1: broken/{run.run_id}/my #1: broken.ipynb"
    assert seen.requests == seen.errors == []
