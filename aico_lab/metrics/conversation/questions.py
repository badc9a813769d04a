"""How often each side asks."""

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
        statistics={"share": percent("questions", "messages")},
    )
    return found.rename({"messages": "n"})


def _draw(answer: Answer) -> Chart:
    return draw.dots(answer, "share", "role", zero=True)


@metric(
    domain="conversation",
    question="How often does each side ask something?",
    source="Messages with a question mark at the end of a sentence",
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("n", "integer", "messages"),
        PEOPLE,
        Column("questions", "integer", "messages that ask something"),
        Column("share", "number", "share of messages that ask something", "%"),
        interval("share", "%"),
    ],
    finish=_finish,
    finding=lambda rows: claims.each(
        rows, lambda row: f"{row['role']}: {row['share']:.1f} % of the messages ask something"
    ),
    chart=_draw,
)
def questions(talk: Talk) -> ir.Table:
    """A message asks something if a question mark ends one of its sentences.

    That is one that a space, punctuation, an emoji or the end of the message follows, so that the
    one in an address does not count; the Chinese and the Arabic question mark always do. Questions
    without a mark are missed, and rhetorical ones count.
    """
    return talk.by_unit(
        talk.messages, "role", messages=_.count(), questions=_.is_question.cast("int64").sum()
    )
