"""Ratings that people give to conversations and messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis
import polars as pl
from ibis import _

from aico_lab import charts
from aico_lab.mart.sums import total
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import estimate, mean
from aico_lab.metrics.engine.metric import Column, RoleFilter, interval, metric
from aico_lab.metrics.engine.people_of_conversations import people_of_conversations
from aico_lab.metrics.engine.quantiles import quantiles

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


def _finish(rows: pl.DataFrame, talk: Talk) -> pl.DataFrame:
    of_all = ["conversations", "people_of_all", "q25", "median", "q75"]
    alike = rows.group_by("name").agg(pl.col(of_all).first())
    found = estimate(
        rows.drop(of_all),
        by=["name"],
        unit=talk.units,
        counted="ratings",
        statistics={"mean": mean("total", "times")},
    )
    found = found.drop("people").rename({"times": "n"})
    return found.join(
        alike.rename({"people_of_all": "people"}), "name", how="left", maintain_order="left"
    )


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = answer.pl()
    base = alt.Chart(rows).encode(alt.Y("name:N", title=None))
    middle = base.mark_bar(color=charts.GREY, opacity=0.5, size=14).encode(
        alt.X("q25:Q", title="Value: mean with interval, and the middle 50 % of ratings (grey)"),
        alt.X2("q75:Q"),
    )
    points = base.mark_point(size=70, opacity=1, color=charts.BLUE).encode(alt.X("mean:Q"))
    return alt.layer(middle, *draw.intervals(base, rows, "mean"), points).properties(
        width=draw.WIDTH, height=max(60, draw.LINE * len(answer))
    )


@metric(
    domain="personality",
    question="How do people rate their conversations?",
    source="AICO's data layer, personality adaptation insights; quantiles: Hyndman and Fan (1996)",
    columns=[
        Column("name", "text", "the rated quality"),
        Column("n", "integer", "ratings"),
        Column("conversations", "integer", "conversations that were rated"),
        Column("people", "integer", "named people who gave the ratings"),
        Column("mean", "number", "mean value"),
        interval("mean"),
        Column("q25", "number", "first quartile of the values"),
        Column("median", "number", "median of the values"),
        Column("q75", "number", "third quartile of the values"),
    ],
    role=RoleFilter.REFUSED,
    far=None,
    finish=_finish,
    finding=lambda rows: claims.each(rows, lambda row: f"{row['name']}: mean {row['mean']:z.2f}"),
    chart=_draw,
)
def feedback(talk: Talk) -> ir.Table:
    """The values of ratings, by the rated quality; feedback without a value is left out.

    A rating belongs to the period in which it was given. Its person is the one it names, or else
    that of its conversation; in a
    conversation of several people it is unknown. The answer covers only people who chose to rate.
    """
    rated = talk.feedback.filter(_.value.notnull())
    rated = rated.left_join(people_of_conversations(talk), "conversation_id")
    rated = rated.mutate(user_id=ibis.coalesce(rated.user_id, rated.person))
    spread = quantiles(
        rated, "value", by=["name"], per_mille={"q25": 250, "median": 500, "q75": 750}
    )
    counts = rated.group_by("name").agg(
        conversations=_.conversation_id.nunique(), people_of_all=_.user_id.nunique()
    )
    # A rating with neither a person nor a conversation is a unit of its own.
    units = rated.mutate(
        conversation_id=ibis.coalesce(
            rated.conversation_id, ibis.literal("event ") + rated.event_id
        )
    )
    found = talk.by_unit(units, "name", total=total(_.value), times=_.count())
    for table in (spread.drop("n"), counts):
        found = found.left_join(table, "name").drop("name_right")
    return found
