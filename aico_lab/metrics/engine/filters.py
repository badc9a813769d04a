"""What part of the conversations a question is about; the same for every metric."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from aico_lab.constants import MS_PER_HOUR
from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.local_time import midnight, to_local, to_ms
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

Role = Literal["user", "assistant"]
Moment: TypeAlias = "str | date | datetime"

_BACK: Final = re.compile(r"(\d{1,6})\s*(h|d|w)")
_MOST: Final = 1_000_000_000_000
_WEEK: Final = re.compile(r"\d{4}-?W\d{2}")


@dataclass(frozen=True, slots=True)
class Filters:
    """What part of the conversations counts.

    Attributes:
        since: The first day or moment. '30d' means 30 days that end with the day of the last
            message, '4w' weeks of seven such days, and '12h' hours back from the last message; the
            last one is the last that is not of the future.
        until: The last day, or the moment from which on nothing counts.
        user: Only these people.
        channel: Only these channels.
        role: Only what this side wrote.
        timezone: An IANA name; days, weeks and hours are counted in it.
        min_cell: Rows that rest on fewer observations (their column `n`) are left out.
        min_people: Rows about fewer people are left out, and values that rest on fewer; None leaves
            it to the metric, which is 1, but 5 where an answer holds words.
    """

    since: Moment | None = None
    until: Moment | None = None
    user: str | Sequence[str] | None = None
    channel: str | Sequence[str] | None = None
    role: Role | None = None
    timezone: str = "UTC"
    min_cell: int = 1
    min_people: int | None = None

    def __post_init__(self) -> None:
        for name in ("user", "channel"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        if self.role not in (None, *get_args(Role)):
            raise InvalidValue(f"The role is 'user' or 'assistant', not {self.role!r}.")
        _check_least("min_cell", "observations", self.min_cell)
        if self.min_people is not None:
            _check_least("min_people", "people", self.min_people)
        object.__setattr__(self, "timezone", get_zone(self.timezone).key)

    @property
    def users(self) -> tuple[str, ...]:
        """The people, or none for all."""
        return self.user if isinstance(self.user, tuple) else ()

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels, or none for all."""
        return self.channel if isinstance(self.channel, tuple) else ()

    def bounds(self, recent_ms: int) -> tuple[int | None, int | None]:
        """Return the period in UTC milliseconds, from the first on and before the second.

        Args:
            recent_ms: When the last message was written that is not of the future.

        Raises:
            InvalidValue: One of them is no time, or the period ends before it begins.
        """
        zone = get_zone(self.timezone)
        since = None if self.since is None else _start(self.since, zone, recent_ms)
        until = None if self.until is None else _end(self.until, zone)
        if since is not None and until is not None and since >= until:
            raise InvalidValue(
                f"The period ends before it begins: since is {self.since}, until is {self.until}."
            )
        return since, until

    def begins(self, since_ms: int | None) -> str | None:
        """Return when the period begins, if `since` does not: it may count back from a message.

        Args:
            since_ms: When it begins, as `bounds` gives it.
        """
        back = _counts_back(self.since)
        if back is None or since_ms is None:
            return None
        there = to_local(since_ms, get_zone(self.timezone))
        return f"{there:%Y-%m-%d %H:%M}" if back[2] == "h" else there.date().isoformat()


def _counts_back(given: Moment | None) -> re.Match[str] | None:
    return _BACK.fullmatch(given.strip()) if isinstance(given, str) else None


def _check_least(name: str, what: str, least: object) -> None:
    if isinstance(least, bool) or not isinstance(least, int):
        raise InvalidValue(f"{name} is a whole number, not {least!r}.")
    if not 1 <= least <= _MOST:
        raise InvalidValue(f"{name} is the fewest {what} of a row: from 1 to {_MOST:,}.")


def _names(what: str, given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    try:
        names = (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        names = ()
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidValue(f"Give {what} as one id or a list of ids, not {given!r}.")
    return names


def _start(given: Moment, zone: ZoneInfo, recent_ms: int) -> int:
    if back := _counts_back(given):
        number, unit = int(back[1]), back[2]
        if number == 0:
            raise InvalidValue(f"since={given!r} is no time at all: go back by at least 1{unit}.")
        if unit == "h":
            return recent_ms - number * MS_PER_HOUR
        last_day = to_local(recent_ms, zone).date()
        try:
            first_day = last_day - timedelta(days=number * (7 if unit == "w" else 1) - 1)
        except OverflowError:
            raise InvalidValue(f"since={given!r} goes back beyond the calendar.") from None
        return midnight(first_day, zone.key)
    parsed = _parse("since", given)
    return _exactly(parsed, zone) if isinstance(parsed, datetime) else midnight(parsed, zone.key)


def _end(given: Moment, zone: ZoneInfo) -> int:
    parsed = _parse("until", given)
    if isinstance(parsed, datetime):
        return _exactly(parsed, zone)
    try:
        return midnight(parsed + timedelta(days=1), zone.key)
    except OverflowError:
        raise InvalidValue(f"until={given} is the end of the calendar: leave it out.") from None


def _parse(name: str, given: Moment) -> date | datetime:
    if isinstance(given, date):  # and so is every datetime
        return given
    try:
        text = given.strip()
        if _WEEK.fullmatch(text):  # Python takes it for the week's Monday
            raise ValueError(text)
        try:
            return date.fromisoformat(text)
        except ValueError:
            return datetime.fromisoformat(text)
    except (ValueError, AttributeError, TypeError):
        also = ", or how far back as '30d', '4w', '12h'" if name == "since" else ""
        raise InvalidValue(
            f"{name}={given!r} is no time: give a day as '2024-05-01', a moment as "
            f"'2024-05-01T12:30'{also}."
        ) from None


def _exactly(moment: datetime, zone: ZoneInfo) -> int:
    return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=zone))
