"""The cards of a review, each with one number."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import date, datetime
from html import escape
from typing import TYPE_CHECKING, Any, Final

from aico_lab.charts.figure import unbroken
from aico_lab.metrics.engine.claims import counted, isolated
from aico_lab.metrics.engine.days import written_day, written_days
from aico_lab.reports.first_screen import Tile
from aico_lab.reports.review.rows import rows_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.reports.page import Page

_WORDS_OF_A_PAGE: Final = 300
_LONG: Final = 6  # characters
_FULL: Final = 10
"""The fewest messages of a day that is called full."""


@dataclass(frozen=True)
class Card:
    """One number of the page.

    Attributes:
        number: The number as text.
        label: Its meaning.
        more: A second line; empty for none.
        key: The name of the number in `report.json`.
        value: The number; None for a time of day.
        unit: Its unit; empty for counts.
    """

    number: str
    label: str
    more: str = ""
    _: KW_ONLY
    key: str
    value: float | None = None
    unit: str = ""

    def tile(self) -> Tile:
        """Return the card as a figure of `report.json`."""
        return Tile(
            self.label, self.number, self.more, number=self.value, unit=self.unit, key=self.key
        )

    def html(self) -> str:
        """Return the card as HTML."""
        size = "number long" if len(self.number) > _LONG else "number"
        more = f'<p class="more">{escape(unbroken(self.more))}</p>' if self.more else ""
        return (
            f'<div><p class="{size}">{escape(unbroken(self.number))}</p>'
            f'<p class="label">{escape(self.label)}</p>{more}</div>'
        )


def counts(overview: Mapping[str, Any], whose: str, length: int | None) -> list[Card]:
    """Return the numbers of messages and of days with messages.

    Args:
        overview: The row of the metric `overview`.
        whose: The companion's name.
        length: The number of days of the period; None if it is not over, or has no name.
    """
    n, theirs, days = overview["n"], overview["by_assistant"], overview["days"]
    sides = isolated(f"{n - theirs:,} by you, {theirs:,} by {whose}")
    talked = "day on which you talked" if days == 1 else "days on which you talked"
    of = f"of {counted(length, 'days')}" if length else ""
    return [
        Card(f"{n:,}", "message" if n == 1 else "messages", sides, key="messages", value=n),
        Card(f"{days:,}", talked, of, key="days_with_messages", value=days),
    ]


def records(page: Page) -> list[Card]:
    """Return the longest streak and conversation, the latest hour, and the fullest day.

    A conversation in which others wrote, too, is none of the person's.

    Args:
        page: The page, whose filters choose the person and the period.
    """
    rows = {
        row["record"]: row
        for name in ("highlights", "extremes")
        for row in rows_of(page, name).iter_rows(named=True)
        if row["begins"] and row["ends"]
    }
    made = []
    if (streak := rows.get("longest streak")) and streak["value"] > 1:
        ends = (date.fromisoformat(streak[end]) for end in ("begins", "ends"))
        length = f"{streak['value']:,.0f} days"
        label = f"in a row, {_superlative('longest streak', streak)}"
        made.append(
            Card(
                length,
                label,
                written_days(*ends),
                key="longest_streak",
                value=streak["value"],
                unit="days",
            )
        )
    if (longest := rows.get("longest session")) and longest["people"] <= 1:
        day = written_day(datetime.fromisoformat(longest["begins"]))
        more = f"{day}, {counted(longest['n'], 'messages')}"
        label = _superlative("longest conversation", longest)
        made.append(
            Card(
                _lasting(longest["value"]),
                label,
                more,
                key="longest_conversation",
                value=longest["value"],
                unit="min",
            )
        )
    if latest := rows.get("latest message"):
        at = datetime.fromisoformat(latest["begins"])
        times = f", one of {latest['alike']:,} times" if latest["alike"] > 1 else ""
        made.append(
            Card(
                f"{at:%H:%M}", f"the latest you wrote{times}", written_day(at), key="latest_message"
            )
        )
    if (fullest := rows.get("busiest day")) and fullest["n"] >= _FULL:
        day = written_day(date.fromisoformat(fullest["begins"]))
        label = f"messages on {_superlative('fullest day', fullest)}"
        made.append(Card(f"{fullest['n']:,}", label, day, key="fullest_day", value=fullest["n"]))
    return made


def _superlative(what: str, record: Mapping[str, Any]) -> str:
    """Return 'your longest streak', or 'one of your longest streaks' if several are equal."""
    return f"one of your {what}s" if record["alike"] > 1 else f"your {what}"


def words(number: int) -> Card:
    """Return the number of the person's words."""
    pages = round(number / _WORDS_OF_A_PAGE)
    like = f"as many as on {pages:,} pages of a book" if pages > 1 else ""
    return Card(f"{number:,}", "words from you", like, key="words", value=number)


def _lasting(minutes: float) -> str:
    """Return a duration in hours and minutes: '2 h 24 min'."""
    whole = round(minutes)
    if whole < 1:
        return "1 min"
    hours, rest = divmod(whole, 60)
    return " ".join(part for part in (hours and f"{hours:,} h", rest and f"{rest} min") if part)
