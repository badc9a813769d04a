"""Find time zones by their IANA names, in any case, and convert times between them and UTC."""

from __future__ import annotations

import functools
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from aico_lab.errors import InvalidValue, did_you_mean

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

FIRST_MS: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
LAST_MS: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
"""The ends of Python's calendar, which has the years 1 to 9999."""


@functools.lru_cache(maxsize=64)
def get_zone(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name; `europe/berlin` is Europe/Berlin.

    Raises:
        InvalidValue: No time zone has that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        known = {zone.casefold(): zone for zone in available_timezones()}
    if (folded := name.casefold().replace(" ", "_")) in known:
        return ZoneInfo(known[folded])
    example = ": give an IANA name such as 'Europe/Berlin'."
    end = did_you_mean(folded, known.values(), example)
    raise InvalidValue(f"There is no time zone {name!r}{end}")


def to_ms(moment: datetime) -> int:
    """Return an aware time in milliseconds since 1970 (UTC)."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def to_local(ms: int, zone: ZoneInfo) -> datetime:
    """Return a time in milliseconds since 1970 (UTC) as the local time of a zone.

    Where the local time would lie outside the calendar, in its first or last hours, the result is
    in UTC. A moment outside the calendar is replaced by the nearest one inside.
    """
    moment = EPOCH + timedelta(milliseconds=min(max(ms, FIRST_MS), LAST_MS))
    try:
        return moment.astimezone(zone)
    except OverflowError:
        return moment


def midnight(day: date, zone: str) -> int:
    """Return the beginning of a day in a zone, in milliseconds since 1970 (UTC).

    If clocks skip midnight, the day begins at the moment of the change.
    """
    return to_ms(datetime.combine(day, time(), get_zone(zone)))
