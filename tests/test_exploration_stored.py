"""Explorations of real homes: stored, read by SQL, kept up with new passages, and shown."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from aico_lab.embeddings.exploration.passages import read_passages
from aico_lab.embeddings.exploration.tables import of_shares
from aico_lab.embeddings.exploration.themes import ThemeParameters
from aico_lab.embeddings.segmenting import SegmentParameters as Segmenting
from aico_lab.errors import InvalidValue, NeverExplored, UnknownName
from aico_lab.runtime import report_kernel
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


@pytest.fixture
def explored(lab):
    add(lab.primary, *talk())
    lab.embeddings.update(Segmenting(pause=3600))
    lab.embeddings.explore(WHOLE, themes=3, min_people=3)
    return lab


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
        {"moment": [datetime(2017, 10, 5, tzinfo=UTC)], "theme": [0], "person": ["ada"]}
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


def test_the_same_passages_are_explored_once(explored):
    before = [rows(explored, table) for table in ("explorations", "themes", "passage_themes")]
    explored.embeddings.explore(WHOLE, themes=3, min_people=3)
    assert [rows(explored, t) for t in ("explorations", "themes", "passage_themes")] == before
    explored.embeddings.explore(WHOLE, themes=2, min_people=3)
    assert len(rows(explored, "explorations")) == 2
    assert len(explored.embeddings.themes()) == 2  # of the newest
    add(explored.primary, *talk(3, first=36))
    explored.embeddings.update()
    two = explored.embeddings.explore(WHOLE, themes=2, min_people=3)
    assert two.pl()["passages"].sum() == 39  # the new ones were placed
    renewed = explored.embeddings.explore(WHOLE, themes=2, min_people=3, renew=True)
    assert renewed.exploration_id != two.exploration_id
    assert len(rows(explored, "explorations")) == 2  # the older one of these parameters went


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
    with pytest.raises(UnknownName, match="nobody"):
        explored.embeddings.over_time(user="nobody")
    with pytest.raises(InvalidValue, match="week"):
        explored.embeddings.over_time(by="day")


def test_neighbours_of_a_sentence_are_about_it(explored):
    found = explored.embeddings.neighbours("We ate pizza and bread", k=5)
    assert found.pl()["name"].n_unique() == 1
    assert all("pizza" in text or "bread" in text for text in found.pl()["text"])
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
    assert rise["low"] > 30
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
