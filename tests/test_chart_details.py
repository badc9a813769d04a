"""What charts of few or odd data show: ticks, colours, steps and notes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date

import pytest
import vl_convert

from aico_lab import charts
from aico_lab.metrics.engine import draw
from aico_lab.reports.page import NotAsked, Page
from tests.situations import SITUATIONS
from tests.talks import said, talk, world


@pytest.fixture(scope="module")
def labs(tmp_path_factory, homes):
    """A lab for each situation, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("labs"), {}

    def lab_of(situation: str):
        if situation not in made:
            lines = folder / f"{len(made)}.jsonl"
            lines.write_text("\n".join(map(json.dumps, SITUATIONS[situation])), encoding="utf-8")
            made[situation] = homes.open(folder / str(len(made)), protection="none")
            made[situation].import_from("jsonl", lines)
            made[situation].sync()
        return made[situation]

    yield lab_of
    for lab in made.values():
        lab.close()


@pytest.mark.slow
def test_a_calendar_has_ticks_on_mondays_and_colours_of_the_theme(labs):
    chart = labs("four empty months").metrics.calendar_days().plot().to_dict()
    silent, written = chart["layer"]
    values = written["encoding"]["x"]["axis"]["values"]
    days = [date(one["year"], one["month"], one["date"]) for one in values]
    assert days
    assert {day.weekday() for day in days} == {0}
    # Grey is replaced in dark mode, and explained.
    assert silent["encoding"]["color"]["scale"]["range"] == ["#E4E7EB"]
    assert silent["encoding"]["color"]["scale"]["domain"] == ["no messages"]
    assert "scheme" not in json.dumps(chart["layer"])


def test_the_legend_of_a_calendar_has_the_colour_of_its_days(labs):
    chart = labs("a group channel").metrics.calendar_days().plot()
    drawn = vl_convert.vegalite_to_svg(chart.to_dict())
    symbols = re.findall(r'role-legend-symbol"[^>]*><path[^>]* fill="(#\w+)"', drawn)
    assert set(symbols) <= {charts.BLUE, charts.LINES}
    assert charts.BLUE in symbols


def labels_of(answer):
    """The labels of each axis and legend of an answer's drawn chart."""
    drawn = vl_convert.vegalite_to_svg(answer.plot().to_dict())
    groups = {
        kind: re.findall(rf'class="mark-\w+ role-{kind}-label"[^>]*>(.*?)</g>', drawn)
        for kind in ("axis", "legend")
    }
    # Each label of a legend has a group of its own.
    guides = [*groups["axis"], "".join(groups["legend"])]
    return [re.findall(r"<text[^>]*>([^<]*)</text>", guide) for guide in guides]


COUNTS = ("people", "channels", "extras", "frequent_words", "calendar_days", "week_heatmap",
          "who_answers_whom", "cumulative_people", "overview", "daily_activity")  # fmt: skip


@pytest.mark.parametrize("number", [1, 2, 5, 20])
@pytest.mark.parametrize("name", COUNTS)
def test_small_counts_have_whole_ticks(number, name):
    """On axes and in legends, each number once."""
    spoken = [
        said(60 * at + 30 * turn, ("user", "assistant")[turn], "garden 🎉", user="ada")
        for at in range(number)
        for turn in (0, 1)
    ]
    with world(talk(*spoken)) as made:
        guides = labels_of(made.ask(name, filters={"min_people": 1}))
    labels = [label for guide in guides for label in guide]
    assert any(label.isdigit() for label in labels)
    assert not [label for label in labels if re.fullmatch(r"\d*\.\d+", label)]
    for guide in guides:
        assert len(set(guide)) == len(guide), guide


def test_a_calendar_of_one_weekday_has_rows_for_all():
    with world(talk(said(0), said(60))) as made:
        days = [label for guide in labels_of(made.ask("calendar_days")) for label in guide]
    assert {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"} <= set(days)


def test_a_question_whose_chart_has_no_rows_is_left_out(labs):
    """The only text is too short to tell its language, though there is a row of it."""
    page = Page(labs("one message"), "R")
    with world(talk(said(0, content="hi"))) as made:
        asked = made.ask("languages")
    page.section("Languages", "**Languages** are detected.", asked)
    assert page._left_out == {asked.metric.question: asked.finding}
    assert asked.finding == "Too little data: 1 text, all too short to tell"


def test_shades_differ_among_the_usual_counts():
    """Where all counts are alike, a logarithmic scale would paint them alike."""
    assert draw.shades("n", "Messages", 54, 30).to_dict()["scale"]["type"] == "linear"
    assert draw.shades("n", "Messages", 54_000, 30).to_dict()["scale"]["type"] == "symlog"


@pytest.mark.slow
def test_who_answers_whom_keeps_all_names_and_has_colours_of_the_theme(labs):
    chart = labs("a group channel").metrics.who_answers_whom().plot().to_dict()
    axis = chart["encoding"]["x"]["axis"]
    assert (axis["labelAngle"], axis["labelOverlap"]) == (-90, False)
    assert "scheme" not in json.dumps(chart["encoding"])


def test_cumulative_people_has_whole_ticks_and_draws_one_day(labs):
    answer = labs("one day").metrics.cumulative_people()
    chart = answer.plot().to_dict()
    assert chart["mark"]["type"] == "bar"
    assert chart["encoding"]["x2"]["field"] == "end"  # so that the last period has its width
    assert chart["encoding"]["y"]["axis"]["values"] == [0, 1]


@pytest.mark.slow
def test_a_first_message_after_since_is_the_first_of_the_selection(labs):
    metrics = labs("one person").metrics
    assert ", first in the week" in metrics.cumulative_people(user="ada").finding
    later = metrics.cumulative_people(user="Person 1", since="2024-01-20")
    assert "for the first time in this selection" in later.finding
    drawn = json.dumps(metrics.retention(user="ada", since="2024-01-20").plot().to_dict())
    assert "of all data" in drawn


def test_the_steps_of_streaks_begin_with_day_1(labs):
    chart = labs("a group channel").metrics.streaks().plot().to_dict()
    line = next(layer for layer in chart["layer"] if layer["mark"]["type"] == "line")
    data = chart["datasets"][(line.get("data") or chart["data"])["name"]]
    assert data[0]["days"] == 1
    assert data[0]["at_least"] == 100
    assert line["mark"]["interpolate"] == "step-before"


def test_the_caption_of_mood_says_which_weeks_count_for_the_sentence(labs):
    answer = labs("a group channel").metrics.mood_over_time()
    few = answer.pl().filter(answer.pl()["people"].is_between(1, 9)).height > 0
    assert ("the sentence is about the weeks with 10 or more" in answer.caption) == few
    assert "weeks with 10" in labs("two people").metrics.mood_over_time().caption


def test_a_layer_without_intervals_is_not_drawn(labs):
    chart = labs("one person").metrics.mood_over_time().plot().to_dict()
    assert "mean_low" not in json.dumps(chart["layer"])


def test_retention_without_active_people_is_left_out(labs):
    lab = labs("four empty months")
    page = Page(lab, "R", since="2024-03-01", until="2024-03-20")
    asked = page.ask("retention", period="month")
    assert not isinstance(asked, NotAsked)
    page.section("Who comes back", asked)
    assert asked.metric.question in page._left_out


def test_captions_name_parameters_that_say_something(labs):
    metrics = labs("two people").metrics
    assert "names" not in metrics.people().caption
    assert "top" not in metrics.people().caption
    assert "names yes" in metrics.people(names=True).caption
    assert "top 1" in metrics.people(top=1).caption


def test_axes_of_shares_begin_at_0_and_none_zooms_onto_nothing(labs):
    metrics = labs("a group channel").metrics
    for name in ("balance", "questions", "initiative"):
        chart = metrics[name]().plot().to_dict()
        for layer in chart["layer"]:
            x = layer["encoding"].get("x", {})
            if "%" in (x.get("title") or ""):
                assert x["scale"]["zero"] is True or 0 in x["scale"].get("domain", [])


def test_a_name_does_not_turn_what_the_terminal_prints(labs, in_process):
    """No override of direction is printed; names from right to left are isolated."""
    home = str(labs("right to left").home.path)
    shown = in_process("metrics", "show", "people", "-p", "names=True", "--home", home)
    assert shown.returncode == 0
    assert "evil" in shown.stdout
    assert "\u202e" not in shown.stdout
    told = in_process("metrics", "show", "people", "-p", "names=True", "--json", "--home", home)
    assert "\u202e" not in told.stdout
    assert "evil" in {row["person"] for row in json.loads(told.stdout)["rows"]}
    said = labs("right to left").metrics.overview(user="דנה", channel="Channel 1")
    named = replace(said, names=True).caption
    assert "\u2068דנה\u2069, \u2068משפחה\u2069" in named


def test_an_empty_query_says_what_to_do(labs, in_process):
    home = str(labs("one person").home.path)
    for query in ("", "  ", ";"):
        refused = in_process("sql", query, "--home", home)
        assert refused.returncode != 0
        assert "The query is empty: give one" in refused.stderr


def sides_of(lab):
    """The texts of each drawn chart of the catalogue, by metric."""
    for name in lab.metrics:
        chart = lab.metrics[name]().plot()
        if chart is not None:
            drawn = vl_convert.vegalite_to_svg(chart.to_dict())
            yield name, set(re.findall(r"<text[^>]*>([^<]*)</text>", drawn))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sentiment_transfer", "mood_recovery"])
def test_rows_of_one_side_have_room_for_labels_of_two_lines(labs, name):
    answer = getattr(labs("a group channel").metrics, name)(role="user")
    chart = answer.plot().to_dict()
    rows = {row.get("what") for rows in chart["datasets"].values() for row in rows} - {None}
    assert chart["height"] / len(rows) >= 36


def test_titles_and_findings_name_the_sides_and_begin_with_a_capital(labs):
    metrics = labs("a group channel").metrics
    trajectory = metrics.sentiment_trajectory(steps=2)
    assert trajectory.finding.startswith("the companion: ")
    assert "; people: " in trajectory.finding
    assert "".join(trajectory.plot().to_dict()["title"]["text"]).startswith("The companion: ")
    course = metrics.word_course(by="side", words="tomatoes", min_people=1)
    assert "user" not in course.finding


@pytest.mark.parametrize("name", ["frequent_words", "distinguishing_words"])
def test_the_legend_of_words_names_only_the_sides_that_are_drawn(labs, name):
    answer = getattr(labs("a group channel").metrics, name)(role="user", min_people=1)
    assert answer.plot().to_dict()["encoding"]["color"]["scale"]["domain"] == ["user"]


def test_lines_of_a_legend_differ_by_their_dashes_too(labs):
    metrics = labs("a group channel").metrics
    for answer in (metrics.sentiment_trajectory(steps=2), metrics.word_course()):
        layers = answer.plot().to_dict()["layer"]
        line = next(layer for layer in layers if layer["mark"]["type"] == "line")["encoding"]
        assert line["strokeDash"]["field"] == line["color"]["field"]
        assert line["strokeDash"]["scale"]["domain"] == line["color"]["scale"]["domain"]
        assert len({str(dash) for dash in line["strokeDash"]["scale"]["range"]}) >= 2


def test_charts_name_the_sides_as_the_sentences_of_the_page_do(labs):
    texts = dict(sides_of(labs("a group channel")))
    assert [name for name, found in texts.items() if found & {"user", "assistant"}] == []
    assert len([name for name, found in texts.items() if found >= {"people", "the companion"}]) >= 5
