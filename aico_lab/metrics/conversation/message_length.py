"""The length of messages in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis
import polars as pl
from ibis import _

from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import estimate, mean
from aico_lab.metrics.engine.metric import PEOPLE, Column, interval, metric
from aico_lab.metrics.engine.quantiles import quantiles

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


def _finish(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    exact = rows.group_by("role").agg(pl.col("p50", "p95").first())
    found = estimate(
        rows.drop("p50", "p95"),
        by=["role"],
        unit=talk.units,
        counted="messages",
        statistics={"words": mean("n_words", "counted", scale="log")},
    )
    return found.rename({"counted": "n"}).join(exact, on="role", maintain_order="left")


def _draw(answer: Answer) -> Chart:
    names = {"words": "mean", "p50": "median", "p95": "95 % are at most"}
    return draw.side_by_side(answer, names, "Words of a message", written=claims.written)


@metric(
    domain="conversation",
    question="How long are messages?",
    source="Percentiles: Hyndman and Fan (1996), type 1",
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("n", "integer", "messages"),
        PEOPLE,
        Column("unsegmented", "integer", "messages in scripts without spaces, left out"),
        Column("words", "number", "mean words of a message"),
        interval("words"),
        Column("p50", "number", "median words of a message"),
        Column("p95", "number", "95th percentile of words of a message"),
    ],
    finish=_finish,
    finding=lambda rows: claims.each(
        rows,
        lambda row: (
            f"{claims.side(row)}: {row['words']:.1f} words per message on average, "
            f"median {row['p50']:.0f}"
            if row["n"]
            else f"{claims.side(row)}: no message has words that can be counted"
        ),
    ),
    chart=_draw,
)
def message_length(talk: Talk) -> ir.Table:
    """The number of words in a message, in the mean and in percentiles.

    A word is a sequence of letters and digits of any script, with their diacritics. An apostrophe
    inside a word belongs to it, as do points and commas inside a number. Web and e-mail addresses
    are not words. Messages without any word count with length 0. Messages in a script without
    spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are left out and counted as
    `unsegmented`. Percentiles are exact: lengths that occurred.
    """
    exact = quantiles(talk.messages, "n_words", by=["role"], per_mille={"p50": 500, "p95": 950})
    amounts = talk.by_unit(
        talk.messages,
        "role",
        counted=_.n_words.count(),
        unsegmented=_.n_words.isnull().cast("int64").sum(),
        n_words=ibis.coalesce(_.n_words.sum(), 0),
    )
    return amounts.left_join(exact.drop("n"), "role").drop("role_right")
