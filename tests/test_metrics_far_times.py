"""One message of another millennium bends no metric, and is not waited for."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from aico_lab.metrics.engine import periods
from aico_lab.metrics.engine.asking import compile_query
from aico_lab.metrics.engine.catalogue import CATALOGUE
from aico_lab.metrics.engine.days import written_day, written_moment
from aico_lab.metrics.engine.filters import Filters
from aico_lab.metrics.engine.talk import Talk
from aico_lab.zones import midnight, to_ms
from tests.costs import takes_about
from tests.talks import said, talk, world

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY = list(CATALOGUE)
FIRST = datetime(1, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
DAY = timedelta(days=1)
ZONES = ("America/New_York", "Pacific/Kiritimati")  # west of UTC in year 1, and far east in 9999
SECONDS, MEGABYTES = 3, 500


def at(moment: datetime, role: str = "user", **others) -> dict:
    return said(0, role, **others) | {"timestamp": moment}


def ordinary(count: int = 1_000) -> list[dict]:
    """Forty people over half a year, each in a conversation of their own."""
    return [
        said(
            number * 15_000 + number % 7 * 60,
            "assistant" if number % 3 == 2 else "user",
            f"what do you think of number {number}? I like the {number % 9} of them.",
            conversation=f"c{number // 25}",
            user=f"u{number // 25}",
            sentiment=number % 11 / 10 - 0.5,
        )
        for number in range(count)
    ]


MEMORY = Path("/proc/self/statm")


def resident_mb() -> float:
    """How much memory this process has, where that can be read."""
    return int(MEMORY.read_text().split()[1]) * 4096 / 1e6 if MEMORY.exists() else 0.0


@contextmanager
def affordable() -> Iterator[None]:
    """Fail where the block takes more processor time or memory than a question may."""
    before, over = resident_mb(), threading.Event()
    peaks = [before]

    def watch() -> None:
        while not over.wait(0.005):
            peaks.append(resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with takes_about(SECONDS):
            yield
    finally:
        over.set()
        watcher.join()
    assert max(peaks) - before < MEGABYTES


@pytest.fixture(scope="module")
def far():
    ends = [at(FIRST, user="u1", conversation="c1"), at(LAST, "assistant", conversation="c2")]
    with world(talk(*ordinary(), *ends)) as made:
        for name in ("languages", "lexical_diversity"):  # what they import is not theirs
            made.ask(name)
        yield made


COMPARES_PERIODS = ("trend", "change_points")
"""These take no span of millennia, but a part of it."""


@pytest.mark.slow
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("name", EVERY)
def test_a_metric_of_ten_thousand_years_costs_little(far, name, zone):
    part = {"since": "2024-01-01", "until": "2024-12-31"} if name in COMPARES_PERIODS else {}
    with affordable():
        answer = far.ask(name, filters={"timezone": zone, **part})
        assert answer.finding
        answer.plot().to_dict()
        assert len(str(answer)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("zone", ZONES)
def test_hours_of_ten_thousand_years_cost_little(far, zone):
    with affordable():
        ever = {"timezone": zone, "since": FIRST, "until": LAST}
        found = far.ask("seasonality", cycle="day", filters=ever).pl()
    # Some 3,652,057 days are whole, but those on which the clocks of New York change.
    assert (3_600_000 if zone == ZONES[0] else 3_652_000) < found["cycles"][0] < 3_652_059


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["UTC", *ZONES])
def test_a_far_message_changes_nothing_about_the_others(far, zone):
    near = {"timezone": zone, "since": "2024-01-01", "until": "2025-01-01"}
    with world(talk(*ordinary())) as alone:
        for name in ("daily_activity", "week_heatmap", "retention", "seasonality", "overview"):
            one, other = (made.ask(name, filters=near).pl() for made in (far, alone))
            columns = [name for name in one.columns if name != "complete"]
            if name == "retention":  # of whom one began in the year 1
                one, other = (
                    rows.filter(pl.col("cohort") > date(2024, 4, 8)) for rows in (one, other)
                )
            if name in (
                "daily_activity",
                "retention",
            ):  # the calendar goes on until the last message
                one = one.filter(pl.col("start").is_in(other["start"].implode()))
            if name != "seasonality":
                assert one.select(columns).equals(other.select(columns)), name
            else:  # the data do not begin and end within these weeks
                assert one["slot"].to_list() == other["slot"].to_list()


@pytest.mark.parametrize("zone", ["UTC", *ZONES])
@pytest.mark.parametrize("unit", ["day", "week", "month"])
def test_a_calendar_of_all_days_takes_little_time(zone, unit):
    talk = Talk(Filters(timezone=zone), to_ms(FIRST), to_ms(LAST), years=(1, 9999))
    with takes_about(1):
        made = periods.calendar(talk, unit)
    assert made.height == {"day": 3_652_059, "week": 521_723, "month": 119_988}[unit]
    assert made["start"].is_sorted()
    assert made["complete"][1:-1].all()


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Pacific/Apia"])
@pytest.mark.parametrize("unit", ["day", "week", "month"])
def test_a_period_is_complete_where_all_of_it_lies_within_the_data(zone, unit):
    """By the midnights of a zone, also where a day has none or lacks altogether."""
    for first in (datetime(2011, 11, 20, 3, tzinfo=UTC), datetime(2018, 2, 18, 3, tzinfo=UTC)):
        for hours in (0, 1, 24 * 40, 24 * 41 + 7):
            ends = to_ms(first), to_ms(first + timedelta(hours=hours))
            made = periods.calendar(Talk(Filters(timezone=zone), *ends), unit)
            assert made["complete"].to_list() == [
                midnight(start, zone) >= ends[0] and midnight(end, zone) <= ends[1]
                for start, end in made.select("start", "end").rows()
            ]


@pytest.fixture(scope="module")
def single():
    """Two worlds of one message, at either end of the calendar."""
    with world(talk(at(FIRST))) as first, world(talk(at(LAST))) as last:
        yield first, last


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_a_single_message_at_an_end_of_the_calendar_is_enough(single, name):
    for made, zone in zip(single, ZONES, strict=True):
        answer = made.ask(name, filters={"timezone": zone})
        assert answer.finding
        answer.plot().to_dict()


@pytest.mark.slow
def test_messages_of_hundreds_of_years_cost_little():
    every = [at(FIRST + timedelta(days=9_125 * n, hours=n % 24)) for n in range(400)]
    with world(talk(*every)) as made, affordable():
        for zone in ("Europe/Berlin", "Australia/Lord_Howe"):
            assert made.ask("week_heatmap", filters={"timezone": zone}).pl()["n"].sum() == 400


TODAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - DAY
FUTURE = TODAY + 400 * DAY


@pytest.mark.slow
@pytest.mark.parametrize(
    ("since", "counted", "begins"),
    [
        ("2d", [1, 1], f"{TODAY - DAY:%Y-%m-%d}"),
        ("1w", [1, 1, 1], f"{TODAY - 6 * DAY:%Y-%m-%d}"),
        ("12h", [1], f"{TODAY - DAY / 2:%Y-%m-%d %H:%M}"),
    ],
)
def test_a_period_goes_back_from_the_last_message_that_is_not_of_the_future(since, counted, begins):
    days = [at(TODAY - n * DAY) for n in (0, 1, 5, 9)]
    with world(talk(*days, at(FUTURE))) as made:
        answer = made.ask("daily_activity", filters={"since": since})
        assert made.ask("daily_activity", filters={"since": begins}).pl().equals(answer.pl())
    found = answer.pl().filter(pl.col("n") > 0)
    assert found["n"].to_list() == counted
    assert f"since {since} (from {written_moment(begins, 'UTC')}), " in answer.caption
    assert "1 message from before 1990 or in the future left out" in answer.caption


@pytest.mark.slow
def test_messages_whose_times_must_be_wrong_do_not_bend_the_others():
    """Three weeks, one message of 2099 and one of 1960: the calendar is that of the weeks."""
    weeks = [at(TODAY - n * DAY) for n in range(21)]
    wrong = [at(FUTURE), at(datetime(1960, 1, 1, tzinfo=UTC))]
    with world(talk(*weeks)) as right, world(talk(*weeks, *wrong)) as bent:
        for name in ("daily_activity", "trend", "change_points", "seasonality", "stickiness"):
            assert bent.ask(name).pl().equals(right.ask(name).pl()), name
        assert bent.ask("overview").pl()["n"].item() == 23
        asked = bent.ask("monthly_activity", filters={"since": "1950-01-01"}).pl()
        assert asked.filter(pl.col("n") > 0)["n"].sum() == 22


@pytest.mark.slow
def test_where_all_is_of_the_future_a_period_goes_back_from_the_last_message():
    with world(talk(at(FUTURE - 5 * DAY), at(FUTURE - DAY), at(FUTURE))) as made:
        answer = made.ask("daily_activity", filters={"since": "2d"})
    assert answer.pl()["n"].to_list() == [1, 1]
    assert f"since 2d (from {written_day(FUTURE - DAY)})" in answer.caption


@pytest.mark.slow
def test_a_question_is_compiled_once_although_now_goes_on():
    compile_query.cache_clear()
    with world(talk(*(at(TODAY - n * DAY) for n in range(4)))) as made:
        for _ in range(3):
            made.ask("overview", filters={"since": "2d", "timezone": "Europe/Berlin"})
    assert compile_query.cache_info().misses == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("seasonality", "left out"),
        ("trend", "left out"),
        ("overview", "among them"),
        ("week_heatmap", "among them"),
        ("feedback", None),
    ],
)
def test_what_became_of_far_messages_is_said(name, what):
    old = at(datetime(1984, 4, 9, tzinfo=UTC), user="old")
    with world(talk(old, *ordinary())) as made:
        said_of = " from before 1990 or in the future "
        assert (f"1 message{said_of}{what}" in made.ask(name).caption) == (what is not None)
        # Where the filters leave it out, it is not left out for its time, nor among them.
        for chosen in ({"since": "2024-01-01"}, {"user": "u1"}, {"channel": "c1"}):
            assert said_of not in made.ask(name, filters=chosen).caption


@pytest.mark.slow
def test_one_time_of_1970_takes_nobody_out_of_their_cohort():
    """What else they wrote counts as that of others."""
    weeks = [said(week * 7 * 86_400, user=f"u{n}", conversation=f"c{n}")
             for n in range(12) for week in (0, 1, 2)]  # fmt: skip
    far = said(-54 * 365 * 86_400, user="u0", conversation="c0")
    with world(talk(*weeks)) as sound, world(talk(far, *weeks)) as bent:
        expected, found = sound.ask("retention").pl(), bent.ask("retention").pl()
    assert found.select("cohort", "start", "n", "active").rows() == (
        expected.select("cohort", "start", "n", "active").rows()
    )
