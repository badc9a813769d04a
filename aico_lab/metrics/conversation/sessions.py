"""The number, duration and size of sessions by week."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from ibis import _

from aico_lab.constants import MS_PER_MINUTE
from aico_lab.metrics.engine import claims, draw, periods
from aico_lab.metrics.engine.checks import GAP_MINUTES, SCOPE, to_gap_ms
from aico_lab.metrics.engine.days import written_day
from aico_lab.metrics.engine.durations import duration
from aico_lab.metrics.engine.intervals import estimate, mean
from aico_lab.metrics.engine.metric import PEOPLE, Column, RoleFilter, interval, metric
from aico_lab.metrics.engine.talk import Scope, period

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


def _finish(rows: pl.DataFrame, talk: Talk, **_expressions: Any) -> pl.DataFrame:
    found = estimate(
        rows.with_columns(minutes_of_all=pl.col("ms").cast(pl.Float64) / MS_PER_MINUTE),
        by=["start"],
        unit=talk.units,
        counted="sessions",
        statistics={
            "minutes": mean("minutes_of_all", "sessions", scale="log"),
            "messages": mean("n_messages", "sessions", scale="log"),
            "turns": mean("n_turns", "sessions", scale="log"),
        },
    )
    found = found.rename({"sessions": "n"}).with_columns(pl.col("n").cast(pl.Int64))
    return periods.on_calendar(found, talk, "week")


def _describe(rows: pl.DataFrame) -> str:
    known = rows.filter(pl.col("minutes").is_not_null())
    if known.is_empty():
        return "Too little data: no session begins in these weeks"
    total = int(known["n"].sum())
    usual = duration(60 * float((known["n"] * known["minutes"]).sum()) / total)
    said = f"{claims.counted(total, 'sessions')}, {usual} on average"
    top = claims.leading(known, "n", "start", called=written_day)
    if known.height == 1:
        return f"{said}, all in the week from {top}"
    most = max(known["n"].to_list())
    weeks = "week" if known["n"].to_list().count(most) == 1 else "weeks"
    return f"{said}; the most, {most:,}, in the {weeks} from {top}"


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = periods.recent(answer, "week")
    base = alt.Chart(rows).encode(periods.axis(answer, "week"), color=periods.colour(rows))
    y = alt.Y("minutes:Q", title=draw.label(answer, "minutes")).scale(zero=True)
    minutes = alt.layer(
        *draw.intervals(base, rows, "minutes", along="y"),
        base.mark_point(size=50, opacity=1).encode(y),
    ).properties(width=draw.WIDTH, height=150)
    return alt.vconcat(periods.bars(answer, "week", "n"), minutes).resolve_scale(x="shared")


@metric(
    domain="conversation",
    question="How many sessions are there in each week, and how long do they last?",
    source="Sessions separated by 30 minutes of silence, as in web analytics and chat-analytics",
    parameters=[GAP_MINUTES, SCOPE],
    columns=[
        Column("start", "date", "first day of the week, a Monday"),
        Column("n", "integer", "sessions that began in the week"),
        PEOPLE,
        Column("minutes", "number", "mean duration of a session", "min"),
        interval("minutes", "min"),
        Column("messages", "number", "mean messages of a session"),
        interval("messages"),
        Column(
            "turns", "number", "mean turns of a session; 30 minutes of silence always end a turn"
        ),
        interval("turns"),
        periods.COMPLETE,
    ],
    far="left out",
    estimated="among them",
    finish=_finish,
    finding=_describe,
    chart=_draw,
    role=RoleFilter.REFUSED,
)
def sessions(talk: Talk, *, gap_minutes: float, scope: Scope) -> ir.Table:
    """Sessions of each week: stretches of a conversation without a silence above `gap_minutes`.

    A session counts in the local week of its first message. Weeks without a session have 0. A week
    is complete unless the data or the filters begin or end in it. A session lasts from its first
    message to its last, so a session of a single message has duration 0: reading time is unknown.

    With the scope `person`, a session is a stretch of all messages between a person and the
    companion, in any conversation: going on in another conversation does not begin a new session.
    Messages without a named person stay in their conversation.
    """
    made = talk.sessions(to_gap_ms(gap_minutes), scope)
    made = made.mutate(start=period(made.local_ts, "week"))
    return talk.by_unit(
        made,
        "start",
        sessions=_.count(),
        ms=(_.ended_ms - _.started_ms).sum(),
        n_messages=_.n_messages.sum(),
        n_turns=_.n_turns.sum(),
    )
