"""The charts of all metrics as people see them, on every screen, measured in one browser."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime

import altair as alt
import polars as pl
import pytest

from aico_lab import charts
from aico_lab.metrics.engine.catalogue import CATALOGUE
from tests.browser import visit
from tests.talks import said, talk, world

pytestmark = pytest.mark.slow

DAY = 86_400
A4 = 718  # the width of a sheet without its margins, in pixels of CSS, of which 96 are an inch
SCREENS = [(360, "screen"), (390, "screen"), (768, "screen"), (1280, "screen"), (1920, "screen"),
           (A4, "print")]  # fmt: skip
LONG = "A preference whose name is much longer than a narrow screen has room for"
WORDS = ("the", "and", "of", "I", "you", "not", "so", "very", "cat", "why?", "wonderful!", "sad")


def messages(people, weeks):
    chance = random.Random(7)
    rows = []
    for person in range(people):
        for day in range(7 * weeks):
            if chance.random() > 0.4 or 21 < day < 42:
                continue
            start = (day - 8) * DAY + chance.randrange(DAY // 2)
            rows += [
                said(
                    start + step * chance.choice([5, 40, 900]),
                    ["user", "assistant"][step % 2],
                    " ".join(chance.choices(WORDS, k=chance.randrange(1, 12))),
                    conversation=f"c{person}-{day}",
                    user=f"p{person}",
                    sentiment=chance.uniform(-1, 1),
                )
                for step in range(chance.randrange(1, 9))
            ]
    return talk(*rows)


def figures(made):
    """Each metric's chart, of made-up conversations."""
    for name in CATALOGUE:
        for parameters in ({}, *({"period": "month"} for _ in [0] if name == "retention")):
            answer = made.ask(name, filters={"min_people": 1}, **parameters)
            yield name, answer.plot()._repr_mimebundle_()["text/html"]


def own():
    """Charts that people may draw themselves."""
    frame = pl.DataFrame({"x": range(60), "y": range(60), "of": [LONG, "b", "c"] * 20})
    bars = alt.Chart(frame, title="Bars").mark_bar()
    wide = bars.encode(x="x:O", y="y:Q").properties(width=1400)
    long = bars.encode(x="sum(y):Q", y=alt.Y("of:N", title=LONG))
    panel = bars.encode(x=alt.X("x:Q", title=LONG), y="y:Q").properties(width=500)
    facet = bars.encode(x="x:Q", y="y:Q", facet=alt.Facet("of:N", columns=3))
    texts = alt.Chart(pl.DataFrame({"x": [0], "of": [LONG[:52]]}), title="Texts")
    words = texts.mark_text(align="left").encode(
        alt.X("x:Q").scale(domain=[0, 1], nice=False), text="of:N"
    )
    drawn = {"words": words, "wide": wide, "long": long, "panels": panel | panel, "facet": facet}
    for name, chart in drawn.items():
        yield name, chart._repr_mimebundle_()["text/html"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A page of all charts, of many people, and of two in three weeks."""
    renderer, theme = alt.renderers.active, alt.theme.active
    charts.enable()
    column = "main { max-width: 800px; margin: 0 auto; padding: 0 12px; }"
    parts = [f"<style>{column}{charts.style()}</style><script>{charts.script()}</script>"]
    for people, weeks in ((40, 14), (2, 3)):
        with world(messages(people, weeks)) as made:
            parts += [
                f'<section id="{name}-{people}">{html}</section>' for name, html in figures(made)
            ]
    far = [{**said(0), "timestamp": datetime(year, 1, 1, tzinfo=UTC)} for year in (1960, 2099)]
    with world(talk(*far)) as made:
        for name in ("mood_over_time", "stickiness", "trend", "calendar_days", "cumulative_people"):
            html = made.ask(name).plot()._repr_mimebundle_()["text/html"]
            parts.append(f'<section id="{name}-far">{html}</section>')
    year = [
        {**said(0), "timestamp": datetime(2024, month, 5, tzinfo=UTC)} for month in range(3, 11)
    ]
    with world(talk(*year)) as made:
        html = made.ask("mood_over_time", period="month").plot()._repr_mimebundle_()["text/html"]
        parts.append(f'<section id="months">{html}</section>')
    parts += [f'<section id="own-{name}">{html}</section>' for name, html in own()]
    alt.renderers.enable(renderer)
    alt.theme.enable(theme)
    page = tmp_path_factory.mktemp("charts") / "charts.html"
    head = (
        '<!DOCTYPE html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    )
    noting = "window.warned = []; console.warn = (...said) => window.warned.push(said.join(' '));"
    page.write_text(
        f"{head}<script>{noting}</script><main>{''.join(parts)}</main>", encoding="utf-8"
    )
    with visit(page.as_uri()) as opened:
        yield opened


def wait(page):
    page.wait_for_function(
        "() => [...document.querySelectorAll('.aico-lab-plot')].every("
        "plot => Number(plot.dataset.drawn) === Math.floor(plot.clientWidth))",
        timeout=90_000,
    )


FAULTS = """() => [...document.querySelectorAll("figure.aico-lab-chart")].flatMap(figure => {
    const name = figure.closest("section").id, plot = figure.querySelector(".aico-lab-plot");
    const svg = plot.querySelector("svg.marks").getBoundingClientRect();
    const column = plot.getBoundingClientRect(), faults = [];
    if (svg.right > column.right + 1) faults.push([name, "wider than its column"]);
    const texts = [...plot.querySelectorAll("svg text")]
        .filter(text => text.textContent && text.getAttribute("opacity") !== "0")
        .map(text => [text.textContent, text.getBoundingClientRect()]);
    for (const [text, box] of texts)
        if (box.left < svg.left - 1 || box.right > svg.right + 1
            || box.top < svg.top - 1 || box.bottom > svg.bottom + 1)
            faults.push([name, "cut off", text]);
    texts.forEach(([text, box], at) => {
        for (const [other, its] of texts.slice(0, at))
            if (box.left + 1 < its.right && its.left + 1 < box.right
                && box.top + 1.5 < its.bottom && its.top + 1.5 < box.bottom)
                faults.push([name, "overlap", text, other]);
    });
    for (const part of figure.querySelectorAll("figcaption, small, details"))
        if (part.scrollWidth > part.clientWidth + 1) faults.push([name, "text cut", part.tagName]);
    return faults;
})"""


@pytest.mark.parametrize(("width", "media"), SCREENS)
def test_nothing_is_cut_off_and_no_texts_overlap(seen, width, media):
    page = seen.page
    page.emulate_media(media=media)
    page.set_viewport_size({"width": width, "height": 900})
    wait(page)
    assert page.evaluate(FAULTS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def texts(page, section, kind):
    return page.locator(f"#{section} .mark-text.{kind} text").evaluate_all(
        "texts => texts.filter(text => text.getAttribute('opacity') !== '0')"
        ".map(text => [...text.childNodes].map(line => line.textContent).join(' '))"
    )


def test_weeks_tick_on_mondays_and_counts_are_whole(seen):
    seen.page.set_viewport_size({"width": 1280, "height": 900})
    wait(seen.page)
    for people in (40, 2):
        for name in ("weekly_activity", "sessions", "trend"):
            labels = texts(seen.page, f"{name}-{people}", "role-axis-label")
            days = [label for label in labels if re.fullmatch(r"\d+ \w{3} 20\d\d", label)]
            assert len(days) >= 2
            parsed = pl.Series(days).str.to_date("%d %b %Y")
            assert set(parsed.dt.weekday()) == {1}
        for name in ("weekly_activity", "daily_activity", "trend", "overview"):
            labels = texts(seen.page, f"{name}-{people}", "role-axis-label")
            assert not [label for label in labels if re.fullmatch(r"\d*\.\d+", label)]


def test_a_phone_labels_every_one_of_eight_months(seen):
    seen.page.set_viewport_size({"width": 390, "height": 900})
    wait(seen.page)
    labels = texts(seen.page, "months", "role-axis-label")
    months = ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct"]
    assert [label for label in labels if "20" in label] == [f"{month} 2024" for month in months]


def test_lines_have_one_legend(seen):
    seen.page.set_viewport_size({"width": 1280, "height": 900})
    wait(seen.page)
    assert texts(seen.page, "word_course-40", "role-legend-label") == ["cat", "sad", "wonderful"]


def test_paper_gets_the_picture_of_a_chart_that_is_wider_than_a_sheet(seen):
    """A chart drawn for a wide screen would have letters too small to read."""
    page = seen.page
    shown = (
        "() => ['weekly_activity-40', 'own-wide'].map(name =>"
        " document.querySelector(`#${name} .aico-lab-plot`).firstElementChild.localName)"
    )
    for width, kinds in ((1280, ["img", "img"]), (640, ["div", "div"])):
        page.set_viewport_size({"width": width, "height": 900})
        wait(page)
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(shown) == kinds
        page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(shown) == ["div", "div"]


def test_dark_mode_and_paper_change_colours_without_drawing_again(seen):
    page = seen.page
    page.set_viewport_size({"width": 1280, "height": 900})
    wait(page)
    page.locator("#overview-40 svg").evaluate("svg => svg.classList.add('same')")
    colours = {}
    for media, scheme in (("screen", "light"), ("screen", "dark"), ("print", "dark")):
        page.emulate_media(media=media, color_scheme=scheme)
        colours[media, scheme] = page.evaluate(
            "() => [[document.querySelector('#overview-40 figure'), 'backgroundColor'],"
            "[document.querySelector('#overview-40 .role-axis-label text'), 'fill'],"
            "[document.querySelector('#overview-40 .role-mark path'), 'fill']]"
            ".map(([element, name]) => getComputedStyle(element)[name])"
        )
    page.emulate_media(media="screen", color_scheme="light")
    paper, label, mark = colours["screen", "light"]
    assert (paper, mark) == ("rgb(255, 255, 255)", "rgb(0, 114, 178)")
    assert not {paper, label, mark} & set(colours["screen", "dark"])
    assert colours["print", "dark"] == [paper, label, mark]
    assert page.locator("#overview-40 svg.same").count() == 1


def test_the_table_comes_on_demand_by_the_keyboard(seen):
    page = seen.page
    figure = page.locator("#languages-40 figure")
    assert figure.locator("table").count() == 0
    figure.locator("summary").focus()
    page.keyboard.press("Enter")
    rows = figure.locator("tbody tr")
    rows.first.wait_for()
    metric = CATALOGUE["languages"]
    assert figure.locator("th").all_inner_texts()[:2] == ["role", "language"]
    assert metric.source in figure.inner_text()
    assert metric.definition.split(".")[0] in figure.inner_text().replace("\n", " ")
    assert page.evaluate("document.querySelector('#languages-40 svg').getAttribute('aria-label')")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Copy as PNG"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert not rows.first.is_visible()


def test_a_chart_can_be_saved(seen):
    page = seen.page
    figure = page.locator("#week_heatmap-40 figure")
    figure.locator("summary").click()
    saved = {}
    for kind in ("PNG", "SVG", "CSV"):
        with page.expect_download() as download:
            figure.get_by_label(f"Save as {kind}").click()
        assert download.value.suggested_filename.endswith(f".{kind.lower()}")
        saved[kind] = download.value.path().read_bytes()
    figure.locator("summary").click()
    assert saved["PNG"].startswith(b"\x89PNG")
    assert b"At which hours of the week do people write?" in saved["SVG"]
    lines = saved["CSV"].decode().split("\r\n")
    assert lines[0] == "weekday,hour,n,people,share"
    assert len(lines) == 169


def test_a_script_of_the_page_can_draw_and_change_data(seen):
    """What `window.aicoLab.draw` offers to other components."""
    page = seen.page
    spec = {
        "data": {"name": "rows"}, "datasets": {"rows": [{"x": 1, "y": 2}]}, "mark": "bar",
        "encoding": {"x": {"field": "x", "type": "quantitative"},
                     "y": {"field": "y", "type": "quantitative"}},
    }  # fmt: skip
    page.evaluate(
        """async spec => {
            const host = document.createElement("div");
            host.id = "host";
            document.querySelector("main").prepend(host);
            window.view = await window.aicoLab.draw(host, spec);
            await window.view.data("rows", [{x: 1, y: 2}, {x: 2, y: 3}]).runAsync();
        }""",
        spec,
    )
    bars = page.locator("#host .role-mark path")
    assert bars.count() == 2
    page.set_viewport_size({"width": 500, "height": 900})
    page.wait_for_function(
        "() => document.querySelector('#host svg').getBoundingClientRect().width"
        " === document.querySelector('#host').clientWidth"
    )
    assert bars.count() == 2
    page.evaluate("document.querySelector('#host').remove()")


def test_nothing_went_wrong_and_nothing_was_fetched(seen):
    """The last test of the page."""
    assert seen.errors == []
    assert seen.requests == []
    assert seen.page.evaluate("window.warned") == []


# The scale of each picture, and the least distance in pixels between labels side by side.
PICTURES = """() => [...document.querySelectorAll(".aico-lab-plot > img")].map(image => {
    const whole = document.createElement("div");
    whole.innerHTML = decodeURIComponent(image.src.slice(image.src.indexOf(",") + 1));
    document.body.append(whole);
    const boxes = [...whole.querySelectorAll("text")].filter(text => text.textContent.trim())
        .map(text => text.getBoundingClientRect());
    let least = Infinity;
    boxes.forEach((one, at) => boxes.slice(0, at).forEach(other => {
        if (Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 4)
            least = Math.min(least,
                Math.max(one.left, other.left) - Math.min(one.right, other.right));
    }));
    whole.remove();
    const plot = image.parentElement;
    return {scale: image.offsetWidth / Number(image.getAttribute("width")), least,
            room: plot.clientWidth, width: image.offsetWidth,
            scrolls: getComputedStyle(plot).overflowX === "auto"};
})"""


def test_without_scripts_pictures_can_be_read_on_every_screen(tmp_path):
    """Labels do not touch in wide fonts either, and a phone scrolls what is wider than it."""
    page = tmp_path / "page.html"
    with world(messages(6, 14)) as made:
        drawn = [
            made.ask(name, filters={"min_people": 1}).plot()._repr_mimebundle_()["text/html"]
            for name in ("calendar_days", "trend", "people", "weekly_activity", "retention")
        ]
    page.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<style>{charts.style()}</style>{''.join(drawn)}",
        encoding="utf-8",
    )
    for width, media in ((360, "screen"), (1280, "screen"), (A4, "print")):
        with visit(page.as_uri(), javascript=False, width=width) as opened:
            opened.page.emulate_media(media=media)
            pictures = opened.page.evaluate(PICTURES)
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        assert len(pictures) == len(drawn)
        for picture in pictures:
            assert picture["scale"] > 0.8  # labels of 12 pixels
            assert picture["least"] > 2
            assert picture["width"] <= picture["room"] or (picture["scrolls"] and media == "screen")


def write_page(page, chart):
    page.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><style>{charts.style()}</style>'
        f"<script>{charts.script()}</script>{charts.figure(chart).text}",
        encoding="utf-8",
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_plots_fill_their_column_under_a_legend_that_is_wider_than_half_of_them(tmp_path, width):
    """And above a line of text, as the map of passages with the list below it."""
    names = [f"{letter} theme of four words" for letter in "abcde"]
    frame = pl.DataFrame({"x": range(50), "y": range(50), "of": names * 10})
    colour = alt.Color("of:N", scale=alt.Scale(domain=names), legend=alt.Legend(orient="bottom"))
    points = alt.Chart(frame).mark_circle().encode(x="x:Q", y="y:Q", color=colour)
    text = alt.Chart(frame.head(1)).mark_text(align="left").encode(x=alt.value(0), text="of:N")
    sized = [one.properties(width=640, height=100) for one in (points, text)]
    write_page(tmp_path / "page.html", alt.vconcat(*sized).resolve_legend(color="independent"))
    with visit((tmp_path / "page.html").as_uri(), width=width) as opened:
        wait(opened.page)
        drawn = opened.page.locator(".mark-symbol.role-mark").bounding_box()
        assert 0.75 * width < drawn["width"] < width


NAMES = [
    f"Anna Maria {letter} of the house on the hill behind the second bridge" for letter in "abc"
]


@pytest.mark.parametrize(("height", "lines"), [(26 * 3, 1), (46 * 3, 2)])
def test_labels_have_as_many_lines_as_their_rows_have_room_for(tmp_path, height, lines):
    """The whole name is in the tooltip of the label."""
    frame = pl.DataFrame({"who": NAMES, "n": [1, 2, 3]})
    bars = alt.Chart(frame, title="Bars").mark_bar().encode(x="n:Q", y="who:N")
    page = tmp_path / "page.html"
    write_page(page, bars.properties(width=500, height=height))
    with visit(page.as_uri()) as opened:
        wait(opened.page)
        labels = opened.page.locator(".role-axis-label text:has(title)")
        assert labels.count() == 3
        for at, name in enumerate(NAMES):
            assert labels.nth(at).locator("title").text_content() == name
            assert max(labels.nth(at).locator("tspan").count(), 1) == lines
