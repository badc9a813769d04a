"""Firsts and milestones, in the order of their days."""

from __future__ import annotations

import itertools
import re
from html import escape, unescape
from typing import TYPE_CHECKING, Final, NamedTuple

from aico_lab.metrics.engine.days import written_day
from aico_lab.metrics.interaction.milestones import ordinal
from aico_lab.reports.review.rows import rows_of
from aico_lab.zones import get_zone, to_local

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from aico_lab.reports.page import Page
    from aico_lab.reports.review.moments import OwnTheme
    from aico_lab.reports.review.span import Span

_FIRSTS: Final = 5
_QUOTED: Final = 200


class Event(NamedTuple):
    """Something that happened on a day.

    Attributes:
        day: The local day.
        html: The sentence, as HTML.
    """

    day: date
    html: str

    @property
    def text(self) -> str:
        """The sentence without markup."""
        return unescape(re.sub("<[^>]*>", "", self.html))


def first_message(day: date, quoted: str, span: Span) -> Event:
    """Return the first message of a period.

    Args:
        day: Its local day.
        quoted: Its text; empty if it is not to be shown.
        span: The period.
    """
    period = "of these days"
    if span.name:
        period = "of the year" if span.name.isdecimal() else "of the month"
    text, quoted = f"Your first message {period}", quoted.strip()
    if quoted:
        short = quoted if len(quoted) <= _QUOTED else f"{quoted[:_QUOTED]}…"
        text += f": <q><bdi>{escape(short)}</bdi></q>"
    return Event(day, text)


def first_themes(themes: Sequence[OwnTheme], zone: str) -> list[Event]:
    """Return the days on which the person first wrote about the largest new themes.

    Args:
        themes: The themes, most messages first.
        zone: The IANA name of the zone of the days.
    """
    new = [theme for theme in themes if theme.is_new][:_FIRSTS]
    days = [(to_local(theme.first_ms, get_zone(zone)).date(), theme.name) for theme in new]
    days.sort(key=lambda pair: pair[0])
    found = []
    for day, same in itertools.groupby(days, key=lambda pair: pair[0]):
        names = _listed([f"<em>{escape(name)}</em>" for _, name in same], "; ")
        found.append(Event(day, f"You first talked about {names}"))
    return found


def milestones(page: Page) -> list[Event]:
    """Return the days of the 10th, the 50th, the 100th message and so on."""
    rows = rows_of(page, "milestones")
    reached = sorted((day, n) for n, day in rows.select("n", "day").iter_rows() if n > 1 and day)
    found = []
    for day, same in itertools.groupby(reached, key=lambda pair: pair[0]):
        which = _listed([ordinal(n) for _, n in same], ", ")
        found.append(Event(day, f"The {which} message between you"))
    return found


def timeline(events: Sequence[Event]) -> str:
    """Return events as a list of days."""
    in_order = sorted(events, key=lambda event: event.day)
    days = itertools.groupby(in_order, key=lambda event: event.day)
    items = "".join(
        f"<li><time>{written_day(day)}</time>{''.join(f'<div>{one.html}</div>' for one in of)}</li>"
        for day, of in days
    )
    return f'<ol class="events">{items}</ol>'


def _listed(names: Sequence[str], between: str) -> str:
    return " and ".join(filter(None, (between.join(names[:-1]), names[-1])))
