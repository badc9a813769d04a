"""Sentences of a review: times of day, weekdays, and changes, without terms of statistics."""

from __future__ import annotations

import calendar
from typing import TYPE_CHECKING, Final

from aico_lab.metrics.engine.claims import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WEEKDAYS: Final = tuple(calendar.day_name)

PARTS: Final = {
    "in the morning": range(5, 12),
    "in the afternoon": range(12, 18),
    "in the evening": range(18, 23),
    "at night": (23, 0, 1, 2, 3, 4),
}
"""The hours of each part of the day."""

_HOURS: Final = {
    "in the morning": "5:00 to 12:00",
    "in the afternoon": "12:00 to 18:00",
    "in the evening": "18:00 to 23:00",
    "at night": "23:00 to 5:00",
}

CLEAR: Final = 1.2
"""A number is called more than another if it is at least so many times as large."""


def part_of_day(hours: Sequence[int]) -> str | None:
    """Return the part of the day with the most messages; None if several have as many.

    Args:
        hours: The number of messages of each hour of the day, from 0 to 23.
    """
    sums = {part: sum(hours[hour] for hour in those) for part, those in PARTS.items()}
    most = max(sums.values())
    top = [part for part, count in sums.items() if count == most]
    return top[0] if most and len(top) == 1 else None


def when(hours: Sequence[int] | None, days: Mapping[str, int]) -> str:
    """Return sentences on the hours and the weekday with the most messages.

    Args:
        hours: The number of messages with an exact time of each hour of the day, from 0 to 23; None
            if they are too few.
        days: The number of messages of each weekday, by its name.
    """
    said = []
    if hours is None:
        said.append("Too few messages have an exact time to tell the hours of the day.")
    elif part := part_of_day(hours):
        count = sum(hours[hour] for hour in PARTS[part])
        of = f"{count:,} of {counted(sum(hours), 'messages')}"
        if sum(hours) < sum(days.values()):
            of += " with an exact time"
        said.append(f"You talked most {part}: {of} came from {_HOURS[part]}.")
    most = max(days.values(), default=0)
    top = [day for day, count in days.items() if count == most]
    if len(top) == 1 and most:
        said.append(f"Of all days of the week, {top[0]} had the most: {most:,}.")
    return " ".join(said)


def compared(now: int, before: int) -> str:
    """Return 'more messages than', 'fewer messages than' or 'about as many messages as'."""
    if now >= CLEAR * before:
        return "more messages than"
    if before >= CLEAR * now:
        return "fewer messages than"
    return "about as many messages as"
