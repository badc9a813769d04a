"""Days, times and moods as a report writes them."""

from __future__ import annotations

import calendar
from datetime import date, datetime

from aico_lab.metrics.engine.claims import MINUS
from aico_lab.zones import get_zone, to_local


def written_mood(score: float) -> str:
    """Return a sentiment score with its sign: '+0.25'; without one if it rounds to zero."""
    text = f"{score:+z.2f}".replace("-", MINUS)
    return "0.00" if text == "+0.00" else text


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


def written_moment(text: str, zone: str) -> str:
    """Return a moment in ISO's format as local time to the minute; a day as it is."""
    if "T" not in text:
        return text
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        # To the second first: a period ends a millisecond after a message.
        moment = to_local(1000 * round(moment.timestamp()), get_zone(zone))
    return f"{moment:%Y-%m-%d %H:%M}"


def written_time(ms: int, zone: str) -> str:
    """Return a moment in words, to the minute: '5 April 2018, 14:03'."""
    moment = to_local(ms, get_zone(zone))
    return f"{written_day(moment.date())}, {moment:%H:%M}"
