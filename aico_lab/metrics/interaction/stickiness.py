"""Stickiness: daily active people divided by monthly active people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from ibis import _

from aico_lab.metrics.engine import claims, draw, periods
from aico_lab.metrics.engine.intervals import FEWEST, UNITS, estimate, percent
from aico_lab.metrics.engine.metric import Column, RoleFilter, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


def _finish(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    days = (
        pl.min_horizontal(
            pl.col("start").dt.offset_by("1mo"), pl.lit(talk.last_day).dt.offset_by("1d")
        )
        - pl.max_horizontal("start", pl.lit(talk.first_day))
    ).dt.total_days()
    people = rows.drop("user_id").with_columns(pl.col("start").cast(pl.Date))
    found = estimate(
        people.with_columns(known=True, n=pl.lit(1), possible=days),
        by=["start"],
        unit="people",
        counted="days",
        statistics={"stickiness": percent("days_active", "possible")},
    )
    found = found.with_columns(pl.col("n").cast(pl.Int64))
    months = periods.on_calendar(found, talk, "month").with_columns(days=days)
    return months.with_columns(daily=pl.col("days_active").fill_null(0) / pl.col("days"))


def _describe(rows: pl.DataFrame) -> str:
    known = rows.filter(pl.col("stickiness").is_not_null())
    finished = known.filter("complete", pl.col(UNITS) >= FEWEST).tail(1)
    if known.is_empty():
        return "Too little data: nobody wrote in the months that are shown"
    if finished.is_empty():
        months = claims.counted(known.height, "months")
        if known.height == 1:
            return f"Too little data: {months}, unfinished or with fewer than {FEWEST} people"
        return f"Too little data: {months}, all unfinished or with fewer than {FEWEST} people"
    row = finished.row(0, named=True)
    return (
        f"In {row['start']:%B %Y} a person who wrote at all did so on {row['stickiness']:.1f} % "
        f"of the days: {row['daily']:.1f} of {claims.counted(row['n'], 'people')} on an average "
        f"day{claims.doubt(row[UNITS], 'people')}"
    )


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = periods.recent(answer, "month")
    y = alt.Y("stickiness:Q", title="Daily as a share of monthly active people (%)")
    x = periods.axis(answer, "month").scale(periods.span(rows))
    base = alt.Chart(rows).encode(x, color=periods.colour(rows))
    if rows["stickiness"].null_count() == rows.height:  # Vega warns of an axis without values
        base.data = rows.clear()
    return alt.layer(
        *draw.intervals(base, rows, "stickiness", along="y"),
        base.mark_point(size=70, opacity=1).encode(y.scale(zero=True)),
    ).properties(width=draw.WIDTH, height=200)


@metric(
    domain="interaction",
    question="On how many days of a month do its active people write?",
    source="DAU/MAU, the ratio of daily to monthly active users in usage analytics",
    columns=[
        Column("start", "date", "first day of the month"),
        Column("n", "integer", "people who wrote in the month"),
        Column("daily", "number", "mean number of people who wrote on a day"),
        Column("stickiness", "number", "daily as a share of the people of the month", "%"),
        interval("stickiness", "%"),
        periods.COMPLETE,
    ],
    people="n",
    far="left out",
    estimated="among them",
    finish=_finish,
    finding=_describe,
    chart=_draw,
    role=RoleFilter.REFUSED,
)
def stickiness(talk: Talk) -> ir.Table:
    """Mean daily active people of a month, divided by the people who were active in it (DAU/MAU).

    Active people are named people who wrote (role user). The mean is over all local days of the
    month within the data and the filters, including days without messages. Equivalently, it is the
    share of these days on which a person active in the month wrote, averaged over people. Months in
    which the data or the filters begin or end are not complete, and not comparable with others: the
    fewer days, the larger the ratio.
    """
    people = talk.daily.filter(_.role == "user", _.user_id.notnull())
    people = people.mutate(start=periods.start_of(people, "month"))
    return people.group_by("start", "user_id").agg(days_active=_.date.nunique())
