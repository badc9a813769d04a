"""Lexical diversity of each side, measured by MTLD."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis
import polars as pl
from ibis import _

from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.checks import at_least
from aico_lab.metrics.engine.intervals import estimate, mean
from aico_lab.metrics.engine.metric import Column, Parameter, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


def _finish(rows: pl.DataFrame, _talk: Talk, *, min_words: int) -> pl.DataFrame:  # noqa: ARG001
    from aico_lab.metrics.usage.lexical_diversity_mtld import mtld

    people = (
        mtld(rows)
        .select(
            role=pl.when(pl.col("side") % 2 == 1)
            .then(pl.lit("user"))
            .otherwise(pl.lit("assistant")),
            person=pl.col("side") // 2,
            words="words",
            mtld="mtld",
            texts=1,
        )
        .drop_nulls("mtld")
    )
    found = estimate(
        people.drop("person").with_columns(known=True),
        by=["role"],
        unit="people",
        statistics={"mean": mean("mtld", "texts", scale="log")},
    )
    return found.rename({"texts": "n"})


def _draw(answer: Answer) -> Chart:
    return draw.dots(answer, "mean", "role")


@metric(
    domain="usage",
    question="How rich is the vocabulary of each side?",
    source="McCarthy and Jarvis (2010), MTLD, with the threshold 0.72",
    parameters=[
        Parameter("min_words", int, 100, "Texts with fewer words are left out."),
    ],
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("n", "integer", "people with enough words by the side"),
        Column("words", "integer", "words by the side in the conversations of the people"),
        Column("mean", "number", "mean MTLD over people", "words"),
        interval("mean", "words"),
    ],
    finish=_finish,
    finding=lambda rows: claims.each(
        rows,
        lambda row: (
            f"{claims.side(row)}: MTLD {row['mean']:.0f}, over {claims.counted(row['n'], 'people')}"
        ),
    ),
    people="n",
    chart=_draw,
)
def lexical_diversity(talk: Talk, *, min_words: int) -> ir.Table:
    """MTLD: the mean number of words after which only 72 % of the words are distinct.

    All words of a side with one person, in order, are one text. It is read until the share of
    distinct words has fallen to 0.72: that is a factor, and the next one begins. The remainder at
    the end is part of a factor, (1 - share) / (1 - 0.72). MTLD is the number of words divided by
    the number of factors, averaged over reading forward and backward. Unlike the plain share of
    distinct words it hardly depends on the length of a text of at least 100 words.

    Words are lower-case forms as written, not lemmas. Texts without any repeated word have no
    value. The answer is the mean over people, who have the same weight. Values also depend on the
    language and on copied text.
    """
    at_least("min_words", min_words, 1)
    known = talk.messages.filter(_.user_id.notnull())
    by_side = known.group_by("user_id", "role").agg(n=_.n_words.sum())
    long = by_side.filter(by_side.n >= min_words)
    messages = known.join(long, ["user_id", "role"])
    numbered = messages.select(
        "id",
        # Numbers instead of ids, since there is a row for every word; each person has two sides.
        side=2 * ibis.dense_rank().over(order_by=messages.user_id)
        + (messages.role == "user").cast("int64"),
        message=ibis.row_number().over(
            order_by=["user_id", "role", "ts_ms", "conversation_id", "msg_idx"]
        ),
    )
    numbered = numbered.mutate(
        side=numbered.side.cast("int32"), message=numbered.message.cast("int32")
    )
    words = talk.words.select(
        "id", position=talk.words.position.cast("int32"), word=talk.words.word.hash()
    )
    # MTLD goes through the words one by one, which no engine's aggregate does.
    return words.join(numbered, "id").select("side", "message", "position", "word")
