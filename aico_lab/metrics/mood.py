"""How people and their companion feel: how much, and in the course of a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
import polars as pl
from ibis import _

from aico_lab.errors import InvalidValue
from aico_lab.metrics import claims, draw
from aico_lab.metrics.intervals import FEWEST, MOST, UNIT, UNITS, estimate, mean, percent
from aico_lab.metrics.registry import CATALOGUE, PEOPLE, Column, interval
from aico_lab.reports import charts

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.registry import Chart
    from aico_lab.metrics.talk import Talk

POSITIVE: Final = 0.05
"""Hutto and Gilbert's: a compound score of at least so much is positive, below -0.05 negative."""

# Other colours than those of the sides.
_MOODS: Final = {"negative": "#CC79A7", "neutral": "#CBD2D9", "positive": charts.GREEN}


def _finish_sentiment(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    found = estimate(
        rows,
        by=["role"],
        unit=talk.units,
        statistics={
            "mean": mean("total", "n_scored", within=(-1, 1)),
            "positive": percent("n_positive", "n_scored"),
            "negative": percent("n_negative", "n_scored"),
            "scored": percent("n_scored", "n_messages"),
        },
    )
    return found.rename({"n_scored": "n"})


def _draw_sentiment(answer: Answer) -> Chart:
    import altair as alt

    rows = answer.pl().with_columns(neutral=100 - pl.col("positive") - pl.col("negative"))
    shares = rows.unpivot(list(_MOODS), index="role", variable_name="mood", value_name="share")
    bars = (
        alt.Chart(shares.with_columns(place=pl.col("mood").replace_strict(dict(
            zip(_MOODS, range(3), strict=True)))))
        .mark_bar()
        .encode(
            alt.X("share:Q", title="Share of scored messages (%)").scale(domain=[0, 100]),
            alt.Y("role:N", title=None, sort=rows["role"].to_list()),
            alt.Color("mood:N", title=None).scale(
                domain=list(_MOODS), range=list(_MOODS.values())
            ),
            alt.Order("place:Q"),
        )
        .properties(width=draw.WIDTH, height=draw.LINE * 2)
    )  # fmt: skip
    means = draw.dots(answer, "mean", "role", reference=0)
    return alt.vconcat(means, bars).resolve_scale(color="independent")


@CATALOGUE.metric(
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
    finish=_finish_sentiment,
    finding=lambda rows: (
        claims.each(
            rows,
            lambda row: (
                None
                if row["mean"] is None
                else f"{row['role']}: mean sentiment {row['mean']:+z.3f}"
            ),
        )
        or "Too little data: no message has a score"
    ),
    chart=_draw_sentiment,
)
def sentiment(talk: Talk) -> ir.Table:
    """The mean of all scored messages of a side, and the shares of positive and negative ones.

    Scores are those that came with the messages, else VADER's, an English word list that knows no
    irony: the column `sentiment_source` of `raw.messages` says which. Messages without a score, as
    in another language, are in no mean; `scored` says how many have one.
    """
    score = talk.messages.sentiment_score
    return talk.by_unit(
        talk.messages,
        "role",
        n_messages=_.count(),
        n_scored=score.count(),
        total=ibis.coalesce(score.sum(), 0.0),
        n_positive=ibis.coalesce((score >= POSITIVE).cast("int64").sum(), 0),
        n_negative=ibis.coalesce((score <= -POSITIVE).cast("int64").sum(), 0),
    )


def _finish_trajectory(rows: pl.DataFrame, talk: Talk, *, steps: int) -> pl.DataFrame:
    found = estimate(
        rows,
        by=["role", "step"],
        unit=talk.units,
        statistics={"mean": mean("total", "n_scored", within=(-1, 1))},
    )
    return found.rename({"n_scored": "n"}).with_columns(begins=(pl.col("step") - 1) * 100 / steps)


def _draw_trajectory(answer: Answer) -> Chart:
    import altair as alt

    steps = answer.parameters["steps"]
    rows = answer.pl().with_columns(middle=pl.col("begins") + 50 / steps)
    x = alt.X("middle:Q", title="Position in the conversation (% of its turns)").scale(
        domain=[0, 100], nice=False
    )
    base = alt.Chart(rows).encode(x, color=draw.side("role"))
    y = alt.Y("mean:Q", title=draw.label(answer, "mean")).scale(zero=False)
    band = base.mark_area(opacity=0.2).encode(alt.Y("mean_low:Q"), alt.Y2("mean_high:Q"))
    return (band + base.mark_line(point=True).encode(y)).properties(width=draw.WIDTH, height=240)


def _course(rows: pl.DataFrame) -> str:
    sentences = []
    for (role,), course in rows.drop_nulls("mean").group_by("role", maintain_order=True):
        units, unit = int(course[UNITS].min()), course[UNIT][0]  # type: ignore[arg-type]
        if units < FEWEST or course.height == 1:
            sentences.append(f"{role}: {claims.too_little(units, unit).lower()}")
            continue
        first, last = course.row(0, named=True), course.row(-1, named=True)
        ends = [row[end] for row in (first, last) for end in ("mean_low", "mean_high")]
        apart = None not in ends and (ends[1] < ends[2] or ends[3] < ends[0])
        change = "" if apart else ", no clear change"
        sentences.append(
            f"{role}: mean sentiment from {first['mean']:+z.3f} to {last['mean']:+z.3f}{change}"
            f"{claims.doubt(units, unit, max(first[MOST], last[MOST]))}"
        )
    return "; ".join(sentences) or "Too little data: no conversation with scores has enough turns"


@CATALOGUE.metric(
    domain="usage",
    question="How does the mood change in the course of a conversation?",
    source="Reagan et al. (2016), emotional arcs, over turns in equal parts",
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("step", "integer", "part of the conversation, from 1"),
        Column("begins", "number", "where the part begins, of all turns", "%"),
        Column("n", "integer", "messages with a sentiment score"),
        PEOPLE,
        Column("mean", "number", "mean sentiment score, from -1 to 1"),
        interval("mean"),
    ],
    finish=_finish_trajectory,
    finding=_course,
    chart=_draw_trajectory,
)
def sentiment_trajectory(talk: Talk, *, steps: int = 10) -> ir.Table:
    """The mean score of messages, by where their turn is among the turns of its conversation.

    The turns of a conversation, of both sides, are numbered from 0 and cut into equal parts: turn
    `i` of `k` is in part `floor(i * steps / k) + 1`. Conversations with fewer turns than parts are
    left out, so every conversation reaches every part, though not with turns of both sides. Long
    conversations weigh more, as they have more messages.

    Args:
        steps: How many parts.
    """
    if not 1 <= steps <= 1000:  # noqa: PLR2004
        raise InvalidValue(f"steps is how many parts a conversation has: 1 to 1000, not {steps}.")
    turns = talk.turns
    conversation = ibis.window(group_by="conversation_id")
    in_order = ibis.window(group_by="conversation_id", order_by="turn_idx")
    placed = turns.mutate(
        place=ibis.row_number().over(in_order), of=turns.turn_idx.count().over(conversation)
    )
    long = placed.filter(placed.of >= steps)
    return talk.by_unit(
        long.mutate(step=long.place * steps // long.of + 1),
        "role",
        "step",
        n_scored=_.n_scored.sum(),
        total=_.sentiment_sum.sum(),
    )
