"""Temporal behaviour: the rhythm of days and weeks, and when it changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import polars as pl
from ibis import _

from aico_lab.metrics import draw
from aico_lab.metrics.registry import CATALOGUE, Column

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.registry import Chart
    from aico_lab.metrics.talk import Talk

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _finish_heatmap(rows: pl.DataFrame, _talk: Talk) -> pl.DataFrame:
    if rows.is_empty():
        return rows.with_columns(
            pl.lit(None, pl.String).alias("weekday"), pl.lit(None, pl.Float64).alias("share")
        )
    slots = pl.DataFrame({"day": [d for d in range(7) for _ in range(24)],
                          "hour": list(range(24)) * 7})  # fmt: skip
    rows = rows.with_columns(pl.col("day", "hour").cast(pl.Int64))
    filled = slots.join(rows, on=["day", "hour"], how="left", maintain_order="left")
    return filled.with_columns(
        pl.col("day").replace_strict(dict(enumerate(WEEKDAYS))).alias("weekday"),
        pl.col("n").fill_null(0),
        share=pl.col("n").fill_null(0) * 100 / pl.col("n").sum(),
    )


def _draw_heatmap(answer: Answer) -> Chart:
    zone = answer.filters.timezone
    return (
        alt.Chart(answer.pl())
        .mark_rect(stroke="white")
        .encode(
            alt.X("hour:O", title=f"Hour of the day ({zone})").axis(labelAngle=0),
            alt.Y("weekday:O", title="Day of the week", sort=list(WEEKDAYS)),
            alt.Color("n:Q", title="Messages").scale(scheme="blues").legend(orient="right"),
        )
        .properties(width=draw.WIDTH - 40, height=190)
    )


def _busiest(rows: pl.DataFrame) -> str:
    top = rows.sort("n", descending=True).row(0, named=True)
    first, last = f"{top['hour']:02d}:00", f"{top['hour'] + 1:02d}:00"
    return (
        f"Most is written on {top['weekday']} from {first} to {last} "
        f"({top['n']:,} messages, {top['share']:.1f} %)"
    )


@CATALOGUE.metric(
    domain="time",
    question="At which hours of the week do people write?",
    source="chat-analytics' weekday by hour heatmap, in the zone of the question",
    columns=[
        Column("weekday", "text", "day of the week"),
        Column("hour", "integer", "hour of the day, from 0 to 23"),
        Column("n", "integer", "messages"),
        Column("share", "number", "share of all messages", "%"),
    ],
    finish=_finish_heatmap,
    finding=_busiest,
    chart=_draw_heatmap,
)
def week_heatmap(talk: Talk) -> ir.Table:
    """Messages by local weekday and hour; hours in which nobody wrote are 0."""
    return talk.messages.group_by(day=_.local_ts.day_of_week.index(), hour=_.local_ts.hour()).agg(
        n=_.count()
    )
