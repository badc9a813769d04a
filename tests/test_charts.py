"""The offline chart renderer, looked at from the outputs that it puts into a notebook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from html import escape
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote
from xml.dom import minidom

import altair as alt
import nbformat
import polars as pl
import pytest

from aico_lab import charts
from aico_lab.charts.picture import picture
from aico_lab.reports import first_screen
from aico_lab.reports.html import export_html
from aico_lab.reports.runner import run_notebook
from tests.notebooks import write_notebook

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def _enabled():
    renderer, theme = alt.renderers.active, alt.theme.active
    charts.enable()
    yield
    alt.renderers.enable(renderer)
    alt.theme.enable(theme)


def chart(**columns):
    frame = pl.DataFrame(columns or {"x": [1, 2], "y": [3, 4]})
    return alt.Chart(frame, title="Is it so?").mark_bar().encode(x="x", y="y")


def html_of(drawing):
    return drawing._repr_mimebundle_()["text/html"]


def specification(html):
    found = re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    return json.loads(found[1])


def test_a_chart_is_a_title_and_a_picture_with_the_chart_beside_it():
    html = html_of(chart())
    assert "<figcaption><strong>Is it so?</strong></figcaption>" in html
    (picture,) = re.findall(
        r'<img alt="Is it so\?" src="data:image/svg\+xml,([^"]*)" width="', html
    )
    drawn = unquote(picture)
    assert minidom.parseString(drawn).documentElement.tagName == "svg"  # noqa: S318 - our own
    assert "Is it so?" not in drawn  # the page says it once, as text that can be selected
    assert "title" not in specification(html)
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")


def test_a_picture_is_small_whatever_is_drawn():
    """A page has thirty of them: thousands of marks are thinned out, digits rounded."""
    many = [at / 7 for at in range(4_000)]
    html = html_of(chart(x=many, y=many).mark_point())
    (picture,) = re.findall(r'src="data:image/svg\+xml,([^"]*)"', html)
    assert 300 < unquote(picture).count("<path") <= 550
    assert len(picture) < 100_000
    assert len(re.search(r'src="([^"]*)"', html_of(chart()))[1]) < 12_000


def test_the_picture_of_a_chart_has_labels_of_two_lines_where_its_rows_are_high():
    long = "Slope, given the own previous turn"
    rows = pl.DataFrame({"of": [long, "Slope"], "x": [1, 2]})
    bars = alt.Chart(rows).mark_bar().encode(x="x:Q", y="of:N")
    for height, cut in ((80, False), (40, True)):
        svg, *_ = picture(bars.properties(height=height).to_dict())
        assert ("…" in svg) == cut
        assert (">own previous turn<" in svg) != cut


def test_numbers_are_written_once_and_short():
    html = html_of(chart(x=[1 / 3], y=[1_700_000_000_123.5]))
    ((row,),) = specification(html)["datasets"].values()
    assert row == {"x": 0.3333333, "y": 1_700_000_000_123.5}
    assert html.count("0.333333") == 1
    assert "config" not in specification(html)  # the page's script has the theme


@pytest.mark.parametrize(
    ("title", "text"),
    [
        (alt.Title("One", subtitle="Two"), "One"),
        (["Two", "lines"], "Two lines"),
        ('a "b" & <c>', 'a "b" & <c>'),
    ],
)
def test_the_title_is_the_alternative_text(title, text):
    assert f'<img alt="{escape(text)}"' in html_of(chart().properties(title=title))


def test_a_description_of_its_own_comes_before_the_title():
    html = html_of(chart().properties(description="Bars that rise"))
    assert '<img alt="Bars that rise"' in html
    assert "<strong>Is it so?</strong>" in html


def test_a_title_is_not_broken_inside_a_number():
    html = html_of(
        chart().properties(title="r = -0.15 in 95 % of it from 2018-04-16, median 3 min")
    )
    assert (
        'r\u00a0=\u00a0<span class="aico-lab-whole">-0.15</span> in 95\u00a0% of it from '
        '<span class="aico-lab-whole">2018-04-16</span>, median 3\u00a0min</strong>'
    ) in html


def test_a_figure_says_what_its_caller_wants_it_to_say():
    html = charts.figure(
        chart(),
        title="It <is> so",
        question="Why?",
        caption="snapshot 7",
        details=charts.Details({"Definition": "The `x`.\n\nMore.", "Source": "A book"}, {"x": "X"}),
    )._repr_html_()
    assert "<strong>It &lt;is&gt; so</strong>" in html
    assert '<span class="aico-lab-question">Why?</span>' in html
    assert '<small class="aico-lab-caption">snapshot 7</small>' in html
    assert (
        "<details><summary>Table, definition and source</summary>"
        "<p><strong>Definition.</strong> The <code>x</code>.</p><p>More.</p>"
        "<p><strong>Source.</strong> A book</p></details>"
    ) in html
    assert specification(html)["usermeta"] == {"columns": {"x": "X"}}


def test_charts_side_by_side_keep_their_titles():
    html = html_of(chart() | chart())
    assert "<strong>Chart</strong>" in html
    assert [view["title"] for view in specification(html)["hconcat"]] == ["Is it so?"] * 2


def test_text_in_the_data_cannot_end_the_script_it_stands_in():
    nasty = "</script><script>alert(1)</script><!--"
    html = html_of(chart(x=[nasty], y=[1]))
    assert html.count("</script>") == 2
    assert "<!--" not in html
    (rows,) = specification(html)["datasets"].values()
    assert rows == [{"x": nasty, "y": 1}]


def test_a_chart_without_rows_is_a_sentence():
    html = html_of(chart(x=pl.Series(dtype=pl.Int64), y=pl.Series(dtype=pl.Int64)))
    assert html == "<p><em>“Is it so?” has nothing to draw: no rows match.</em></p>"


def test_a_chart_of_data_on_the_web_is_refused():
    drawing = alt.Chart("https://example.org/x.csv").mark_bar().encode(x="x:Q")
    with pytest.raises(ValueError, match=r"[Aa]ccess denied|not allowed|allowed"):
        drawing._repr_mimebundle_()


def test_nothing_is_fetched_to_draw_the_picture(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    assert "data:image/svg" in html_of(chart())


def contrast(one, other):
    """The contrast of two colours, by WCAG 2."""

    def luminance(colour):
        parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        red, green, blue = (
            part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted(map(luminance, (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_and_marks_stand_out(mode):
    """WCAG AA: 4.5 for text, 3 for what a chart is read by."""

    def shown(colour):
        return charts.DARK[colour] if mode == "dark" else colour

    paper = shown(charts.PAPER)
    assert min(contrast(shown(text), paper) for text in (charts.INK, charts.MUTED)) >= 4.5
    marks = (charts.BLUE, charts.VERMILION, charts.GREEN)
    assert min(contrast(shown(mark), paper) for mark in marks) >= 3


def test_local_times_are_written_without_a_zone_so_that_every_browser_shows_them_as_they_are():
    html = html_of(chart(x=[date(2018, 4, 1)], y=[1]))
    (rows,) = specification(html)["datasets"].values()
    assert rows[0]["x"].startswith("2018-04-01T00:00:00")
    # The trap: with a zone, the browser's own zone decides which day it is.
    aware = html_of(chart(x=[datetime(2018, 4, 1, tzinfo=UTC)], y=[1]))
    (rows,) = specification(aware)["datasets"].values()
    assert rows[0]["x"] != "2018-04-01T00:00:00"


def test_tiles_show_what_they_are_given_as_text():
    html = charts.tiles({"Messages": "1,234", "Mean": None, "<b>": "a & b"})._repr_html_()
    assert ">1,234</div>" in html
    assert ">–</div>" in html  # noqa: RUF001
    assert "&lt;b&gt;" in html
    assert "a &amp; b" in html


def test_a_notebook_carries_the_javascript_once_however_many_charts_it_has(tmp_path):
    draw = (
        "alt.Chart(pl.DataFrame({'x': [1], 'y': [2]}), title='T').mark_bar().encode(x='x', y='y')"
    )
    notebook = write_notebook(
        tmp_path / "n.ipynb",
        "import altair as alt, polars as pl\nfrom aico_lab import charts\ncharts.enable()",
        draw,
        f"from IPython.display import display\ndisplay({draw})\n{draw}",
    )
    (tmp_path / "out").mkdir()
    result = run_notebook(
        notebook, parameters={}, destination=tmp_path / "out", title="T", timeout=60
    )
    for path in (result.notebook, result.html):
        text = path.read_text(encoding="utf-8")
        assert len(re.findall(r"aicoLabCharts\s*=\s*\{", text)) == 1
        assert len(re.findall(r'<figure class=\\?"aico-lab-chart ', text)) == 3
        assert len(text) < 1_500_000


LOADS = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\ssrc=(?!["']?data:)"""
    r"""|<link\b|<object\b|@import|url\((?!["']?(?:data:|\#))|\bimport\s*\(\s*["']http""",
    re.IGNORECASE,
)


def test_a_page_names_nothing_that_a_browser_would_fetch(tmp_path):
    cell = nbformat.v4.new_code_cell("1", execution_count=1)
    cell.outputs = [
        nbformat.v4.new_output("display_data", {"text/html": html_of(chart())}),
        nbformat.v4.new_output("display_data", {"text/latex": "$x^2$"}),
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# T\n\n$x^2$"), cell],
        metadata={
            "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}},
            "title": "not this one",
        },
    )
    nbformat.write(notebook, tmp_path / "n.ipynb")
    export_html(tmp_path / "n.ipynb", tmp_path / "n.html", title="A <title>")
    page = (tmp_path / "n.html").read_text(encoding="utf-8")

    assert LOADS.findall(page) == []
    assert "cdnjs" not in page
    assert "unpkg" not in page
    assert "<title>A &lt;title&gt;</title>" in page
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []
    assert "widgets" in nbformat.read(tmp_path / "n.ipynb", as_version=4).metadata


def test_the_script_is_bundled_once_and_again_when_its_source_changes(tmp_path):
    """In another copy of the package, as after its installation and after an update."""
    package = tmp_path / "aico_lab"
    shutil.copytree(
        Path(charts.__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__")
    )
    program = "from aico_lab import charts; print(charts.script()[-80:])"

    def script():
        command = [sys.executable, "-c", program]
        environment = {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
        ).stdout

    bundled = script()
    (kept,) = (package / "charts" / "__pycache__").glob("bundle.*.js")
    kept.write_text("/* kept */", encoding="utf-8")
    assert "/* kept */" in script()
    drawer = package / "charts" / "draw.js"
    drawer.write_text(drawer.read_text("utf-8") + "\n// another version\n", encoding="utf-8")
    assert script() == bundled
    assert len(list(kept.parent.glob("bundle.*.js"))) == 1


def texts_of(picture):
    return re.findall(r"<(?:text|tspan)[^>]*>([^<]+)<", picture)


def test_a_long_title_of_an_axis_is_broken_in_the_picture_too():
    """It would be cut off, or lie on the labels."""
    title = "Share of all messages that the most active people wrote in this period (%)"
    frame = pl.DataFrame({"who": ["a", "b"], "n": [1, 2]})
    for channels in (
        {"y": alt.Y("n:Q", title=title), "x": "who:N"},
        {"x": alt.X("n:Q", title=title), "y": "who:N"},
    ):
        drawing = alt.Chart(frame, title="Bars").mark_bar().encode(**channels)
        html = html_of(drawing.properties(width=200, height=200))
        (svg,) = re.findall(r'src="data:image/svg\+xml,([^"]*)" width="', html)
        texts = texts_of(unquote(svg))
        assert title not in texts
        lines = [text for text in texts if text in title and len(text) > 5]
        assert len(lines) >= 2
        assert " ".join(lines) == title


def test_labels_of_a_picture_have_room_for_wider_fonts():
    """They are measured larger than they are drawn."""
    frame = pl.DataFrame({"who": ["a", "b"], "n": [1_000_000, 1_200_000]})
    drawing = alt.Chart(frame, title="Bars").mark_bar().encode(x="n:Q", y="who:N", color="who:N")
    html = html_of(drawing.properties(width=640))
    svg = unquote(re.search(r'src="data:image/svg\+xml,([^"]*)"', html)[1])
    assert set(re.findall(r'font-size="([^"]*)"', svg)) == {"12px"}
    ends = [
        float(at) for at in re.findall(r"<text[^>]*translate\(([\d.]+),[^>]*>[\d,]+</text>", svg)
    ]
    assert len(ends) > 2
    wide = 9 * 12 * 0.64  # of '1,000,000' in DejaVu Sans
    assert min(right - left for left, right in pairwise(sorted(ends))) > wide


@pytest.mark.parametrize("kind", [charts.Html, first_screen.Fragment])
def test_html_is_one_sentence_where_only_text_can_be_shown(kind):
    assert repr(kind("<p>" * 9000)) == (
        "<HTML of 27,000 characters: notebooks display it, and .text holds it>"
    )
