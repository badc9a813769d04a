"""The size of turns, in messages and words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibis import _

from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import estimate, mean
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
        counted="turns",
        statistics={
            "messages": mean("n_messages", "n_turns", scale="log"),
            "words": mean("n_words", "n_counted", scale="log"),
        },
    )
    return found.rename({"n_turns": "n"})


def _describe(row: claims.Row) -> str:
    messages = f"{row['messages']:.2f} messages a turn"
    if row["words"] is None:
        return f"{claims.side(row)}: {messages}"
    return f"{claims.side(row)}: {row['words']:.1f} words in {messages}"


def _draw(answer: Answer) -> Chart:
    return draw.dots(answer, "words", "role", zero=True)


@metric(
    domain="conversation",
    question="How much does each side write in a turn?",
    source="Sacks, Schegloff and Jefferson (1974); here a long silence also ends a turn",
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("n", "integer", "turns"),
        PEOPLE,
        Column("messages", "number", "mean messages of a turn"),
        interval("messages"),
        Column("words", "number", "mean words of a turn"),
        interval("words"),
    ],
    finish=_finish,
    finding=lambda rows: claims.each(rows, _describe),
    chart=_draw,
)
def turns(talk: Talk) -> ir.Table:
    """Mean messages and words of a turn: what one side writes until the other side writes.

    A turn also ends after 30 minutes of silence and, in a channel of several people, if another
    person continues or the companion addresses another person. Means are over all turns of the
    side. The mean of words leaves out turns with a message in a script without spaces between
    words, such as Chinese, Japanese or Thai, where words are not counted.
    """
    counted = (talk.turns.n_unsegmented == 0).cast("int64")
    return talk.by_unit(
        talk.turns,
        "role",
        n_turns=_.count(),
        n_messages=_.n_messages.sum(),
        n_counted=counted.sum(),
        n_words=(counted * talk.turns.n_words).sum(),
    )
