"""The explorer of a page: charts and headline figures that follow filters in the page.

The page holds the aggregate cube (`aico_lab.reports.cube`), and `explorer.js` sums it again at each
change of a filter. Where scripts do not run, the figures of the whole selection stay.
"""

from __future__ import annotations

import json
from datetime import date, timedelta
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from aico_lab.charts import Html
from aico_lab.metrics.engine.claims import counted
from aico_lab.reports.cube import SCORE_UNITS, Cube, cube
from aico_lab.reports.merging import WEEK
from aico_lab.reports.packing import packed

if TYPE_CHECKING:
    from aico_lab.lab import Lab


class ExplorerTile(NamedTuple):
    """A headline figure.

    Attributes:
        name: The name by which `explorer.js` finds it.
        label: The label.
        value: The value for the whole selection.
        note: What the value is a part of, or rests on.
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
        f'<div data-tile="{tile.name}"><dt>{escape(tile.label)}</dt>'
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
    least = "≥ " if cells.filter(hour=WEEK)["messages"].sum() else ""
    span = counted(made.last_day - made.first_day + 1, "days")
    day, of_day = days.row(0) if days.height else (0, 0)
    hour, of_hour = hours.row(0) if hours.height else (0, 0)
    mood = all_["sentiment"] / SCORE_UNITS / scored if scored > 0 else None
    none = "–"  # noqa: RUF001 - a dash, as in tables
    return [
        ExplorerTile("messages", "Messages", f"{all_['messages']:,}"),
        ExplorerTile("days", "Days with messages", f"{least}{days.height:,}", f"of {span}"),
        ExplorerTile("people", "People", none if made.named is None else f"{made.named:,}"),
        ExplorerTile("sessions", "Sessions begun", f"{all_['sessions']:,}"),
        ExplorerTile(
            "day", "Busiest day", _iso(day) if of_day else none,
            counted(of_day, "messages") if of_day else "",
        ),
        ExplorerTile(
            "hour", f"Busiest hour ({made.filters.timezone})",
            f"{hour:02}:00–{hour + 1:02}:00" if of_hour else none,  # noqa: RUF001
            counted(of_hour, "messages") if of_hour else "",
        ),
        ExplorerTile(
            "mood", "Mean mood (−1 to 1)",  # noqa: RUF001
            none if mood is None else _signed(mood),
            counted(scored, "scored messages") if scored else "no scores",
        ),
        ExplorerTile(
            "words", "Words per message", f"{all_['words'] / worded:.1f}" if worded else none
        ),
    ]  # fmt: skip


def _most(cells: pl.DataFrame, by: str) -> pl.DataFrame:
    """Return the values of a column with messages, those with most first, and the messages."""
    sums = cells.group_by(by).agg(pl.col("messages").sum()).filter(pl.col("messages") > 0)
    return sums.sort("messages", by, descending=[True, False])


def _left_out(made: Cube) -> list[str]:
    filters = made.filters
    limits = [(filters.min_people or 1, "people"), (filters.min_cell, "messages")]
    fewer = " or ".join(f"fewer than {counted(least, of)}" for least, of in limits if least > 1)
    said = [
        (made.left_out, f"in weeks of {fewer}"),
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
        "named": made.named,
        "ownChannels": made.own_channels,
        "own": made.own_people,
        "apart": made.own_people > 0 and made.own_people == made.named,
    }
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _iso(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _signed(value: float) -> str:
    text = f"{abs(value):.2f}"
    sign = "" if text == "0.00" else "−" if value < 0 else "+"  # noqa: RUF001
    return sign + text


def _shipped(name: str) -> str:
    return files("aico_lab.reports").joinpath(name).read_text(encoding="utf-8")
