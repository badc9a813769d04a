"""Local times as integers, the same on every engine.

Engines ship their own time zone data and differ in their support of zoned times. This module looks
up a zone's UTC offsets for the years of the messages once, and adds them as integers.
"""

from __future__ import annotations

import functools
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

import ibis

from aico_lab.constants import MS_PER_DAY
from aico_lab.zones import EPOCH, LAST_MS, get_zone, midnight, to_local, to_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import ibis.expr.types as ir

WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
"""The days of the week as charts and answers name them."""

_LAST_DAY: Final = LAST_MS // MS_PER_DAY

_UNCHANGED: Final = 1800
"""No zone changed its clocks before this year."""

_RULES: Final = 2100
"""From this year on all zones follow yearly rules, so offsets repeat with the calendar's cycle.
Year-by-year predictions in the zone data, as for Morocco, end before."""

_CYCLE: Final = 400  # years
_CYCLE_MS: Final = 146_097 * MS_PER_DAY


def first_day_from(ms: int, zone: str) -> int:
    """Return the first day that begins in a zone at `ms` or later, in days since 1970."""
    day = to_local(ms, get_zone(zone)).toordinal() - EPOCH.toordinal()
    while _begins(day, zone) < ms:
        day += 1
    return day


def odd_days(zone: str, first: date, last: date) -> list[date]:
    """Return the days from `first` to `last` that do not have 24 hours in a zone."""
    # A local day may lie in two UTC years.
    years = range(max(first.year - 1, date.min.year), min(last.year + 1, date.max.year) + 1)
    changes = [begins // MS_PER_DAY for begins, _ in offsets(zone, years)[1:]]
    near = {day + apart for day in changes for apart in (-1, 0, 1)}
    start = EPOCH.toordinal()
    inside = range(first.toordinal() - start, last.toordinal() - start + 1)
    return [
        date.fromordinal(day + start)
        for day in sorted(near)
        if day in inside and _begins(day + 1, zone) - _begins(day, zone) != MS_PER_DAY
    ]


def _begins(day: int, zone: str) -> int:
    """Return the beginning of a day, which may lie after the end of the calendar."""
    known = min(day, _LAST_DAY)
    begins = midnight(date.fromordinal(known + EPOCH.toordinal()), zone)
    return begins + (day - known) * MS_PER_DAY


def local_ms(ts_ms: ir.IntegerValue, shifts: Sequence[tuple[int, int]]) -> ir.IntegerValue:
    """Return the local time of UTC milliseconds, in milliseconds.

    Args:
        ts_ms: UTC milliseconds.
        shifts: The result of `offsets` for the years of these times.
    """

    def offset(among: Sequence[tuple[int, int]]) -> ir.IntegerValue:
        if len(among) == 1:
            return ibis.literal(among[0][1], "int64")
        middle = len(among) // 2  # binary search: a zone may have thousands of shifts
        return ibis.ifelse(ts_ms < among[middle][0], offset(among[:middle]), offset(among[middle:]))

    return ts_ms + offset(shifts)


def year_of(ms: int) -> int:
    """Return the UTC year of a time in milliseconds since 1970."""
    return (EPOCH + timedelta(milliseconds=ms)).year


def offsets(zone: str, years: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return the UTC offsets of a zone in some years.

    The offset is 0 where `to_local` falls back to UTC.

    Args:
        zone: An IANA name.
        years: UTC years, in ascending order; the result does not hold for times in other years.

    Returns:
        Pairs of UTC milliseconds and the offset in effect from then on, in milliseconds.
    """
    found: list[tuple[int, int]] = []
    for year in years:
        for begins, offset in _offsets_in(year, zone):
            if not found or offset != found[-1][1]:
                found.append((begins, offset))
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def _offsets_in(year: int, zone: str) -> tuple[tuple[int, int], ...]:
    """Return the offset at the beginning of a UTC year, and every change during the year."""
    if _RULES + _CYCLE <= year < date.max.year:
        cycles = (year - _RULES) // _CYCLE
        like = _offsets_in(year - cycles * _CYCLE, zone)
        return tuple((begins + cycles * _CYCLE_MS, offset) for begins, offset in like)
    info = get_zone(zone)

    def offset(ms: int) -> int:
        return (to_local(ms, info).utcoffset() or timedelta()) // timedelta(milliseconds=1)

    first = to_ms(datetime(year, 1, 1, tzinfo=UTC))
    last = to_ms(datetime(year, 12, 31, tzinfo=UTC))
    found = [(first, offset(first))]
    step = last - first if date.min.year < year < _UNCHANGED else MS_PER_DAY
    for begins in range(first, last + 1, step):
        low, high = begins, begins + MS_PER_DAY
        if (after := offset(high)) == found[-1][1]:
            continue
        while high - low > 1:  # the change lies in (low, high]
            middle = (low + high) // 2
            if offset(middle) == found[-1][1]:
                low = middle
            else:
                high = middle
        found.append((high, after))
    return tuple(found)
