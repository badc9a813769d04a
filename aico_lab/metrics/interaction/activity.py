"""Messages and active people by day, week and month."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import polars as pl

from aico_lab.metrics.engine import claims, periods
from aico_lab.metrics.engine.days import during, written_start
from aico_lab.metrics.engine.metric import PEOPLE, Column, metric

if TYPE_CHECKING:
    from collections.abc import Callable

    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart, Expression, Metric
    from aico_lab.metrics.engine.talk import Talk, Unit


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
    when = during(unit)
    tied = (wrote["n"] == top["n"]).sum() > 1
    when = claims.plural(when) if tied else when
    called = functools.partial(written_start, unit=unit)
    which = f"Most was written {when} {claims.leading(wrote, 'n', 'start', called=called)}"
    if wrote.height == 1:
        which = f"All was written {when} {called(top['start'])}"
    elif tied:
        return f"{which}: {claims.counted(top['n'], 'messages')}"
    unfinished = "" if top["complete"] else f" (the {unit} is unfinished)"
    # Those of the chart: people to whom only the companion wrote are not among them.
    whom = f"; {claims.counted(top['users'], 'people')} wrote" if top["users"] else ""
    return (
        f"{which}: {claims.counted(top['n'], 'messages')} in "
        f"{claims.counted(top['conversations'], 'conversations')}{whom}{unfinished}"
    )


def _draw_activity(answer: Answer, unit: Unit) -> Chart:
    import altair as alt

    panels = (periods.bars(answer, unit, value, height=130) for value in ("n", "users"))
    return alt.vconcat(*panels).resolve_scale(x="shared")


def _declare(unit: Unit) -> Callable[[Expression], Metric]:
    return metric(
        domain="interaction",
        question=f"How much is written each {unit}, and by how many people?",
        source="Active users, as in usage analytics; unfinished periods as in chat-analytics",
        columns=_ACTIVITY,
        far="left out",
        estimated="among them",
        finish=functools.partial(periods.on_calendar, unit=unit),
        finding=functools.partial(_describe_activity, unit=unit),
        chart=functools.partial(_draw_activity, unit=unit),
    )


@_declare("day")
def daily_activity(talk: Talk) -> ir.Table:
    """Messages, people and conversations of each local day, from the first day to the last.

    Days without messages have 0. Users are named people who wrote themselves (role user); people
    also include those to whom only the companion wrote. A day is complete unless the data or the
    filters begin or end in it.
    """
    return _activity(talk, "day")


@_declare("week")
def weekly_activity(talk: Talk) -> ir.Table:
    """Messages, people and conversations of each local week (Monday to Sunday), first to last.

    Weeks without messages have 0. Users are named people who wrote themselves (role user); people
    also include those to whom only the companion wrote. A person who wrote on several days counts
    once. A week is complete unless the data or the filters begin or end in it.
    """
    return _activity(talk, "week")


@_declare("month")
def monthly_activity(talk: Talk) -> ir.Table:
    """Messages, people and conversations of each calendar month, from the first to the last.

    Months without messages have 0. Users are named people who wrote themselves (role user); people
    also include those to whom only the companion wrote. A person who wrote on several days counts
    once. A month is complete unless the data or the filters begin or end in it.
    """
    return _activity(talk, "month")
