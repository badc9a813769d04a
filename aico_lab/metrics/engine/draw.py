"""Charts that several metrics share.

Values are aggregated before drawing, so a chart has about as many marks as the answer has rows.
Altair takes a second to import and most answers are never drawn, so each drawing function imports
it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl

from aico_lab import charts
from aico_lab.metrics.engine import claims

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import altair as alt

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart

WIDTH = charts.WIDTH
LINE = 28
"""Height of one category, in pixels: labels may have two lines."""


_TWO_LINES: Final = 36
"""The least height of a category whose label may need two lines, as `draw.js` has it."""


_COUNTED: Final = 5
"""Up to this count, every number has its tick."""


_DASHES: Final = ([1, 0], [6, 3], [2, 2], [10, 3, 2, 3], [12, 4])
"""The dashes of lines that a legend distinguishes; the first line is solid."""


_NOTHING: Final = 0.05
"""Values that differ by less than this part of the largest one hardly differ."""


_SKEWED: Final = 20
"""From this ratio of the largest count to the median, shades of a colour are logarithmic."""


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

    rows = answer.pl().drop_nulls(value)
    names = rows[category].unique(maintain_order=True).to_list()
    extra: dict[str, Any] = {}
    if colour:
        extra = {"color": side(colour, rows)}
        if colour != category:
            extra["yOffset"] = offset(colour)
    y = alt.Y(f"{category}:N", title=None, sort=names)
    if colour == category:
        y = y.axis(labelExpr=SIDE)
    base = alt.Chart(rows).encode(y=y, **extra)
    x = alt.X(f"{value}:Q", title=label(answer, value)).scale(
        zero=zero or from_zero(rows, value, label(answer, value))
    )
    chart = _with_ends(base, rows, value, x, reference=reference)
    lines = rows.select({category, colour or category}).n_unique()
    return chart.properties(width=WIDTH, height=max(60, LINE * lines))


def side_by_side(
    answer: Answer,
    columns: Mapping[str, str],
    title: str,
    *,
    reference: float | None = None,
    x: alt.X | None = None,
    written: Callable[[float], str] | None = None,
) -> Chart:
    """Draw several comparable values of each side, each with its interval if it has one.

    Args:
        answer: The answer, with `role`; the interval of COLUMN is in `COLUMN_low` and
            `COLUMN_high`.
        columns: The label of each column in the chart.
        title: The title of the axis, with its unit.
        reference: A value to compare with, drawn as a line.
        x: The encoding of `value`, with its scale and axis.
        written: Returns the text beside a value; without it there are no texts.
    """
    import altair as alt

    rows = answer.pl()
    counts = [name for name in ("n", "people") if name in rows.columns]
    nothing = pl.lit(None, pl.Float64)
    long = pl.concat(
        rows.select(
            "role",
            what=pl.lit(name),
            value=pl.col(at).cast(pl.Float64),
            value_low=pl.col(f"{at}_low") if f"{at}_low" in rows.columns else nothing,
            value_high=pl.col(f"{at}_high") if f"{at}_high" in rows.columns else nothing,
            **{count: pl.col(count) for count in counts},
        )
        for at, name in columns.items()
    ).drop_nulls("value")
    y = alt.Y("what:N", title=None, sort=list(columns.values()))
    base = alt.Chart(long).encode(y, side("role", long), offset("role"))
    x = (x or alt.X("value:Q").scale(zero=from_zero(long, "value", title))).title(title)
    chart = _with_ends(base, long, "value", x, reference=reference)
    if written is not None:
        texts = long.with_columns(
            text=pl.Series([written(value) for value in long["value"]], dtype=pl.String),
            end=pl.max_horizontal("value", "value_high"),
        )
        chart.data = texts
        for layer in chart.layer:
            layer.data = alt.Undefined
        beside = alt.Chart().mark_text(align="left", dx=8, color=charts.INK)
        chart += beside.encode(alt.X("end:Q"), y, offset("role"), text="text:N")
    height = max(60, LINE * long.height, _TWO_LINES * long["what"].n_unique())
    return chart.properties(width=WIDTH, height=height)


def from_zero(rows: pl.DataFrame, value: str, title: str) -> bool:
    """Return whether an axis begins at 0: for shares, and where values hardly differ.

    Args:
        rows: The rows, with `VALUE_low` and `VALUE_high`.
        value: The column of values.
        title: The title of the axis, with its unit.
    """
    if title.endswith("(%)"):
        return True
    ends = rows.select(
        low=pl.min_horizontal(value, f"{value}_low"), high=pl.max_horizontal(value, f"{value}_high")
    )
    low, high = ends["low"].min(), ends["high"].max()
    if not isinstance(low, float | int) or not isinstance(high, float | int):
        return False
    return high - low < _NOTHING * max(abs(low), abs(high))


def intervals(
    base: alt.Chart, rows: pl.DataFrame, value: str, *, along: str = "x", on_bars: bool = False
) -> list[Chart]:
    """Return the layer of the intervals of a value; none if no row has one.

    A layer without values has no extent, which Vega warns of.

    Args:
        base: A chart of the rows, with their place and colour.
        rows: The rows, with `VALUE_low` and `VALUE_high`.
        value: The column of values.
        along: The axis of the values, "x" or "y".
        on_bars: Whether the values are drawn as bars.
    """
    import altair as alt

    low, high = f"{value}_low", f"{value}_high"
    if rows[low].null_count() == rows.height:
        return []
    rule = base.mark_rule(strokeWidth=3, opacity=0.45)
    if on_bars:
        rule = base.mark_rule(strokeWidth=2, color=charts.INK)
    if along == "x":
        return [rule.encode(alt.X(f"{low}:Q"), alt.X2(f"{high}:Q"))]
    return [rule.encode(alt.Y(f"{low}:Q"), alt.Y2(f"{high}:Q"))]


def _with_ends(
    base: alt.Chart, rows: pl.DataFrame, value: str, x: alt.X, *, reference: float | None
) -> Chart:
    """Draw a dot for each row of a chart, its interval as a bar, and a line to compare with."""
    import altair as alt

    layers = [
        *intervals(base, rows, value),
        base.mark_point(size=70, opacity=1).encode(x),
    ]
    if reference is not None and rows.height:
        rule = alt.Chart(pl.DataFrame({"at": [reference]}))
        rule = rule.mark_rule(color=charts.GREY, strokeDash=[4, 4])
        layers.insert(0, rule.encode(x=alt.XDatum(reference)))
    return alt.layer(*layers)


def whole(most: float | None) -> alt.Axis:
    """Return the axis of a count: its ticks are whole numbers.

    Args:
        most: The largest count that is drawn.
    """
    import altair as alt

    if most is not None and most <= _COUNTED:  # Vega has ticks at 0.5 here, in spite of the step
        return alt.Axis(values=list(range(int(most) + 1)), format="d")
    return alt.Axis(tickMinStep=1, format=",d")


def offset(column: str) -> alt.YOffset:
    """Return the encoding that puts the sides one below the other, the user first."""
    import altair as alt

    return alt.YOffset(f"{column}:N", sort=["user", "assistant"])


def shades(
    column: str, title: str, most: float, usual: float | None = None, *, least: int = 0
) -> alt.Opacity:
    """Return the encoding of a number by the strength of a colour, which works in dark mode too.

    Args:
        column: The column of numbers.
        title: The title of the legend.
        most: The number with the full colour.
        usual: The median of the numbers. Where `most` is many times larger, the scale is
            logarithmic, so that the usual numbers differ from one another too.
        least: The least number that is drawn, 0 or 1; 0 has nearly the colour of the paper.
    """
    import altair as alt

    skewed = usual is not None and most > _SKEWED * usual
    kind: Literal["symlog", "linear"] = "symlog" if skewed else "linear"
    begin = least if most > least else 0  # a domain of one number has no shades
    scale = alt.Scale(
        domain=[begin, most], range=[0.15 if least else 0.04, 1], clamp=True, type=kind
    )
    ticks: dict[str, Any] = {"tickCount": 4, "tickMinStep": 1}
    if most <= _COUNTED:
        ticks = {"values": list(range(least, int(most) + 1)), "format": "d"}
    legend = alt.Legend(
        **ticks,
        symbolType="square",
        symbolFillColor=charts.BLUE,
        symbolStrokeWidth=0,
        symbolSize=160,
    )
    return alt.Opacity(f"{column}:Q", title=title, scale=scale, legend=legend)


def dashed(colour: alt.Color, names: Sequence[str]) -> tuple[alt.Color, alt.StrokeDash]:
    """Return encodings of lines that also differ by their dashes, with such lines in the legend.

    Args:
        colour: The encoding of the colour.
        names: The values of its column, in the order of the legend.
    """
    import altair as alt

    told: Any = colour.to_dict()
    legend = alt.Legend(
        **told.get("legend", {}), symbolType="stroke", symbolSize=300, symbolStrokeWidth=2
    )
    dashes = [_DASHES[place % len(_DASHES)] for place in range(len(names))]
    scale = alt.Scale(domain=list(names), range=dashes)
    dash = alt.StrokeDash(f"{told['field']}:N", title=None, scale=scale, legend=legend)
    return colour.legend(legend), dash


SIDE: Final = f"({json.dumps(claims.SIDES)})[datum.label]"
"""Vega's expression for what a side is called."""


def side(column: str, rows: pl.DataFrame | None = None) -> alt.Color:
    """Return the colour encoding of the sides, the same in every chart.

    Args:
        column: The column of sides.
        rows: The rows that are drawn; the legend names only sides that occur in them.
    """
    import altair as alt

    sides = {"user": charts.BLUE, "assistant": charts.VERMILION}
    if rows is not None:
        known = set(rows[column])
        sides = {name: colour for name, colour in sides.items() if name in known} or sides
    scale = alt.Scale(domain=list(sides), range=list(sides.values()))
    return alt.Color(f"{column}:N", title=None, scale=scale, legend=alt.Legend(labelExpr=SIDE))
