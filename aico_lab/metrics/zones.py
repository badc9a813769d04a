"""Local times as whole numbers, the same on every engine.

Engines bring time zone data of their own and differ in what they can do with zoned times. Here the
offsets that a zone had while the messages were written are looked up once, and become a sum.
"""

from __future__ import annotations

import functools
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import ibis

from aico_lab.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    import ibis.expr.types as ir

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400_000


def get_zone(name: str) -> ZoneInfo:
    """Give a time zone by its IANA name.

    Raises:
        InvalidValue: There is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InvalidValue(
            f"There is no time zone {name!r}: give an IANA name such as 'Europe/Berlin'."
        ) from None


def to_ms(moment: datetime) -> int:
    """Give the milliseconds since 1970 of an aware time."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def to_local(ms: int, zone: ZoneInfo) -> datetime:
    """Give the time of day in a zone, at so many milliseconds since 1970."""
    return (_EPOCH + timedelta(milliseconds=ms)).astimezone(zone)


def midnight(day: date, zone: str) -> int:
    """Give when a day begins in a zone, in milliseconds since 1970.

    Where clocks leap over midnight, that is the moment at which they do.
    """
    return to_ms(datetime.combine(day, time(), get_zone(zone)))


def local_ms(ts_ms: ir.IntegerValue, shifts: Sequence[tuple[int, int]]) -> ir.IntegerValue:
    """Shift UTC milliseconds to a zone's local time.

    Args:
        ts_ms: UTC milliseconds.
        shifts: What the zone adds, as `offsets` gives it for these times.
    """
    start, *changes = shifts
    if not changes:
        return ts_ms + start[1]
    branches = [
        (ts_ms < until, offset)
        for (_, offset), (until, _) in zip([start, *changes[:-1]], changes, strict=True)
    ]
    return ts_ms + ibis.cases(*branches, else_=changes[-1][1])


@functools.lru_cache(maxsize=64)
def offsets(zone: str, first_day: int, last_day: int) -> tuple[tuple[int, int], ...]:
    """Give what a zone adds to UTC, and from when on.

    Args:
        zone: An IANA name.
        first_day: Days since 1970.
        last_day: Days since 1970.

    Returns:
        Pairs of UTC milliseconds and the offset that holds from then on, in milliseconds.
    """
    info = get_zone(zone)

    def offset(ms: int) -> int:
        return (to_local(ms, info).utcoffset() or timedelta()) // timedelta(milliseconds=1)

    found = [(first_day * _DAY, offset(first_day * _DAY))]
    for day in range(first_day, last_day):
        low, high = day * _DAY, (day + 1) * _DAY
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
