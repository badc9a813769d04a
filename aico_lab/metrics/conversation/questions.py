"""The share of messages that contain a question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibis import _

from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import estimate, percent
from aico_lab.metrics.engine.metric import PEOPLE, Column, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import polars as pl

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


def _finish(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    found = estimate(
        rows,
        by=["role"],
        unit=talk.units,
        counted="messages",
        statistics={"share": percent("questions", "messages")},
    )
    return found.rename({"messages": "n"})


def _draw(answer: Answer) -> Chart:
    return draw.dots(answer, "share", "role", zero=True)


@metric(
    domain="conversation",
    question="How often does each side ask a question?",
    source="Messages with a question mark at the end of a sentence",
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("n", "integer", "messages"),
        PEOPLE,
        Column("questions", "integer", "messages with a question"),
        Column("share", "number", "share of messages with a question", "%"),
        interval("share", "%"),
    ],
    finish=_finish,
    finding=lambda rows: claims.each(
        rows,
        lambda row: f"{claims.side(row)}: {row['share']:.1f} % of the messages ask a question",
    ),
    chart=_draw,
)
def questions(talk: Talk) -> ir.Table:
    """The share of messages in which a question mark ends a sentence.

    A question mark ends a sentence if a space, punctuation, an emoji or the end of the message
    follows; one inside a web address does not count. Chinese and Arabic question marks always
    count. Questions without a question mark are missed, and rhetorical questions are included.
    """
    return talk.by_unit(
        talk.messages, "role", messages=_.count(), questions=_.is_question.cast("int64").sum()
    )
