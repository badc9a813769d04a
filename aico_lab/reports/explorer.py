"""The explorer of a page: charts and headline figures that follow filters in the page.

The page holds the aggregate cube (`aico_lab.reports.cube`), and `explorer.js` sums it again at each
change of a filter. Where scripts do not run, the figures of the whole selection remain.
"""

from __future__ import annotations

import json
from datetime import date, timedelta
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from aico_lab.charts import Html
from aico_lab.metrics.engine.claims import counted
from aico_lab.metrics.engine.days import written_day
from aico_lab.reports.cube import SCORE_UNITS, Cube, cube
from aico_lab.reports.merging import WEEK
from aico_lab.reports.packing import packed
from aico_lab.reports.written import in_a_tile, written_mood

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.lab import Lab

_NONE: Final = "–"  # noqa: RUF001 - a dash, as in tables


class ExplorerTile(NamedTuple):
    """A headline figure.

    Attributes:
        name: The name by which `explorer.js` finds it.
        label: The label.
        value: The value for the whole selection.
        note: The whole of which the value is a part, or the number of messages behind it.
    """

    name: str
    label: str
    value: str
    note: str = ""


def explorer(lab: Lab, *, names: bool = False, gap_minutes: float = 30.0, **filters: Any) -> Html:
    """Return charts of messages with filters for days, side, channel and person.

    ::

        from aico_lab.reports import charts as page

        page.explorer(lab, since="90d", timezone="Europe/Berlin")

    Args:
        lab: The lab.
        names: Whether channels and people are called by their names, or ids where there are none,
            rather than by pseudonyms.
        gap_minutes: A longer silence begins a new session.
        filters: The filters of the metrics, which select the messages that the page holds.

    Raises:
        InvalidValue: A filter or `gap_minutes` is invalid.
        UnknownName: No message has one of the users or channels of the filters.
        NeverSynced: There is no snapshot yet, or another version of aico_lab made it.
    """
    made = cube(lab, names=names, gap_minutes=gap_minutes, **filters)
    if made.nothing:
        return Html(f'<p class="mathjax_ignore"><em>{escape(made.nothing)}</em></p>')
    shown = "".join(
        f'<div data-tile="{tile.name}"><dt>{in_a_tile(tile.label)}</dt>'
        f'<dd class="value">{escape(tile.value)}</dd>'
        f'<dd class="note">{escape(tile.note)}</dd></div>'
        for tile in tiles_of(made)
    )
    left_out = "".join(f"<p class=note>{escape(text)}</p>" for text in _left_out(made))
    return Html(
        '<section class="aico-lab-explorer mathjax_ignore" aria-label="Explorer of messages">'
        f"<style>{_shipped('explorer.css')}</style>"
        '<p class="unscripted">The filters and charts need scripts, which do not run here. These '
        "are the figures of the whole selection.</p>"
        f'<dl class="tiles">{shown}</dl><p class="chosen" role="status"></p>'
        f'<p class="merged"></p>{left_out}'
        f'<script type="application/json">{_json(made)}</script>'
        "<script>(async (host) => {\n"
        f"{_shipped('explorer.js')}\n"
        "})(document.currentScript.parentElement)</script></section>"
    )


def tiles_of(made: Cube) -> list[ExplorerTile]:
    """Return the headline figures of all cells of a cube, worded as `explorer.js` words them."""
    cells = made.cells
    all_ = {name: int(cells[name].sum()) for name in ("messages", "words", "sentiment", "sessions")}
    worded = all_["messages"] - int(cells["unsegmented"].sum())
    scored = all_["messages"] - int(cells["unscored"].sum())
    days = _most(cells.filter(pl.col("hour") != WEEK), "day")
    hours = _most(cells.filter(pl.col("hour") >= 0), "hour")
    no_day = _unknown(made, cells.filter(hour=WEEK), "known by week only")
    no_hour = _unknown(made, cells.filter(pl.col("hour") < 0), "without an hour")
    span = counted(made.last_day - made.first_day + 1, "days")
    if made.last_day > made.first_day:  # the selection may begin earlier
        span += " from the first to the last"
    mood = all_["sentiment"] / SCORE_UNITS / scored if scored > 0 else None
    return [
        ExplorerTile("messages", "Messages", f"{all_['messages']:,}"),
        ExplorerTile("days", "Days with messages", *_days(days.height, no_day, span)),
        ExplorerTile("people", "People", _NONE if made.named is None else f"{made.named:,}"),
        ExplorerTile("sessions", "Sessions begun", f"{all_['sessions']:,}"),
        ExplorerTile("day", "Busiest day", *_busiest(days, _written, "day", no_day)),
        ExplorerTile(
            "hour", f"Busiest hour ({made.filters.timezone})",
            *_busiest(hours, _hours, "hour", no_hour),
        ),
        ExplorerTile(
            "mood", "Mean mood (−1 to 1)",  # noqa: RUF001
            _NONE if mood is None else written_mood(mood),
            counted(scored, "scored messages") if scored else "no scores",
        ),
        ExplorerTile(
            "words", "Words per message", f"{all_['words'] / worded:.1f}" if worded else _NONE
        ),
    ]  # fmt: skip


def _most(cells: pl.DataFrame, by: str) -> pl.DataFrame:
    """Return the values of a column with messages, those with most first, and the messages."""
    sums = cells.group_by(by).agg(pl.col("messages").sum()).filter(pl.col("messages") > 0)
    return sums.sort("messages", by, descending=[True, False])


def _unknown(made: Cube, merged: pl.DataFrame, what: str) -> str:
    """Return why the day or hour of some messages is unknown; empty if all are known.

    Args:
        made: The cube.
        merged: The cells without the day or hour.
        what: What is said of their messages.
    """
    if n := int(merged["messages"].sum()):
        return f"{counted(n, 'messages')} {what}"
    return f"{counted(made.left_out, 'messages')} left out" if made.left_out else ""


def _days(known: int, unknown: str, span: str) -> tuple[str, str]:
    """Return the value and the note of the tile of the days with messages.

    Args:
        known: The number of known days with messages.
        unknown: Why the day of some messages is unknown; empty if all are known.
        span: The number of all days.
    """
    if not unknown:
        return f"{known:,}", f"of {span}"
    return (f"at least {known:,}", unknown) if known else (_NONE, f"unknown: {unknown}")


def _busiest(
    amounts: pl.DataFrame, called: Callable[[int], str], noun: str, unknown: str
) -> tuple[str, str]:
    """Return the value and the note of the tile of the busiest day or hour.

    Args:
        amounts: The rows of `_most`.
        called: The name of a day or hour.
        noun: 'day' or 'hour'.
        unknown: Why the day or hour of some messages is unknown, of which another day or hour may
            be the busiest; empty if all are known.
    """
    if unknown:
        return _NONE, f"unknown: {unknown}"
    if amounts.is_empty():
        return _NONE, ""
    which, most = amounts.row(0)
    others = amounts.filter(messages=most).height - 1
    also = f" (like {counted(others, f'other {noun}s')})" if others else ""
    return called(which), counted(most, "messages") + also


def _left_out(made: Cube) -> list[str]:
    filters = made.filters
    limits = [(filters.min_people or 1, "people"), (filters.min_cell, "messages")]
    fewer = " or ".join(f"fewer than {counted(least, of)}" for least, of in limits if least > 1)
    said = [
        (
            made.left_out,
            f"that remain of their week and side after the merging, which are of {fewer}",
        ),
        (made.values_left_out, f"from the means, since {fewer} of their day have words or scores"),
        (made.far, "from before 1990 or in the future"),
    ]
    return [f"Left out: {counted(n, 'messages')} {why}." for n, why in said if n]


def _json(made: Cube) -> str:
    """Return the cube as JSON without `<`, so that no name in it can close the script element."""
    content = {
        **packed(made),
        "zone": made.filters.timezone,
        "total": int(made.cells["messages"].sum()),
        "leftOut": made.left_out,
        "named": made.named,
        "ownChannels": made.own_channels,
        "own": made.own_people,
        "apart": made.own_people > 0 and made.own_people == made.named,
    }
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _hours(hour: int) -> str:
    return f"{hour:02}:00–{hour + 1:02}:00"  # noqa: RUF001


def _written(day: int) -> str:
    return written_day(date(1970, 1, 1) + timedelta(days=day))


def _shipped(name: str) -> str:
    return files("aico_lab.reports").joinpath(name).read_text(encoding="utf-8")
