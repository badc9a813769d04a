"""Who writes how much, who comes back: as counted by plain Python from the raw messages."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine import periods
from aico_lab.metrics.engine.intervals import FEWEST
from tests.effort import examples
from tests.talks import START, World, said, talk, talks, world
from tests.talks_by_hand import following, is_complete, messages_of, real_messages, start_of

BERLIN, KOLKATA, SAO_PAULO = "Europe/Berlin", "Asia/Kolkata", "America/Sao_Paulo"
ZONES = pytest.mark.parametrize("zone", ["UTC", BERLIN, KOLKATA, SAO_PAULO])
DAY = timedelta(days=1)
PEOPLE = ("stickiness", "retention", "streaks", "concentration")


@pytest.fixture(scope="module")
def real():
    with world(real_messages(6_000)) as made:
        yield made


def spoken(made: World) -> list[dict]:
    """Messages of the two sides."""
    return [row for row in made.messages.iter_rows(named=True) if row["role"] != "system"]


def by_people(made: World) -> list[dict]:
    """What known people wrote themselves."""
    return [row for row in spoken(made) if row["role"] == "user" and row["user_id"]]


def day_of(row: dict, zone: str) -> date:
    return row["timestamp"].astimezone(ZoneInfo(zone)).date()


def starts(made: World, zone: str, unit: str) -> list[date]:
    """All periods of the data."""
    days = sorted(day_of(row, zone) for row in spoken(made))
    found = [start_of(days[0], unit)] if days else []
    while found and following(found[-1], unit) <= days[-1]:
        found.append(following(found[-1], unit))
    return found


def days_by_person(made: World, zone: str) -> dict[str, set[date]]:
    found = defaultdict(set)
    for row in by_people(made):
        found[row["user_id"]].add(day_of(row, zone))
    return found


def ends_of(made: World) -> tuple[datetime, datetime]:
    """When the data begin and end."""
    times = [row["timestamp"] for row in spoken(made)] or [START]
    return min(times), max(times)


def assert_is_activity(made: World, zone: str, unit: str) -> None:
    name = {"day": "daily", "week": "weekly", "month": "monthly"}[unit]
    written = defaultdict(list)
    for row in spoken(made):
        written[start_of(day_of(row, zone), unit)].append(row)
    # What the companion wrote is of the person it wrote to.
    whom = {message.id: message.person for message in messages_of(made.messages)}
    expected = []
    ends = ends_of(made) if written else ()
    for start in starts(made, zone, unit):
        rows = written[start]
        users = {row["user_id"] for row in rows if row["role"] == "user"} - {None}
        people = {whom[row["id"]] for row in rows} - {None}
        conversations = {row["conversation_id"] for row in rows}
        complete = is_complete(start, unit, zone, *ends)
        counts = [len(found) for found in (rows, users, people, conversations)]
        expected.append((start, *counts, complete))
    assert made.ask(f"{name}_activity", filters={"timezone": zone}).pl().rows() == expected


@pytest.mark.slow
@ZONES
@pytest.mark.parametrize("unit", ["day", "week", "month"])
def test_activity_of_real_conversations(real, unit, zone):
    assert_is_activity(real, zone, unit)


def test_days_on_which_nobody_wrote_are_there_as_zeros():
    with world(talk(said(0), said(3 * 86_400, "assistant"))) as made:
        assert made.ask("daily_activity").pl().rows() == [
            (date(2024, 3, 30), 1, 1, 1, 1, False),
            (date(2024, 3, 31), 0, 0, 0, 0, True),
            (date(2024, 4, 1), 0, 0, 0, 0, True),
            (date(2024, 4, 2), 1, 0, 1, 1, False),
        ]


@pytest.mark.slow
def test_a_day_of_23_hours_is_one_day():
    """In the night to 31 March 2024 Berlin's clocks leap from 2 to 3: 22:59 UTC is 23:59."""
    minutes = [59, 60, 60 + 22 * 60 + 59, 60 + 23 * 60]  # after 22:00 UTC
    with world(talk(*(said(minute * 60) for minute in minutes))) as made:
        found = made.ask("daily_activity", filters={"timezone": BERLIN}).pl()
    assert found.select("start", "n").rows() == [
        (date(2024, 3, 30), 1), (date(2024, 3, 31), 2), (date(2024, 4, 1), 1),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("since", "until", "complete"),
    [
        (None, None, [False, True, True, False]),
        ("2024-03-31", None, [True, True, False]),
        ("2024-03-31T00:00:01", None, [False, True, False]),
        (None, "2024-04-01", [False, True, True]),
        (None, "2024-04-01T23:59:59", [False, True, False]),
        (None, "2024-04-02", [False, True, True, False]),
        (None, "2025-01-01", [False, True, True, False]),
        ("2024-03-01", "2024-03-31", [False, True]),
        ("20h", None, [False, False]),
        ("2d", None, [True, False]),
    ],
)
def test_a_day_that_the_data_or_the_filters_cut_is_not_complete(since, until, complete):
    days = [said(day * 86_400 + hour * 3600) for day in range(3) for hour in range(2, 20, 4)]
    with world(talk(said(0), *days)) as made:
        found = made.ask("daily_activity", filters={"since": since, "until": until}).pl()
    assert found["complete"].to_list() == complete


def test_a_message_at_midnight_ends_the_day_before():
    at_midnight = (datetime(2024, 4, 1, tzinfo=UTC) - START).total_seconds()
    with world(talk(said(0), said(at_midnight))) as made:
        found = made.ask("daily_activity").pl()
    assert found["complete"].to_list() == [False, True, False]


def test_a_message_at_midnight_begins_a_complete_day():
    at_midnight = (datetime(2024, 3, 31, tzinfo=UTC) - START).total_seconds()
    with world(talk(said(at_midnight), said(at_midnight + 90_000))) as made:
        found = made.ask("daily_activity").pl()
    assert found["complete"].to_list() == [True, False]


@pytest.mark.slow
@ZONES
@pytest.mark.parametrize("unit", ["day", "week", "month"])
def test_every_metric_means_the_same_by_a_complete_period(real, unit, zone):
    """The week from 2018-04-09, in which the real data begin, was complete for some."""
    asked = {f"{'dai' if unit == 'day' else unit}ly_activity": {}, "trend": {"period": unit}}
    asked |= {"sessions": {}} if unit == "week" else {}
    asked |= {"stickiness": {}} if unit == "month" else {}
    found = {
        tuple(made.pl().select("start", "complete").rows())
        for made in (real.ask(name, filters={"timezone": zone}, **p) for name, p in asked.items())
    }
    assert len(found) == 1
    assert next(complete for _, complete in found.pop()) is False


@pytest.mark.slow
def test_who_is_not_known_is_nobody_and_the_companion_is_no_person():
    with world(talk(said(0, user=None), said(1, "assistant", user="u"), said(2, user="v"))) as made:
        assert made.ask("daily_activity").pl().row(0)[1:5] == (3, 1, 1, 1)
        found = made.ask("daily_activity", filters={"role": "assistant"})
        assert found.pl().row(0)[1:5] == (1, 0, 0, 1)
        found = made.ask("daily_activity", filters={"user": "v"}).pl()
        assert found.select("n", "users").row(0) == (1, 1)


@pytest.mark.parametrize("name", PEOPLE)
def test_what_is_about_people_takes_no_role(name):
    with world(talk(said(0))) as made, pytest.raises(InvalidValue, match="leave out the role"):
        made.ask(name, filters={"role": "user"})


@pytest.mark.parametrize("name", PEOPLE)
def test_where_nobody_is_known_nothing_matches(name):
    with world(talk(said(0, user=None), said(5, "assistant", user=None))) as made:
        answer = made.ask(name)
    assert len(answer) == 0
    assert answer.finding == "There are no data for an answer."


def assert_is_stickiness(made: World, zone: str) -> None:
    people = days_by_person(made, zone)
    days = {day_of(row, zone) for row in spoken(made)}
    found = made.ask("stickiness", filters={"timezone": zone}).pl()
    assert found["start"].to_list() == (starts(made, zone, "month") if people else [])
    for row in found.iter_rows(named=True):
        month = row["start"]
        in_it = {u: [d for d in on if start_of(d, "month") == month] for u, on in people.items()}
        active = [len(on) for on in in_it.values() if on]
        first, last = max(month, min(days)), min(following(month, "month"), max(days) + DAY)
        assert row["n"] == len(active)
        assert row["daily"] == pytest.approx(sum(active) / (last - first).days)
        if active:
            expected = sum(active) / (last - first).days / len(active) * 100
            assert row["stickiness"] == pytest.approx(expected)
        else:
            assert row["stickiness"] is None
        if len(active) < FEWEST:
            assert row["stickiness_low"] is None
        else:
            assert row["stickiness_low"] <= row["stickiness"] <= row["stickiness_high"]


@pytest.mark.slow
@ZONES
def test_stickiness_of_real_people(real, zone):
    assert_is_stickiness(real, zone)


def test_two_people_of_april_of_whom_one_writes_every_day():
    """30 and 3 days of 30: 33 / 30 = 1.1 people on an average day, of 2 in the month."""

    def seconds(day: int) -> float:
        return (datetime(2024, 4, day, 12, tzinfo=UTC) - START).total_seconds()

    every = [said(seconds(day)) for day in range(1, 31)]
    some = [said(seconds(day) + 1, user="v") for day in (1, 2, 7)]
    march, may = said(seconds(1) - 86_400), said(seconds(30) + 86_400)
    with world(talk(march, *every, *some, may)) as made:
        row = made.ask("stickiness").pl().row(1, named=True)
    assert (row["n"], row["daily"], row["complete"]) == (2, pytest.approx(1.1), True)
    assert row["stickiness"] == pytest.approx(55)
    assert row["stickiness_low"] is None  # of two people


def wilson(active: int, n: int) -> tuple[float | None, float | None]:
    """The two shares p whose distance to the observed one is 1.96 of their standard errors."""
    if n < FEWEST:
        return None, None
    p, z2 = active / n, 1.959963984540054**2
    roots = np.roots([n + z2, -(2 * n * p + z2), n * p * p])
    return min(roots) * 100, max(roots) * 100


def assert_is_retention(made: World, zone: str, unit: str, **filters: str) -> None:
    firsts: dict[str, date] = {}
    for row in sorted(by_people(made), key=lambda row: row["timestamp"]):
        firsts.setdefault(row["user_id"], start_of(day_of(row, zone), unit))
    active = {
        (user, start_of(day, unit))
        for user, days in days_by_person(made, zone).items()
        for day in days
    }
    periods = starts(made, zone, unit)
    complete = {start: is_complete(start, unit, zone, *ends_of(made)) for start in periods}
    came = Counter((firsts[user], start) for user, start in active)
    expected = []
    for cohort, n in sorted(Counter(firsts.values()).items()):
        later = [start for start in periods if start >= cohort]
        for since, start in enumerate(later):
            again = came[cohort, start]
            over = complete[cohort] and complete[start]
            row = (cohort, since, start, n, again, again / n * 100, *wilson(again, n), over)
            expected.append(row)
    found = made.ask("retention", period=unit, filters={"timezone": zone, **filters}).pl()
    assert found.height == len(expected)
    for row, wanted in zip(found.rows(), expected, strict=True):
        assert same(row, wanted)


def same(row: tuple, wanted: tuple) -> bool:
    return all(
        a == pytest.approx(b, abs=1e-6) if isinstance(b, float) else a == b
        for a, b in zip(row, wanted, strict=True)
    )


@pytest.mark.slow
@ZONES
@pytest.mark.parametrize("unit", ["week", "month"])
def test_retention_of_real_people(real, unit, zone):
    assert_is_retention(real, zone, unit)


WEEK = 7 * 86_400
COMING = [said(0), said(WEEK), said(0, user="v"), said(2 * WEEK, user="v", conversation="d"),
          said(WEEK, user="w"), said(3 * WEEK, "assistant")]  # fmt: skip


def cells(answer) -> list[tuple]:
    return answer.pl().select("cohort", "since", "n", "active", "complete").rows()


FIRST, SECOND = date(2024, 3, 25), date(2024, 4, 1)


@pytest.mark.slow
def test_retention_of_three_people():
    with world(talk(*COMING)) as made:
        assert cells(made.ask("retention")) == [
            (FIRST, 0, 2, 2, False), (FIRST, 1, 2, 1, False), (FIRST, 2, 2, 1, False),
            (FIRST, 3, 2, 0, False),
            (SECOND, 0, 1, 1, True), (SECOND, 1, 1, 0, True), (SECOND, 2, 1, 0, False),
        ]  # fmt: skip


@pytest.mark.slow
def test_the_first_cohort_of_an_export_may_hold_people_of_before():
    """So that its rows are not complete, and the finding is of the others: w did not come back."""
    with world(talk(*COMING)) as made:
        finding = made.ask("retention").finding
        until_then = made.ask("retention", filters={"until": "2024-04-07"})
    assert finding == "Too little data: 1 person, where 10 are needed"
    assert until_then.finding.startswith("Too little data: no complete period follows")


def test_a_cohort_is_followed_for_ten_years():
    begins = -520 * WEEK
    with world(talk(said(begins), said(0), said(WEEK, user="v"))) as made:
        found = cells(made.ask("retention"))
    assert [cell[1] for cell in found] == [*range(521), 0]
    assert found[520] == (FIRST + timedelta(seconds=begins), 520, 1, 1, False)


@pytest.mark.slow
def test_who_began_before_the_filters_is_still_of_the_cohort_of_then():
    with world(talk(*COMING)) as made:
        assert cells(made.ask("retention", filters={"since": "2024-04-08"})) == [
            (FIRST, 2, 2, 1, False), (FIRST, 3, 2, 0, False),
            (SECOND, 1, 1, 0, True), (SECOND, 2, 1, 0, False),
        ]  # fmt: skip
        assert cells(made.ask("retention", filters={"until": "2024-04-07"})) == [
            (FIRST, 0, 2, 2, False), (FIRST, 1, 2, 1, False), (SECOND, 0, 1, 1, True),
        ]  # fmt: skip
        assert cells(made.ask("retention", filters={"user": "v"})) == [
            (FIRST, 0, 1, 1, False), (FIRST, 1, 1, 0, False), (FIRST, 2, 1, 1, False),
            (FIRST, 3, 1, 0, False),
        ]  # fmt: skip


def test_the_cohorts_of_a_channel_are_those_who_began_in_it():
    with world(talk(*COMING)) as made:
        found = cells(made.ask("retention", filters={"channel": "d"}))
    assert found == [(date(2024, 4, 8), 0, 1, 1, False), (date(2024, 4, 8), 1, 1, 0, False)]


def test_the_finding_on_retention_tells_whose_first_message_is_of_before_the_selection():
    spoken = [said(-WEEK, user="x"), said(9 * WEEK, "assistant")]
    spoken += [said(8 * 86_400 + n, user=f"u{n}") for n in range(12)]
    spoken += [said(4 * WEEK + n, user=f"u{n}") for n in range(3)]
    with world(talk(*spoken)) as made:
        finding = made.ask("retention", filters={"since": "2024-04-22"}).finding
    assert finding == (
        "Of 12 people whose first message is of 1 to 7 April 2024, 3 (25 %) wrote again 3 weeks "
        "later (uncertain: 12 people)"
    )


@pytest.mark.slow
def test_a_cohort_is_of_days_in_the_zone():
    """22:00 UTC of Sunday is Monday in Berlin's summer, 31 March to 1 April 2024."""
    sunday = (datetime(2024, 3, 31, 22, 30, tzinfo=UTC) - START).total_seconds()
    with world(talk(said(sunday))) as made:
        assert cells(made.ask("retention"))[0][0] == FIRST
        assert cells(made.ask("retention", filters={"timezone": BERLIN}))[0][0] == SECOND


def test_a_period_is_a_week_or_a_month():
    with world(talk(said(0))) as made, pytest.raises(InvalidValue, match="week, month"):
        made.ask("retention", period="day")


def longest_streak(days: set[date]) -> int:
    in_order = sorted(days)
    longest = now = 1
    for before, after in pairwise(in_order):
        now = now + 1 if after - before == DAY else 1
        longest = max(longest, now)
    return longest


def assert_is_streaks(made: World, zone: str) -> None:
    lengths = Counter(longest_streak(days) for days in days_by_person(made, zone).values())
    people = lengths.total()
    found = made.ask("streaks", filters={"timezone": zone}).pl()
    assert found.select("days", "n").rows() == sorted(lengths.items())
    for row in found.iter_rows(named=True):
        n = lengths[row["days"]]
        reached = sum(count for days, count in lengths.items() if days >= row["days"])
        share = (row["share"], row["share_low"], row["share_high"])
        assert share == pytest.approx((n / people * 100, *wilson(n, people)), abs=1e-6)
        at_least = (row["at_least"], row["at_least_low"], row["at_least_high"])
        assert at_least == pytest.approx((reached / people * 100, *wilson(reached, people)),
                                         abs=1e-6)  # fmt: skip


@pytest.mark.slow
@ZONES
def test_streaks_of_real_people(real, zone):
    assert_is_streaks(real, zone)


def test_the_longest_streak_of_a_person_counts():
    """u: 2 days, a hole, 3 days. v: one day, twice."""
    days = [said(day * 86_400) for day in (0, 1, 3, 4, 5)]
    with world(talk(*days, said(0, user="v"), said(5, user="v"))) as made:
        answer = made.ask("streaks")
    assert answer.pl().select("days", "n", "share", "at_least").rows() == [
        (1, 1, 50.0, 100.0),
        (3, 1, 50.0, 50.0),
    ]
    assert answer.finding.startswith("Too little data: 2 people, where 10 are needed; the longest")


@pytest.mark.slow
def test_a_finding_on_streaks_says_of_which_rows_it_speaks():
    """20 people of one day each, and one with a streak of 30 days."""
    days = [said(day * 86_400) for day in range(30)]
    others = [said(number, user=f"v{number}") for number in range(20)]
    with world(talk(*days, *others)) as made:
        answer = made.ask("streaks")
        assert answer.finding.startswith("5 % of 21 people wrote on two or more consecutive days")
        assert "the longest streak had 30 days" in answer.finding
        few = made.ask("streaks", filters={"min_cell": 5})
        assert few.pl()["days"].to_list() == [1]
        assert few.finding == (
            "5 % of 21 people wrote on two or more consecutive days; the longest streak that is "
            "shown had 1 day (uncertain: 21 people)"
        )
        none = made.ask("streaks", filters={"min_cell": 50})
        assert none.finding.startswith("Too little data: nothing about fewer than 50 observations")


@pytest.mark.slow
def test_two_messages_an_hour_apart_are_a_streak_of_two_days_where_midnight_is_between():
    with world(talk(said(1800), said(5400))) as made:  # 22:30 and 23:30 UTC, 23:30 and 0:30 there
        assert made.ask("streaks").pl()["days"].to_list() == [1]
        there = made.ask("streaks", filters={"timezone": BERLIN})
    assert there.pl()["days"].to_list() == [2]


def gini(counts: list[int]) -> float:
    """Half the mean difference of all pairs of people, by the mean."""
    values = np.array(counts, dtype=float)
    return np.abs(values[:, None] - values).mean() / (2 * values.mean())


def top_share(counts: list[int], top: int) -> tuple[int, int]:
    people = int(np.ceil(round(len(counts) * top / 100, 6)))
    return people, sum(sorted(counts, reverse=True)[:people])


def assert_is_concentration(made: World) -> None:
    counts = list(Counter(row["user_id"] for row in by_people(made)).values())
    found = made.ask("concentration").pl()
    assert found["top"].to_list() == ([1, 5, 10, 20, 50, 100] if counts else [])
    for row in found.iter_rows(named=True):
        assert (row["n"], row["messages"]) == top_share(counts, row["top"])
        assert row["share"] == pytest.approx(row["messages"] / sum(counts) * 100)
        assert row["gini"] == pytest.approx(gini(counts))


@pytest.mark.slow
def test_concentration_of_real_people(real):
    assert_is_concentration(real)


@pytest.mark.slow
def test_four_people_of_whom_one_writes_most():
    """1, 1, 2 and 4 messages: Gini is (-3 * 1 - 1 * 1 + 1 * 2 + 3 * 4) / (4 * 8) = 10 / 32."""
    wrote = {"a": 1, "b": 1, "c": 2, "d": 4}
    messages = [said(i, user=user) for user, times in wrote.items() for i in range(times)]
    with world(talk(*messages, said(9, "assistant", user="a"))) as made:
        answer = made.ask("concentration")
    found = answer.pl()
    assert found["gini"].unique().to_list() == [10 / 32]
    assert found["n"].to_list() == [1, 1, 1, 1, 2, 4]
    assert found["messages"].to_list() == [4, 4, 4, 4, 6, 8]
    assert answer.finding == "Too little data: 4 people, where 10 are needed"


@pytest.mark.slow
def test_small_groups_of_people_are_left_out():
    messages = [said(i, user=f"u{i % 40}") for i in range(100)]
    with world(talk(*messages)) as made:
        answer = made.ask("concentration", filters={"min_cell": 5})
    assert answer.pl()["top"].to_list() == [20, 50, 100]
    assert "The most active 8 people of 40 wrote 24 %" in answer.finding


@pytest.mark.slow
def test_charts_draw_the_last_periods_of_long_data():
    with world(talk(said(-500 * 86_400), said(500 * 86_400))) as made:
        chart = made.ask("daily_activity").plot().to_dict()
    assert "the last 400 of 1,001" in str(chart)
    assert max(len(rows) for rows in chart["datasets"].values()) == 400


@pytest.mark.slow
def test_the_days_of_a_chart_are_without_a_zone():
    """A browser then takes them for its own midnight, so that they are the same everywhere."""
    midnight = (datetime(2024, 3, 30, tzinfo=UTC) - START).total_seconds()
    with world(talk(said(midnight), said(86_400))) as made:
        chart = made.ask("daily_activity").plot().to_dict()
    rows = next(iter(chart["datasets"].values()))
    assert [row["start"] for row in rows] == ["2024-03-30T00:00:00", "2024-03-31T00:00:00"]
    assert [row["state"] for row in rows] == ["complete", "unfinished"]


@given(messages=talks(), zone=st.sampled_from(["UTC", BERLIN, SAO_PAULO]))
@pytest.mark.slow
@settings(max_examples=examples(10))
def test_all_of_it_of_made_up_conversations(messages, zone):
    with world(messages) as made:
        for unit in ("day", "week", "month"):
            assert_is_activity(made, zone, unit)
        for unit in ("week", "month"):
            assert_is_retention(made, zone, unit)
        assert_is_stickiness(made, zone)
        assert_is_streaks(made, zone)
        assert_is_concentration(made)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "labels"),
    [("daily_activity", ["30 Mar", "31 Mar"]), ("monthly_activity", ["Mar"])],
)
def test_a_short_axis_names_each_period_once(name, labels):
    with world(talk(said(0), said(90_000))) as made:
        picture = vl_convert.vegalite_to_svg(made.ask(name).plot().to_dict())
    found = re.findall(r">((?:\d+ )?Mar)<", picture)
    assert set(labels) <= set(found)
    assert max(Counter(found).values()) == 2  # once for each of the two panels


@given(
    first=st.dates(date(1900, 1, 1), date(2100, 1, 1)),
    number=st.integers(1, 400),
    unit=st.sampled_from(["day", "week", "month"]),
)
def test_an_axis_labels_a_few_first_days_of_periods(first, number, unit):
    """Of weeks Mondays; of many days Mondays or the first of months."""
    first = pl.select(pl.lit(first).dt.truncate(periods.STEP[unit])).item()
    starts = pl.date_range(
        first, pl.select(pl.lit(first).dt.offset_by(f"{number}{periods.STEP[unit][1:]}")).item(),
        periods.STEP[unit], eager=True,
    ).to_list()  # fmt: skip
    labelled = periods.ticks(starts, unit)
    assert set(labelled) <= set(starts)
    assert 1 <= len(labelled) <= 9
    assert len(labelled) > 1 or len(starts) == 1
    if unit == "week":
        assert {day.weekday() for day in labelled} == {0}
    if unit == "day" and len(starts) > 16:
        assert {day.weekday() for day in labelled} == {0} or {day.day for day in labelled} == {1}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["daily_activity", "weekly_activity", "trend", "overview"])
def test_a_count_has_whole_ticks(name):
    with world(talk(said(0), said(8 * 86_400))) as made:
        picture = vl_convert.vegalite_to_svg(made.ask(name).plot().to_dict())
    assert not re.findall(r">\d+\.\d+<", picture)


@pytest.mark.slow
def test_a_period_of_retention_is_called_what_it_is():
    days = {"week": 7, "month": 31}
    for period, apart in days.items():
        spoken = [
            said((8 + step * apart) * 86_400 + n, user=f"u{n}")
            for step in range(3)
            for n in range(12)
        ]
        spoken = [said(-40 * 86_400, user="v"), *spoken, said(99 * 86_400, user="v")]
        with world(talk(*spoken)) as made:
            finding = made.ask("retention", period=period).finding
        assert finding.endswith(f" wrote again in the next {period} (uncertain: 12 people)"), (
            finding
        )


def test_the_busiest_week_tells_the_people_of_its_chart():
    """Those who wrote, not those to whom only the companion wrote."""
    spoken = [said(0, user="a"), said(60, "assistant", user="b", conversation="d")]
    with world(talk(*spoken)) as made:
        assert made.ask("weekly_activity").finding == (
            "All was written in the week from 25 March 2024: 2 messages in 2 conversations; "
            "1 person wrote (the week is unfinished)"
        )
        companion = made.ask("monthly_activity", filters={"role": "assistant"}).finding
        assert companion.startswith("All was written in March 2024: 1 message in 1 conversation (")


def test_several_weeks_of_the_same_size_are_weeks_and_one_month_is_one_month():
    week = 7 * 86_400
    spoken = [said(at * week, user="u") for at in range(2)]
    with world(talk(*spoken)) as made:
        assert made.ask("weekly_activity").finding == (
            "Most was written in the weeks from 25 March 2024 and 1 April 2024 alike: 1 message"
        )
        assert made.ask("sessions").finding.endswith(
            "; the most, 1, in the weeks from 25 March 2024 and 1 April 2024 alike"
        )
    with world(talk(said(0))) as made:
        assert made.ask("stickiness").finding == (
            "Too little data: 1 month, unfinished or with fewer than 10 people"
        )


@pytest.mark.slow
def test_one_length_of_streaks_is_a_bar_and_one_cohort_has_no_legend():
    with world(talk(said(0, user="u"), said(1, user="v"))) as made:
        streaks = made.ask("streaks").plot().to_dict()
        retention = made.ask("retention").plot().to_dict()
    assert [layer["mark"]["type"] for layer in streaks["layer"]] == ["bar"]
    (shades,) = [
        layer["encoding"]["opacity"]
        for layer in retention["layer"]
        if "opacity" in layer["encoding"]
    ]
    assert shades["legend"] is None
