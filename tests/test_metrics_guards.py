"""What `min_people` leaves out: whatever rests on fewer people, row by row and value by value."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.answer import without_values_of_few
from aico_lab.metrics.engine.catalogue import CATALOGUE
from aico_lab.metrics.engine.filters import Filters
from tests.talks import OTHERS, START, World, said, talk, world

DAY = 86_400
WEEK = 7 * DAY
FIVE = {"min_people": 5}


def alternating(user: int, turns: int = 12, apart: int = 5000, **others) -> list[dict]:
    """A conversation of one person, whose sides take turns every minute."""
    return [
        said(apart * user + 60 * turn, ("user", "assistant")[turn % 2], conversation=f"c{user}",
             user=f"u{user}", **{name: value(user, turn) for name, value in others.items()})
        for turn in range(turns)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def one_in_thirty():
    """Thirty people, of whom one alone has a positive mood, recorded times, and counted words."""
    spoken = [
        message
        for user in range(30)
        for message in alternating(
            user,
            content=lambda user, _turn: "hello my secret" if user == 0 else "你好吗我很好",
            sentiment=lambda user, turn: 0.5 if user == 0 and turn % 6 > 1 else -0.5,
            response_time=lambda user, turn: 2.0 if user == 0 and turn % 2 else None,
        )
    ]
    settings = [
        (3 * user + step, f"u{user}", "tone", None, f'"{step}"', START + timedelta(days=step))
        for user in range(30)
        for step in range(2 if user == 0 else 1)
    ]
    schema = OTHERS["preference_changes"]
    made = World(
        talk(*spoken), preference_changes=pl.DataFrame(settings, schema=schema, orient="row")
    )
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "columns", "stays"),
    [
        ("overview", ["words"], "sentiment"),
        ("turns", ["words", "words_low", "words_high"], "messages"),
        ("mood_recovery", ["baseline", "baseline_low", "lift", "lift_high"], "recovered"),
        ("reply_latency", ["recorded_p50", "recorded_p95"], "p50"),
        ("preference_changes", ["median_days"], "share"),
    ],
)
def test_a_value_of_fewer_people_than_its_row_is_left_out(one_in_thirty, name, columns, stays):
    everything, guarded = one_in_thirty.ask(name), one_in_thirty.ask(name, filters=FIVE)
    values = [column for column in columns if not column.endswith(("_low", "_high"))]
    for column in values:
        assert everything.pl()[column].drop_nulls().len(), column
    for column in columns:
        assert guarded.pl()[column].null_count() == len(guarded), column
    assert guarded.pl()[stays].null_count() == 0
    assert guarded.pl()["n"].to_list() == everything.pl()["n"].to_list()
    assert "of fewer than 5 people left out" in guarded.caption
    assert "None" not in guarded.finding
    assert "after others" not in guarded.finding
    assert "words" not in guarded.finding


def test_every_value_says_of_how_many_people_it_is_where_that_is_not_the_rows_number():
    rows = pl.DataFrame({"x": [1.0, 2.0, None], "x_low": [0.0, 1.0, None], "_people_x": [4, 5, 0]})
    kept, left_out = without_values_of_few(rows, 5)
    assert kept["x"].to_list() == [None, 2.0, None]
    assert kept["x_low"].to_list() == [None, 1.0, None]
    assert left_out == 1
    assert without_values_of_few(rows, 1) == (rows, 0)


@pytest.mark.slow
def test_the_slope_and_the_memory_of_one_person_are_left_out():
    moods = (0.3, -0.2, 0.5, 0.1, -0.4, 0.7, 0.0, 0.2)
    spoken = [
        message
        for user in range(12)
        for message in alternating(
            user, turns=8 if user == 0 else 2, sentiment=lambda u, turn: moods[(turn + u) % 8]
        )
    ]
    with world(talk(*spoken)) as made:
        everything = made.ask("sentiment_transfer").pl().filter(role="assistant")
        guarded = made.ask("sentiment_transfer", filters=FIVE).pl().filter(role="assistant")
        assert everything["slope_given_own"][0] is not None
        assert guarded.select("slope_given_own").item() is None
        assert guarded["slope"][0] == everything["slope"][0]
    # Of intervals that are all equal there is no memory.
    times = [0, 10, 20, 30, 40]
    spoken = [
        said(time * (time if user == 0 else 1), user=f"u{user}", conversation=f"c{user}")
        for user in range(6)
        for time in times
    ]
    with world(talk(*spoken)) as made:
        for filters, missing in (({}, 0), (FIVE, 1)):
            answer = made.ask("burstiness", filters=filters, min_intervals=2)
            assert answer.pl()["memory"].null_count() == missing
            assert ("M =" in answer.finding) is not missing


def test_the_people_of_a_weekday_are_those_of_the_weeks_that_count():
    first = [said(60 * user, user=f"p{user}", conversation=f"p{user}") for user in range(6)]
    solo = [
        said(week * WEEK + day * DAY + 60 * number, user="solo", conversation="solo")
        for week in range(1, 15)
        for day in range(7)
        for number in range(3)
    ]
    with world(talk(*first, *solo)) as made:
        assert made.ask("seasonality").pl()["people"].to_list() == [1] * 7
        assert made.ask("week_heatmap").pl()["people"].max() == 7
        answer = made.ask("seasonality", filters=FIVE)
        assert len(answer) == 0
        assert answer.finding == "Too little data: nothing about fewer than 5 people is shown"


@pytest.mark.slow
def test_the_sentiment_of_one_person_is_not_that_of_many():
    spoken = [
        said(week * WEEK + 60 * user, user=f"u{user}", conversation=f"c{user}",
             sentiment=-0.8 if user == 0 else None)
        for week in range(20)
        for user in range(8)
    ]  # fmt: skip
    with world(talk(*spoken)) as made:
        for name in ("trend", "change_points"):
            answer = made.ask(name, filters=FIVE, measure="sentiment")
            assert answer.finding.startswith("Too little data"), name
            assert not len(answer)
            assert len(made.ask(name, filters=FIVE))
        whole = made.ask("trend", measure="sentiment").pl()
        assert set(whole.select("n", "people").rows()) == {(1, 1)}
        guarded = made.ask("overview", filters=FIVE).pl().row(0, named=True)
        assert (guarded["people"], guarded["sentiment"]) == (8, None)
        assert made.ask("overview").pl()["sentiment"].to_list() == [pytest.approx(-0.8)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["overview", "daily_activity", "weekly_activity", "monthly_activity"]
)
def test_what_the_companion_wrote_is_of_the_people_it_wrote_to(name):
    spoken = [message for user in range(6) for message in alternating(user, 4, 600)]
    with world(talk(*spoken)) as made:
        chosen = {"role": "assistant"}
        answer = made.ask(name, filters=chosen)
        assert "with 6 people" in answer.finding or name != "overview"
        assert set(answer.pl().select("users", "people").rows()) == {(0, 6)}
        assert made.ask(name, filters=chosen | FIVE).finding == answer.finding
        assert made.ask(name, filters=chosen | {"min_people": 7}).finding.startswith("Too little")


@pytest.mark.slow
def test_why_there_are_no_words_is_said_as_it_is():
    alike = [
        said(5000 * user + turn, ("user", "assistant")[turn % 2], "alpha beta gamma",
             conversation=f"c{user}", user=f"u{user}")
        for user in range(20)
        for turn in range(4)
    ]  # fmt: skip
    with world(talk(*alike)) as made:
        ask = made.ask
        assert ask("distinguishing_words").finding == (
            "No word of 5 people or more tells the sides apart"
        )
        assert ask("distinguishing_words", filters={"min_people": 21}).finding == (
            "No word of both sides occurs in the conversations of enough people (21)"
        )
        alone = ask("distinguishing_words", filters={"user": "u1", "min_people": 1}).finding
        assert alone.endswith("of enough people (2, or 1 where nobody else is named)")
        assert ask("distinguishing_words", filters={"role": "user"}).finding == (
            "No word of 5 people or more is used more by people"
        )
    with world(talk(*alike[::2])) as made:
        one_side = made.ask("distinguishing_words").finding
        assert one_side.endswith("of enough people (5, unless min_people says otherwise)")
    with world(talk(*alike[:4])) as made:
        alone = made.ask("distinguishing_words", filters={"min_people": 1})
        assert alone.finding == "No word tells the sides apart"


def test_a_limit_that_nobody_means_is_refused_in_a_sentence():
    huge = 99_999_999_999_999_999_999
    for name in ("min_people", "min_cell"):
        with pytest.raises(
            InvalidValue, match=rf"{name} must be a whole number from 1 to 1,000,000,"
        ):
            Filters(**{name: huge})
    for given in (huge, str(huge)):
        with pytest.raises(InvalidValue, match="top must be a whole number of at most"):
            CATALOGUE["distinguishing_words"].check({"top": given})


def test_limits_are_written_with_commas():
    with world(talk(said(0))) as made:
        answer = made.ask("daily_activity", filters={"min_cell": 20_000, "min_people": 3_000})
        assert answer.finding == (
            "Too little data: nothing about fewer than 20,000 observations or 3,000 people is shown"
        )
        assert "1 row of fewer than 20,000 observations" in answer.caption
