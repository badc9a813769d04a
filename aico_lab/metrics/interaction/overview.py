"""Totals: messages, conversations, people, words and days."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis
import polars as pl
from ibis import _

from aico_lab.mart.sums import average
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.metric import PEOPLE, Column, metric
from aico_lab.metrics.engine.talk import as_date, days_of

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


def _finish(rows: pl.DataFrame, _talk: Talk) -> pl.DataFrame:
    return rows.filter(pl.col("n") > 0)


def _finding(rows: pl.DataFrame) -> str:
    row = rows.row(0, named=True)
    days = f"from {row['first_day']} to {row['last_day']}"
    if row["first_day"] == row["last_day"]:
        days = f"on {row['first_day']}"
    whom = f" with {claims.counted(row['people'], 'people')}" if row["people"] else ""
    return (
        f"{claims.counted(row['n'], 'messages')} in "
        f"{claims.counted(row['conversations'], 'conversations')}{whom}, {days}"
    )


def _draw(answer: Answer) -> Chart:
    import altair as alt

    row = answer.pl().row(0, named=True)
    sides = pl.DataFrame(
        {
            "role": ["user", "assistant"],
            "messages": [row["n"] - row["by_assistant"], row["by_assistant"]],
        }
    )
    bars = alt.Chart(sides).mark_bar().encode(
        alt.X("messages:Q", title="Messages", axis=draw.whole(row["n"])),
        alt.Y("role:N", title=None, sort=None, axis=alt.Axis(labelExpr=draw.SIDE)),
        draw.side("role").legend(None),
    )  # fmt: skip
    return bars.properties(width=draw.WIDTH, height=2 * draw.LINE)


@metric(
    domain="interaction",
    question="How much conversation is there?",
    source="AICO's data layer, interaction metrics and statistics",
    columns=[
        Column("n", "integer", "messages"),
        Column("by_assistant", "integer", "messages by the companion"),
        Column("conversations", "integer", "conversations"),
        Column("users", "integer", "people who wrote"),
        PEOPLE,
        Column("words", "integer", "words, in scripts with spaces between words"),
        Column("days", "integer", "days on which somebody wrote"),
        Column("first_day", "date", "day of the first message"),
        Column("last_day", "date", "day of the last message"),
        Column("sentiment", "number", "mean sentiment score, from -1 to 1"),
    ],
    finish=_finish,
    finding=_finding,
    chart=_draw,
)
def overview(talk: Talk) -> ir.Table:
    """Counts of all messages by both sides; messages by the system are left out.

    Users are named people who wrote themselves (role user); people also include those to whom only
    the companion wrote. The mean sentiment is over all messages with a score.
    """
    counted = _.n_words.notnull()
    day = days_of(_.local_ms)
    found = talk.messages.agg(
        n=_.count(),
        by_assistant=(_.role == "assistant").cast("int64").sum(),
        conversations=_.conversation_id.nunique(),
        users=ibis.ifelse(_.role == "user", _.user_id, ibis.null("string")).nunique(),
        people=_.user_id.nunique(),
        words=_.n_words.sum(),
        _people_words=_.user_id.nunique(where=counted),
        days=day.nunique(),
        first_day=day.min(),
        last_day=day.max(),
        sentiment=average(_.sentiment_score),
        _people_sentiment=_.user_id.nunique(where=_.sentiment_score.notnull()),
    )
    return found.mutate(first_day=as_date(found.first_day), last_day=as_date(found.last_day))
