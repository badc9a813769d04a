"""Read the bounds of a period, as people give them to metrics, searches and explorations."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from aico_lab.constants import MS_PER_HOUR
from aico_lab.errors import InvalidValue
from aico_lab.zones import get_zone, midnight, to_local, to_ms

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

Moment: TypeAlias = "str | date | datetime"

_BACK: Final = re.compile(r"(\d{1,6})\s*(h|d|w)")
_WEEK: Final = re.compile(r"\d{4}-?W\d{2}")


def bounds(
    since: Moment | None, until: Moment | None, timezone: str, recent_ms: int
) -> tuple[int | None, int | None]:
    """Return start (included) and end (excluded) of a period, in UTC milliseconds.

    Args:
        since: The first day or moment, or a span back from the last message that is not in the
            future: '30d' is the 30 days that end with the day of that message, '4w' the 28 days,
            and '12h' begins twelve hours before that message.
        until: The last day (included), or a moment (excluded).
        timezone: The zone of days, and of moments without one.
        recent_ms: The time of the last message that is not in the future, in UTC milliseconds.

    Raises:
        InvalidValue: A bound is not a time, or the period ends before it begins.
    """
    start = None if since is None else start_of(since, timezone, recent_ms)
    end = None if until is None else _end(until, get_zone(timezone))
    if start is not None and end is not None and start >= end:
        first, last = (one.isoformat() if isinstance(one, date) else one for one in (since, until))
        raise InvalidValue(f"The period ends before it begins: since is {first}, until is {last}.")
    return start, end


def counts_back(given: Moment | None) -> re.Match[str] | None:
    """Return the match of a span such as '30d', with its number and unit; None for other values."""
    return _BACK.fullmatch(given.strip()) if isinstance(given, str) else None


def start_of(given: Moment, timezone: str, recent_ms: int, *, name: str = "since") -> int:
    """Return the start of a period in UTC milliseconds.

    Args:
        given: The start; see `bounds`.
        timezone: The zone of days, and of moments without one.
        recent_ms: The time of the last message that is not in the future, in UTC milliseconds.
        name: The name of the argument, for the message of the error.

    Raises:
        InvalidValue: The start is not a time, or lies outside the calendar.
    """
    zone = get_zone(timezone)
    if back := counts_back(given):
        number, unit = int(back[1]), back[2]
        if number == 0:
            raise InvalidValue(f"{name}={given!r} is a span of length 0: use at least 1{unit}.")
        if unit == "h":
            return recent_ms - number * MS_PER_HOUR
        last_day = to_local(recent_ms, zone).date()
        try:
            first_day = last_day - timedelta(days=number * (7 if unit == "w" else 1) - 1)
        except OverflowError:
            raise InvalidValue(f"{name}={given!r} goes back before the year 1.") from None
        return midnight(first_day, zone.key)
    day = parsed(name, given)
    return _exactly(day, zone) if isinstance(day, datetime) else midnight(day, zone.key)


def parsed(name: str, given: Moment) -> date | datetime:
    """Return a bound that does not count back, as a day or a moment.

    Args:
        name: The name of the argument, for the message of the error; all but 'until' may count
            back.
        given: The bound.

    Raises:
        InvalidValue: It is neither.
    """
    if isinstance(given, date):  # a datetime is a date, too
        return given
    try:
        text = given.strip()
        if _WEEK.fullmatch(text):  # Python parses it as the Monday of the week
            raise ValueError(text)
        try:
            return date.fromisoformat(text)
        except ValueError:
            return datetime.fromisoformat(text)
    except (ValueError, AttributeError, TypeError):
        also = ", or how far back, as '30d', '4w' or '12h'" if name != "until" else ""
        raise InvalidValue(
            f"{name}={given!r} is not a time: give a day as '2024-05-01', a moment as "
            f"'2024-05-01T12:30'{also}."
        ) from None


def _end(given: Moment, zone: ZoneInfo) -> int:
    day = parsed("until", given)
    if isinstance(day, datetime):
        return _exactly(day, zone)
    try:
        return midnight(day + timedelta(days=1), zone.key)
    except OverflowError:
        raise InvalidValue(f"until={given} is the end of the calendar: leave it out.") from None


def _exactly(moment: datetime, zone: ZoneInfo) -> int:
    return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=zone))
