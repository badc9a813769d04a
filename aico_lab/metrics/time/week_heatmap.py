"""Messages by weekday and hour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
from ibis import _

from aico_lab import charts
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import TOTAL
from aico_lab.metrics.engine.local_time import WEEKDAYS
from aico_lab.metrics.engine.metric import PEOPLE, Column, metric
from aico_lab.metrics.engine.talk import hour_of_day, hours_of, weekday

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


_FEWEST_MESSAGES: Final = 168
"""One message for each hour of the week: with fewer, the busiest hour is due to chance."""


def _finish(rows: pl.DataFrame, _talk: Talk) -> pl.DataFrame:
    if rows.is_empty():
        return rows.with_columns(
            pl.lit(None, pl.String).alias("weekday"), pl.lit(None, pl.Float64).alias("share")
        )
    slots = pl.DataFrame({"day": [d for d in range(7) for _ in range(24)],
                          "hour": list(range(24)) * 7})  # fmt: skip
    rows = rows.with_columns(pl.col("day", "hour", "n").cast(pl.Int64))
    filled = slots.join(rows, on=["day", "hour"], how="left", maintain_order="left")
    return filled.with_columns(
        pl.col("day").replace_strict(dict(enumerate(WEEKDAYS))).alias("weekday"),
        pl.col("n", "people").fill_null(0),
        share=pl.col("n").fill_null(0) * 100 / pl.col("n").sum(),
        **{TOTAL: pl.col("n").sum()},
    )


def _draw(answer: Answer) -> Chart:
    import altair as alt

    zone = answer.filters.timezone
    most = max(1, *answer.pl()["n"].to_list())
    return (
        alt.Chart(answer.pl())
        .mark_rect(stroke="white", color=charts.BLUE)
        .encode(
            alt.X("hour:O", title=f"Hour of the day ({zone})").axis(labelAngle=0),
            alt.Y("weekday:O", title="Day of the week", sort=list(WEEKDAYS)),
            draw.shades("n", "Messages", most),
        )
        .properties(width=draw.WIDTH, height=190)
    )


def _busiest(rows: pl.DataFrame) -> str:
    wrote = rows.filter(pl.col("n") > 0)
    total = int(rows[TOTAL][0]) if rows.height else 0
    if total < _FEWEST_MESSAGES or wrote.is_empty():
        return claims.too_little(total, "messages", _FEWEST_MESSAGES)
    top = wrote.filter(pl.col("n") == pl.col("n").max())
    hours = top.with_columns(
        name=pl.format(
            "{} from {}:00 to {}:00", "weekday",
            pl.col("hour").cast(pl.String).str.zfill(2),
            (pl.col("hour") + 1).cast(pl.String).str.zfill(2),
        )
    )  # fmt: skip
    row = hours.row(0, named=True)
    # Tied hours may have different numbers of people.
    people = f" with {claims.counted(row['people'], 'people')}" if hours.height == 1 else ""
    return (
        f"Most was written on {claims.leading(hours, 'n', 'name')}: "
        f"{claims.counted(row['n'], 'messages')}{people}, {row['share']:.1f} % of {total:,}"
    )


@metric(
    domain="time",
    question="At which hours of the week do people write?",
    source="The weekday by hour heatmap of chat-analytics, in the chosen time zone",
    columns=[
        Column("weekday", "text", "day of the week"),
        Column("hour", "integer", "hour of the day, from 0 to 23"),
        Column("n", "integer", "messages"),
        PEOPLE,
        Column("share", "number", "share of all messages", "%"),
    ],
    finish=_finish,
    finding=_busiest,
    estimated="among them",
    chart=_draw,
)
def week_heatmap(talk: Talk) -> ir.Table:
    """Messages by local weekday and hour; hours without messages are 0.

    All messages of the period count, including those of an incomplete first or last week. When
    summer time ends, one hour of the night occurs twice; when it begins, one is missing.
    """
    hours = hours_of(talk.messages.local_ms)
    slots = talk.messages.group_by(day=weekday(hours // 24), hour=hour_of_day(hours))
    return slots.agg(n=_.count(), people=_.user_id.nunique())
