"""Burstiness and memory of the times between a person's messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis
import polars as pl
from ibis import _

from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.checks import at_least
from aico_lab.metrics.engine.intervals import estimate, mean
from aico_lab.metrics.engine.metric import Column, Parameter, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


def _finish(rows: pl.DataFrame, _talk: Talk, min_intervals: int) -> pl.DataFrame:  # noqa: ARG001
    spread = pl.col("deviation") / pl.col("mean")
    n = pl.col("n_intervals")
    corrected = ((n + 1).sqrt() * spread - (n - 1).sqrt()) / (
        ((n + 1).sqrt() - 2) * spread + (n - 1).sqrt()
    )
    each = rows.filter(pl.col("mean") > 0).select(
        "role",
        known=True,
        n_intervals=n.cast(pl.Int64),
        n=pl.lit(1),
        b=(spread - 1) / (spread + 1),
        b_n=corrected,
        with_memory=pl.col("memory").is_not_null().cast(pl.Int64),
        m=pl.col("memory").fill_null(0.0),
    )
    found = estimate(
        each,
        by=["role"],
        unit="people",
        statistics={
            "burstiness": mean("b", "n", within=(-1, 1)),
            "corrected": mean("b_n", "n"),
            "memory": mean("m", "with_memory", within=(-1, 1)),
        },
    )
    return found.rename({"n_intervals": "intervals"})


def _describe(rows: pl.DataFrame) -> str:
    def tells(row: claims.Row) -> str:
        b, m = row["burstiness"], row["memory"]
        memory = "" if m is None else f", M = {m:z.2f}"
        people = claims.counted(row["n"], "people")
        return f"{claims.side(row)}: B = {b:z.2f}{memory}, mean of {people}"

    return claims.each(rows, tells)


def _draw(answer: Answer) -> Chart:
    named = {"burstiness": "B", "corrected": "B, corrected", "memory": "Memory M"}
    return draw.side_by_side(answer, named, "Mean over people, from -1 to 1", reference=0)


@metric(
    domain="time",
    question="Do people write evenly, at random or in bursts?",
    source="Goh and Barabasi (2008); corrected: Kim and Jo (2016)",
    parameters=[
        Parameter("min_intervals", int, 20, "The fewest intervals of a person, at least 2."),
    ],
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("n", "integer", "people"),
        Column(
            "intervals",
            "integer",
            "intervals between successive messages of the side with each person",
        ),
        Column("burstiness", "number", "mean burstiness B: -1 even, 0 random, 1 bursty"),
        interval("burstiness"),
        Column("corrected", "number", "mean burstiness B, corrected for few intervals"),
        interval("corrected"),
        Column("memory", "number", "mean memory M, the correlation of successive intervals"),
        interval("memory"),
    ],
    people="n",
    estimated="at neither end of an interval",
    finish=_finish,
    finding=_describe,
    chart=_draw,
)
def burstiness(talk: Talk, *, min_intervals: int) -> ir.Table:
    """Burstiness B and memory M of the intervals between successive messages of a person.

    B = (sigma - mu) / (sigma + mu), where mu is the mean and sigma the standard deviation (divided
    by n) of a person's n intervals, across all conversations. For the role assistant, these are the
    intervals between the companion's messages to one person. B cannot reach 1 if intervals are few,
    so `corrected` is B as corrected by Kim and Jo:
    (sqrt(n + 1) r - sqrt(n - 1)) / ((sqrt(n + 1) - 2) r + sqrt(n - 1)), r = sigma / mu. M is
    Pearson's correlation between each interval and the next one; it leaves out people for whom it
    is undefined, since all their intervals are equal. Values are means over people, who have the
    same weight. Left out are people with fewer than `min_intervals` intervals, messages without a
    named person, people whose messages all have the same time, and intervals that begin or end with
    an estimated time.
    """
    at_least("min_intervals", min_intervals, 2)
    known = talk.messages.filter(_.user_id.notnull())
    in_order = ibis.window(group_by=["role", "user_id"], order_by=["ts_ms", "id"])
    at_ms = ibis.ifelse(known.is_estimated, ibis.null("int64"), known.ts_ms)
    before, before_that = (at_ms.lag(steps).over(in_order) for steps in (1, 2))
    pairs = known.select(
        "role", "user_id", now=(at_ms - before) / 1000, last=(before - before_that) / 1000
    )
    paired = pairs.now.notnull() & pairs.last.notnull()
    each = pairs.group_by("role", "user_id").agg(
        n_intervals=pairs.now.count(),
        mean=pairs.now.mean(),
        deviation=pairs.now.std(how="pop"),
        correlation=pairs.now.corr(pairs.last, where=paired, how="pop"),
        varied=(pairs.now.std(where=paired, how="pop") > 0)
        & (pairs.last.std(where=paired, how="pop") > 0),
    )
    found = each.filter(each.n_intervals >= min_intervals)
    memory = ibis.ifelse(found.varied, found.correlation, ibis.null("float64"))
    return found.mutate(memory=memory).drop("varied", "correlation")
