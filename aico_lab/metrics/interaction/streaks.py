"""Streaks: consecutive days on which a person writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis
import polars as pl
from ibis import _

from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import FEWEST, TOTAL
from aico_lab.metrics.engine.metric import Column, RoleFilter, interval, metric
from aico_lab.metrics.engine.shares import with_share

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


def _finish(rows: pl.DataFrame, _talk: Talk) -> pl.DataFrame:
    found = rows.sort("days").with_columns(
        people=pl.col("n").sum(), longer=pl.col("n").cum_sum(reverse=True)
    )
    several = pl.col("n").filter(pl.col("days") > 1).sum() * 100 / pl.col("people")
    found = found.with_columns(several.alias(TOTAL))
    return with_share(with_share(found, "n", "people", "share"), "longer", "people", "at_least")


def _describe(rows: pl.DataFrame) -> str:
    people = int(rows["people"][0])
    longest = rows.row(-1, named=True)["days"]
    hidden = " that is shown" if rows["n"].sum() < people else ""
    said = f"the longest streak{hidden} had {claims.counted(longest, 'days')}"
    share = rows[TOTAL][0]
    if people < FEWEST:
        return f"{claims.too_little(people, 'people')}; {said}"
    return (
        f"{share:.0f} % of {claims.counted(people, 'people')} wrote on two or more consecutive "
        f"days; {said}{claims.doubt(people, 'people')}"
    )


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = answer.pl()
    shortest, longest = rows["days"].to_list()[0], rows["days"].to_list()[-1]
    y = alt.Y("at_least:Q", title="People with a streak of at least that many days (%)")
    y = y.scale(domain=[0, 100])
    x = alt.X("days:Q", title=f"Consecutive days ({answer.filters.timezone})")
    x = x.axis(draw.whole(longest + 1))
    if shortest == longest:  # a line of one point would be nothing but the point
        bar = alt.Chart(rows).encode(x.scale(domain=[0, longest + 1], nice=False))
        ends = draw.intervals(bar, rows, "at_least", along="y", on_bars=True)
        layers = [bar.mark_bar(size=24).encode(y), *ends]
        return alt.layer(*layers).properties(width=draw.WIDTH, height=220)
    base = alt.Chart(rows).encode(x.scale(domain=[0, longest], nice=False))
    first = rows.head(1).with_columns(pl.lit(1, pl.Int64).alias("days"))
    steps = alt.Chart(pl.concat([first, rows]) if shortest > 1 else rows)
    layers = [
        steps.mark_line(interpolate="step-before").encode(x, y),
        base.mark_point(opacity=1, size=50).encode(y),
    ]
    if rows["at_least_low"].null_count() < rows.height:
        band = base.mark_area(opacity=0.25, interpolate="step-before")
        layers.insert(0, band.encode(alt.Y("at_least_low:Q"), alt.Y2("at_least_high:Q")))
    return alt.layer(*layers).properties(width=draw.WIDTH, height=220)


@metric(
    domain="interaction",
    question="On how many days in a row do people write?",
    source="Streaks, as in usage analytics; intervals: Wilson (1927)",
    columns=[
        Column("days", "integer", "length of a person's longest streak, in days"),
        Column("n", "integer", "people whose longest streak has this length"),
        Column("people", "integer", "people who wrote, in every row"),
        Column("share", "number", "share of all people whose longest streak has this length", "%"),
        interval("share", "%"),
        Column("at_least", "number", "share of people with a streak of at least `days` days", "%"),
        interval("at_least", "%"),
    ],
    people="n",
    of_all=True,
    finish=_finish,
    finding=_describe,
    estimated="among them",
    chart=_draw,
    role=RoleFilter.REFUSED,
)
def streaks(talk: Talk) -> ir.Table:
    """The distribution of each person's longest streak: consecutive local days with a message.

    The people are named people who wrote (role user) in the period. Streaks are cut at both ends of
    the period and of the data. Lengths that are nobody's longest streak have no row.
    """
    days = talk.daily.filter(_.role == "user", _.user_id.notnull())
    days = days.select("user_id", "date").distinct()
    in_order = ibis.window(group_by="user_id", order_by="date")
    up_to_here = ibis.window(group_by="user_id", order_by="date", preceding=None, following=0)
    before = days.date.lag().over(in_order)
    marked = days.mutate(begins=ibis.coalesce(before + ibis.interval(days=1) != days.date, True))
    numbered = marked.mutate(streak=marked.begins.cast("int64").sum().over(up_to_here))
    each = numbered.group_by("user_id", "streak").agg(days=_.count())
    longest = each.group_by("user_id").agg(days=_.days.max())
    return longest.group_by("days").agg(n=_.count())
