"""Conversation patterns: how many sessions, how long they are, and who begins and ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl
from ibis import _

from aico_lab.metrics import claims, draw, periods
from aico_lab.metrics.checks import to_gap_ms
from aico_lab.metrics.intervals import FEWEST, MOST, TOTAL, UNIT, UNITS, estimate, mean, percent
from aico_lab.metrics.registry import CATALOGUE, PEOPLE, Column, interval
from aico_lab.metrics.talk import Scope, period

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.registry import Chart
    from aico_lab.metrics.talk import Talk

_MS_OF_A_MINUTE: Final = 60_000

_LENGTHS: Final = {
    "under 1 min": 1,
    "1 to 5 min": 5,
    "5 to 15 min": 15,
    "15 to 30 min": 30,
    "30 to 60 min": 60,
    "1 to 2 h": 120,
    "2 to 6 h": 360,
    "6 h and more": None,
}
"""Each with the minutes below which it ends."""


def _finish_sessions(rows: pl.DataFrame, talk: Talk, **_expressions: Any) -> pl.DataFrame:
    found = estimate(
        rows.with_columns(minutes_of_all=pl.col("ms").cast(pl.Float64) / _MS_OF_A_MINUTE),
        by=["start"],
        unit=talk.units,
        statistics={
            "minutes": mean("minutes_of_all", "sessions", scale="log"),
            "messages": mean("n_messages", "sessions", scale="log"),
            "turns": mean("n_turns", "sessions", scale="log"),
        },
    )
    found = found.rename({"sessions": "n"}).with_columns(pl.col("n").cast(pl.Int64))
    return periods.on_calendar(found, talk, "week")


def _describe_sessions(rows: pl.DataFrame) -> str:
    known = rows.filter(pl.col("minutes").is_not_null())
    if known.is_empty():
        return "Too little data: no session begins in these weeks"
    total = int(known["n"].sum())
    minutes = float((known["n"] * known["minutes"]).sum()) / total
    said = f"{claims.counted(total, 'sessions')} of {minutes:.1f} minutes in the mean"
    top = claims.leading(known, "n", "start")
    if known.height == 1:
        return f"{said}, all in the week from {top}"
    most = max(known["n"].to_list())
    return f"{said}; most, {most:,}, in the week from {top}"


def _draw_sessions(answer: Answer) -> Chart:
    import altair as alt

    rows = periods.recent(answer, "week").with_columns(middle=pl.col("start").dt.offset_by("3d"))
    base = alt.Chart(rows).encode(periods.axis(answer, "week", "middle"), color=periods.colour())
    ends = alt.Y("minutes_low:Q", title=draw.label(answer, "minutes")).scale(zero=True)
    minutes = alt.layer(
        base.mark_rule(strokeWidth=3, opacity=0.45).encode(ends, alt.Y2("minutes_high:Q")),
        base.mark_point(size=50, opacity=1).encode(alt.Y("minutes:Q")),
    ).properties(width=draw.WIDTH, height=150)
    return alt.vconcat(periods.bars(answer, "week", "n"), minutes).resolve_scale(x="shared")


@CATALOGUE.metric(
    domain="conversation",
    question="How many sessions are there in each week, and how long do they last?",
    source="Sessions by a silence of 30 minutes, as in web analytics and chat-analytics",
    columns=[
        Column("start", "date", "the Monday of the week"),
        Column("n", "integer", "sessions that began in the week"),
        PEOPLE,
        Column("minutes", "number", "mean duration of a session", "min"),
        interval("minutes", "min"),
        Column("messages", "number", "mean messages of a session"),
        interval("messages"),
        Column("turns", "number", "mean turns of a session"),
        interval("turns"),
        periods.COMPLETE,
    ],
    far="left out",
    finish=_finish_sessions,
    finding=_describe_sessions,
    chart=_draw_sessions,
    role="none",
)
def sessions(talk: Talk, *, gap_minutes: float = 30.0, scope: Scope = "conversation") -> ir.Table:
    """A session is a stretch of a conversation without a longer silence than `gap_minutes`.

    It counts in the week of its first message, by the local time; weeks without one are 0, and a
    week is complete unless the data or the filters begin or end in it. A session lasts from its
    first message to its last one, so that a session of a single message lasts no time at all: how
    long it was read is not known.

    With the scope `person` it is a stretch of all that a person and the companion write to each
    other, in whatever conversations: who goes on in another one has not begun a new session. What
    is of nobody known stays in its conversation.

    Args:
        gap_minutes: A longer silence begins a new session; turns are those of 30 minutes.
        scope: Whether a session is within a conversation or over all those of a person.
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


def _finish_length(rows: pl.DataFrame, talk: Talk, **_expressions: Any) -> pl.DataFrame:
    places = range(len(_LENGTHS))
    found = estimate(
        rows,
        by=[],
        unit=talk.units,
        statistics={
            **{f"share{at}": percent(f"n{at}", "sessions") for at in places},
            **{f"messages{at}": mean(f"messages_of{at}", f"n{at}", scale="log") for at in places},
        },
    )
    numbers = [(what, end) for what in ("share", "messages") for end in ("", "_low", "_high")]
    shared = [UNITS, UNIT, MOST]
    return pl.DataFrame(
        [
            (
                name,
                row[f"n{at}"],
                row[f"_people_messages{at}"]
                if talk.by_person
                else min(row["people"], row[f"n{at}"]),
                *(row[column] for column in shared),
                row["sessions"],
                *(row[f"{what}{at}{end}"] for what, end in numbers),
            )
            for row in (found if rows.height else found.clear()).iter_rows(named=True)
            for at, name in enumerate(_LENGTHS)
        ],
        schema=["duration", "n", "people", *shared, TOTAL, *(what + end for what, end in numbers)],
        orient="row",
        infer_schema_length=None,
    )


def _describe_length(rows: pl.DataFrame) -> str:
    top = rows.row(rows["n"].arg_max() or 0, named=True)
    total = int(top[TOTAL])
    if top[UNITS] < FEWEST:
        return f"{claims.too_little(top[UNITS], top[UNIT])}; {claims.counted(total, 'sessions')}"
    lengths = claims.leading(rows, "n", "duration")
    return (
        f"The most frequent length of a session is {lengths}: {top['share']:.1f} % of "
        f"{claims.counted(total, 'sessions')}{claims.doubt(top[UNITS], top[UNIT], top[MOST])}"
    )


def _draw_length(answer: Answer) -> Chart:
    import altair as alt

    y = alt.Y("duration:O", title="Duration of the session", sort=list(_LENGTHS))
    base = alt.Chart(answer.pl()).encode(y)
    title = draw.label(answer, "share")
    return alt.layer(
        base.mark_bar(opacity=0.8).encode(alt.X("share:Q", title=title).scale(domainMin=0)),
        base.mark_rule(strokeWidth=2).encode(alt.X("share_low:Q"), alt.X2("share_high:Q")),
    ).properties(width=draw.WIDTH - 60, height=draw.LINE * len(answer))


@CATALOGUE.metric(
    domain="conversation",
    question="How long do sessions last?",
    source="Sessions by a silence of 30 minutes, as in web analytics and chat-analytics",
    columns=[
        Column("duration", "text", "from the first message to the last one"),
        Column("n", "integer", "sessions"),
        PEOPLE,
        Column("share", "number", "share of all sessions", "%"),
        interval("share", "%"),
        Column("messages", "number", "mean messages of these sessions"),
        interval("messages"),
    ],
    finish=_finish_length,
    finding=_describe_length,
    chart=_draw_length,
    role="none",
)
def session_length(
    talk: Talk, *, gap_minutes: float = 30.0, scope: Scope = "conversation"
) -> ir.Table:
    """How many sessions last how long, in fixed classes; each begins where the one before ends.

    A session lasts from its first message to its last one, so that those of a single message are
    among those under a minute.

    Args:
        gap_minutes: A longer silence begins a new session.
        scope: Whether a session is within a conversation or over all those of a person.
    """
    made = talk.sessions(to_gap_ms(gap_minutes), scope)
    ms = made.ended_ms - made.started_ms
    counts = {}
    low = 0
    for at, high in enumerate(_LENGTHS.values()):
        inside = ms >= low * _MS_OF_A_MINUTE
        if high is not None:
            inside &= ms < high * _MS_OF_A_MINUTE
            low = high
        counts[f"n{at}"] = inside.cast("int64").sum()
        counts[f"messages_of{at}"] = (inside.cast("int64") * made.n_messages).sum()
    return talk.by_unit(made, sessions=_.count(), **counts)


def _finish_initiative(rows: pl.DataFrame, talk: Talk, **_expressions: Any) -> pl.DataFrame:
    sides = [
        rows.select(
            "known",
            "sessions",
            role=pl.lit(role),
            started=started,
            ended=ended,
        )
        for role, started, ended in (
            (
                "assistant",
                pl.col("sessions") - pl.col("started"),
                pl.col("sessions") - pl.col("ended"),
            ),
            ("user", pl.col("started"), pl.col("ended")),
        )
    ]
    found = estimate(
        pl.concat(sides),
        by=["role"],
        unit=talk.units,
        statistics={
            "share_started": percent("started", "sessions"),
            "share_ended": percent("ended", "sessions"),
        },
    )
    return found.rename({"sessions": "n"})


def _describe_initiative(rows: pl.DataFrame) -> str:
    return claims.each(
        rows,
        lambda row: (
            f"{row['role']}: starts {row['share_started']:.1f} % of the sessions and ends "
            f"{row['share_ended']:.1f} %"
        ),
    )


def _draw_initiative(answer: Answer) -> Chart:
    names = {"share_started": "starts", "share_ended": "ends"}
    return draw.side_by_side(answer, names, "Share of the sessions (%)", reference=50)


@CATALOGUE.metric(
    domain="conversation",
    question="Who begins sessions, and who has the last word?",
    source="Sessions by a silence of 30 minutes, as in web analytics and chat-analytics",
    columns=[
        Column("role", "text", "the side"),
        Column("n", "integer", "sessions"),
        PEOPLE,
        Column("share_started", "number", "share of the sessions that it starts", "%"),
        interval("share_started", "%"),
        Column("share_ended", "number", "share of the sessions that it ends", "%"),
        interval("share_ended", "%"),
    ],
    finish=_finish_initiative,
    finding=_describe_initiative,
    chart=_draw_initiative,
)
def initiative(talk: Talk, *, gap_minutes: float = 30.0, scope: Scope = "conversation") -> ir.Table:
    """Which side wrote the first and which the last message of sessions.

    A session of a single message is begun and ended by the same side. Who comes back after a
    silence is who begins a session, also in the middle of a conversation.

    Args:
        gap_minutes: A longer silence begins a new session.
        scope: Whether a session is within a conversation or over all those of a person.
    """
    made = talk.sessions(to_gap_ms(gap_minutes), scope)
    return talk.by_unit(
        made,
        sessions=_.count(),
        started=(_.started_by == "user").cast("int64").sum(),
        ended=(_.ended_by == "user").cast("int64").sum(),
    )
