"""Changes of preferences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis
import polars as pl
from ibis import _

from aico_lab import charts
from aico_lab.constants import MS_PER_DAY
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import FEWEST, PEOPLE_OF, UNITS, estimate, percent
from aico_lab.metrics.engine.metric import Column, RoleFilter, interval, metric
from aico_lab.metrics.engine.quantiles import quantiles

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk


def _finish(rows: pl.DataFrame, _talk: Talk) -> pl.DataFrame:
    medians = rows.group_by("preference").agg(
        median_days=pl.col("median_ms").cast(pl.Float64).first() / MS_PER_DAY,
        **{f"{PEOPLE_OF}median_days": (pl.col("changes") > 0).sum()},
    )
    found = estimate(
        rows.drop("median_ms", "user_id").with_columns(
            n=1, changed=pl.col("changes") > 0, known=True
        ),
        by=["preference"],
        unit="people",
        statistics={"share": percent("changed", "n")},
    )
    return found.join(medians, "preference", how="left", maintain_order="left")


def _draw(answer: Answer) -> Chart:
    import altair as alt

    rows = answer.pl().sort("share", descending=True)
    names = rows["preference"].to_list()
    base = alt.Chart(rows).encode(alt.Y("preference:N", title=None, sort=names))
    title = draw.label(answer, "share")
    bars = base.mark_bar(color=charts.BLUE).encode(
        alt.X("share:Q", title=title).scale(domain=[0, 100])
    )
    return alt.layer(bars, *draw.intervals(base, rows, "share", on_bars=True)).properties(
        width=draw.WIDTH, height=max(60, draw.LINE * len(answer))
    )


def _finding(rows: pl.DataFrame) -> str:
    enough = rows.filter(pl.col(UNITS) >= FEWEST)
    if enough.is_empty():
        return claims.too_little(int(rows["n"].max() or 0), "people")  # type: ignore[arg-type]
    top = enough.row(enough["share"].arg_max() or 0, named=True)
    tied = enough.filter(pl.col("share") == top["share"])
    doubt = claims.doubt(min(tied[UNITS].to_list()), "people")
    if not top["changed"]:
        which = f" that {FEWEST} people or more set" if rows["changed"].sum() else ""
        return f"Nobody changed a preference{which}{doubt}"
    name = claims.leading(tied, "share", "preference")
    by = f"{top['changed']:,} of {claims.counted(top['n'], 'people')} ({top['share']:.0f} %)"
    if tied.height > 1:
        by = f"{top['share']:.0f} % of the people who set each"
    return f"Most often changed: {name}, by {by}{doubt}"


@metric(
    domain="usage",
    question="Which preferences do people change, and how often?",
    source="AICO's data layer, usage and preferences",
    columns=[
        Column("preference", "text", "the preference"),
        Column("n", "integer", "people who set the preference"),
        Column("changes", "integer", "changes to another value"),
        Column("changed", "integer", "people who changed the preference at least once"),
        Column("share", "number", "share of people with the preference who changed the value", "%"),
        interval("share", "%"),
        Column("median_days", "number", "median time until a value was changed", "days"),
    ],
    role=RoleFilter.REFUSED,
    far=None,
    people="n",
    finish=_finish,
    finding=_finding,
    chart=_draw,
)
def preference_changes(talk: Talk) -> ir.Table:
    """Changes of a preference to a value other than the one that the same person had set before.

    The first value is not a change, nor is a removal; a value set after a removal is compared with
    the value before the removal. Only values set in the period count, but they are compared with
    earlier values too. The median time covers only values that were changed, so it is too short:
    values still in effect have no end. Nothing is known about people who were erased.
    """
    said = talk.preference_changes.filter(_.value.notnull())
    in_order = ibis.window(group_by=["user_id", "preference_key"], order_by=["ts_ms", "change_id"])
    said = said.mutate(before=said.value.lag().over(in_order))
    other = said.filter(said.before.isnull() | (said.before != said.value))
    other = other.mutate(lasted_ms=other.ts_ms - other.ts_ms.lag().over(in_order))
    since, until = talk.bounds
    if since is not None:
        other = other.filter(other.ts_ms >= since)
    if until is not None:
        other = other.filter(other.ts_ms < until)
    other = other.rename(preference="preference_key")
    lasted = quantiles(other, "lasted_ms", by=["preference"], per_mille={"median_ms": 500})
    people = other.group_by("preference", "user_id").agg(changes=_.lasted_ms.count())
    return people.left_join(lasted.drop("n"), "preference").drop("preference_right")
