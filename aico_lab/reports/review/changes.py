"""Changes within a period, and since the one before, in sentences."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from aico_lab.metrics.engine.days import written_day
from aico_lab.metrics.engine.local_time import WEEKDAYS
from aico_lab.reports.review import moments, wording
from aico_lab.reports.review.rows import rows_of
from aico_lab.zones import midnight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.reports.page import Page
    from aico_lab.reports.review.span import Span

FEWEST: Final = 30
"""The fewest messages of each half of a period that are compared."""

SHORTEST: Final = 14
"""The fewest days whose halves are compared."""


def weekdays_of(page: Page) -> dict[str, int]:
    """Return the number of messages of each weekday.

    Args:
        page: The page, whose filters choose the person and the period.
    """
    weekdays = dict.fromkeys(wording.WEEKDAYS, 0)
    names = dict(zip(WEEKDAYS, wording.WEEKDAYS, strict=True))
    for day, count in rows_of(page, "week_heatmap").select("weekday", "n").iter_rows():
        weekdays[names[day]] += count
    return weekdays


def since_before(page: Page, n: int, span: Span) -> list[str]:
    """Return a sentence on the year or month before, if it has messages.

    Args:
        page: The page, whose filters choose the person.
        n: The number of messages of the period.
        span: The period, which is over.
    """
    if span.before is None:
        return []
    since, until = span.before
    before = rows_of(page, "overview", since=since, until=until)
    if not before.height:
        return []
    then = before["n"][0]
    compared = wording.compared(n, then)
    return [f"You exchanged {compared} in {span.name_before}: {n:,} after {then:,}."]


def between_halves(
    page: Page, chosen: moments.OwnMessages, overview: Mapping[str, Any]
) -> list[str]:
    """Return sentences on the two halves of the days from the first message to the last.

    Args:
        page: The page, whose filters choose the person and the period.
        chosen: The same person and period.
        overview: The row of the metric `overview`.
    """
    first, last = overview["first_day"], overview["last_day"]
    length = (last - first).days + 1
    if length < SHORTEST:
        return []
    cut = first + timedelta(days=length // 2)
    # Each half keeps one end of the period, which may be a moment within a day.
    counts = [
        rows_of(page, "overview", until=(cut - timedelta(days=1)).isoformat()),
        rows_of(page, "overview", since=cut.isoformat()),
    ]
    if any(not rows.height or rows["n"][0] < FEWEST for rows in counts):
        return []
    one, two = (int(rows["n"][0]) for rows in counts)
    compared = wording.compared(two, one)
    begin = written_day(cut)
    said = [f"From {begin} on, you exchanged {compared} before: {two:,} after {one:,}."]
    cut_ms = midnight(cut, page.lab.timezone)
    halves = replace(chosen, until_ms=cut_ms), replace(chosen, since_ms=cut_ms)
    hours = [moments.exact_hours(page.lab, half) for half in halves]
    parts = [wording.part_of_day(counts) for counts in hours]
    if min(map(sum, hours)) >= FEWEST and all(parts) and parts[0] != parts[1]:
        said.append(f"At first you talked most {parts[0]}, later {parts[1]}.")
    words = [moments.own_words(page.lab, half) for half in halves]
    lengths = [found[0] / found[1] for found in words if found and found[0]]
    if len(lengths) == len(halves) and max(lengths) >= wording.CLEAR * min(lengths):
        longer = "longer" if lengths[1] > lengths[0] else "shorter"
        said.append(
            f"Your messages became {longer}: {lengths[1]:.0f} words on average after "
            f"{lengths[0]:.0f}."
        )
    return said
