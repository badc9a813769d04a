"""Local times as whole numbers, the same on every engine.

Engines bring time zone data of their own and differ in what they can do with zoned times. Here the
offsets that a zone had while the messages were written are looked up once, and become a sum.
"""

from __future__ import annotations

import functools
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

import ibis

from aico_lab.constants import MS_PER_DAY
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from zoneinfo import ZoneInfo

    import ibis.expr.types as ir

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_FIRST_MS: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_LAST_MS: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_LAST_DAY: Final = _LAST_MS // MS_PER_DAY
"""The ends of the calendar, which has the years 1 to 9999."""

_UNCHANGED: Final = 1800
"""Before this year no zone has changed its clocks."""

_RULES: Final = 2100
"""From this year on zones follow yearly rules, so that the calendar's cycle is theirs, too; what
the zone data foretell year by year, as for Morocco, ends before."""

_CYCLE: Final = 400  # years
_CYCLE_MS: Final = 146_097 * MS_PER_DAY


def to_ms(moment: datetime) -> int:
    """Return the milliseconds since 1970 of an aware time."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def to_local(ms: int, zone: ZoneInfo) -> datetime:
    """Return the time of day in a zone, at so many milliseconds since 1970.

    In the first or the last hours of the calendar a zone's clock may show a time outside of it:
    then this is the time of UTC. A moment outside the calendar is taken for the nearest in it.
    """
    moment = _EPOCH + timedelta(milliseconds=min(max(ms, _FIRST_MS), _LAST_MS))
    try:
        return moment.astimezone(zone)
    except OverflowError:
        return moment


def midnight(day: date, zone: str) -> int:
    """Return when a day begins in a zone, in milliseconds since 1970.

    Where clocks leap over midnight, that is the moment at which they do.
    """
    return to_ms(datetime.combine(day, time(), get_zone(zone)))


def first_day_from(ms: int, zone: str) -> int:
    """Return the first day that begins in a zone at a moment or later, in days since 1970."""
    day = to_local(ms, get_zone(zone)).toordinal() - _EPOCH.toordinal()
    while _begins(day, zone) < ms:
        day += 1
    return day


def odd_days(zone: str, first: date, last: date) -> list[date]:
    """Return the days from one to another that do not have 24 hours in a zone."""
    # A day may lie in two years of UTC.
    years = range(max(first.year - 1, date.min.year), min(last.year + 1, date.max.year) + 1)
    changes = [begins // MS_PER_DAY for begins, _ in offsets(zone, years)[1:]]
    near = {day + apart for day in changes for apart in (-1, 0, 1)}
    start = _EPOCH.toordinal()
    inside = range(first.toordinal() - start, last.toordinal() - start + 1)
    return [
        date.fromordinal(day + start)
        for day in sorted(near)
        if day in inside and _begins(day + 1, zone) - _begins(day, zone) != MS_PER_DAY
    ]


def _begins(day: int, zone: str) -> int:
    """Return when a day begins, which may be one after the calendar's last."""
    known = min(day, _LAST_DAY)
    begins = midnight(date.fromordinal(known + _EPOCH.toordinal()), zone)
    return begins + (day - known) * MS_PER_DAY


def local_ms(ts_ms: ir.IntegerValue, shifts: Sequence[tuple[int, int]]) -> ir.IntegerValue:
    """Shift UTC milliseconds to a zone's local time.

    Args:
        ts_ms: UTC milliseconds.
        shifts: What the zone adds, as `offsets` gives it for the years of these times.
    """

    def offset(among: Sequence[tuple[int, int]]) -> ir.IntegerValue:
        if len(among) == 1:
            return ibis.literal(among[0][1], "int64")
        middle = len(among) // 2  # in halves: the ends of the calendar are thousands of shifts away
        return ibis.ifelse(ts_ms < among[middle][0], offset(among[:middle]), offset(among[middle:]))

    return ts_ms + offset(shifts)


def year_of(ms: int) -> int:
    """Return the year of UTC, at so many milliseconds since 1970."""
    return (_EPOCH + timedelta(milliseconds=ms)).year


def offsets(zone: str, years: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return what a zone adds to UTC in some years, and from when on.

    As the offset of a time that `to_local` gives as that of UTC, it is 0.

    Args:
        zone: An IANA name.
        years: Of UTC, in ascending order; for a time in another year this says nothing.

    Returns:
        Pairs of UTC milliseconds and the offset that holds from then on, in milliseconds.
    """
    found: list[tuple[int, int]] = []
    for year in years:
        for begins, offset in _offsets_in(year, zone):
            if not found or offset != found[-1][1]:
                found.append((begins, offset))
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def _offsets_in(year: int, zone: str) -> tuple[tuple[int, int], ...]:
    """Return the offset at the beginning of a year, and each to which the zone changes in it."""
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
