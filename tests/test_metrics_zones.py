"""Local times are those of Python's zone data, and of DuckDB's where theirs are of one mind."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import duckdb
import ibis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.local_time import (
    first_day_from,
    local_ms,
    odd_days,
    offsets,
    year_of,
)
from aico_lab.zones import get_zone, midnight, to_local, to_ms

FIRST, LAST = datetime(1970, 1, 2, tzinfo=UTC), datetime(2037, 12, 30, tzinfo=UTC)
YEARS = range(FIRST.year, LAST.year + 1)
HOUR = 3_600_000
BERLIN = "Europe/Berlin"

UNUSUAL = (
    "Africa/Casablanca",  # summer time all year but in Ramadan
    "Australia/Lord_Howe",  # summer time of half an hour
    "Asia/Kathmandu",  # +5:45
    "Pacific/Apia",  # 30 December 2011 did not take place
    "America/Sao_Paulo",  # clocks changed at midnight
    "Europe/Berlin",
    "Asia/Kolkata",
    "America/St_Johns",  # at one minute after midnight
    "Africa/Monrovia",  # -0:44:30 until 1972
    "Asia/Pyongyang",
    "Antarctica/Troll",  # two hours
    "UTC",
)


def instants(zone: str, count: int = 60) -> list[int]:
    """Random moments, and the milliseconds around every change of the zone's clocks."""
    rng = random.Random(zone)
    found = [rng.randrange(to_ms(FIRST), to_ms(LAST)) for _ in range(count)]
    for change, _ in offsets(zone, YEARS)[1:]:
        found += [change - 1, change, change + 1]
    return sorted(found)


def shifted(ts_ms: list[int], zone: str) -> list[int]:
    """As the expression of a metric gives it."""
    table = ibis.memtable({"ts_ms": ts_ms, "place": range(len(ts_ms))})
    shifts = offsets(zone, sorted({year_of(ts) for ts in ts_ms}))
    expression = table.select("place", local=local_ms(table.ts_ms, shifts)).order_by("place")
    return ibis.duckdb.connect().to_pyarrow(expression)["local"].to_pylist()


def wall_clock(ts_ms: int, zone: str) -> int:
    """What a clock there shows, as milliseconds since a 1 January 1970 of its own."""
    return to_ms(to_local(ts_ms, ZoneInfo(zone)).replace(tzinfo=UTC))


@pytest.mark.parametrize("zone", UNUSUAL)
def test_a_metric_sees_the_time_that_a_clock_there_shows(zone):
    moments = instants(zone)
    assert shifted(moments, zone) == [wall_clock(moment, zone) for moment in moments]


@pytest.mark.parametrize("zone", UNUSUAL)
def test_it_is_the_time_that_duckdb_gives(zone):
    moments = instants(zone)
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT epoch_ms(timezone(?, make_timestamptz(ts * 1000))) "
            "FROM (SELECT unnest(?::BIGINT[]) AS ts)",
            [zone, moments],
        ).fetchall()
    expected = dict(zip(moments, shifted(moments, zone), strict=True))
    different = [
        moment for moment, (local,) in zip(moments, found, strict=True) if expected[moment] != local
    ]
    assert different == []


@pytest.mark.slow
def test_no_change_of_a_zone_is_missed():
    """The offset every six hours, compared with Python's, in any ten zones."""
    for zone in random.Random(8).sample(sorted(available_timezones()), 10):
        info = ZoneInfo(zone)
        changes = offsets(zone, YEARS)
        place, wrong = 0, []
        for hour in range(to_ms(FIRST) // HOUR, to_ms(LAST) // HOUR, 6):
            while place + 1 < len(changes) and changes[place + 1][0] <= hour * HOUR:
                place += 1
            offset = to_local(hour * HOUR, info).utcoffset() // timedelta(milliseconds=1)
            if offset != changes[place][1]:
                wrong.append((zone, hour))
        assert wrong == []


def test_a_zone_without_changes_has_one_offset():
    begins = to_ms(datetime(2019, 1, 1, tzinfo=UTC))
    assert offsets("Asia/Kathmandu", range(2019, 2024)) == ((begins, 5 * HOUR + 2_700_000),)


def test_a_change_is_found_to_the_millisecond():
    """Berlin's clocks leapt at 2024-03-31 01:00 UTC, and fell back at 2024-10-27 01:00 UTC."""
    assert offsets("Europe/Berlin", [2024])[1:] == (
        (to_ms(datetime(2024, 3, 31, 1, tzinfo=UTC)), 2 * HOUR),
        (to_ms(datetime(2024, 10, 27, 1, tzinfo=UTC)), HOUR),
    )


@pytest.mark.parametrize(
    ("zone", "day", "begins"),
    [
        ("Europe/Berlin", date(2024, 7, 1), "2024-06-30T22:00Z"),
        # Clocks leapt from 0:00 to 1:00.
        ("America/Sao_Paulo", date(2018, 11, 4), "2018-11-04T03:00Z"),
        # They fell from 0:00 to 23:00: the day begins when they show midnight for good.
        ("America/Sao_Paulo", date(2018, 2, 18), "2018-02-18T03:00Z"),
        # They fell from 1:00 to 0:00: the day begins when they first show midnight.
        ("America/Havana", date(2023, 11, 5), "2023-11-05T04:00Z"),
        # There was no 30 December: it is as long as nothing.
        ("Pacific/Apia", date(2011, 12, 30), "2011-12-30T10:00Z"),
        ("Pacific/Apia", date(2011, 12, 31), "2011-12-30T10:00Z"),
    ],
)
def test_a_day_begins_with_its_first_moment(zone, day, begins):
    assert midnight(day, zone) == to_ms(datetime.fromisoformat(begins))
    assert to_local(midnight(day, zone), ZoneInfo(zone)).date() >= day
    assert to_local(midnight(day, zone) - 1, ZoneInfo(zone)).date() < day


@given(st.datetimes(timezones=st.just(UTC)))
def test_milliseconds_are_cut_and_not_rounded(moment):
    ms = to_ms(moment)
    there = to_local(ms, ZoneInfo("UTC"))
    assert timedelta(0) <= moment - there < timedelta(milliseconds=1)


MILLISECOND = timedelta(milliseconds=1)
CALENDAR = (
    to_ms(datetime(1, 1, 1, tzinfo=UTC)),
    to_ms(datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
)


def far_instants(zone: str) -> list[int]:
    """Random moments of the whole calendar, its ends, and moments around far changes of clocks."""
    rng = random.Random(zone)
    found = [rng.randrange(*CALENDAR) for _ in range(300)]
    found += [end + sign * hours * HOUR for end, sign in zip(CALENDAR, (1, -1), strict=True)
              for hours in (0, 1, 4, 5, 8, 9, 10, 13, 14, 23, 48)]  # fmt: skip
    for year in (1799, 1800, 1883, 1893, 1916, 2087, 2099, 2100, 2499, 2500, 5555, 9998, 9999):
        for change, _ in offsets(zone, [year])[1:]:
            found += [change - 1, change]
    return sorted(min(max(moment, CALENDAR[0]), CALENDAR[1]) for moment in found)


@pytest.mark.slow
@pytest.mark.parametrize("zone", [*UNUSUAL, "Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_a_metric_sees_the_time_of_a_clock_at_any_time(zone):
    """Python's, and in the hours in which a clock shows a year that no calendar has, UTC's."""
    moments = far_instants(zone)
    expected = []
    for moment in moments:
        there = datetime(1970, 1, 1, tzinfo=UTC) + moment * MILLISECOND
        try:
            there = there.astimezone(ZoneInfo(zone))
        except OverflowError:
            assert min(abs(moment - end) for end in CALENDAR) < 24 * HOUR
        expected.append(to_ms(there.replace(tzinfo=UTC)))
    assert shifted(moments, zone) == expected


@pytest.mark.slow
def test_far_years_are_like_near_ones_in_every_zone():
    """Any zone's offset in any year, compared with Python's."""
    rng = random.Random(11)
    for zone in sorted(available_timezones()):
        info = ZoneInfo(zone)
        for year in rng.sample(range(2, 9999), 2):
            changes = offsets(zone, [year])
            first = to_ms(datetime(year, 1, 1, tzinfo=UTC))
            for moment in range(first, first + 365 * 24 * HOUR, 97 * HOUR):
                offset = [found for begins, found in changes if begins <= moment][-1]
                assert to_local(moment, info).utcoffset() == offset * MILLISECOND, (zone, moment)


@pytest.mark.parametrize("zone", ["America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia"])
def test_odd_days_are_those_whose_midnights_are_not_a_day_apart(zone):
    first, last = date(2000, 1, 1), date(2024, 12, 31)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    expected = [
        day
        for day in days
        if midnight(day + timedelta(days=1), zone) - midnight(day, zone) != 24 * HOUR
    ]
    assert odd_days(zone, first, last) == expected
    assert odd_days(zone, expected[0], expected[0]) == expected[:1]


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", BERLIN])
def test_the_calendars_ends_are_no_odd_days(zone):
    days = odd_days(zone, date.min, date.max)
    assert days[:1] != [date.min]
    assert days[-1:] != [date.max]
    assert (len(days) > 16_000) == (zone == BERLIN)


@given(
    st.integers(*CALENDAR),
    st.sampled_from([*UNUSUAL, "Pacific/Kiritimati", "Pacific/Pago_Pago"]),
)
def test_the_first_day_from_a_moment_on(moment, zone):
    day = timedelta(days=first_day_from(moment, zone))
    if day <= date.max - date(1970, 1, 1):
        assert midnight(date(1970, 1, 1) + day, zone) >= moment
    if timedelta(days=1) + date.min - date(1970, 1, 1) <= day <= date.max - date(1970, 1, 1):
        assert midnight(date(1970, 1, 1) + day - timedelta(days=1), zone) < moment


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "", "/etc/passwd", "../etc", "Europe", "a\0b", "ä"]
)
def test_a_zone_that_is_none_is_refused_in_a_sentence(name):
    with pytest.raises(InvalidValue, match=r"There is no time zone .*(an IANA name|did you mean)"):
        get_zone(name)
