"""Reports and notebooks as their readers see them, in a browser without a network."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing

import nbformat
import pytest

from aico_lab.reports.html import export_html
from aico_lab.reports.runner import run_notebook
from tests.browser import visit
from tests.notebooks import write_notebook

pytestmark = pytest.mark.slow

SETUP = "import altair as alt, polars as pl\nfrom aico_lab.reports import charts\ncharts.enable()"
BARS = """
frame = pl.DataFrame({"x": ["a", "</script><b>"], "y": [1, 2]})
alt.Chart(frame, title="Bars").mark_bar().encode(x="x:N", y="y:Q")
"""
DAYS = """
from datetime import date
frame = pl.DataFrame({"day": [date(2018, 4, 1), date(2018, 4, 2)], "y": [1, 2]})
alt.Chart(frame, title="Days").mark_bar().encode(
    alt.X("yearmonthdate(day):O").axis(format="%Y-%m-%d"), y="y:Q"
)
"""

CHART = ".aico-lab-chart"
DRAWN = f"{CHART} .vega-embed svg.marks"
PICTURE = f"{CHART} > img"


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


@pytest.fixture
def jupyterlab(tmp_path):
    """Start JupyterLab on a folder; gives the folder and the address of a notebook in it."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "notebooks"
    folder.mkdir()
    config = {
        "--ServerApp.port": port,
        "--ServerApp.root_dir": folder,
        "--IdentityProvider.token": "",
        "--LabApp.news_url": "",
        "--LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager": "readonly",
    }
    environment = {name: text for name, text in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
        + [f"{name}={value}" for name, value in config.items()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    address = f"http://127.0.0.1:{port}/lab/tree/"
    try:
        wait_for(address)
        yield folder, address
    finally:
        server.terminate()
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:  # a server that was asked while it opens a session hangs
            server.kill()
            server.wait()


def wait_for(address, seconds=60):
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310
                return
        except OSError:
            assert time.monotonic() < end, "JupyterLab did not start"
            time.sleep(0.2)


def run_all(page):
    page.get_by_text("| Idle").wait_for(timeout=60_000)  # before it, Lab asks for a kernel
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def test_jupyterlab_draws_charts_offline_and_again_when_a_cell_is_run_again(jupyterlab):
    folder, address = jupyterlab
    notebook = write_notebook(folder / "charts.ipynb", SETUP, BARS, DAYS)
    content = nbformat.read(notebook, as_version=4)
    content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(content, notebook)
    with visit(address + "charts.ipynb") as seen:
        page = seen.page
        run_all(page)
        page.locator(DRAWN).nth(1).wait_for(timeout=60_000)
        assert page.locator(PICTURE).count() == 0

        # The first chart once more, after everything else: out of the notebook's order.
        page.locator(DRAWN).first.evaluate("chart => chart.classList.add('old')")
        page.get_by_text('title="Bars"').first.click()
        page.keyboard.press("Control+Enter")
        page.wait_for_function(
            "drawn => document.querySelectorAll(drawn).length == 2"
            " && !document.querySelector('.old')",
            arg=DRAWN,
            timeout=60_000,
        )
        assert page.locator(PICTURE).count() == 0
    assert seen.requests == []


def test_jupyterlab_shows_pictures_of_a_notebook_that_is_not_trusted(jupyterlab, report):
    folder, address = jupyterlab
    (folder / "other.ipynb").write_bytes(report.notebook.read_bytes())
    with visit(address + "other.ipynb") as seen:
        pictures = seen.page.locator(".jp-OutputArea img[alt]")
        pictures.nth(1).wait_for(timeout=60_000)
        assert pictures.count() == 2
        assert seen.page.locator(DRAWN).count() == 0
    assert seen.requests == []
