"""Times, moods and lines of tiles as a report writes them."""

from __future__ import annotations

from html import escape

from aico_lab.charts.figure import unbroken
from aico_lab.metrics.engine.claims import MINUS
from aico_lab.metrics.engine.days import written_minute
from aico_lab.zones import get_zone, to_local


def written_mood(score: float) -> str:
    """Return a sentiment score with its sign: '+0.25'; without one if it rounds to zero."""
    text = f"{score:+z.2f}".replace("-", MINUS)
    return "0.00" if text == "+0.00" else text


def written_time(ms: int, zone: str) -> str:
    """Return a moment in words, to the minute: '5 April 2018, 14:03'."""
    return written_minute(to_local(ms, get_zone(zone)))


def in_a_tile(text: str) -> str:
    """Return a line of a tile as HTML, which may be broken at a slash, but not before a unit.

    The name of a time zone may be wider than a tile.
    """
    return escape(unbroken(text)).replace("/", "/<wbr>")
