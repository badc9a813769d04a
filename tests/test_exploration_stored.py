"""Explorations of real homes: stored, read by SQL, kept up with new passages, and shown."""

from __future__ import annotations

import inspect
import re
import sys
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from aico_lab import Lab
from aico_lab.embeddings.exploration import charts
from aico_lab.embeddings.exploration.exploring import Explorer
from aico_lab.embeddings.exploration.passages import read_passages
from aico_lab.embeddings.exploration.tables import of_shares
from aico_lab.embeddings.exploration.themes import ThemeParameters
from aico_lab.embeddings.segmenting import SegmentParameters as Segmenting
from aico_lab.errors import InvalidValue, NeverExplored, UnknownName
from aico_lab.runtime import report_kernel
from aico_lab.schema import CORE
from tests.databases import open_copy
from tests.messages import add, message

ABOUT = {
    "music": ["I play the piano", "listen to this song", "the band has new music", "she can sing"],
    "food": ["I cook pizza", "we eat chicken for dinner", "this food is good", "bake some bread"],
    "sleep": ["I am tired", "I could not sleep last night", "go to bed early", "a long nap"],
}
SECRET = "piano"
WHOLE = ThemeParameters(removed=0)
"""Of three subjects, the two largest components tell them apart."""


def talk(conversations=36, people=12, first=0, subjects=tuple(ABOUT)):
    """Return messages of conversations, each about one subject, in turn, one a day."""
    return [
        message(
            at,
            message_id=f"c{number}:{at}",
            channel_id=f"c{number}",
            conversation_id=f"c{number}",
            user_id=f"p{number % people}",
            content=f"{lines[at % 4]}, {number % 7} {lines[(at + number) % 4]}",
            timestamp=(
                datetime(2024, 1, 1, 12, tzinfo=UTC) + timedelta(days=number, seconds=at)
            ).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        )
        for number in range(first, first + conversations)
        for lines in [ABOUT[subjects[number % len(subjects)]]]
        for at in range(6)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A home with an exploration, to copy, and its key."""
    folder = tmp_path_factory.mktemp("explored")
    with Lab.create(folder / "home", key_file=folder / "key") as lab:
        add(lab.primary, *talk())
        lab.embeddings.update(Segmenting(pause=3600))
        lab.embeddings.explore(WHOLE, themes=3, min_people=3)
    return folder / "home", folder / "key"


@pytest.fixture
def explored(model, home):
    """A lab with a conversation a day, each about one of three subjects, and three themes."""
    made, key = model
    with open_copy(made, home, key) as lab:
        yield lab


def rows(lab, table):
    return lab.primary.fetch_all(f"SELECT * FROM {table} ORDER BY 1, 2")


def test_periods_are_given_as_to_metrics(explored):
    """One conversation a day: the last five days have five passages."""
    assert len(explored.embeddings.picture(since="5d")) == 5
    assert len(explored.embeddings.picture(since="2024-01-30", until="2024-01-31")) == 2
    with pytest.raises(InvalidValue, match="since='soon' is not a time"):
        explored.embeddings.picture(since="soon")


def test_days_are_those_of_the_zone(explored):
    """Passages are of noon in UTC, which is the next day in Kiritimati, 14 hours ahead."""
    with type(explored).open(explored.home.path, timezone="Pacific/Kiritimati") as there:
        assert len(there.embeddings.picture(since="2024-02-01", until="2024-02-01")) == 1
        assert len(there.embeddings.picture(since="5d")) == 5
        shares = there.embeddings.over_time(themes=[0]).pl()
        assert dict(shares.select("period", "n").iter_rows()) == {
            date(2024, 1, 1): 30, date(2024, 2, 1): 6
        }  # fmt: skip
        assert "From 2024-02-01 on" in there.embeddings.drift(at="2024-02-01").finding
        assert "From 2024-01-20 on" in there.embeddings.drift().finding


def test_a_month_may_begin_where_clocks_skip_midnight():
    rows = pl.DataFrame(
        {"moment": [datetime(2017, 10, 5, tzinfo=UTC)], "theme": [0], "writers": [["ada"]]}
    ).with_columns(pl.col("moment").dt.convert_time_zone("America/Asuncion"))
    assert of_shares(rows, ["one"], [0], "month")["period"].to_list() == [date(2017, 10, 1)]


def test_themes_are_those_of_the_subjects_and_reach_sql(explored):
    themes = explored.embeddings.themes()
    assert sorted(themes.pl()["passages"]) == [12, 12, 12]
    explored.sync()
    found = explored.sql(
        "SELECT t.name, count(*), count(DISTINCT m.conversation_id) FROM mart.message_themes t "
        "JOIN mart.messages m USING (id) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert [(n, conversations) for _, n, conversations in found] == [(72, 12)] * 3
    assert {name for name, *_ in found} == set(themes.pl()["name"])
    assert "pizza" in "".join(themes.pl()["words"])
    passages = explored.sql("SELECT count(*), count(x), count(y) FROM mart.passage_themes")
    assert passages.fetchone() == (36, 36, 36)
    shares = explored.sql("SELECT sum(passages) FROM mart.themes").fetchone()
    assert shares == (36,)


def test_a_theme_without_words_has_its_number_as_name_also_in_an_older_home(explored):
    """Numbers begin with 0, names began with 1."""
    explored.primary.execute("UPDATE themes SET name = 'Theme 2' WHERE theme = 2")
    CORE.rollback("embeddings", 3, explored.primary)
    before = explored.primary.fetch_all("SELECT name FROM themes WHERE theme = 2")
    CORE.apply_core_schemas(explored.primary)
    assert before == [("Theme 3",)]
    assert explored.embeddings.themes().pl()["name"][2] == "Theme 2"
    explored.sync()
    assert explored.sql("SELECT name FROM mart.themes WHERE theme = 2").fetchall() == [("Theme 2",)]


def test_the_same_passages_are_explored_once(explored):
    before = [rows(explored, table) for table in ("explorations", "themes", "passage_themes")]
    explored.embeddings.explore(WHOLE, themes=3, min_people=3)
    assert [rows(explored, t) for t in ("explorations", "themes", "passage_themes")] == before
    explored.embeddings.explore(WHOLE, themes=2, min_people=3)
    assert len(rows(explored, "explorations")) == 2
    assert len(explored.embeddings.themes()) == 2  # of the current one
    add(explored.primary, *talk(3, first=36))
    explored.embeddings.update()
    two = explored.embeddings.explore(WHOLE, themes=2, min_people=3)
    assert two.pl()["passages"].sum() == 39  # the new ones were placed
    renewed = explored.embeddings.explore(WHOLE, themes=2, min_people=3, renew=True)
    assert renewed.exploration_id != two.exploration_id
    assert len(rows(explored, "explorations")) == 2  # the older one of these parameters went


def test_an_exploration_asked_for_again_is_the_current_one(explored):
    """Also in SQL, which lists all of them."""
    three = explored.embeddings.explore(WHOLE, themes=3, min_people=3).exploration_id
    two = explored.embeddings.explore(WHOLE, themes=2, min_people=3).exploration_id
    explored.sync()
    current = "SELECT exploration_id FROM mart.explorations WHERE is_current"
    assert explored.sql(current).fetchall() == [(two,)]
    explored.embeddings.explore(WHOLE, themes=3, min_people=3)
    assert len(explored.embeddings.themes()) == 3
    assert explored.embeddings.themes().exploration_id == three
    explored.sync()
    assert explored.sql(current).fetchall() == [(three,)]
    assert explored.sql("SELECT count(*), sum(people) FROM mart.themes").fetchone() == (3, 12)
    listed = explored.sql(
        "SELECT model, parameters->>'themes', seed, passages FROM mart.explorations ORDER BY 2"
    )
    assert [row[1:] for row in listed.fetchall()] == [("2", 0, 36), ("3", 0, 36)]


def test_passages_that_are_mostly_gone_are_explored_again(explored):
    """Else all new ones would lie at one point of the map, as no passage of it is near them."""
    explored.embeddings.update(Segmenting(pause=3600, largest=8))
    for view in (
        explored.embeddings.themes, explored.embeddings.picture, explored.embeddings.over_time,
        explored.embeddings.drift, explored.embeddings.place_new,
    ):  # fmt: skip
        with pytest.raises(NeverExplored, match=r"explore\(renew=True\)"):
            view()
    found = explored.embeddings.explore(WHOLE, themes=3, min_people=3)
    places = explored.embeddings.picture().pl()
    assert places.height == found.pl()["passages"].sum() == 36
    assert places.select("x", "y").n_unique() > 30


def test_every_result_has_only_what_the_filters_choose(explored):
    explored.primary.execute("UPDATE users SET name = 'Zoe' WHERE user_id = 'p1'")
    embeddings = explored.embeddings
    texts = dict(embeddings.picture().pl()["segment_id", "text"].iter_rows())
    passages = read_passages(explored.primary)
    own = {
        segment
        for segment, writers, started in zip(
            passages.ids, passages.writers, passages.started, strict=True
        )
        if "p1" in writers and "2024-01-10" <= started < "2024-02-01"
    }
    assert len(own) == 2
    filters = {"user": "Zoe", "since": "2024-01-10", "until": "2024-01-31"}
    said = "Only from 2024-01-10 on, until 2024-01-31, Person 2"
    views = {
        name: getattr(embeddings, name)(**filters)
        for name in ("themes", "picture", "over_time", "by_person", "duplicates", "drift")
    }
    views["neighbours"] = embeddings.neighbours("pizza", **filters)
    views["models"] = embeddings.drift(model="wordllama", **filters)
    assert all(view.caption.startswith(said) for view in views.values())
    assert set(views["picture"].pl()["segment_id"]) == own
    assert set(views["neighbours"].pl()["segment_id"]) == own
    assert views["themes"].pl()["passages"].sum() == 2
    weeks = embeddings.themes(since="2024-02-04").pl()  # two passages, the later ones first
    assert weeks["passages"].to_list() == sorted(weeks["passages"], reverse=True)
    assert views["by_person"].pl().select("person", "n").unique().rows() == [("Person 2", 2)]
    assert views["over_time"].pl()["n"].unique().to_list() == [2]
    assert "1 person" in views["drift"].caption
    near = embeddings.duplicates(near=0, **filters).pl()
    assert set(near["segment_ids"].explode()) <= own
    assert set(near["text"]) <= {texts[one] for one in own}
    assert ", 2 passages;" in views["models"].caption


def test_filters_that_nothing_passes_are_told_and_nobody_unknown_is_accepted(explored):
    embeddings = explored.embeddings
    nothing = {"since": "2030-01-01"}
    for view in (
        embeddings.themes(**nothing), embeddings.picture(**nothing), embeddings.drift(**nothing),
        embeddings.over_time(**nothing), embeddings.by_person(**nothing),
        embeddings.neighbours("pizza", **nothing), embeddings.duplicates(**nothing),
        embeddings.drift(model="wordllama", **nothing),
    ):  # fmt: skip
        assert view.finding == "No passage matches the filters."
        assert len(view) == 0
        assert view.plot() is None
        assert "2030-01-01" in view._repr_html_()
    for method in (embeddings.themes, embeddings.duplicates, embeddings.by_person):
        with pytest.raises(UnknownName, match="p1"):
            method(user="p1x")


def test_a_passage_is_of_everybody_who_wrote_in_it(lab):
    """In a group; the companion's own passage is nobody's, but a filter by its person finds it."""
    group = [
        message(
            at, message_id=f"g{number}:{at}", channel_id="g", conversation_id=f"g{number}",
            user_id=person, role="user", content=f"{lines[at % 4]} {number}",
            timestamp=f"2024-01-{number + 1:02}T12:00:{at:02}.000000Z",
        )
        for number in range(6)
        for lines in [ABOUT[tuple(ABOUT)[number % 3]]]
        for at, person in enumerate(("ann", "bob", "cy", "ann"))
    ]  # fmt: skip
    alone = message(
        1, message_id="alone", channel_id="d", conversation_id="d", user_id="dee",
        role="assistant", content="Are you there? I play the piano.",
        timestamp="2024-01-20T12:00:00.000000Z",
    )  # fmt: skip
    add(lab.primary, *group, alone)
    lab.embeddings.update()
    lab.embeddings.explore(WHOLE, themes=2, min_people=3)
    found = {one: len(lab.embeddings.picture(user=one)) for one in ("ann", "bob", "cy", "dee")}
    assert found == {"ann": 6, "bob": 6, "cy": 6, "dee": 1}
    assert len(lab.embeddings.picture(user=["bob", "dee"])) == 7
    assert lab.embeddings.over_time().pl()["people"].unique().to_list() == [3]
    assert "3 people" in lab.embeddings.drift().caption
    people = lab.embeddings.by_person(names=True).pl()
    assert dict(people.group_by("person").agg(pl.col("passages").sum()).iter_rows()) == {
        "ann": 6, "bob": 6, "cy": 6
    }  # fmt: skip


def test_an_exploration_made_again_from_scratch_is_the_same(explored):
    def state():
        return [
            [row[:1] + row[2:] for row in rows(explored, "explorations")],
            rows(explored, "themes"),
            rows(explored, "passage_themes"),
        ]

    before = state()
    explored.primary.execute("DELETE FROM explorations")
    assert rows(explored, "passage_themes") == []
    explored.embeddings.explore(WHOLE, themes=3, min_people=3)
    after = state()
    assert after[1:] == before[1:]


def test_new_edited_and_deleted_passages_find_their_place(explored):
    before = {row[1]: row[2:] for row in rows(explored, "passage_themes")}
    add(explored.primary, *talk(3, first=36))
    edited = [(text, f"c0:{at}") for at, text in enumerate(ABOUT["sleep"] * 2)][:6]
    explored.primary.execute_many("UPDATE messages SET content = ? WHERE message_id = ?", edited)
    explored.primary.execute("DELETE FROM messages WHERE conversation_id = 'c1'")
    explored.embeddings.update()
    assert explored.embeddings.place_new() == 4
    assert explored.embeddings.place_new() == 0
    after = {row[1]: row[2:] for row in rows(explored, "passage_themes")}
    passages = read_passages(explored.primary)
    assert sorted(after) == list(passages.ids)
    theme_of = {text: after[one][0] for one, text in zip(passages.ids, passages.texts, strict=True)}
    by_subject = [
        {theme for text, theme in theme_of.items() if any(line in text for line in lines)}
        for lines in ABOUT.values()
    ]
    assert sorted(map(len, by_subject)) == [1, 1, 1]
    assert sum(before.get(one) == place for one, place in after.items()) == 34


def test_the_remedy_for_a_damaged_exploration_helps(explored):
    explored.primary.execute("UPDATE explorations SET space = x'00'")
    with pytest.raises(InvalidValue, match=r"explore\(seed=1\)"):
        explored.embeddings.explore(WHOLE, themes=3, min_people=3, renew=True)
    assert len(explored.embeddings.explore(WHOLE, themes=3, min_people=3, seed=1)) == 3


def test_shares_over_time_sum_to_all_passages(explored):
    found = explored.embeddings.over_time(by="month", themes=[0, 1, 2]).pl()
    assert found.group_by("period").agg(pl.col("share").sum())["share"].to_list() == pytest.approx(
        [100, 100]
    )
    january = found.filter(pl.col("period") == date(2024, 1, 1))
    assert january["n"].to_list() == [31] * 3
    assert (january["share_low"] <= january["share"]).all()
    assert found.filter(pl.col("people") < 10)["share_low"].null_count() == 3
    one = explored.embeddings.over_time(by="week", user="p1").pl()
    assert one["people"].unique().to_list() == [1]
    assert one["share_low"].null_count() == one.height
    with pytest.raises(InvalidValue, match="themes is empty"):
        explored.embeddings.over_time(themes=[])
    with pytest.raises(UnknownName, match="nobody"):
        explored.embeddings.over_time(user="nobody")
    with pytest.raises(InvalidValue, match="week"):
        explored.embeddings.over_time(by="day")


def test_neighbours_of_a_sentence_are_about_it(explored):
    found = explored.embeddings.neighbours("We ate pizza and bread", k=5)
    assert found.pl()["name"].n_unique() == 1
    assert all("pizza" in text or "bread" in text for text in found.pl()["text"])
    assert found.finding == "The 5 nearest of 36 passages to “We ate pizza and bread”."
    itself = found.pl()["segment_id"][0]
    assert itself not in explored.embeddings.neighbours(itself, k=40).pl()["segment_id"]
    for wrong in ({"text": " "}, {"text": "pizza", "k": 0}):
        with pytest.raises(InvalidValue):
            explored.embeddings.neighbours(**wrong)


def test_duplicates_and_drift(explored):
    copy = [m | {"message_id": f"{m['message_id']}x", "conversation_id": "copy"} for m in talk(1)]
    add(explored.primary, *copy)
    explored.embeddings.update()
    (first, *_) = explored.embeddings.duplicates(near=2).pl().iter_rows(named=True)
    assert (first["passages"], first["is_exact"]) == (2, True)
    add(explored.primary, *talk(24, first=60, subjects=("food",)))
    explored.embeddings.update()
    explored.embeddings.place_new()
    moved = explored.embeddings.drift(at="2024-03-01").pl()
    rise = moved.row(0, named=True)
    assert rise["after"] == 100
    assert rise["low"] > 10
    assert rise["is_clear"]
    assert rise["people"] == 12
    same = explored.embeddings.drift(model="wordllama").pl()
    assert dict(same.iter_rows())["shared nearest passages"] == 1
    assert dict(same.iter_rows())["Procrustes distance"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(InvalidValue, match="two periods"):
        explored.embeddings.drift(at="1999-01-01")


def test_a_report_shows_texts_only_if_it_is_asked_to(explored, monkeypatch):
    """Not in the table, not in the rows, and not in the chart."""
    monkeypatch.setattr(report_kernel, "_marked", [True])
    embeddings = explored.embeddings
    hidden = (
        embeddings.picture(),
        embeddings.neighbours("music", k=40),
        embeddings.duplicates(near=0.1),
    )
    for view in hidden:
        shown = [repr(view), view._repr_html_(), str(view.pl())]
        if (chart := view.plot()) is not None:
            shown.append(chart.to_json())
        assert not any(f"I play the {SECRET}" in text for text in shown)
    asked = embeddings.neighbours("music", k=40, content=True)
    assert f"I play the {SECRET}" in asked._repr_html_()
    assert f"I play the {SECRET}" in embeddings.picture(content=True).plot().to_json()


def test_texts_and_times_are_hidden_where_content_is_off(explored):
    """As the notebook's parameter does in JupyterLab, too, whose file has what is shown."""
    embeddings = explored.embeddings
    for view in (
        embeddings.picture(content=False), embeddings.neighbours("music", content=False),
        embeddings.duplicates(near=0.1, content=False),
    ):  # fmt: skip
        chart = view.plot()
        shown = f"{view!r}{view._repr_html_()}{view.pl()}{chart.to_json() if chart else ''}"
        assert f"I play the {SECRET}" not in shown
        assert "12:00" not in shown
    assert "12:00" in repr(embeddings.neighbours("music"))
    assert f"I play the {SECRET}" in embeddings.picture().plot().to_json()


def test_as_many_passages_are_drawn_as_the_map_says(explored, monkeypatch):
    monkeypatch.setattr(charts, "MOST_POINTS", 20)
    view = explored.embeddings.picture(content=True)
    assert "36 passages on a map, 20 of them drawn" in view.finding
    (points,) = (
        rows for rows in view.plot().to_dict()["datasets"].values() if "started" in rows[0]
    )
    assert len(points) == 20
    # Nothing is listed before a region is selected, and then with time and theme.
    hint, listed = view.plot().to_dict()["vconcat"][1]["layer"]
    assert "region_store" in hint["mark"]["opacity"]["expr"]
    assert {"filter": {"param": "region", "empty": False}} in listed["transform"]
    assert "datum.started" in str(listed["transform"])


def test_a_widget_draws_all_passages_of_a_large_map(explored, monkeypatch):
    """Without texts unless they are asked for, and never in a report."""
    pytest.importorskip("jscatter")
    embeddings = explored.embeddings
    assert embeddings.picture().widget() is None
    monkeypatch.setattr(charts, "MOST_POINTS", 20)
    widget = embeddings.picture().widget()
    assert len(widget.points) == 36
    assert widget.tooltip_properties == ["theme", "time"]
    themes = embeddings.themes().pl()["name"].to_list()
    legend = [value[:2] for value in widget.legend_encoding["color"]["values"]]
    assert legend == list(zip(themes, map(tuple, widget.color), strict=True))
    assert embeddings.picture(content=True).widget().tooltip_properties[-1] == "text"
    monkeypatch.setattr(report_kernel, "_marked", [True])
    assert embeddings.picture().widget() is None


def test_without_the_library_of_the_widget_there_is_none(explored, monkeypatch):
    monkeypatch.setattr(charts, "MOST_POINTS", 20)
    monkeypatch.setitem(sys.modules, "jscatter", None)
    assert explored.embeddings.picture().widget() is None


def test_lines_end_where_a_period_has_no_passage_and_months_have_a_year(explored):
    add(explored.primary, *talk(12, first=130))
    explored.embeddings.update()
    explored.embeddings.place_new()
    chart = explored.embeddings.over_time(themes=[0]).plot().to_dict()
    (rows,) = chart["datasets"].values()
    assert [(row["period"][:7], row["share"] is None) for row in rows] == [
        ("2024-01", False), ("2024-02", False), ("2024-03", True), ("2024-05", False)
    ]  # fmt: skip
    axis = chart["spec"]["layer"][0]["encoding"]["x"]["axis"]
    assert axis["format"] == "%b %Y"
    assert [(one["year"], one["month"]) for one in axis["values"]] == [
        (2024, 1), (2024, 2), (2024, 3), (2024, 5)
    ]  # fmt: skip
    # Titles of two lines fit panels of half the width, with which a page finds out what fits.
    assert chart["facet"]["header"]["labelLimit"] <= chart["spec"]["width"] / 2
    assert rows[0]["panel"].replace("\n", " ") == rows[0]["name"]
    assert rows[0]["panel"].count("\n") == 1


def test_a_theme_without_a_colour_of_its_own_is_grey_and_changes_have_a_zero(explored, monkeypatch):
    monkeypatch.setattr(charts, "_COLOURS", charts._COLOURS[:2])
    for view in (explored.embeddings.picture(), explored.embeddings.by_person()):
        chart = view.plot().to_dict()
        rows = max(chart["datasets"].values(), key=len)
        assert len({row["colour"] for row in rows}) == 3
        grey = {row["name"] for row in rows if row["colour"] == "all other themes"}
        assert grey == {explored.embeddings.themes().pl()["name"][2]}
    change = explored.embeddings.drift().plot().to_dict()
    assert [{"zero": 0}] in change["datasets"].values()
    assert "labelLimit" not in str(change["layer"])  # the page fits labels to its width
    assert change["height"] == 34 * 3


@pytest.mark.parametrize("apart", [0, 1])
def test_two_periods_are_cut_between_moments(lab, apart):
    """Most passages may begin at one midnight, if times of day are unknown."""
    add(
        lab.primary,
        *(
            message(
                0, message_id=f"m{number}", channel_id=f"c{number}", conversation_id=f"c{number}",
                user_id=f"p{number}", content=f"{ABOUT['food'][number % 4]} {number}",
                timestamp=f"2024-01-{10 + (apart if number > 3 else 0)}T00:00:00.000000Z",
            )
            for number in range(5)
        ),
    )  # fmt: skip
    lab.embeddings.update()
    lab.embeddings.explore()
    found = lab.embeddings.drift()
    if apart:
        assert "cannot be told whether themes changed; 10 are needed" in found.finding
        assert "4 passages before, 1 after, 5 people" in found.caption
        assert found.pl()["low"].null_count() == found.pl().height
        assert "by chance" not in found.caption
    else:
        assert found.finding.startswith("All passages begin at the same moment")
        assert found.plot() is None


def test_sentences_are_right_about_one_passage(lab):
    add(lab.primary, message(1, content="I play the piano and sing", role="user"))
    lab.embeddings.update()
    lab.embeddings.explore()
    views = (
        lab.embeddings.themes(), lab.embeddings.picture(), lab.embeddings.over_time(by="week"),
        lab.embeddings.by_person(), lab.embeddings.neighbours("piano"),
        lab.embeddings.duplicates(), lab.embeddings.drift(),
        lab.embeddings.drift(model="wordllama"),
    )  # fmt: skip
    for view in views:
        words = f"{view.finding} {view.caption}"
        assert not re.search(r"\b1 (themes|passages|people|weeks|groups)\b|\bNone;|nan\b", words), (
            words
        )
    few = lab.embeddings.explore(themes=1000).caption
    assert "1 group of the 1,000 asked for, as no more vectors differ" in few
    assert "as there are no more (5 were asked for)" in few


def test_why_this_number_of_themes_was_chosen_is_told(lab):
    """And that equal vectors say nothing."""
    add(
        lab.primary,
        *(
            message(
                0, message_id=f"m{number}", channel_id=f"c{number}", conversation_id=f"c{number}",
                content="😀" * (1 + number % 2), role="user",
            )
            for number in range(30)
        ),
    )  # fmt: skip
    lab.embeddings.update()
    said = lab.embeddings.explore().caption
    assert "as there are too few passages for more" in said
    assert "the model tells only" in said
    assert "passages apart" in said


def test_every_argument_of_a_wrong_kind_is_refused_by_its_name(explored):
    for method, _ in inspect.getmembers(Explorer, inspect.isfunction):
        call = getattr(explored.embeddings, method)
        given = {"text": "pizza"} if method == "neighbours" else {}
        for name in () if method.startswith("_") else inspect.signature(call).parameters:
            with pytest.raises(InvalidValue, match=rf"^{name}\b.* not |^{name}=.* is not a time"):
                call(**{**given, name: object()})


def test_arguments_out_of_range_are_refused_in_one_sentence(explored):
    embeddings = explored.embeddings
    for method, given in (
        ("explore", {"themes": "5"}), ("explore", {"seed": 1.5}), ("explore", {"min_people": 0}),
        ("explore", {"themes": 10**20}), ("duplicates", {"near": float("nan")}),
        ("by_person", {"top": 0}), ("by_person", {"top": True}), ("by_person", {"top": 10**30}),
        ("neighbours", {"text": "\ud800"}), ("neighbours", {"text": "a", "k": 0}),
        ("over_time", {"themes": [0.5]}), ("over_time", {"themes": "ab"}),
        ("over_time", {"by": ["week"]}), ("drift", {"at": "0d"}), ("drift", {"at": "2 moons"}),
        ("use_model", {"name": 5}),
    ):  # fmt: skip
        name = list(given)[-1]
        with pytest.raises(InvalidValue, match=rf"^{name}\b"):
            getattr(embeddings, method)(**given)
    with pytest.raises(InvalidValue, match="list of users is empty"):
        embeddings.picture(user=[])
    # Numbers of numpy and columns of polars are numbers, too.
    some = embeddings.themes().pl()["theme"].head(np.int64(2))
    assert embeddings.over_time(themes=some).pl()["theme"].unique().to_list() == [0, 1]
    assert embeddings.by_person(top=np.int64(3)).pl()["person"].n_unique() == 3


def test_without_an_exploration_or_passages_a_sentence_says_what_to_do(lab):
    with pytest.raises(NeverExplored, match=r"lab\.embeddings\.explore"):
        lab.embeddings.themes()
    with pytest.raises(NeverExplored, match=r"lab\.embeddings\.update"):
        lab.embeddings.explore()
    lab.sync()
    assert lab.sql("SELECT count(*) FROM mart.message_themes").fetchone() == (0,)


def test_a_handful_of_messages_can_be_explored(lab):
    add(lab.primary, *map(message, range(3)))
    lab.embeddings.update()
    lab.embeddings.explore()
    for view in (
        lab.embeddings.themes(), lab.embeddings.picture(), lab.embeddings.over_time(),
        lab.embeddings.neighbours("homesick"), lab.embeddings.duplicates(),
    ):  # fmt: skip
        assert len(repr(view)) > 20
        assert view._repr_html_()
        view.plot()
