"""Milestones: the days of the first, the 10th, the 100th message and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
import polars as pl
from ibis import _

from aico_lab.metrics.engine import draw
from aico_lab.metrics.engine.days import written_day
from aico_lab.metrics.engine.metric import Column, metric
from aico_lab.metrics.engine.talk import as_date, days_of

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk

MILESTONES: Final = (1, *(factor * 10**zeros for zeros in range(1, 9) for factor in (1, 5)))
"""Numbers of messages: 1, 10, 50, 100, 500, 1,000 and so on."""


def _finish(rows: pl.DataFrame, _talk: Talk) -> pl.DataFrame:
    return rows.sort("n")


def ordinal(number: int) -> str:
    """Return '1st' or '100th' for a milestone."""
    return f"{number:,}{'st' if number == 1 else 'th'}"


def _describe(rows: pl.DataFrame) -> str:
    said = [
        f"{ordinal(row['n'])} message: {written_day(row['day'])}"
        for row in rows.iter_rows(named=True)
    ]
    return f"The {'; '.join(said)}"


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = answer.pl().with_columns(
        name=pl.Series([ordinal(n) for n in answer.pl()["n"]], dtype=pl.String),
        text=pl.Series([written_day(day) for day in answer.pl()["day"]], dtype=pl.String),
    )
    return (
        alt.Chart(rows)
        .mark_text(align="left", baseline="middle", fontSize=13, x=6)
        .encode(alt.Y("name:N", title="Message", sort=None), alt.Text("text:N"))
        .properties(width=draw.WIDTH, height=draw.LINE * max(rows.height, 1))
    )


@metric(
    domain="interaction",
    question="When was the 1st, the 10th, the 100th message?",
    source="Anniversaries in years in review of other programs",
    columns=[
        Column("n", "integer", "number of messages since the first one, including this message"),
        Column("people", "integer", "named people of all messages up to this message"),
        Column("day", "date", "local day of the message"),
    ],
    finish=_finish,
    finding=_describe,
    chart=_draw,
    estimated="among them",
)
def milestones(talk: Talk) -> ir.Table:
    """The local days of the 1st, 10th, 50th, 100th, 500th message and so on, of both sides.

    Messages are counted from the first one of the selected people, channels and side, in the order
    of their times, and of their conversations where times are equal. The period does not change
    the count: it selects the milestones that lie within it.
    """
    messages = talk.since_ever
    in_order = ibis.window(order_by=["ts_ms", "conversation_id", "msg_idx"])
    numbered = messages.mutate(n=(ibis.row_number().over(in_order) + 1).cast("int64"))
    joined = numbered.filter(numbered.user_id.notnull()).group_by("user_id").agg(first=_.n.min())
    reached = numbered.filter(numbered.n.isin(MILESTONES))
    since, until = talk.bounds
    if since is not None:
        reached = reached.filter(reached.ts_ms >= since)
    if until is not None:
        reached = reached.filter(reached.ts_ms < until)
    reached = reached.select("n", day=as_date(days_of(reached.local_ms)))
    pairs = reached.left_join(joined, joined["first"] <= reached.n)
    return pairs.group_by("n", "day").agg(people=_.user_id.nunique().cast("int64"))
