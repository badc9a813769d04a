"""Days, months and moments in words, one spelling for findings, captions and reports."""

from __future__ import annotations

import calendar
from datetime import date, datetime
from typing import TYPE_CHECKING

from aico_lab.period import counts_back, parsed
from aico_lab.zones import get_zone, to_local

if TYPE_CHECKING:
    from aico_lab.period import Moment


def written_day(day: date) -> str:
    """Return a day in words: '5 April 2018'."""
    return f"{day.day} {calendar.month_name[day.month]} {day.year}"


def written_days(first: date, last: date) -> str:
    """Return a period in words: '5 to 9 April 2018'."""
    if first == last:
        return written_day(first)
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day} to {written_day(last)}"
    if first.year == last.year:
        return f"{first.day} {calendar.month_name[first.month]} to {written_day(last)}"
    return f"{written_day(first)} to {written_day(last)}"


def written_start(start: date, unit: str) -> str:
    """Return the name of a month, or the first day of another period, in words."""
    return (
        f"{calendar.month_name[start.month]} {start.year}"
        if unit == "month"
        else written_day(start)
    )


def during(unit: str) -> str:
    """Return the words before what `written_start` returns: 'in the week from'."""
    return {"day": "on", "week": "in the week from", "month": "in"}[unit]


def written_minute(moment: datetime) -> str:
    """Return a local time in words, to the minute: '5 April 2018, 14:03'."""
    return f"{written_day(moment)}, {moment:%H:%M}"


def written_moment(given: Moment, zone: str) -> str:
    """Return a bound of a period in words, a moment as local time; a span such as '30d' as it is.

    Args:
        given: The bound, as the filters have it.
        zone: The zone of the local time.
    """
    if counts_back(given):
        return str(given)
    moment = parsed("since", given)
    if not isinstance(moment, datetime):
        return written_day(moment)
    if moment.tzinfo is not None:
        # To the second first: a period ends a millisecond after a message.
        moment = to_local(1000 * round(moment.timestamp()), get_zone(zone))
    return written_minute(moment)
