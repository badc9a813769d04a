"""Linguistic coordination: whether the sides take up each other's function words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.checks import at_least
from aico_lab.metrics.engine.exchanges import CLASSES, exchanges_by
from aico_lab.metrics.engine.intervals import estimate, mean
from aico_lab.metrics.engine.metric import Column, Parameter, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


_ALL: Final = "all classes"


def _finish(rows: pl.DataFrame, _talk: Talk, *, min_exchanges: int) -> pl.DataFrame:
    enough = rows.filter(pl.col("exchanges") >= min_exchanges).with_columns(
        pl.exclude("role", "user_id").cast(pl.Int64)
    )
    of_classes = pl.concat(
        enough.select(
            "role",
            "user_id",
            seen=f"first{at}",
            marker=pl.lit(name),
            value=pl.col(f"both{at}") / pl.col(f"first{at}")
            - pl.col(f"second{at}") / pl.col("exchanges"),
        ).filter(pl.col("seen") > 0)
        for at, name in CLASSES
    )
    of_people = of_classes.group_by("role", "user_id").agg(pl.col("value").mean())
    overall = of_people.join(enough, on=["role", "user_id"], nulls_equal=True).select(
        "role", "user_id", seen="exchanges", marker=pl.lit(_ALL), value="value"
    )
    found = estimate(
        pl.concat([overall, of_classes])
        .with_columns(pairs=pl.lit(1), known=pl.col("user_id").is_not_null())
        .drop("user_id"),
        by=["role", "marker"],
        unit="people",
        statistics={"coordination": mean("value", "pairs", within=(-1, 1))},
    )
    places = {_ALL: 0, **{name: at + 1 for at, name in CLASSES}}
    return found.rename({"seen": "n"}).sort(
        "role", pl.col("marker").replace_strict(places, return_dtype=pl.Int64)
    )


def _describe(rows: pl.DataFrame) -> str:
    def says(row: claims.Row) -> str | None:
        if row["coordination"] is None:
            return None
        unclear = row["coordination_low"] is not None and (
            row["coordination_low"] <= 0 <= row["coordination_high"]
        )
        return (
            f"{claims.side(row)}: replies coordinate by {100 * row['coordination']:+z.1f} "
            f"percentage points{', not clearly different from 0' if unclear else ''}"
        )

    said = claims.each(rows.filter(pl.col("marker") == _ALL), says)
    return said or "Too little data: nobody has enough exchanges"


def _draw(answer: Answer) -> Chart:
    return draw.dots(answer, "coordination", "marker", reference=0)


@metric(
    domain="conversation",
    question="Do replies take up the function words of what they reply to?",
    source="Danescu-Niculescu-Mizil, Lee, Pang and Kleinberg, Echoes of Power (WWW 2012)",
    parameters=[
        Parameter(
            "min_exchanges",
            int,
            5,
            "People with fewer exchanges in a direction are left out of that direction.",
        ),
    ],
    columns=[
        Column("role", "text", "the side that replies"),
        Column("marker", "text", "the class of function words"),
        Column(
            "n",
            "integer",
            "exchanges whose first turn has words of the class; for all classes, all exchanges",
        ),
        Column("people", "integer", "people with enough exchanges, over whom the mean is taken"),
        Column(
            "coordination",
            "number",
            "P(reply has words of the class | first turn has some) - P(reply has some)",
        ),
        interval("coordination"),
    ],
    finish=_finish,
    finding=_describe,
    chart=_draw,
)
def coordination(talk: Talk, *, min_exchanges: int) -> ir.Table:
    """Linguistic coordination: P(reply contains m | first turn contains m) - P(reply contains m).

    m is one of eight classes of English function words (`function_words`), whose use hardly depends
    on the topic. An exchange is a turn and the turn of the other side that directly follows it in
    the same session. Each person forms two pairs with the companion, one per direction: `role` is
    the side that replies, and so coordinates. Both probabilities are shares of the pair's
    exchanges, over all its conversations; without a first turn that contains m there is no value.
    The result is the mean over people, all with the same weight. For all classes it is the mean
    over people of each person's mean over the classes with a value (the paper's third aggregate).
    Messages without a named person count as one person.

    Values above 0 mean that replies accommodate, below 0 that they diverge. This is not evidence of
    a cause: if both sides write long turns for the same reason, both use more words of every class.
    Only for English.
    """
    at_least("min_exchanges", min_exchanges, 1)
    return exchanges_by(talk, "user_id")
