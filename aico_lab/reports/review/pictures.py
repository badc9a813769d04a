"""Pictures of a review, as SVG that needs no script and prints on paper."""

from __future__ import annotations

import calendar
import math
from datetime import date, timedelta
from html import escape
from typing import TYPE_CHECKING, Final

from aico_lab.metrics.engine.claims import counted
from aico_lab.metrics.engine.days import written_day

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CELL: Final = 14
_SHADES: Final = (0.28, 0.5, 0.75, 1.0)
"""The opacities of days, from few messages to the most."""

_MONTHS: Final = 24
"""The most months of which each day is drawn; of longer periods, months are."""

_INNER, _OUTER, _LABELS = 16.0, 52.0, 62.0
"""The radii of the clock."""


def months_between(first: date, last: date) -> list[date]:
    """Return the first day of each month from that of one day to that of another."""
    numbers = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
    return [date(number // 12, number % 12 + 1, 1) for number in numbers]


def calendar_of(counts: Mapping[date, int], months: Sequence[date]) -> str:
    """Return a calendar whose days are darker the more was written.

    Args:
        counts: The number of messages of each day; days without messages may be left out.
        months: The first days of the months.
    """
    if len(months) > _MONTHS:
        return _years(counts, months)
    most = max(counts.values(), default=0)
    is_one_year = months[0].year == months[-1].year
    drawn = "".join(_month(counts, month, most, with_year=not is_one_year) for month in months)
    few = " few" if len(months) <= 2 else ""  # noqa: PLR2004
    return f'<div class="calendar{few}">{drawn}</div>'


def _month(counts: Mapping[date, int], month: date, most: int, *, with_year: bool) -> str:
    length = calendar.monthrange(month.year, month.month)[1]
    days = [month + timedelta(days=n) for n in range(length)]
    shift = month.weekday()
    cells = []
    for place, day in enumerate(days, shift):
        said = escape(f"{written_day(day)}: {counted(counts.get(day, 0), 'messages')}")
        cells.append(
            f'<rect x="{place % 7 * _CELL}" y="{place // 7 * _CELL}" width="{_CELL - 2}" '
            f'height="{_CELL - 2}" rx="3"{_fill(counts.get(day, 0), most)}><title>{said}</title>'
            "</rect>"
        )
    talked = sum(1 for day in days if counts.get(day))
    name = f"{calendar.month_name[month.month]} {month.year}"
    short = calendar.month_name[month.month]
    if with_year:
        short = f"{calendar.month_abbr[month.month]} {month.year}"
    return (
        f'<figure><figcaption>{short}</figcaption><svg viewBox="0 0 {7 * _CELL - 2} '
        f'{6 * _CELL - 2}" role="img" aria-label="{name}: messages on '
        f'{counted(talked, "days")}">{"".join(cells)}</svg></figure>'
    )


def _years(counts: Mapping[date, int], months: Sequence[date]) -> str:
    """Return a calendar of months, a row for each year."""
    sums = dict.fromkeys(months, 0)
    for day, count in counts.items():
        if day.replace(day=1) in sums:
            sums[day.replace(day=1)] += count
    most, first = max(sums.values(), default=0), months[0].year
    cells = "".join(
        f'<rect x="{40 + (month.month - 1) * 20}" y="{(month.year - first) * 20}" width="18" '
        f'height="18" rx="3"{_fill(count, most)}><title>'
        f"{calendar.month_name[month.month]} {month.year}: {counted(count, 'messages')}</title>"
        "</rect>"
        for month, count in sums.items()
    )
    years = range(first, months[-1].year + 1)
    labels = "".join(f'<text x="0" y="{(year - first) * 20 + 13}">{year}</text>' for year in years)
    return (
        f'<svg class="years" viewBox="0 0 280 {20 * len(years)}" role="img" '
        f'aria-label="Messages of each month">{labels}{cells}</svg>'
    )


def _fill(count: int, most: int) -> str:
    if not count:
        return ' class="none"'
    level = min(math.ceil(len(_SHADES) * math.sqrt(count / most)), len(_SHADES))
    return f' class="day" fill-opacity="{_SHADES[level - 1]}"'


def clock_of(hours: Sequence[int]) -> str:
    """Return a clock of 24 hours, in which the areas of the hours are the numbers of messages.

    Args:
        hours: The number of messages of each hour of the day, from 0 to 23.
    """
    most = max(hours)
    drawn = []
    for hour, count in enumerate(hours):
        share = count / most if most else 0.0
        radius = math.sqrt(_INNER**2 + (_OUTER**2 - _INNER**2) * share)
        said = f"{hour:02d}:00 to {hour + 1:02d}:00: {counted(count, 'messages')}"
        if count:
            drawn.append(
                f'<path class="day" d="{_wedge(hour, radius)}"><title>{said}</title></path>'
            )
    labels = "".join(
        f'<text x="{_LABELS * math.sin(math.pi * hour / 12):.1f}" '
        f'y="{-_LABELS * math.cos(math.pi * hour / 12) + 3:.1f}" text-anchor="middle">{hour}</text>'
        for hour in (0, 6, 12, 18)
    )
    return (
        '<svg class="clock" viewBox="-72 -70 144 140" role="img" '
        'aria-label="Messages by hour of the day">'
        f'<circle class="rim" r="{_OUTER}"/><circle class="rim" r="{_INNER}"/>'
        f"{''.join(drawn)}{labels}</svg>"
    )


def _wedge(hour: int, radius: float) -> str:
    """Return the path of an hour, from the inner radius to another one."""
    gap = 0.02
    begin, end = (math.pi * at / 12 for at in (hour + gap * 3, hour + 1 - gap * 3))

    def point(angle: float, at: float) -> str:
        return f"{at * math.sin(angle):.2f} {-at * math.cos(angle):.2f}"

    return (
        f"M {point(begin, _INNER)} L {point(begin, radius)} "
        f"A {radius:.2f} {radius:.2f} 0 0 1 {point(end, radius)} L {point(end, _INNER)} "
        f"A {_INNER} {_INNER} 0 0 0 {point(begin, _INNER)} Z"
    )
