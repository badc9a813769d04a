"""Mood, people and days over time, records and gaps: as counted by plain Python."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings

from aico_lab.metrics.engine import claims, gaps
from aico_lab.metrics.engine.durations import duration
from tests.effort import examples
from tests.talks import START, said, talk, talks, world
from tests.talks_by_hand import following, messages_of, real_messages, sessions_of, start_of

BERLIN = "Europe/Berlin"
DAY = 86_400
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@pytest.fixture(scope="module")
def real():
    with world(real_messages(6_000)) as made:
        yield made


def local(ts_ms: int, zone: str) -> datetime:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).astimezone(ZoneInfo(zone))


def starts_between(first: date, last: date, unit: str) -> list[date]:
    found = [start_of(first, unit)]
    while following(found[-1], unit) <= last:
        found.append(following(found[-1], unit))
    return found


def calendar_of(raw: pl.DataFrame, unit: str, zone: str) -> list[date]:
    days = sorted(local(m.ts_ms, zone).date() for m in messages_of(raw))
    return starts_between(days[0], days[-1], unit) if days else []


def assert_is_mood(made, unit: str, zone: str) -> None:
    scores, people = defaultdict(list), defaultdict(set)
    for m in messages_of(made.messages):
        if m.sentiment is not None:
            start = start_of(local(m.ts_ms, zone).date(), unit)
            scores[start].append(m.sentiment)
            people[start] |= {m.person} - {None}
    rows = made.ask("mood_over_time", period=unit, filters={"timezone": zone}).pl()
    known = rows.filter(pl.col("n") > 0)
    assert known["start"].to_list() == sorted(scores)
    assert known["n"].to_list() == [len(scores[start]) for start in sorted(scores)]
    means = [sum(scores[start]) / len(scores[start]) for start in sorted(scores)]
    assert known["mean"].to_list() == pytest.approx(means, abs=1e-9)
    if len({m.person for m in messages_of(made.messages)} - {None}) > 1:
        assert known["people"].to_list() == [len(people[start]) for start in sorted(scores)]
    assert rows.filter(pl.col("n") == 0)["mean"].null_count() == rows.height - known.height
    if scores:
        assert rows["start"].to_list() == calendar_of(made.messages, unit, zone)


@pytest.mark.parametrize("unit", ["week", "month"])
def test_the_mood_of_real_conversations(real, unit):
    assert_is_mood(real, unit, BERLIN)


@pytest.mark.slow
def test_the_finding_of_the_mood_compares_periods_of_enough_people():
    def weeks(*moods: float, people: int = 40) -> pl.DataFrame:
        return talk(*(
            said(week * 7 * DAY + user, user=f"u{user}", conversation=f"c{user}",
                 sentiment=mood + (user % 5 - 2) / 100)
            for week, mood in enumerate(moods)
            for user in range(people)
        ))  # fmt: skip

    with world(weeks(0.1, 0.5, 0.1)) as made:
        assert made.ask("mood_over_time").finding == (
            "Mean sentiment between +0.100 (the week from 25 March 2024) and +0.500 (the week "
            "from 1 April 2024)"
        )
        month = made.ask("mood_over_time", period="month", filters={"until": "2024-03-31"})
        assert month.finding == "Mean sentiment +0.100 in March 2024"
    with world(weeks(0.1, 0.101)) as made:
        assert "no clear difference" in made.ask("mood_over_time").finding
    with world(weeks(0.1, 0.5, people=12)) as made:
        assert made.ask("mood_over_time").finding.endswith("(uncertain: 12 people)")
    with world(weeks(0.1, 0.5, people=4)) as made:
        finding = made.ask("mood_over_time").finding
        assert finding == "Too little data: 4 people, where 10 are needed in one week"
    with world(talk(said(0, sentiment=None))) as made:
        finding = made.ask("mood_over_time").finding
        assert finding == "No message has a score."


@pytest.mark.slow
def test_of_many_weeks_that_are_alike_the_extremes_are_seldom_called_different():
    """Scores are random: a difference between some two weeks is found in few of forty homes."""
    found = 0
    for seed in range(40):
        rng = random.Random(seed)
        spoken = [
            said(week * 7 * DAY + user, user=f"u{user}", conversation=f"c{user}",
                 sentiment=rng.uniform(-1, 1))
            for week in range(20)
            for user in range(30)
        ]  # fmt: skip
        with world(talk(*spoken)) as made:
            found += "no clear difference" not in made.ask("mood_over_time").finding
    assert found <= 5


def test_the_least_and_the_greatest_differ_beyond_the_chance_of_all_pairs():
    near, far = (0.0, 1.0), (1.1, 2.1)
    assert claims.extremes_differ(near, far, units=1000, groups=2)
    assert not claims.extremes_differ(near, far, units=1000, groups=50)
    assert not claims.extremes_differ(near, far, units=3, groups=2)
    assert not claims.extremes_differ(near, (0.5, 1.5), units=1000, groups=2)
    assert not claims.extremes_differ((None, None), far, units=1000, groups=2)
    assert not claims.extremes_differ(near, far, units=1000, groups=2, log=True)  # from 0 on
    assert claims.extremes_differ((1.0, 2.0), (4.0, 8.0), units=1000, groups=2, log=True)


def assert_is_cumulative(made, unit: str, zone: str) -> None:
    firsts: dict[str, date] = {}
    for m in sorted(messages_of(made.messages), key=lambda m: m.ts_ms):
        if m.role == "user" and m.person is not None:
            firsts.setdefault(m.person, start_of(local(m.ts_ms, zone).date(), unit))
    answer = made.ask("cumulative_people", period=unit, filters={"timezone": zone})
    starts = calendar_of(made.messages, unit, zone) if firsts else []
    assert answer.pl().select("start", "n", "people").rows() == [
        (
            start,
            sum(first == start for first in firsts.values()),
            sum(first <= start for first in firsts.values()),
        )
        for start in starts
    ]


def assert_is_calendar(made, zone: str) -> None:
    counts, people = Counter(), defaultdict(set)
    for m in messages_of(made.messages):
        day = local(m.ts_ms, zone).date()
        counts[day] += 1
        people[day] |= {m.person} - {None}
    rows = made.ask("calendar_days", filters={"timezone": zone}).pl()
    days = calendar_of(made.messages, "day", zone)
    assert rows.select("start", "weekday", "n", "people").rows() == [
        (day, WEEKDAYS[day.weekday()], counts[day], len(people[day])) for day in days
    ]


def records_by_hand(raw: pl.DataFrame, zone: str) -> list[tuple]:
    messages = messages_of(raw)
    if not messages:
        return []
    days, hours, rows = defaultdict(list), defaultdict(list), []
    for m in messages:
        there = local(m.ts_ms, zone)
        days[there.date()].append(m)
        if not m.is_estimated:
            hours[there.hour].append(m)
    for name, groups in (("busiest day", days), ("busiest hour", hours)):
        if not groups:
            continue
        most = max(map(len, groups.values()))
        top = sorted(at for at, found in groups.items() if len(found) == most)
        begins = top[0].isoformat() if name == "busiest day" else f"{top[0]:02d}:00"
        people = len({m.person for m in groups[top[0]]} - {None})
        rows.append((name, most, people, begins, float(most), len(top)))
    times = sorted({m.ts_ms for m in messages})
    guessed = {m.ts_ms for m in messages if m.is_estimated}
    silences = {
        before: after - before for before, after in pairwise(times) if not {before, after} & guessed
    }
    everybody = len({m.person for m in messages} - {None})
    if silences:
        longest = max(silences.values())
        first_of_them = min(before for before, length in silences.items() if length == longest)
        begins = f"{local(first_of_them, zone):%Y-%m-%d %H:%M}"
        rows.append(
            ("longest silence", len(messages), everybody, begins, longest / 60_000,
             list(silences.values()).count(longest))
        )  # fmt: skip
    lasting = [
        s
        for s in sessions_of(messages)
        if s.ended_ms > s.started_ms and not any(m.is_estimated for m in s.messages)
    ]
    if lasting:
        longest = max(s.ended_ms - s.started_ms for s in lasting)
        top = [s for s in lasting if s.ended_ms - s.started_ms == longest]
        first = min(
            top,
            key=lambda s: (
                s.started_ms, len(s.messages), len({m.person for m in s.messages} - {None})
            ),
        )  # fmt: skip
        people = len({m.person for m in first.messages} - {None})
        begins = f"{local(first.started_ms, zone):%Y-%m-%d %H:%M}"
        rows.append(
            ("longest session", len(first.messages), people, begins, longest / 60_000, len(top))
        )
    return rows


COLUMNS = ("record", "n", "people", "begins", "value", "alike")


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["UTC", BERLIN])
def test_days_people_and_records_of_real_conversations(real, zone):
    assert_is_calendar(real, zone)
    for unit in ("day", "week", "month"):
        assert_is_cumulative(real, unit, zone)
    found = real.ask("extremes", filters={"timezone": zone}).pl()
    assert found.select(COLUMNS).rows() == records_by_hand(real.messages, zone)


@pytest.mark.slow
@settings(max_examples=examples(9))
@given(talks(40))
def test_days_people_mood_and_records_of_any_talk(messages):
    with world(messages) as made:
        zone = "Asia/Kolkata"  # whose clocks never change, so that local times are in order
        assert_is_calendar(made, zone)
        assert_is_cumulative(made, "week", zone)
        assert_is_mood(made, "week", zone)
        found = made.ask("extremes", filters={"timezone": zone}).pl()
        assert found.select(COLUMNS).rows() == records_by_hand(messages, zone)


@pytest.mark.slow
@settings(max_examples=examples(9), deadline=None)
@given(talks(40, marked=True))
def test_no_estimated_time_makes_a_record_of_an_hour_a_silence_or_a_session(messages):
    with world(messages) as made:
        zone = "Asia/Kolkata"
        found = made.ask("extremes", filters={"timezone": zone}).pl()
        assert found.select(COLUMNS).rows() == records_by_hand(messages, zone)


def test_the_findings_of_days_and_people():
    spoken = [said(day * DAY, user=user) for day, user in ((0, "a"), (1, "b"), (5, "a"))]
    with world(talk(*spoken)) as made:
        assert made.ask("calendar_days").finding == (
            "Something was written on 3 of 6 days; the longest break: 3 days, from "
            "1 to 3 April 2024"
        )
        weeks = made.ask("cumulative_people").finding
        assert weeks == "2 people wrote, all first in the week from 25 March 2024"
        assert made.ask("cumulative_people", period="day").finding == (
            "2 people wrote within 6 days, half of them by 30 March 2024; the most new ones, "
            "1, began on 30 March 2024 and 31 March 2024 alike"
        )
        some = made.ask("calendar_days", filters={"until": "2024-03-31"})
        assert some.finding == "Something was written on every day of 2"
        one = made.ask("calendar_days", filters={"until": "2024-03-30"})
        assert one.finding == "Everything was written on 30 March 2024"


def test_those_who_return_after_the_start_of_a_period_are_not_called_new():
    spoken = [said(day * DAY, user=user) for day in (0, 20, 30) for user in "ab"]
    with world(talk(*spoken, said(31 * DAY, user="c"))) as made:
        later = made.ask("cumulative_people", period="day", filters={"since": "2024-04-10"})
        assert later.finding == (
            "3 people wrote within 21 days, half of them by 19 April 2024; most, 2, wrote for the "
            "first time in this selection on 19 April 2024"
        )


def test_durations_of_records_are_in_a_unit_that_people_read():
    with world(talk(said(0), said(60), said(90 * DAY))) as made:
        rows = made.ask("extremes").pl()
    assert rows["duration"].to_list() == [None, None, "90 days", "60 s"]


def test_several_weeks_in_which_as_many_began_are_weeks():
    spoken = [said(week * 7 * DAY, user=f"u{week}") for week in range(3)]
    with world(talk(*spoken)) as made:
        found = made.ask("cumulative_people").finding
    assert found.endswith(
        "began in the weeks from 25 March 2024, 1 April 2024 and 8 April 2024 alike"
    )


def test_the_course_of_a_mood_that_hardly_changes_does_not_zoom_onto_nothing():
    """It is drawn from 0."""
    spoken = [
        said(60 * turn, ("user", "assistant")[turn % 2], sentiment=0.5 + turn % 3 / 1000)
        for turn in range(12)
    ]
    with world(talk(*spoken)) as made:
        layers = made.ask("sentiment_trajectory", steps=4).plot().to_dict()["layer"]
    assert [layer["encoding"]["y"]["scale"]["zero"] for layer in layers] == [True, True]


def test_the_finding_of_the_records():
    spoken = [said(at, user=f"u{at % 2}") for at in (0, 60, 90, 3 * DAY, 3 * DAY + 5)]
    with world(talk(*spoken)) as made:
        assert made.ask("extremes").finding == (
            "Busiest day: 30 March 2024 with 3 messages; busiest hour: 22:00 to 23:00 with 5 "
            "messages; longest silence: 3 days from 30 March 2024, 22:01; longest "
            "session: 90 s from 30 March 2024, 22:00"
        )
    with world(talk(said(0), said(DAY))) as made:
        assert made.ask("extremes").finding == (
            "Busiest day: 30 March 2024 with 1 message (like 1 other day); busiest hour: 22:00 to "
            "23:00 with 2 messages; longest silence: 24 h from 30 March 2024, 22:00"
        )


@pytest.mark.slow
def test_a_wrong_time_makes_neither_a_silence_nor_a_first_message():
    old, future = (
        {**said(0, user=user), "timestamp": datetime(year, 1, 1, tzinfo=UTC)}
        for user, year in (("a", 1960), ("b", 2099))
    )
    spoken = [said(0, user="a"), said(3600, user="a"), said(9 * DAY, user="b")]
    with world(talk(*spoken)) as right, world(talk(old, future, *spoken)) as bent:
        for name in ("extremes", "cumulative_people", "calendar_days"):
            assert bent.ask(name).pl().equals(right.ask(name).pl()), name
            assert "left out" in bent.ask(name).caption
        asked = bent.ask("extremes", filters={"since": "1950-01-01", "until": "2100-01-01"}).pl()
        assert asked.filter(record="longest silence")["begins"].item() == "2024-04-08 22:00"
    with world(talk(old)) as made:  # where all are far, they count
        assert made.ask("extremes").pl()["begins"].to_list() == ["1960-01-01", "00:00"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.25, "0.25 s"), (17, "17 s"), (119, "119 s"), (120, "2 min"), (150, "2.5 min"),
     (7_200, "2 h"), (34_080, "9.47 h"), (86_400, "24 h"), (200_000, "2.31 days"),
     (86_400_000, "1,000 days")],
)  # fmt: skip
def test_a_duration_has_a_unit_that_fits(seconds, text):
    assert duration(seconds) == text


def test_the_trend_speaks_of_a_long_gap_and_not_of_a_short_one():
    def weeks(*numbers: int) -> pl.DataFrame:
        return talk(*(said(2 * DAY + week * 7 * DAY + n) for week in numbers for n in range(3)))

    long = [*range(8), *range(25, 34)]
    with world(weeks(*long)) as made:
        gap = "; nothing was written for 17 weeks, from 27 May to 22 September 2024"
        for measure in ("messages", "users"):
            assert made.ask("trend", measure=measure).finding.endswith(gap)
        assert made.ask("trend", measure="sentiment").finding.endswith(
            gap.replace("nothing was written", "no message had a score")
        )
        hidden = made.ask("trend", filters={"min_cell": 2})
        assert hidden.finding.endswith(gap)
        months = made.ask("trend", period="month").finding
        assert months.endswith("nothing was written for 3 months, from 1 June to 31 August 2024")
    with world(weeks(*range(8), *range(11, 20))) as made:
        assert "nothing was written" not in made.ask("trend").finding


def test_a_slope_that_the_finding_does_not_state_is_not_drawn():
    def weeks(**sizes: int) -> pl.DataFrame:
        numbers = [size for size, times in sizes.items() for _ in range(times)]
        return talk(*(
            said(2 * DAY + week * 7 * DAY + n)
            for week, size in enumerate(numbers)
            for n in range(int(size.removeprefix("n")))
        ))  # fmt: skip

    with world(weeks(n3=5, n0=18, n20=14)) as made:
        answer = made.ask("trend")
        assert "95 % interval" not in answer.finding
        assert "median slope" not in str(answer.plot().to_dict())
    with world(weeks(n3=9, n4=9, n5=9)) as made:
        answer = made.ask("trend")
        assert "95 % interval" in answer.finding
        assert "median slope" in str(answer.plot().to_dict())


def test_the_longest_gap_is_the_first_of_those_of_equal_length():
    days = [START.date() + timedelta(days=n) for n in range(8)]
    rows = pl.DataFrame({"start": days, "n": [1, 0, 0, 1, 0, 0, 1, 0]})
    rows = rows.with_columns(complete=True)
    row = gaps.with_longest(rows, "day").row(0, named=True)
    days = "from 31 March to 1 April 2024 (like 1 other break)"
    assert gaps.described(row) == f"nothing was written for 2 days, {days}"
    assert gaps.longest(row) == f"the longest break: 2 days, {days}"
    none = gaps.with_longest(rows.filter(pl.col("n") > 0), "day").row(0, named=True)
    assert (none[gaps.LENGTH], none[gaps.FIRST]) == (0, None)
    unfinished = rows[6:].with_columns(complete=pl.col("n") > 0)
    assert gaps.with_longest(unfinished, "day")[gaps.LENGTH].to_list() == [0, 0]
    one = gaps.with_longest(rows[6:], "day").row(0, named=True)
    assert gaps.described(one) == "nothing was written on 6 April 2024"


def test_gaps_that_tie_with_the_longest_are_told():
    """In the calendar, the trend and the change points."""
    with world(talk(*(said(3 * day * DAY) for day in range(4)))) as made:
        assert made.ask("calendar_days").finding == (
            "Something was written on 4 of 10 days; the longest break: 2 days, from 31 March to "
            "1 April 2024 (like 2 other breaks)"
        )
    weeks = [*range(8), *range(12, 20), *range(24, 32), 36]
    with world(talk(*(said(2 * DAY + week * 7 * DAY) for week in weeks))) as made:
        for name in ("trend", "change_points"):
            found = made.ask(name).finding
            assert "for 4 weeks, from 27 May to 23 June 2024 (like 2 other breaks)" in found


def test_a_series_in_longer_periods_than_asked_for_says_so():
    old = {**said(0), "timestamp": datetime(1960, 1, 1, tzinfo=UTC)}
    late = {**said(0), "timestamp": datetime(2099, 1, 1, tzinfo=UTC)}
    with world(talk(old, late)) as made:
        for name in ("trend", "change_points"):
            answer = made.ask(name)
            assert "1,668 months" in answer.finding
            assert answer.caption.endswith("by month, since there are over 2,000 weeks")
    with world(talk(said(0), said(9 * DAY))) as made:
        assert "since there are" not in made.ask("trend").caption


def session_of(made, **filters):
    return (
        made.ask("extremes", filters=filters)
        .pl()
        .filter(record="longest session")
        .row(0, named=True)
    )


@pytest.mark.slow
def test_a_session_is_whole_whatever_part_of_it_the_filters_select():
    """Three people write from 22:00 on; the period ends in between, and one person is chosen."""
    spoken = [said(at, user=user) for at, user in ((0, "a"), (600, "b"), (1200, "c"))]
    with world(talk(*spoken)) as made:
        for filters in ({}, {"until": "2024-03-30T22:05"}, {"user": "a"}):
            row = session_of(made, **filters)
            assert (row["n"], row["people"], row["value"]) == (3, 3, 20.0)
            assert (row["begins"], row["ends"]) == ("2024-03-30 22:00", "2024-03-30 22:20")


def test_a_session_across_the_end_of_summer_time_begins_with_its_first_message():
    """02:50 is followed by 02:10 of winter time, 20 minutes later."""
    first = (datetime(2024, 10, 27, 0, 50, tzinfo=UTC) - START).total_seconds()
    with world(talk(said(first), said(first + 1200))) as made:
        row = session_of(made, timezone="Europe/Berlin")
    assert (row["begins"], row["ends"]) == ("2024-10-27 02:50", "2024-10-27 02:10")
    assert row["value"] == 20.0


def test_a_trend_names_no_gap_in_periods_that_the_filters_cut():
    """Messages of 2 to 10 January are before the period, which begins on 15 January."""
    days = [*range(-88, -80), *range(-30, 60)]  # 2024-01-02 to 10, and from the end of February
    with world(talk(*(said(day * DAY) for day in days))) as made:
        found = made.ask("trend", period="month", filters={"since": "2024-01-15"}).finding
        assert "from 2024-01-01" not in found


def test_new_people_of_a_row_are_protected():
    """Five people begin on one day; one on the next day, and one on the third."""
    spoken = [said(day * DAY, user=f"p{day}{n}") for day, many in enumerate((5, 1, 1)) for n in
              range(many)]  # fmt: skip
    spoken += [said(3 * DAY, user="p00")]
    with world(talk(*spoken)) as made:
        whole = made.ask("cumulative_people", period="day")
        assert whole.pl()["people"].to_list() == [5, 6, 7, 7]
        for least in ({"min_people": 2}, {"min_cell": 2}):
            answer = made.ask("cumulative_people", period="day", filters=least)
            assert answer.pl().select("n", "people").rows() == [(5, 5), (0, 5)]
            assert answer.left_out == 2
            assert answer.finding.startswith("Of the rows that are shown: 5 people wrote")


def test_equal_means_are_not_two():
    with world(talk(*(said(day * DAY, user=f"p{n}", sentiment=0.44, conversation=f"c{n}")
                      for day in range(20) for n in range(12)))) as made:  # fmt: skip
        assert "always +0.440" in made.ask("mood_over_time").finding
