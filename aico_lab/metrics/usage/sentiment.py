"""The sentiment of each side's messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
import polars as pl
from ibis import _

from aico_lab import charts
from aico_lab.constants import POSITIVE
from aico_lab.mart import sums
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import estimate, mean, percent
from aico_lab.metrics.engine.metric import PEOPLE, Column, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


# Colours that differ from those of the sides.
_MOODS: Final = {"negative": charts.PURPLE, "neutral": charts.PALE, "positive": charts.GREEN}


def _finish(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    found = estimate(
        rows,
        by=["role"],
        unit=talk.units,
        counted="scored messages",
        statistics={
            "mean": mean("total", "n_scored", within=(-1, 1)),
            "positive": percent("n_positive", "n_scored"),
            "negative": percent("n_negative", "n_scored"),
            "scored": percent("n_scored", "n_messages"),
        },
    )
    return found.rename({"n_scored": "n"})


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = (
        answer.pl()
        .drop_nulls("mean")
        .with_columns(neutral=100 - pl.col("positive") - pl.col("negative"))
    )
    shares = rows.unpivot(list(_MOODS), index="role", variable_name="mood", value_name="share")
    bars = (
        alt.Chart(shares.with_columns(place=pl.col("mood").replace_strict(dict(
            zip(_MOODS, range(3), strict=True)))))
        .mark_bar()
        .encode(
            alt.X("share:Q", title="Share of scored messages (%)").scale(domain=[0, 100]),
            alt.Y("role:N", title=None, sort=rows["role"].to_list()).axis(labelExpr=draw.SIDE),
            alt.Color("mood:N", title=None).scale(
                domain=list(_MOODS), range=list(_MOODS.values())
            ),
            alt.Order("place:Q"),
        )
        .properties(width=draw.WIDTH, height=draw.LINE * 2)
    )  # fmt: skip
    means = draw.dots(answer, "mean", "role", reference=0)
    return alt.vconcat(means, bars).resolve_scale(color="independent")


@metric(
    domain="usage",
    question="What is the mood of each side?",
    source="Hutto and Gilbert (2014), VADER: scores from -1 to 1, thresholds -0.05 and 0.05",
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("n", "integer", "messages with a sentiment score"),
        PEOPLE,
        Column("mean", "number", "mean sentiment score, from -1 to 1"),
        interval("mean"),
        Column("positive", "number", "share of scores of 0.05 or more", "%"),
        interval("positive", "%"),
        Column("negative", "number", "share of scores of -0.05 or less", "%"),
        interval("negative", "%"),
        Column("scored", "number", "share of messages that have a score", "%"),
    ],
    finish=_finish,
    finding=lambda rows: (
        claims.each(
            rows,
            lambda row: (
                None
                if row["mean"] is None
                else f"{claims.side(row)}: mean sentiment {row['mean']:+z.3f}"
            ),
        )
        or "Too little data: no message has a score"
    ),
    chart=_draw,
)
def sentiment(talk: Talk) -> ir.Table:
    """The mean score of a side's messages, and the shares of positive and negative messages.

    Scores are those imported with the messages, or else VADER's, which uses an English word list
    and does not recognise irony; the column `sentiment_source` of `raw.messages` tells which.
    Messages without a score, such as those in another language, are left out; `scored` is the share
    of messages with a score.
    """
    score = talk.messages.sentiment_score
    return talk.by_unit(
        talk.messages,
        "role",
        n_messages=_.count(),
        n_scored=score.count(),
        total=ibis.coalesce(sums.total(score), 0.0),
        n_positive=ibis.coalesce((score >= POSITIVE).cast("int64").sum(), 0),
        n_negative=ibis.coalesce((score <= -POSITIVE).cast("int64").sum(), 0),
    )
