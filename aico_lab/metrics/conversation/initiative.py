"""Initiative: which side begins and ends sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from ibis import _

from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.checks import GAP_MINUTES, SCOPE, to_gap_ms
from aico_lab.metrics.engine.intervals import (
    estimate,
    percent,
)
from aico_lab.metrics.engine.metric import PEOPLE, Column, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Scope, Talk


def _finish(rows: pl.DataFrame, talk: Talk, **_expressions: Any) -> pl.DataFrame:
    sides = [
        rows.select(
            "known",
            "sessions",
            role=pl.lit(role),
            started=started,
            ended=ended,
            wrote=wrote,
        )
        for role, wrote, started, ended in (
            (
                "assistant",
                pl.col("messages") - pl.col("by_users"),
                pl.col("sessions") - pl.col("started"),
                pl.col("sessions") - pl.col("ended"),
            ),
            ("user", pl.col("by_users"), pl.col("started"), pl.col("ended")),
        )
    ]
    present = pl.concat(sides).filter(pl.col("wrote").sum().over("role") > 0)
    found = estimate(
        present.drop("wrote"),
        by=["role"],
        unit=talk.units,
        counted="sessions",
        statistics={
            "share_started": percent("started", "sessions"),
            "share_ended": percent("ended", "sessions"),
        },
    )
    return found.rename({"sessions": "n"})


def _describe(rows: pl.DataFrame) -> str:
    return claims.each(
        rows,
        lambda row: (
            f"{claims.side(row)}: {row['share_started']:.1f} % of the first messages of "
            f"sessions, {row['share_ended']:.1f} % of the last"
        ),
    )


def _draw(answer: Answer) -> Chart:
    names = {"share_started": "starts", "share_ended": "ends"}
    return draw.side_by_side(answer, names, "Share of the sessions (%)", reference=50)


@metric(
    domain="conversation",
    question="Who begins sessions, and who has the last word?",
    source="Sessions separated by 30 minutes of silence, as in web analytics and chat-analytics",
    parameters=[GAP_MINUTES, SCOPE],
    columns=[
        Column("role", "text", "the side that starts or ends sessions"),
        Column("n", "integer", "sessions"),
        PEOPLE,
        Column("share_started", "number", "share of the sessions that this side starts", "%"),
        interval("share_started", "%"),
        Column("share_ended", "number", "share of the sessions that this side ends", "%"),
        interval("share_ended", "%"),
    ],
    finish=_finish,
    finding=_describe,
    chart=_draw,
)
def initiative(talk: Talk, *, gap_minutes: float, scope: Scope) -> ir.Table:
    """The shares of sessions in which each side wrote the first and the last message.

    The side that wrote the only message of a session both starts and ends it. Whoever writes first
    after a long silence starts a session, even in the middle of a conversation. A side that wrote
    nothing in these sessions has no row.
    """
    made = talk.sessions(to_gap_ms(gap_minutes), scope)
    return talk.by_unit(
        made,
        sessions=_.count(),
        started=(_.started_by == "user").cast("int64").sum(),
        ended=(_.ended_by == "user").cast("int64").sum(),
        messages=_.n_messages.sum(),
        by_users=_.n_user_messages.sum(),
    )
