"""The explorer as readers use it, in a browser without a network."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import url2pathname

import nbformat
import pytest

from aico_lab import charts
from aico_lab.reports import charts as page
from aico_lab.reports.html import export_html
from tests.browser import visit
from tests.explorer_cells import cells, content
from tests.talks import said, talk, world

pytestmark = pytest.mark.slow

DAY = 86_400
READY = ".aico-lab-explorer.on"
HOSTILE = ("<img src=x onerror=alert(1)>", "'\"&lt;</script>", "شخص من الناس", "🦊" * 40, "a" * 300)


def exported(folder, html):
    """The page that a report makes of an output, with the style sheet of charts."""
    shown = [f"<style>{charts.style()}</style>", html]
    cells = [
        nbformat.v4.new_code_cell(
            "1", outputs=[nbformat.v4.new_output("display_data", {"text/html": one})]
        )
        for one in shown
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "shown.ipynb")
    export_html(folder / "shown.ipynb", folder / "page.html", title="Explorer")
    return (folder / "page.html").as_uri()


def explored(folder, *messages, **options):
    with world(talk(*messages)) as made:
        lab = SimpleNamespace(storage=SimpleNamespace(reader=made), timezone="UTC")
        return exported(folder, page.explorer(lab, **options).text)


def crowd(days=200, gap=range(60, 120)):
    """Messages of two sides, five people and three channels, with a silence of some weeks."""
    return [
        said(day * DAY + hour * 3600, role, text, user=f"person {day % 5}",
             conversation=f"channel {(day + hour) % 3}", sentiment=score)
        for day in range(days) if day not in gap
        for hour, role, text, score in (
            (1, "user", "how are you?", 0.5), (1.01, "assistant", "fine thank you", -0.2),
            (day % 12, "user", "one two three four", None),
        )
    ]  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page of such messages."""
    return explored(tmp_path_factory.mktemp("explorer"), *crowd())


def figures(seen):
    """The tiles, and the sentence on what is chosen."""
    tiles = {
        one.locator("dt").inner_text().replace("\xa0", " "): one.locator(".value").inner_text()
        for one in seen.page.locator("[data-tile]").all()
    }
    return tiles, seen.page.locator(".chosen").inner_text()


def settled(seen):
    """Wait for the next frame, in which the page is drawn again."""
    seen.page.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def misprints(seen):
    """What a sum of nothing prints if nobody thinks of it, in texts and attributes."""
    html = seen.page.locator(READY).evaluate("""one => {
        const copy = one.cloneNode(true);
        copy.querySelectorAll("script, style").forEach(code => code.remove());
        return copy.outerHTML;
    }""")
    return re.findall(r".{30}(?:NaN|Infinity|undefined|null)", html)


def field(seen, label):
    return seen.page.locator(".controls label", has_text=re.compile(f"^{label}")).locator(
        "input, select"
    )


def choose(seen, label, option):
    field(seen, label).select_option(option)
    settled(seen)


def dragged(seen, start, end):
    """Drag over the histogram, from one share of its width to another."""
    box = seen.page.locator("svg:has(.brush)").bounding_box()
    y = box["y"] + box["height"] / 3
    seen.page.mouse.move(box["x"] + start * box["width"], y)
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + end * box["width"], y, steps=5)
    seen.page.mouse.up()
    settled(seen)


def test_the_figures_are_the_same_with_and_without_scripts(address):
    with visit(address, javascript=False) as seen:
        assert seen.page.get_by_text("need scripts").is_visible()
        assert seen.page.locator(".controls").count() == 0
        plain, _ = figures(seen)
    with visit(address) as seen:
        seen.page.locator(READY).wait_for()
        assert not seen.page.get_by_text("need scripts").is_visible()
        drawn, chosen = figures(seen)
    assert drawn == plain
    assert plain["Messages"] == "420"
    assert plain["People"] == "5"
    assert chosen.startswith("Chosen: all 420 messages.")
    assert "those of the whole selection" in chosen
    assert (seen.errors, seen.requests) == ([], [])


def test_every_filter_drives_every_figure(address):
    held = cells(Path(url2pathname(urlsplit(address).path)).read_text(encoding="utf-8"))
    with visit(address) as seen:
        seen.page.locator(READY).wait_for()
        choose(seen, "Side", "the companion")
        tiles, chosen = figures(seen)
        assert tiles["Messages"] == "140"
        assert tiles["Mean mood (−1 to 1)"] == "−0.20"  # noqa: RUF001
        assert tiles["Words per message"] == "3.0"
        assert "140 of 420 messages: by the companion." in chosen
        choose(seen, "Person", "Person 2")
        tiles, chosen = figures(seen)
        hers = [one for one in held if (one["side"], one["person"]) == ("assistant", "Person 2")]
        assert tiles["Messages"] == str(sum(one["messages"] for one in hers))
        assert tiles["People"] == "1"
        assert "by the companion, Person 2" in chosen
        choose(seen, "Channel", "Channel 1")
        assert "Channel 1, Person 2" in figures(seen)[1]
        # The bars of a dimension show the alternatives to what is chosen of it.
        bars = seen.page.locator("figure", has_text="Messages by person").locator("li")
        pressed = [one.get_attribute("aria-pressed") for one in bars.locator("button").all()]
        assert pressed.count("true") == 1
        assert len(pressed) == 5
        counts = [int(one.split()[0]) for one in bars.locator(".count").all_inner_texts()]
        of_both = [
            one for one in held if (one["side"], one["channel"]) == ("assistant", "Channel 1")
        ]
        assert sum(counts) == sum(one["messages"] for one in of_both)
        seen.page.get_by_role("button", name="Clear all filters").click()
        settled(seen)
        assert figures(seen)[0]["Messages"] == "420"
    assert seen.errors == []


def test_the_brush_selects_moves_resizes_and_clears(address):
    with visit(address, width=1280) as seen:
        seen.page.locator(READY).wait_for()
        first, last = field(seen, "From"), field(seen, "To")
        whole = first.input_value(), last.input_value()
        dragged(seen, 0.3, 0.2)
        selected = first.input_value(), last.input_value()
        assert whole[0] < selected[0] < selected[1] < whole[1]
        dragged(seen, 0.25, 0.6)
        moved = first.input_value(), last.input_value()
        assert moved[0] > selected[0]
        dragged(seen, 0.652, 0.8)
        resized = first.input_value(), last.input_value()
        assert resized[0] == moved[0]
        assert resized[1] > moved[1]
        box = seen.page.locator("svg:has(.brush)").bounding_box()
        seen.page.mouse.click(box["x"] + 0.1 * box["width"], box["y"] + 20)
        settled(seen)
        assert (first.input_value(), last.input_value()) == whole
    assert seen.errors == []


def test_the_keyboard_suffices(address):
    with visit(address) as seen:
        seen.page.locator(READY).wait_for()
        start = seen.page.get_by_role("slider", name="First day")
        before = start.get_attribute("aria-valuenow")
        start.focus()
        for _ in range(3):
            seen.page.keyboard.press("ArrowRight")
            settled(seen)
        assert start.get_attribute("aria-valuenow") > before
        assert "420" not in figures(seen)[0]["Messages"]
        seen.page.keyboard.press("Escape")
        settled(seen)
        assert start.get_attribute("aria-valuenow") == before
        field(seen, "From").fill("2024-06-01")
        field(seen, "To").fill("2024-05-01")  # before it: both become it
        settled(seen)
        assert field(seen, "From").input_value() == "2024-05-01"
        assert "1 May 2024." in figures(seen)[1]
        assert figures(seen)[0]["Days with messages"] == "1"
        seen.page.get_by_role("button", name="Whole period").press("Enter")
        settled(seen)
        assert figures(seen)[0]["Messages"] == "420"
        unlabelled = seen.page.locator("input, select").evaluate_all(
            "controls => controls.filter(one => !one.labels.length).length"
        )
        assert unlabelled == 0


def test_a_filter_that_leaves_nothing_says_so(address):
    with visit(address) as seen:
        seen.page.locator(READY).wait_for()
        field(seen, "From").fill("2024-06-05")
        field(seen, "To").fill("2024-06-08")  # within the silence
        settled(seen)
        tiles, _ = figures(seen)
        assert tiles["Messages"] == "0"
        assert tiles["Busiest day"] == tiles["Words per message"] == "–"  # noqa: RUF001
        assert seen.page.get_by_text("Nothing to draw for what is chosen").count() == 4
        assert misprints(seen) == []
    assert seen.errors == []


def test_the_tables_hold_what_the_charts_show(address):
    with visit(address) as seen:
        seen.page.locator(READY).wait_for()
        figure = seen.page.locator("figure", has_text="Messages by side")
        figure.locator("summary").click()
        rows = figure.locator("tbody tr").all_inner_texts()
        assert rows == ["people\t280\t66.7 %", "the companion\t140\t33.3 %"]
        choose(seen, "Channel", "Channel 1")
        assert figure.locator("tbody tr").all_inner_texts() != rows  # it follows the filters
        assert sum(map(len, seen.page.locator("tbody tr").all_inner_texts())) > 0


INSIDE = """() => {
    const host = document.querySelector(".aico-lab-explorer"), room = host.getBoundingClientRect();
    const out = [...host.querySelectorAll("figure *, .tiles *, .controls *, p, svg text")]
        .filter(one => one.checkVisibility() && !one.closest(".rows"))
        .map(one => [one, one.getBoundingClientRect()])
        .filter(([_, box]) => box.width && (box.left < room.left - 1 || box.right > room.right + 1))
        .map(([one]) => one.outerHTML.slice(0, 120));
    const overlaps = [];
    for (const picture of host.querySelectorAll("svg")) {
        const boxes = [...picture.querySelectorAll("text")].map(t => t.getBoundingClientRect());
        boxes.forEach((a, i) => boxes.slice(i + 1).forEach(b => {
            if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4
                && b.top < a.bottom - 4) overlaps.push([picture.ariaLabel ?? "history", i]);
        }));
    }
    return {out, overlaps, scrolls: document.documentElement.scrollWidth > innerWidth};
}"""
FITS = {"out": [], "overlaps": [], "scrolls": False}


@pytest.mark.parametrize("width", [360, 390, 768, 1280, 1920])
def test_nothing_sticks_out_and_no_label_overlaps(tmp_path, width):
    talked = [
        said(day * DAY, user=HOSTILE[day % 5], conversation=HOSTILE[(day + 1) % 5])
        for day in range(0, 700, 3)
    ]
    address = explored(tmp_path, *talked, names=True)
    with visit(address, width=width) as seen:
        seen.page.locator(READY).wait_for()
        assert seen.page.evaluate(INSIDE) == FITS
        field(seen, "From").fill("2024-05-01")
        field(seen, "To").fill("2024-06-20")
        settled(seen)
        assert seen.page.evaluate(INSIDE) == FITS
        assert seen.page.locator(f"{READY} img").count() == 0
        shown = field(seen, "Person").locator("option").all_inner_texts()
        assert set(HOSTILE) <= set(shown)
    assert (seen.errors, seen.requests) == ([], [])


SPANS = {
    "one message": [0],
    "one day": [0, 60, 7200],
    "two days": [0, DAY],
    "four empty months": [*range(0, 40 * DAY, DAY), *range(160 * DAY, 200 * DAY, DAY)],
    "ten years": [*range(-3650 * DAY, 0, 5 * DAY)],
}


@pytest.mark.parametrize("seconds", SPANS.values(), ids=SPANS)
def test_any_span_has_a_sensible_page(tmp_path, seconds):
    with visit(explored(tmp_path, *map(said, seconds)), width=390) as seen:
        seen.page.locator(READY).wait_for()
        assert seen.page.evaluate(INSIDE) == FITS
        assert figures(seen)[0]["Messages"] == f"{len(seconds):,}"
        for summary in seen.page.locator("summary").all():
            summary.click()
        assert misprints(seen) == []
    assert seen.errors == []


def test_equal_values_have_an_axis(tmp_path):
    """Means of the same scores differ by rounding errors, which are no range to draw."""
    talked = [
        said(day * DAY + n, "assistant", sentiment=-0.2) for day in range(60) for n in range(3)
    ]
    with visit(explored(tmp_path, *talked)) as seen:
        seen.page.locator(READY).wait_for()
        assert misprints(seen) == []
        ticks = seen.page.locator("figure", has_text="Mood").locator("svg text").all_text_contents()
        assert "−0.20" in ticks  # noqa: RUF001
        assert len(ticks) < 20
    assert seen.errors == []


def test_times_of_1960_and_2099_if_they_are_asked_for(tmp_path):
    talked = [said(seconds) for seconds in (-64 * 366 * DAY, 0, 75 * 366 * DAY)]
    asked = {"since": "1950-01-01", "until": "2100-12-31"}
    with visit(explored(tmp_path, *talked, **asked), width=768) as seen:
        seen.page.locator(READY).wait_for()
        assert figures(seen)[0]["Days with messages"] == "3"
        assert seen.page.get_by_text("Messages by year", exact=True).is_visible()
        assert seen.page.evaluate(INSIDE) == FITS
    assert seen.errors == []


def test_merged_hours_and_weeks_are_told(tmp_path):
    """Of weeks that are not wholly chosen, what is known by week only is left out."""
    rare = [said(day * DAY, user=f"p{day % 7}", conversation="c") for day in range(70)]
    address = explored(tmp_path, *rare, min_people=5)
    with visit(address) as seen:
        seen.page.locator(READY).wait_for()
        tiles, _ = figures(seen)
        merged = seen.page.locator(".merged")
        assert "merged into the day or week" in merged.inner_text()
        assert seen.page.get_by_text(
            "after the merging, which are of fewer than 5 people"
        ).is_visible()
        assert tiles["Messages"] == "68"  # those of the first two days are too few
        assert tiles["Days with messages"] == "–"  # noqa: RUF001
        assert tiles["Busiest day"] == tiles["Busiest hour (UTC)"] == "–"  # noqa: RUF001
        assert field(seen, "Person").count() == 0
        field(seen, "From").fill("2024-04-10")  # a Wednesday
        settled(seen)
        assert "their week is not wholly chosen" in merged.inner_text()
        assert figures(seen)[0]["Messages"] == "54"
    assert seen.errors == []


def test_paper_shows_the_whole_selection(address):
    with visit(address, width=718) as seen:
        seen.page.locator(READY).wait_for()
        choose(seen, "Side", "the companion")
        seen.page.emulate_media(media="print")
        settled(seen)
        assert figures(seen)[0]["Messages"] == "420"
        assert not seen.page.locator(".controls").is_visible()
        assert seen.page.evaluate(INSIDE) == FITS
        seen.page.emulate_media(media="screen")
        settled(seen)
        assert figures(seen)[0]["Messages"] == "140"


CONTRAST = """() => {
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return canvas.getImageData(0, 0, 1, 1).data;
    };
    const behind = one => {
        for (; one; one = one.parentElement) {
            const colour = rgba(getComputedStyle(one).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255];
    };
    const texts = [...document.querySelectorAll(".aico-lab-explorer *")].filter(one =>
        one.checkVisibility() && !one.disabled && [...one.childNodes].some(n => n.nodeType === 3
        && n.data.trim()) && !one.closest("title, script, style, option"));
    return texts.map(one => {
        const style = getComputedStyle(one), isPicture = one instanceof SVGElement;
        const [a, b] = [rgba(isPicture ? style.fill : style.color), behind(one)].map(light);
        return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), one.outerHTML.slice(0, 90)];
    }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(address, scheme):
    with visit(address) as seen:
        seen.page.emulate_media(color_scheme=scheme)
        seen.page.locator(READY).wait_for()
        choose(seen, "Side", "the companion")
        assert seen.page.evaluate(CONTRAST) == []
        paper = seen.page.locator(READY).evaluate("one => getComputedStyle(one).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_days_are_the_same_wherever_the_reader_is(address):
    found = []
    for timezone in ("America/Los_Angeles", "Pacific/Auckland"):
        with visit(address, timezone=timezone) as seen:
            seen.page.locator(READY).wait_for()
            found.append((figures(seen), field(seen, "From").input_value()))
    assert found[0] == found[1]


CHANGE = """async () => {
    const frame = () => new Promise(requestAnimationFrame), taken = [];
    const side = document.querySelector(".controls select");
    for (const code of [1, 0, -1, 1, 0]) {
        await frame();
        const before = performance.now();
        side.value = code;
        side.dispatchEvent(new Event("change"));
        await frame();  // drawn in this frame, whose callbacks run in order
        document.body.getBoundingClientRect();  // and laid out
        taken.push(performance.now() - before);
    }
    return taken.sort((a, b) => a - b);
}"""


def test_a_change_is_drawn_at_once(tmp_path):
    """With as many cells as a page may hold; others work on this machine meanwhile."""
    people, days = 20, 300
    talked = [
        said(day * DAY + hour * 3600 + person, ("user", "assistant")[day % 2],
             user=f"p{person}", conversation=f"c{hour % 4}")
        for day in range(days) for hour in range(0, 24, 3) for person in range(people)
    ]  # fmt: skip
    address = explored(tmp_path, *talked)
    assert content((tmp_path / "page.html").read_text(encoding="utf-8"))["cells"] > 40_000
    with visit(address) as seen:
        seen.page.locator(READY).wait_for()
        taken = seen.page.evaluate(CHANGE)
    assert taken[2] < 1000  # 100 ms on a machine of its own
