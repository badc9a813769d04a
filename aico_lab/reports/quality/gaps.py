"""Gaps: months without messages, and silences of people who write regularly."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median
from typing import TYPE_CHECKING, Final

from aico_lab.constants import FIRST_PLAUSIBLE_MS
from aico_lab.metrics.engine.claims import counted
from aico_lab.metrics.engine.days import written_day, written_days, written_start
from aico_lab.reports.quality.checks import DataCheck, found, rows_from

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aico_lab.lab import Lab

REGULAR: Final = 3
"""A person writes regularly if the median number of days from one day to the next is at most so."""

FEWEST: Final = 10
"""The fewest days with messages of such a person."""

LONG: Final = 14
"""The shortest silence, in days, that is a gap of such a person."""

_NAMED: Final = 5


@dataclass(frozen=True)
class Gap:
    """A silence of a person who writes regularly.

    Attributes:
        person: The pseudonym, which commands know.
        name: What the page calls the person.
        first: The first day without messages.
        last: The last one.
        days: The number of days.
        goes_on: Whether the data end with it.
    """

    person: str
    name: str
    first: date
    last: date
    days: int
    goes_on: bool = False

    def __str__(self) -> str:
        """Return name and days: 'Person 1: 15 April to 8 June 2024'."""
        if self.goes_on:
            return f"{self.name}: from {written_day(self.first)} on"
        return f"{self.name}: {written_days(self.first, self.last)}"


def missing_months(lab: Lab) -> list[DataCheck]:
    """Return the months without any message between the first and the last one."""
    rows = lab.metrics.monthly_activity().pl()
    months = rows.filter(rows["n"] == 0)["start"].to_list()
    named = ", ".join(written_start(month, "month") for month in months[:_NAMED])
    more = f" and {counted(len(months) - _NAMED, 'others')}" if len(months) > _NAMED else ""
    text = f"{counted(len(months), 'months')} of {len(rows)}: {named}{more}"
    command = "aico-lab metrics show monthly_activity"
    return [found("Months without messages", len(months), "look", text, command=command)]


def gaps_of_regular_people(lab: Lab, *, names: bool = False) -> list[Gap]:
    """Return the silences of people who write regularly, the longest first.

    The silence after a person's last message ends with the last day of all messages.

    Args:
        lab: The lab.
        names: Whether people are called by their names rather than pseudonyms.
    """
    day = "((make_timestamp(m.ts_ms * 1000) AT TIME ZONE 'UTC') AT TIME ZONE $zone)::DATE"
    likely = "m.ts_ms >= $first AND m.ts_ms <= epoch_ms(now())"
    values: dict[str, object] = {"zone": lab.timezone, "first": FIRST_PLAUSIBLE_MS}
    ((end,),) = rows_from(lab, f"SELECT max({day}) FROM mart.messages m WHERE {likely}", values)
    rows = rows_from(
        lab,
        f"""
        SELECT DISTINCT p.pseudonym, p.{"name" if names else "pseudonym"}, {day}
        FROM mart.messages m JOIN mart.people p USING (user_id)
        WHERE m.role = 'user' AND {likely} ORDER BY 1, 2, 3""",
        values,
    )
    days: dict[tuple[str, str], list[date]] = {}
    for person, name, written in rows:
        days.setdefault((person, name), []).append(written)
    gaps = [gap for who, written in days.items() for gap in _gaps(*who, written, end)]
    return sorted(gaps, key=lambda gap: (-gap.days, gap.first, gap.person))


def _gaps(person: str, name: str, written: list[date], end: date) -> Iterable[Gap]:
    steps = [(b - a).days for a, b in itertools.pairwise(written)]
    if len(written) < FEWEST or median(steps) > REGULAR:
        return
    for before, step in zip(written, steps, strict=False):
        if step > LONG:
            first, last = before.toordinal() + 1, before.toordinal() + step - 1
            yield Gap(person, name, date.fromordinal(first), date.fromordinal(last), step - 1)
    silent = (end - written[-1]).days
    if silent >= LONG:
        yield Gap(person, name, written[-1] + timedelta(days=1), end, silent, goes_on=True)


def silences(lab: Lab, *, names: bool) -> list[DataCheck]:
    """Return the check of silences of people who write regularly.

    Args:
        lab: The lab.
        names: Whether people are called by their names rather than pseudonyms.
    """
    gaps = gaps_of_regular_people(lab, names=names)
    named = "; ".join(map(str, gaps[:_NAMED]))
    # Not the name, which people choose, may share, and no command knows.
    user = shlex.quote(gaps[0].person) if gaps else ""
    command = f"aico-lab metrics show calendar_days --user {user}"
    more = f"; {counted(len(gaps) - _NAMED, 'others')}" if len(gaps) > _NAMED else ""
    return [
        found(
            "Silences of people who write regularly",
            len(gaps),
            "look",
            f"{counted(len(gaps), 'silences')} of {LONG} days or more. The longest: {named}{more}",
            good=f"nobody who wrote on {FEWEST} days or more, mostly every {REGULAR} days or more "
            f"often, was silent for {LONG} days",
            command=command,
        )
    ]
