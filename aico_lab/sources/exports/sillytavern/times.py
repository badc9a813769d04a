"""Parse the times that versions of SillyTavern have written into chats.

All but the newest are local times of the computer without a zone. SillyTavern itself reads some of
them back as UTC, but writes them from the local clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from aico_lab.constants import NO_SECONDS
from aico_lab.sources.exports.engine import fields

_MONTHS: Final = (
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
)
_IN_WORDS: Final = re.compile(
    r"(?P<month>[A-Za-z]{3,9})\.?\s+(?P<day>\d{1,2}),?\s+(?P<year>\d{4}),?\s+"
    r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(:(?P<second>\d\d))?\s*(?P<half>[ap]\.?m\.?)?",
    re.ASCII | re.IGNORECASE,
)
_WITH_AT: Final = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})\s*@\s*"
    r"(?P<hour>\d{1,2})h\s*(?P<minute>\d{1,2})m\s*(?P<second>\d{1,2})s"
    r"(\s*(?P<millisecond>\d{1,3})ms)?",
    re.ASCII,
)
_NUMBER: Final = re.compile(r"\d{9,17}(\.\d+)?", re.ASCII)
_NOON: Final = 12


def to_time(value: object) -> datetime | None:
    """Return a time, without a zone if it is local; None if it is no time."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _of_number(float(value))
        text = fields.to_text(value).strip()
        if _NUMBER.fullmatch(text):
            return _of_number(float(text))
        if found := _WITH_AT.fullmatch(text):
            return _of_parts(found, int(found["month"]), int(found["hour"]))
        if found := _IN_WORDS.fullmatch(text):
            month = _MONTHS.index(found["month"][:3].lower()) + 1
            return _of_parts(found, month, _hour(found))
        return fields.to_time(text)
    except (ValueError, OverflowError):
        return None


def _of_number(number: float) -> datetime | None:
    if number <= 0:
        return None
    seconds = number / 1000 if number >= NO_SECONDS else number
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def _of_parts(found: re.Match[str], month: int, hour: int) -> datetime:
    parts = found.groupdict()
    return datetime(  # noqa: DTZ001 - a local time, whose zone the user names
        int(found["year"]),
        month,
        int(found["day"]),
        hour,
        int(found["minute"]),
        int(found["second"] or 0),
        1000 * int(parts.get("millisecond") or 0),
    )


def _hour(found: re.Match[str]) -> int:
    """Return the hour of the day; 12 am is midnight, and 12 pm noon."""
    hour = int(found["hour"])
    if not found["half"]:
        return hour
    if not 1 <= hour <= _NOON:
        raise ValueError("no hour of a half day")
    return hour % _NOON + (_NOON if found["half"].lower().startswith("p") else 0)
