"""The duration of sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl
from ibis import _

from aico_lab.constants import MS_PER_MINUTE
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.checks import GAP_MINUTES, SCOPE, to_gap_ms
from aico_lab.metrics.engine.intervals import (
    COUNTED,
    FEWEST,
    MOST,
    TOTAL,
    UNIT,
    UNITS,
    estimate,
    mean,
    percent,
)
from aico_lab.metrics.engine.metric import PEOPLE, Column, RoleFilter, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Scope, Talk


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
"""Classes of duration, with their upper ends in minutes (excluded)."""


def _finish(rows: pl.DataFrame, talk: Talk, **_expressions: Any) -> pl.DataFrame:
    places = range(len(_LENGTHS))
    found = estimate(
        rows,
        by=[],
        unit=talk.units,
        counted="sessions",
        statistics={
            **{f"share{at}": percent(f"n{at}", "sessions") for at in places},
            **{f"messages{at}": mean(f"messages_of{at}", f"n{at}", scale="log") for at in places},
        },
    )
    numbers = [(what, end) for what in ("share", "messages") for end in ("", "_low", "_high")]
    shared = [UNITS, UNIT, MOST, COUNTED]
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


def _describe(rows: pl.DataFrame) -> str:
    top = rows.row(rows["n"].arg_max() or 0, named=True)
    total = int(top[TOTAL])
    if top[UNITS] < FEWEST:
        return f"{claims.too_little(top[UNITS], top[UNIT])}; {claims.counted(total, 'sessions')}"
    lengths = claims.leading(rows, "n", "duration")
    return (
        f"The most frequent length of a session is {lengths}: {top['share']:.1f} % of "
        f"{claims.counted(total, 'sessions')}"
        f"{claims.doubt(top[UNITS], top[UNIT], top[MOST], top[COUNTED])}"
    )


def _draw(answer: Answer) -> Chart:
    import altair as alt

    y = alt.Y("duration:O", title="Duration of the session", sort=list(_LENGTHS))
    rows = answer.pl()
    base = alt.Chart(rows).encode(y)
    title = draw.label(answer, "share")
    return alt.layer(
        base.mark_bar(opacity=0.8).encode(alt.X("share:Q", title=title).scale(domainMin=0)),
        *draw.intervals(base, rows, "share", on_bars=True),
    ).properties(width=draw.WIDTH, height=draw.LINE * len(answer))


@metric(
    domain="conversation",
    question="How long do sessions last?",
    source="Sessions separated by 30 minutes of silence, as in web analytics and chat-analytics",
    parameters=[GAP_MINUTES, SCOPE],
    columns=[
        Column("duration", "text", "time from the first message to the last"),
        Column("n", "integer", "sessions"),
        PEOPLE,
        Column("share", "number", "share of all sessions", "%"),
        interval("share", "%"),
        Column("messages", "number", "mean messages of a session of the duration"),
        interval("messages"),
    ],
    finish=_finish,
    finding=_describe,
    estimated="among them",
    chart=_draw,
    role=RoleFilter.REFUSED,
)
def session_length(talk: Talk, *, gap_minutes: float, scope: Scope) -> ir.Table:
    """The distribution of sessions over fixed, adjacent classes of duration.

    A session lasts from its first message to its last, so sessions of a single message are in the
    class under one minute.
    """
    made = talk.sessions(to_gap_ms(gap_minutes), scope)
    ms = made.ended_ms - made.started_ms
    counts = {}
    low = 0
    for at, high in enumerate(_LENGTHS.values()):
        inside = ms >= low * MS_PER_MINUTE
        if high is not None:
            inside &= ms < high * MS_PER_MINUTE
            low = high
        counts[f"n{at}"] = inside.cast("int64").sum()
        counts[f"messages_of{at}"] = (inside.cast("int64") * made.n_messages).sum()
    return talk.by_unit(made, sessions=_.count(), **counts)
