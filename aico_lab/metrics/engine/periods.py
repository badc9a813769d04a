"""Calendars of days, weeks and months without gaps, and whether each period is complete."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Final

import polars as pl
import polars.selectors as cs

from aico_lab import charts
from aico_lab.metrics.engine import draw
from aico_lab.metrics.engine.local_time import first_day_from
from aico_lab.metrics.engine.metric import Column, Parameter
from aico_lab.metrics.engine.talk import period

if TYPE_CHECKING:
    import altair as alt
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk, Unit

STEP: Final = {"day": "1d", "week": "1w", "month": "1mo"}
"""The polars duration of each period."""

DRAWN: Final = 400
"""The most periods of a chart; of more, only the last ones are drawn."""

_TICKS: Final = 8
"""The most labelled ticks on an axis of periods; on a narrow one, some labels are left out."""

_WEEKS: Final = (1, 2, 4, 8, 13, 26, 52, 104)
_MONTHS: Final = (1, 2, 3, 6, 12, 24, 60)
_OLDEST: Final = 100
"""Browsers take the years before this one for years of the 20th century."""

STATE: Final = (
    pl.when("complete").then(pl.lit("complete")).otherwise(pl.lit("unfinished")).alias("state")
)
"""`complete` in words."""

MARK: Final = pl.when("complete").then(pl.lit("")).otherwise(pl.lit("*"))
"""A mark for unfinished periods, where the state in words does not fit."""

DAY_WEEK_OR_MONTH: Final = Parameter(
    "period",
    str,
    "week",
    "A local day, a week (Monday to Sunday), or a calendar month.",
    choices=("day", "week", "month"),
)

WEEK_OR_MONTH: Final = Parameter(
    "period",
    str,
    "week",
    "A local week (Monday to Sunday), or a calendar month.",
    choices=("week", "month"),
)

COMPLETE: Final = Column(
    "complete", "truth", "whether the data and the filters cover the whole period"
)


def start_of(days: ir.Table, unit: Unit) -> ir.DateValue:
    """Return the first day of the period of each row of `Talk.daily`."""
    return period(days.date.cast("timestamp"), unit)


def calendar(talk: Talk, unit: Unit) -> pl.DataFrame:
    """Return all periods from the first to the last that data and filters cover.

    Returns:
        `start`, `end` (the day after the period), and `complete`: false if `since` or `until` cut
        the period, or if the data begin or end in it.
    """
    since, until = talk.bounds
    first = pl.select(pl.lit(talk.first_day, pl.Date).dt.truncate(STEP[unit])).item()
    starts = pl.date_range(first, talk.last_day, STEP[unit], eager=True).alias("start")
    complete = is_complete(
        talk,
        unit,
        known_since=talk.first_ms if since is None else max(since, talk.first_ms),
        known_until=talk.last_ms if until is None else min(until, talk.last_ms),
    )
    end = pl.col("start").dt.offset_by(STEP[unit])
    return starts.to_frame().with_columns(end=end, complete=complete)


def is_complete(
    talk: Talk, unit: Unit, *, known_since: int, known_until: int, start: str = "start"
) -> pl.Expr:
    """Return whether a period lies within the time span of which all messages are known.

    Args:
        talk: The source of the time zone.
        unit: The length of a period.
        known_since: The beginning of the span, in UTC milliseconds.
        known_until: The end of the span, in UTC milliseconds.
        start: The column of the period's first day.
    """
    zone = talk.filters.timezone
    first = first_day_from(known_since, zone)
    end = first_day_from(known_until + 1, zone) - 1  # the last day that has begun by then
    begins, ends = pl.col(start), pl.col(start).dt.offset_by(STEP[unit])
    return (begins.cast(pl.Int32) >= first) & (ends.cast(pl.Int32) <= end)


def on_calendar(rows: pl.DataFrame, talk: Talk, unit: Unit) -> pl.DataFrame:
    """Return a row for every period; missing ones have 0 for counts and null for other numbers.

    Args:
        rows: At most one row for each `start`; if empty, so is the result.
        talk: The source of the rows.
        unit: The length of a period.
    """
    periods = calendar(talk, unit)
    if rows.is_empty():
        periods = periods.clear()
    # DuckDB's sums of integers are decimals.
    rows = rows.with_columns(pl.col("start").cast(pl.Date), cs.decimal().cast(pl.Int64))
    joined = periods.join(rows, on="start", how="left", maintain_order="left")
    return joined.with_columns(pl.col(pl.Int64).fill_null(0))


def bars(
    answer: Answer,
    unit: Unit,
    value: str,
    *,
    title: str = "",
    height: int = 150,
    whole: bool = True,
) -> Chart:
    """Draw a value of every period as a bar as wide as the period, unfinished ones in grey.

    Args:
        answer: The answer, with `start` and `complete`.
        unit: The length of a period.
        value: The column of values.
        title: The title of the axis; by default the meaning of the column.
        height: The height in pixels.
        whole: Whether the values are counts.
    """
    import altair as alt

    rows = recent(answer, unit)
    y = alt.Y(f"{value}:Q", title=title or draw.label(answer, value))
    return (
        alt.Chart(rows)
        .mark_bar(stroke="white", strokeWidth=0.5 if rows.height < DRAWN // 4 else 0)
        .encode(
            axis(answer, unit),
            alt.X2("end:T"),
            y.axis(draw.whole(max(rows[value].to_list(), default=0))) if whole else y,
            alt.Y2Datum(0),
            colour(rows),
            tooltip=[alt.Tooltip("start:T", format="%-d %b %Y"), f"{value}:Q", "state:N"],
        )
        .properties(width=draw.WIDTH, height=height)
    )


def colour(rows: pl.DataFrame) -> alt.Color:
    """Return the colour encoding of `state`: unfinished periods are grey.

    The legend names only the states that occur; if all periods are complete, there is none.
    """
    import altair as alt

    states = {"complete": charts.BLUE, "unfinished": charts.GREY}
    found = {state: states[state] for state in states if state in set(rows["state"])}
    scale = alt.Scale(domain=list(found), range=list(found.values()))
    encoding = alt.Color("state:N", title=None, scale=scale)
    return encoding.legend(None) if list(found) == ["complete"] else encoding


def recent(answer: Answer, unit: Unit) -> pl.DataFrame:
    """Return the last `DRAWN` rows, with `end` (the day after the period) and `state` in words."""
    rows = answer.pl().tail(DRAWN)
    end = pl.col("start").dt.offset_by(STEP[unit])
    return rows.with_columns(STATE, end=pl.min_horizontal(end, pl.lit(date.max)))


def axis(answer: Answer, unit: Unit, column: str = "start") -> alt.X:
    """Return an axis of days.

    Altair writes a date as midnight without a zone, which browsers read as local time. So readers
    in any zone see the same days.
    """
    cut = f", the last {DRAWN} of {len(answer):,}" if len(answer) > DRAWN else ""
    starts = answer.pl()["start"].drop_nulls().tail(DRAWN).to_list()
    return axis_of(starts, unit, column, f"({answer.filters.timezone}{cut})")


def axis_of(starts: list[date], unit: Unit, column: str, note: str) -> alt.X:
    """Return an axis of days.

    Args:
        starts: The first day of every period, ascending and without gaps.
        unit: The length of a period.
        column: The column of days.
        note: What the title says besides the unit.
    """
    import altair as alt

    name = {"day": "Day", "week": "Week from Monday", "month": "Month"}[unit]
    encoding = alt.X(f"{column}:T", title=f"{name} {note}")
    pattern = "%b" if unit == "month" else "%-d %b"
    lines = f"[timeFormat(datum.value, '{pattern}'), timeFormat(datum.value, '%Y')]"
    days = ticks(starts, unit)
    if not days or days[0].year < _OLDEST:
        return encoding.axis(labelExpr=lines, labelAngle=0, labelOverlap=True, tickCount=_TICKS)
    values = [alt.DateTime(year=day.year, month=day.month, date=day.day) for day in days]
    return encoding.axis(labelExpr=lines, labelAngle=0, labelOverlap="greedy", values=values)


def span(rows: pl.DataFrame) -> alt.Scale:
    """Return the scale of an axis of all periods; by default, it has only those with a value.

    Args:
        rows: The rows of `recent`.
    """
    import altair as alt

    ends = rows.select(pl.col("start").min(), pl.col("end").max()).row(0)
    if ends[0] is None or ends[0].year < _OLDEST:
        return alt.Scale(padding=8)
    return alt.Scale(
        domain=[alt.DateTime(year=end.year, month=end.month, date=end.day) for end in ends],
        padding=8,
    )


def ticks(starts: list[date], unit: Unit) -> list[date]:
    """Return the first days of the periods that an axis labels, at equal distances.

    Weeks, and days of which there are many, are labelled on Mondays or on the first of a month.

    Args:
        starts: The first day of every period, ascending and without gaps.
        unit: The length of a period.
    """
    choices: list[list[date]] = []
    if unit == "day":
        mondays = [day for day in starts if not day.weekday()]
        choices = [starts, starts[::2], mondays, mondays[::2]]
    if unit == "week":
        choices = [starts[::step] for step in _WEEKS]
    else:
        firsts = [day for day in starts if day.day == 1]
        numbered = [(day.year * 12 + day.month - 1, day) for day in firsts]
        choices += [[day for at, day in numbered if not at % step] for step in _MONTHS]
    fitting = (days for days in choices if 1 < len(days) <= _TICKS)
    return next(fitting, starts[:: max(1, len(starts) // _TICKS)])
