"""A calendar of days: on which days something was written, and the longest break."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Final

import polars as pl
from ibis import _

from aico_lab import charts
from aico_lab.metrics.engine import claims, draw, gaps, periods
from aico_lab.metrics.engine.days import written_day
from aico_lab.metrics.engine.local_time import WEEKDAYS
from aico_lab.metrics.engine.metric import PEOPLE, Column, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk

_WRITTEN: Final = "_written"
"""A hidden column: the number of days with messages, also of days that are left out."""


def _finish(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    days = periods.on_calendar(rows.rename({"date": "start"}), talk, "day")
    weekday = pl.col("start").dt.weekday() - 1
    return gaps.with_longest(days, "day").with_columns(
        weekday.replace_strict(dict(enumerate(WEEKDAYS)), return_dtype=pl.String).alias("weekday"),
        (pl.col("n") > 0).sum().alias(_WRITTEN),
    )


def _describe(rows: pl.DataFrame) -> str:
    first = rows.row(0, named=True)
    days = first[gaps.PERIODS]
    written = first[_WRITTEN]
    if written == days:
        return (
            f"Something was written on every day of {days:,}"
            if days > 1
            else (f"Everything was written on {written_day(first['start'])}")
        )
    longest = f"; {gaps.longest(first)}" if first[gaps.LENGTH] else ""
    return f"Something was written on {written:,} of {claims.counted(days, 'days')}{longest}"


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = periods.recent(answer, "day").with_columns(
        week=pl.col("start").dt.truncate("1w"),
    )
    rows = rows.with_columns(week_end=pl.col("week").dt.offset_by("1w"))
    cut = (
        f", the last {periods.DRAWN} of {len(answer):,} days" if len(answer) > periods.DRAWN else ""
    )
    weeks = periods.ticks(rows["week"].unique().sort().to_list(), "week")
    mondays = [alt.DateTime(year=day.year, month=day.month, date=day.day) for day in weeks]
    days = alt.Chart(rows).encode(
        alt.X("week:T", title=f"Week from Monday ({answer.filters.timezone}{cut})").axis(
            format="%-d %b %Y", labelAngle=0, labelOverlap="greedy", values=mondays
        ),
        alt.X2("week_end:T"),
        alt.Y("weekday:O", title=None).scale(domain=list(WEEKDAYS)),
        tooltip=[alt.Tooltip("start:T", format="%-d %b %Y"), "n:Q", "people:Q"],
    )
    # A day without messages must differ from one with few at a glance.
    none = alt.Scale(domain=["no messages"], range=[charts.LINES])
    square = alt.Legend(symbolType="square", symbolSize=160, symbolStrokeWidth=0)
    silent = days.mark_rect(stroke=charts.PAPER, strokeWidth=0.5).encode(
        alt.Color("none:N", title=" ", scale=none, legend=square)
    )
    counts = rows["n"].filter(rows["n"] > 0).to_list() or [1]
    written = days.mark_rect(stroke=charts.PAPER, strokeWidth=0.5, color=charts.BLUE).encode(
        draw.shades("n", "Messages", max(counts), median(counts), least=1)
    )
    # A layer without days has no extent, which Vega warns of.
    layers = (
        [silent.transform_filter("datum.n == 0").transform_calculate(none="'no messages'")]
        if (rows["n"] == 0).any()
        else []
    )
    layers += [written.transform_filter("datum.n > 0")] if (rows["n"] > 0).any() else []
    return alt.layer(*layers).properties(width=draw.WIDTH - 40, height=150)


@metric(
    domain="time",
    question="On which days was something written?",
    source="Calendar heatmaps, as in chat-analytics and version control",
    columns=[
        Column("start", "date", "the day"),
        Column("weekday", "text", "day of the week"),
        Column("n", "integer", "messages"),
        PEOPLE,
        periods.COMPLETE,
    ],
    finish=_finish,
    finding=_describe,
    far="left out",
    estimated="among them",
    of_all=True,
    chart=_draw,
)
def calendar_days(talk: Talk) -> ir.Table:
    """Messages and people of each local day, from the first to the last, as a calendar.

    Days without messages have 0. The finding names the longest run of such days, if there is one.
    """
    return talk.daily.group_by("date").agg(n=_.n_messages.sum(), people=_.user_id.nunique())
