"""The mean sentiment of each day, week or month."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import polars as pl
from ibis import _

from aico_lab.mart.sums import total
from aico_lab.metrics.engine import claims, draw, periods
from aico_lab.metrics.engine.days import written_start
from aico_lab.metrics.engine.intervals import COUNTED, FEWEST, MOST, UNIT, UNITS, estimate, mean
from aico_lab.metrics.engine.metric import NOTE, PEOPLE, Column, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk

_PERIOD = "_period"


def _finish(rows: pl.DataFrame, talk: Talk, *, period: Literal["week", "month"]) -> pl.DataFrame:
    found = estimate(
        rows,
        by=["start"],
        unit=talk.units,
        counted="scored messages",
        statistics={"mean": mean("total", "n_scored", within=(-1, 1))},
    )
    found = found.rename({"n_scored": "n"}).with_columns(pl.col("n").cast(pl.Int64))
    found = periods.on_calendar(found, talk, period)
    few = found.filter(pl.col(UNITS).is_between(1, FEWEST - 1)).height
    note = f"the sentence is about the {period}s with {FEWEST} or more" if few else None
    return found.with_columns(pl.lit(period).alias(_PERIOD), pl.lit(note).alias(NOTE))


def _describe(rows: pl.DataFrame) -> str:
    known = rows.filter(pl.col("mean").is_not_null())
    if known.is_empty():
        return "Too little data: no message that is shown has a score"
    sure = known.filter(pl.col(UNITS) >= FEWEST)
    unit = known[_PERIOD][0]
    if sure.is_empty():
        best = known.row(known[UNITS].arg_max() or 0, named=True)
        return f"{claims.too_little(best[UNITS], best[UNIT])} in one {unit}"
    ordered = sure.sort("mean", maintain_order=True)
    low, high = ordered.row(0, named=True), ordered.row(-1, named=True)
    least = min((low, high), key=lambda row: row[UNITS])
    most = max(low[MOST], high[MOST])
    doubt = claims.doubt(least[UNITS], least[UNIT], most, least[COUNTED])
    when = "the week from " if unit == "week" else ""
    first, second = (f"{when}{written_start(row['start'], unit)}" for row in (low, high))
    if low["start"] == high["start"]:
        return f"Mean sentiment {high['mean']:+z.3f} in {first}{doubt}"
    apart = claims.extremes_differ(
        (low["mean_low"], low["mean_high"]),
        (high["mean_low"], high["mean_high"]),
        units=least[UNITS],
        groups=sure.height,
    )
    change = "" if apart else ", no clear difference"
    if f"{low['mean']:+z.3f}" == f"{high['mean']:+z.3f}":
        within = claims.counted(sure.height, f"{unit}s")
        return f"Mean sentiment always {high['mean']:+z.3f}, in {within}{doubt}"
    return (
        f"Mean sentiment between {low['mean']:+z.3f} ({first}) and "
        f"{high['mean']:+z.3f} ({second}){change}{doubt}"
    )


def _draw(answer: Answer) -> Chart:
    import altair as alt

    unit = answer.parameters["period"]
    rows = periods.recent(answer, unit)
    x = periods.axis(answer, unit).scale(periods.span(rows))
    base = alt.Chart(rows).encode(x, color=periods.colour(rows))
    y = alt.Y("mean:Q", title=draw.label(answer, "mean")).scale(zero=False)
    zero = alt.Chart(pl.DataFrame({"at": [0]})).mark_rule(strokeDash=[4, 4], opacity=0.5)
    return alt.layer(
        zero.encode(y=alt.YDatum(0)),
        *draw.intervals(base, rows, "mean", along="y"),
        base.mark_point(size=50, opacity=1).encode(
            y,
            tooltip=[alt.Tooltip("start:T", format="%-d %b %Y"), "mean:Q", "n:Q", "people:Q"],
        ),
    ).properties(width=draw.WIDTH, height=220)


@metric(
    domain="usage",
    question="How does the mood change from week to week, or from month to month?",
    source="Scores as in sentiment; intervals over people",
    parameters=[periods.WEEK_OR_MONTH],
    columns=[
        Column("start", "date", "first day of the period"),
        Column("n", "integer", "messages with a sentiment score"),
        PEOPLE,
        Column("mean", "number", "mean sentiment score, from -1 to 1"),
        interval("mean"),
        periods.COMPLETE,
    ],
    finish=_finish,
    finding=_describe,
    nothing="No message has a score.",
    far="left out",
    estimated="among them",
    chart=_draw,
)
def mood_over_time(talk: Talk, *, period: Literal["week", "month"]) -> ir.Table:
    """The mean score of the messages of each local week or month, from the first to the last.

    Periods without a scored message have no mean. The finding names the lowest and the highest
    mean, only among periods with at least 10 people (or conversations, if fewer than two people
    are named). Whether these two differ beyond chance is judged with Bonferroni's correction for
    all pairs of such periods; `trend` tests whether the mood rises or falls. Scores are those of
    `sentiment`.
    """
    days = talk.daily.mutate(start=periods.start_of(talk.daily, period))
    scored = days.filter(days.n_scored > 0)
    return talk.by_unit(scored, "start", n_scored=_.n_scored.sum(), total=total(_.sentiment_sum))
