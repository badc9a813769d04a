"""The period of a review: a year, a month, or days of the person's choice."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from aico_lab.errors import InvalidValue

if TYPE_CHECKING:
    from aico_lab.period import Moment

_PERIOD: Final = re.compile(r"(?P<year>\d{4})(?:-(?P<month>0[1-9]|1[0-2]))?")


@dataclass(frozen=True)
class Span:
    """The period of a review.

    Attributes:
        since: The first day or moment, as the filters of metrics take it; None for the beginning.
        until: The last day or moment; None for the end.
        name: '2026' or 'October 2026'; empty for other periods.
        before: The first and the last day of the year or month before; None for other periods.
        name_before: The name of that year or month.
    """

    since: Moment | None
    until: Moment | None
    name: str = ""
    before: tuple[str, str] | None = None
    name_before: str = ""

    @property
    def days(self) -> int | None:
        """The number of days of the year or month; None for other periods."""
        if not self.name:
            return None
        first, last = (date.fromisoformat(str(day)) for day in (self.since, self.until))
        return (last - first).days + 1


def read_span(period: str | None, since: Moment | None, until: Moment | None) -> Span | None:
    """Return the period that a person chose; None if there is no choice.

    Args:
        period: A year such as '2026' or a month such as '2026-10'.
        since: The first day or moment instead.
        until: The last day or moment instead.

    Raises:
        InvalidValue: The period is neither a year nor a month, or `since` or `until` is given, too.
    """
    if period is None:
        return None if since is None and until is None else Span(since, until)
    if since is not None or until is not None:
        raise InvalidValue("Give a period, or since and until, not both.")
    match = _PERIOD.fullmatch(period.strip())
    if match is None or match["year"] == "0000":
        raise InvalidValue(
            f"period must be a year such as 2026 or a month such as 2026-10, not {period!r}."
        )
    return year_or_month(int(match["year"]), int(match["month"]) if match["month"] else None)


def year_or_month(year: int, month: int | None = None) -> Span:
    """Return a calendar year, or a month of it."""
    first, last = _days(year, month)
    name, before = _name(year, month), None
    name_before = ""
    if first > date.min:
        earlier = first - timedelta(days=1)
        then = earlier.year, None if month is None else earlier.month
        name_before = _name(*then)
        begin, end = _days(*then)
        before = begin.isoformat(), end.isoformat()
    return Span(first.isoformat(), last.isoformat(), name, before, name_before)


def _days(year: int, month: int | None) -> tuple[date, date]:
    if month is None:
        return date(year, 1, 1), date(year, 12, 31)
    return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])


def _name(year: int, month: int | None) -> str:
    return f"{year}" if month is None else f"{calendar.month_name[month]} {year}"
