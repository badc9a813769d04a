"""The course of sentiment within conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis
import polars as pl
from ibis import _

from aico_lab.errors import InvalidValue
from aico_lab.mart.sums import total
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import COUNTED, FEWEST, MOST, UNIT, UNITS, estimate, mean
from aico_lab.metrics.engine.metric import PEOPLE, Column, Parameter, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


def _finish(rows: pl.DataFrame, talk: Talk, *, steps: int) -> pl.DataFrame:
    found = estimate(
        rows,
        by=["role", "step"],
        unit=talk.units,
        counted="scored messages",
        statistics={"mean": mean("total", "n_scored", within=(-1, 1))},
    )
    return found.rename({"n_scored": "n"}).with_columns(begins=(pl.col("step") - 1) * 100 / steps)


def _draw(answer: Answer) -> Chart:
    import altair as alt

    steps = answer.parameters["steps"]
    rows = answer.pl().drop_nulls("mean").with_columns(middle=pl.col("begins") + 50 / steps)
    x = alt.X("middle:Q", title="Position in the conversation (% of its turns)").scale(
        domain=[0, 100], nice=False
    )
    names = [side for side in claims.SIDES if side in set(rows["role"])]
    colour, dash = draw.dashed(draw.side("role", rows), names)
    base = alt.Chart(rows).encode(x, colour)
    title = draw.label(answer, "mean")
    y = alt.Y("mean:Q", title=title).scale(zero=draw.from_zero(rows, "mean", title))
    layers = [base.mark_line().encode(y, dash), base.mark_point(opacity=1).encode(y)]
    if rows["mean_low"].null_count() < rows.height:
        band = base.mark_area(opacity=0.2).encode(alt.Y("mean_low:Q"), alt.Y2("mean_high:Q"))
        layers.insert(0, band)
    return alt.layer(*layers).properties(width=draw.WIDTH, height=240)


def _course(rows: pl.DataFrame) -> str:
    sentences = []
    for (role,), course in rows.drop_nulls("mean").group_by("role", maintain_order=True):
        units, unit = int(course[UNITS].min()), course[UNIT][0]  # type: ignore[arg-type]
        if units < FEWEST or course.height == 1:
            sentences.append(f"{claims.SIDES[role]}: {claims.too_little(units, unit).lower()}")
            continue
        first, last = course.row(0, named=True), course.row(-1, named=True)
        ends = [row[end] for row in (first, last) for end in ("mean_low", "mean_high")]
        apart = None not in ends and (ends[1] < ends[2] or ends[3] < ends[0])
        change = "" if apart else ", no clear change"
        sentences.append(
            f"{claims.SIDES[role]}: mean sentiment from {first['mean']:+z.3f} to "
            f"{last['mean']:+z.3f}{change}"
            f"{claims.doubt(units, unit, max(first[MOST], last[MOST]), first[COUNTED])}"
        )
    return "; ".join(sentences) or "Too little data: no conversation with scores has enough turns"


@metric(
    domain="usage",
    question="How does the mood change over the course of a conversation?",
    source="Reagan et al. (2016), emotional arcs, over turns in equal parts",
    parameters=[
        Parameter("steps", int, 10, "The number of parts of a conversation, from 1 to 1000."),
    ],
    columns=[
        Column("role", "text", "the side that wrote"),
        Column("step", "integer", "part of the conversation, from 1"),
        Column(
            "begins",
            "number",
            "beginning of the part, in percent of all turns of the conversation",
            "%",
        ),
        Column("n", "integer", "messages with a sentiment score"),
        PEOPLE,
        Column("mean", "number", "mean sentiment score, from -1 to 1"),
        interval("mean"),
    ],
    finish=_finish,
    finding=_course,
    chart=_draw,
)
def sentiment_trajectory(talk: Talk, *, steps: int) -> ir.Table:
    """The mean score of messages, by the position of their turn in its conversation.

    The turns of a conversation, of both sides, are numbered from 0 and divided into equal parts:
    turn `i` of `k` is in part `floor(i * steps / k) + 1`. Conversations with fewer turns than parts
    are left out, so every conversation contributes to every part, though not always with turns of
    both sides. Long conversations weigh more, since they have more messages.
    """
    if not 1 <= steps <= 1000:  # noqa: PLR2004
        raise InvalidValue(f"steps must be from 1 to 1000, not {steps}.")
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
        total=total(_.sentiment_sum),
    )
