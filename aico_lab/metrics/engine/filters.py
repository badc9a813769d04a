"""Filters that select messages, the same for every metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from aico_lab import period
from aico_lab.errors import InvalidValue
from aico_lab.zones import get_zone, to_local

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.period import Moment

Role = Literal["user", "assistant"]

_MOST: Final = 1_000_000_000_000


@dataclass(frozen=True, slots=True)
class Filters:
    """Select messages, and set the least numbers of observations and people.

    Attributes:
        since: The first day or moment, or how far to count back from the last message that is not
            in the future: '30d' is 30 days ending with the day of that message, '4w' four weeks
            of seven such days, '12h' twelve hours before it.
        until: The last day (included), or a moment (excluded).
        user: Only messages of these people.
        channel: Only messages in these channels.
        role: Only messages by this side.
        timezone: The IANA name of the zone that defines days, weeks and hours.
        min_cell: Rows with fewer observations (column `n`) are left out.
        min_people: Rows about fewer people, and values that rest on fewer, are left out. None
            means the metric's default: 1, or 5 for answers that contain words.
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
            raise InvalidValue(f"role must be 'user' or 'assistant', not {self.role!r}.")
        _check_least("min_cell", self.min_cell)
        if self.min_people is not None:
            _check_least("min_people", self.min_people)
        object.__setattr__(self, "timezone", get_zone(self.timezone).key)

    @property
    def users(self) -> tuple[str, ...]:
        """The selected people; empty for all."""
        return self.user if isinstance(self.user, tuple) else ()

    @property
    def channels(self) -> tuple[str, ...]:
        """The selected channels; empty for all."""
        return self.channel if isinstance(self.channel, tuple) else ()

    def bounds(self, recent_ms: int) -> tuple[int | None, int | None]:
        """Return start (included) and end (excluded) of the period, in UTC milliseconds.

        Args:
            recent_ms: The time of the last message that is not in the future, in UTC milliseconds.

        Raises:
            InvalidValue: A bound is not a time, or the period ends before it begins.
        """
        return period.bounds(self.since, self.until, self.timezone, recent_ms)

    def begins(self, since_ms: int | None) -> str | None:
        """Return the local start of the period if `since` is relative ('30d'); else None.

        Args:
            since_ms: The start of the period that `bounds` returns.
        """
        back = period.counts_back(self.since)
        if back is None or since_ms is None:
            return None
        there = to_local(since_ms, get_zone(self.timezone))
        return f"{there:%Y-%m-%d %H:%M}" if back[2] == "h" else there.date().isoformat()


def _check_least(name: str, least: object) -> None:
    if isinstance(least, bool) or not isinstance(least, int):
        raise InvalidValue(f"{name} must be a whole number, not {least!r}.")
    if not 1 <= least <= _MOST:
        raise InvalidValue(f"{name} must be a whole number from 1 to {_MOST:,}, not {least}.")


def _names(what: str, given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    try:
        names = (given,) if isinstance(given, str) else tuple(given)
    except TypeError:
        names = ()
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidValue(f"{what} must be one id or a list of ids, not {given!r}.")
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:  # bytes of a command line
            raise InvalidValue(f"{what}={name!r} is not valid text: encode it in UTF-8.") from None
    return names
