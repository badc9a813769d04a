"""Charts that several metrics share.

Values are aggregated before drawing, so a chart has about as many marks as the answer has rows.
Altair takes a second to import and most answers are never drawn, so each drawing function imports
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from aico_lab import charts

if TYPE_CHECKING:
    from collections.abc import Mapping

    import altair as alt

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart

WIDTH = 640
LINE = 26
"""Height of one category, in pixels."""


def label(answer: Answer, name: str) -> str:
    """Return the title of an axis: the meaning of a column, and its unit."""
    column = next(column for column in answer.metric.columns if column.name == name)
    meaning = column.meaning[:1].upper() + column.meaning[1:]
    return f"{meaning} ({column.unit})" if column.unit else meaning


def dots(
    answer: Answer,
    value: str,
    category: str,
    *,
    colour: str | None = "role",
    zero: bool = False,
    reference: float | None = None,
) -> Chart:
    """Draw one value for each category as a dot, with its interval as a bar.

    Args:
        answer: The answer, with columns `VALUE_low` and `VALUE_high`.
        value: The column of values.
        category: The column that names the rows.
        colour: The column of sides ('user', 'assistant') that sets the colour, or None.
        zero: Whether the axis begins at 0.
        reference: A value to compare with, drawn as a line.
    """
    import altair as alt

    rows = answer.pl()
    names = rows[category].unique(maintain_order=True).to_list()
    extra: dict[str, Any] = {}
    if colour:
        extra = {"color": side(colour)}
        if colour != category:
            extra["yOffset"] = alt.YOffset(f"{colour}:N")
    base = alt.Chart(rows).encode(y=alt.Y(f"{category}:N", title=None, sort=names), **extra)
    ends = f"{value}_low", f"{value}_high"
    chart = _with_ends(base, value, ends, label(answer, value), zero=zero, reference=reference)
    lines = rows.select({category, colour or category}).n_unique()
    return chart.properties(width=WIDTH, height=max(60, LINE * lines))


def side_by_side(
    answer: Answer, columns: Mapping[str, str], title: str, *, reference: float | None = None
) -> Chart:
    """Draw several comparable values of each side, each with its interval.

    Args:
        answer: The answer, with `role`, and `COLUMN_low` and `COLUMN_high` for each column.
        columns: The label of each column in the chart.
        title: The title of the axis, with its unit.
        reference: A value to compare with, drawn as a line.
    """
    import altair as alt

    rows = answer.pl()
    long = pl.concat(
        rows.select("role", what=pl.lit(name), value=at, low=f"{at}_low", high=f"{at}_high")
        for at, name in columns.items()
    )
    y = alt.Y("what:N", title=None, sort=list(columns.values())).axis(labelLimit=0)
    base = alt.Chart(long).encode(y, side("role"), yOffset="role:N")
    chart = _with_ends(base, "value", ("low", "high"), title, zero=False, reference=reference)
    return chart.properties(width=WIDTH, height=LINE * len(columns) * rows.height)


def _with_ends(
    base: alt.Chart,
    value: str,
    ends: tuple[str, str],
    title: str,
    *,
    zero: bool,
    reference: float | None,
) -> Chart:
    """Draw a dot for each row of a chart, its interval as a bar, and a line to compare with."""
    import altair as alt

    scale = alt.Scale(zero=zero)
    low = alt.X(f"{ends[0]}:Q", title=title, scale=scale)
    layers = [
        base.mark_rule(strokeWidth=3, opacity=0.45).encode(low, alt.X2(f"{ends[1]}:Q")),
        base.mark_point(size=70, opacity=1).encode(alt.X(f"{value}:Q", scale=scale)),
    ]
    if reference is not None:
        rule = alt.Chart(pl.DataFrame({"at": [reference]}))
        rule = rule.mark_rule(color=charts.GREY, strokeDash=[4, 4])
        layers.insert(0, rule.encode(x=alt.XDatum(reference)))
    return alt.layer(*layers)


def side(column: str) -> alt.Color:
    """Return the colour encoding of the sides, the same in every chart."""
    import altair as alt

    sides = alt.Scale(domain=["user", "assistant"], range=[charts.BLUE, charts.VERMILION])
    return alt.Color(f"{column}:N", title=None, scale=sides)
