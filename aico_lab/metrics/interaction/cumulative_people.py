"""The number of people who have written so far."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import polars as pl
from ibis import _

from aico_lab.metrics.engine import claims, periods
from aico_lab.metrics.engine.days import during, written_start
from aico_lab.metrics.engine.metric import Column, RoleFilter, metric
from aico_lab.metrics.engine.talk import as_date, days_of

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk, Unit

_FIRST = "_first"


def _finish(rows: pl.DataFrame, talk: Talk, *, period: Unit) -> pl.DataFrame:
    step = periods.STEP[period]
    starts = rows.group_by(start=pl.col("day").cast(pl.Date).dt.truncate(step)).agg(
        pl.col("n").sum().cast(pl.Int64)
    )
    found = periods.on_calendar(starts, talk, period)
    # The people of a row that is left out must not be the difference of its neighbours.
    least = max(talk.filters.min_people or 1, talk.filters.min_cell)
    told = pl.when(pl.col("n") >= least).then("n").otherwise(0)
    narrowed = talk.filters.since is not None or talk.filters.channels
    first = "for the first time in this selection" if narrowed else "first"
    return found.with_columns(
        people=told.cum_sum(), _period=pl.lit(period), **{_FIRST: pl.lit(first)}
    )


def _describe(rows: pl.DataFrame) -> str:
    last, unit = rows.row(-1, named=True), rows["_period"][0]
    people = claims.counted(last["people"], "people")
    new = rows.filter(pl.col("n") > 0)
    if not last["people"] or new.is_empty():
        return f"Too little data: nobody began to write in the {unit}s that are shown"
    when, called = during(unit), partial(written_start, unit=unit)
    within = claims.counted(rows.height, f"{unit}s")
    if new.height == 1:
        every = "" if last["people"] == 1 else "all "
        return f"{people} wrote, {every}{rows[_FIRST][0]} {when} {called(new['start'][0])}"
    by = "the week from " if unit == "week" else ""
    most = max(new["n"].to_list())
    if (new["n"] == most).sum() > 1:
        when = claims.plural(when)
    half = called(rows.filter(pl.col("people") * 2 >= last["people"])["start"][0])
    first = rows[_FIRST][0]
    began = f"the most new ones, {most:,}, began"
    if first != "first":  # filters hide earlier messages, so they need not be new
        began = f"most, {most:,}, wrote {first}"
    return (
        f"{people} wrote within {within}, half of them by {by}{half}; "
        f"{began} {when} {claims.leading(new, 'n', 'start', called=called)}"
    )


def _draw(answer: Answer) -> Chart:
    return periods.bars(answer, answer.parameters["period"], "people", height=200)


@metric(
    domain="interaction",
    question="How many people have written so far?",
    source="Cumulative users, as in usage analytics",
    parameters=[periods.DAY_WEEK_OR_MONTH],
    columns=[
        Column("start", "date", "first day of the period"),
        Column("n", "integer", "people who wrote in the period for the first time"),
        Column("people", "integer", "people who first wrote in a shown period up to the row's"),
        periods.COMPLETE,
    ],
    finish=_finish,
    finding=_describe,
    far="left out",
    estimated="among them",
    people="n",
    chart=_draw,
    role=RoleFilter.REFUSED,
)
def cumulative_people(talk: Talk, *, period: Unit) -> ir.Table:  # noqa: ARG001
    """The named people who wrote (role user) up to the end of each local day, week or month.

    A person counts from their first message that the filters select: with `since`, people who wrote
    before it as well count as new when they write again. Messages dated before 1990 or in the
    future, most likely wrongly, do not count, nor does a person who has no others, unless the
    filters ask for such times or the home has no other messages. Periods with fewer new people than
    `min_people` or `min_cell` are left out, and so are these people in later periods.
    """
    written = talk.messages.filter(_.role == "user", _.user_id.notnull())
    likely = talk.plausible(written, "ts_ms")
    firsts = likely.group_by("user_id").agg(local_ms=likely.local_ms.min())
    return firsts.group_by(day=as_date(days_of(firsts.local_ms))).agg(n=_.count())
