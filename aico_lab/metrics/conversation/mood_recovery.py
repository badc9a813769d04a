"""Mood recovery: whether a side's next turn after a negative one is not negative."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
import polars as pl
from ibis import _

from aico_lab.constants import POSITIVE
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import UNITS, Statistic, estimate, percent
from aico_lab.metrics.engine.metric import PEOPLE, Column, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


_ROUNDING: Final = 1e-9
"""Tolerance for sums, which engines add in any order: a mean of -0.05 must be negative in all."""


def _finish(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    after_negative = percent("n_recovered", "n_negative")
    usual = percent("n_stayed", "n_not_negative")
    found = estimate(
        rows,
        by=["role"],
        unit=talk.units,
        counted="negative turns",
        statistics={
            "recovered": after_negative,
            "baseline": usual,
            "lift": Statistic(
                lambda sums: after_negative.function(sums) / usual.function(sums),
                ("n_negative", "n_not_negative"),
                "log",
            ),
        },
    )
    return found.rename({"n_negative": "n"})


def _describe(rows: pl.DataFrame) -> str:
    def says(row: claims.Row) -> str | None:
        if row["recovered"] is None:
            return None
        after = "of the turns after a negative one are not"
        text = f"{claims.side(row)}: {row['recovered']:.1f} % {after}"
        if row["baseline"] is None:
            return text
        low, high = row["lift_low"], row["lift_high"]
        unclear = low is None or low <= 1 <= high
        compared = f"{text}, after others {row['baseline']:.1f} %"
        return f"{compared} (no clear difference)" if unclear else compared

    # A comparison of two shares is as certain as the share that rests on fewer people.
    fewer = pl.min_horizontal(UNITS, f"{UNITS}_baseline")
    compared = pl.when(pl.col("baseline").is_null()).then(UNITS).otherwise(fewer).alias(UNITS)
    said = claims.each(rows.with_columns(compared), says)
    return said or "Too little data: no negative turn has a next one"


def _draw(answer: Answer) -> Chart:
    names = {"recovered": "after a negative turn", "baseline": "after another turn"}
    return draw.side_by_side(answer, names, "The side's next turn is not negative (% of turns)")


@metric(
    domain="conversation",
    question="Does a side's mood recover in its next turn after a negative one?",
    source="Threshold of VADER's compound score: Hutto and Gilbert (2014)",
    columns=[
        Column("role", "text", "the side that wrote the turns"),
        Column("n", "integer", "negative turns that have a next turn of the same side"),
        PEOPLE,
        Column(
            "recovered", "number", "share of negative turns whose next turn is not negative", "%"
        ),
        interval("recovered", "%"),
        Column("baseline", "number", "share of other turns whose next turn is not negative", "%"),
        interval("baseline", "%"),
        Column("lift", "number", "recovered divided by baseline"),
        interval("lift"),
    ],
    finish=_finish,
    finding=_describe,
    chart=_draw,
)
def mood_recovery(talk: Talk) -> ir.Table:
    """The share of negative turns after which the same side's next turn is not negative.

    A turn is negative if the mean score of its scored messages is -0.05 or less. The next turn is
    that of the same side in the same session, with exactly one turn of the other side in between;
    both turns must have a score. The baseline is the same share after turns that are not negative.

    Regression to the mean alone makes most turns after a negative one less negative, whatever was
    said in between. So the share by itself does not show recovery: compare it with the baseline. A
    lift of 1 means that a negative turn does not predict the next one; below 1, moods persist.
    Nothing here shows that the turn in between was the cause.
    """
    order = ibis.window(group_by="conversation_id", order_by="turn_idx")
    scored = talk.turns.mutate(
        # Multiplied instead of divided, since a quotient is rounded.
        negative=_.sentiment_sum <= _.n_scored * -POSITIVE + _ROUNDING,
    )
    pairs = scored.select(
        "role",
        "user_id",
        "conversation_id",
        "negative",
        counts=(scored.n_scored > 0)
        & (scored.n_scored.lead(2).over(order) > 0)
        # Filters may have removed turns of other people.
        & (scored.turn_idx.lead(2).over(order) == scored.turn_idx + 2)
        & (scored.session_idx.lead(2).over(order) == scored.session_idx)
        & (scored.role.lead(1).over(order) != scored.role)
        & (scored.role.lead(2).over(order) == scored.role),
        next_negative=scored.negative.lead(2).over(order),
    )
    pairs = pairs.filter(pairs.counts)
    return talk.by_unit(
        pairs,
        "role",
        n_negative=_.negative.cast("int64").sum(),
        n_recovered=(_.negative & ~_.next_negative).cast("int64").sum(),
        n_not_negative=(~_.negative).cast("int64").sum(),
        n_stayed=(~_.negative & ~_.next_negative).cast("int64").sum(),
    )
