"""Interaction metrics: how much is written and by how many people."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import polars as pl
from ibis import _

from aico_lab.metrics import claims, draw, periods
from aico_lab.metrics.intervals import FEWEST, UNITS, estimate, percent
from aico_lab.metrics.registry import CATALOGUE, PEOPLE, Column, interval

if TYPE_CHECKING:
    from collections.abc import Callable

    import ibis.expr.types as ir

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.registry import Chart, Expression
    from aico_lab.metrics.talk import Talk, Unit

_ACTIVITY: Final = [
    Column("start", "date", "first day of the period"),
    Column("n", "integer", "messages"),
    Column("users", "integer", "people who wrote"),
    PEOPLE,
    Column("conversations", "integer", "conversations in which something was written"),
    periods.COMPLETE,
]


def _activity(talk: Talk, unit: Unit) -> ir.Table:
    days = talk.daily.mutate(start=periods.start_of(talk.daily, unit))
    return days.group_by("start").agg(
        n=days.n_messages.sum(),
        users=days.user_id.nunique(where=days.role == "user"),
        people=days.user_id.nunique(),
        conversations=days.conversation_id.nunique(),
    )


def _describe_activity(rows: pl.DataFrame, unit: Unit) -> str:
    wrote = rows.filter(pl.col("n") > 0)
    if wrote.is_empty():
        return f"Too little data: nothing was written in the {unit}s that are shown"
    top = wrote.row(wrote["n"].arg_max() or 0, named=True)
    when = {"day": "on", "week": "in the week from", "month": "in the month from"}[unit]
    which = f"Most was written {when} {claims.leading(wrote, 'n', 'start')}"
    if wrote.height == 1:
        which = f"All was written {when} {top['start']}"
    elif (wrote["n"] == top["n"]).sum() > 1:
        return f"{which}: {claims.counted(top['n'], 'messages')}"
    unfinished = "" if top["complete"] else f" (the {unit} is unfinished)"
    whom = f" with {claims.counted(top['people'], 'people')}" if top["people"] else ""
    return (
        f"{which}: {claims.counted(top['n'], 'messages')}{whom} in "
        f"{claims.counted(top['conversations'], 'conversations')}{unfinished}"
    )


def _draw_activity(answer: Answer, unit: Unit) -> Chart:
    import altair as alt

    panels = (periods.bars(answer, unit, value, height=130) for value in ("n", "users"))
    return alt.vconcat(*panels).resolve_scale(x="shared")


def _declare(unit: Unit) -> Callable[[Expression], Expression]:
    return CATALOGUE.metric(
        domain="interaction",
        question=f"How much is written in each {unit}, and by how many people?",
        source="Active users of usage analytics; the unfinished periods as in chat-analytics",
        columns=_ACTIVITY,
        far="left out",
        finish=functools.partial(periods.on_calendar, unit=unit),
        finding=functools.partial(_describe_activity, unit=unit),
        chart=functools.partial(_draw_activity, unit=unit),
    )


@_declare("day")
def daily_activity(talk: Talk) -> ir.Table:
    """Messages, people and conversations of each local day, from the first to the last one.

    Days on which nobody wrote are 0. Users are those who wrote themselves (role user) and are
    known; people are also those to whom only the companion wrote. A day is complete unless the data
    or the filters begin or end in it.
    """
    return _activity(talk, "day")


@_declare("week")
def weekly_activity(talk: Talk) -> ir.Table:
    """Messages, people and conversations of each week from Monday, from the first to the last one.

    Weeks in which nobody wrote are 0. Users are those who wrote themselves (role user) and are
    known; people are also those to whom only the companion wrote. Who wrote on several days counts
    once. A week is complete unless the data or the filters begin or end in it.
    """
    return _activity(talk, "week")


@_declare("month")
def monthly_activity(talk: Talk) -> ir.Table:
    """Messages, people and conversations of each calendar month, from the first to the last one.

    Months in which nobody wrote are 0. Users are those who wrote themselves (role user) and are
    known; people are also those to whom only the companion wrote. Who wrote on several days counts
    once. A month is complete unless the data or the filters begin or end in it.
    """
    return _activity(talk, "month")


def _finish_stickiness(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
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
        statistics={"stickiness": percent("days_active", "possible")},
    )
    found = found.with_columns(pl.col("n").cast(pl.Int64))
    months = periods.on_calendar(found, talk, "month").with_columns(days=days)
    return months.with_columns(daily=pl.col("days_active").fill_null(0) / pl.col("days"))


def _describe_stickiness(rows: pl.DataFrame) -> str:
    known = rows.filter(pl.col("stickiness").is_not_null())
    finished = known.filter("complete", pl.col(UNITS) >= FEWEST).tail(1)
    if known.is_empty():
        return "Too little data: nobody wrote in the months that are shown"
    if finished.is_empty():
        return (
            f"Too little data: {claims.counted(known.height, 'months')}, none of them finished "
            f"and with {FEWEST} people"
        )
    row = finished.row(0, named=True)
    return (
        f"In {row['start']:%B %Y} a person who wrote at all did so on {row['stickiness']:.1f} % "
        f"of the days: {row['daily']:.1f} of {claims.counted(row['n'], 'people')} on an average "
        f"day{claims.doubt(row[UNITS], 'people')}"
    )


def _draw_stickiness(answer: Answer) -> Chart:
    import altair as alt

    rows = periods.recent(answer, "month").with_columns(middle=pl.col("start").dt.offset_by("14d"))
    ends = alt.Y("stickiness_low:Q", title="Daily of monthly active people (%)")
    base = alt.Chart(rows).encode(
        periods.axis(answer, "month", "middle").scale(padding=20), color=periods.colour()
    )
    return alt.layer(
        base.mark_rule(strokeWidth=3, opacity=0.45).encode(
            ends.scale(zero=True), alt.Y2("stickiness_high:Q")
        ),
        base.mark_point(size=70, opacity=1).encode(alt.Y("stickiness:Q")),
    ).properties(width=draw.WIDTH, height=200)


@CATALOGUE.metric(
    domain="interaction",
    question="How often do people who write in a month come by?",
    source="DAU/MAU, the ratio of daily to monthly active users of usage analytics",
    columns=[
        Column("start", "date", "first day of the month"),
        Column("n", "integer", "people who wrote in the month"),
        Column("daily", "number", "mean of the people who wrote on a day"),
        Column("stickiness", "number", "daily of monthly active people", "%"),
        interval("stickiness", "%"),
        periods.COMPLETE,
    ],
    people="n",
    far="left out",
    finish=_finish_stickiness,
    finding=_describe_stickiness,
    chart=_draw_stickiness,
    role="none",
)
def stickiness(talk: Talk) -> ir.Table:
    """Mean daily active people of a month, divided by the people who were active in it (DAU/MAU).

    Active is who wrote (role user) and is known. The mean is over all local days of the month that
    lie between the first and the last day of the data and the filters, also those on which nobody
    wrote. The same number is the share of these days on which a person of the month wrote, in the
    mean over people. Months in which the data or the filters begin or end are not complete, nor
    comparable with others: the fewer days, the larger the ratio.
    """
    people = talk.daily.filter(_.role == "user", _.user_id.notnull())
    people = people.mutate(start=periods.start_of(people, "month"))
    return people.group_by("start", "user_id").agg(days_active=_.date.nunique())
