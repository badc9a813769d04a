"""Charts of the results of explorations: themes, the map, shares over time and their change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from aico_lab import charts
from aico_lab.embeddings.exploration.views import TEXT

if TYPE_CHECKING:
    from aico_lab.embeddings.exploration.views import View

MOST_POINTS: Final = 5_000
"""The maximum number of passages that a map draws: more would make a page slow and large."""

_LISTED: Final = 12
"""The maximum number of passages of a selected region that are listed."""


def themes(view: View) -> Any:
    """Draw the number of passages of each theme as bars."""
    import altair as alt

    rows = view.pl()
    return (
        alt.Chart(rows)
        .mark_bar(color=charts.BLUE)
        .encode(
            alt.X("passages:Q", title="Passages").axis(tickMinStep=1, format=",d"),
            alt.Y("name:N", title=None, sort=rows["name"].to_list()).axis(labelLimit=260),
        )
        .properties(width=charts.WIDTH, height=18 * rows.height)
    )


def over_time(view: View) -> Any:
    """Draw the share of each theme in each period, with its interval, in one panel per theme."""
    import altair as alt

    rows = view.pl()
    names = rows["name"].unique(maintain_order=True).to_list()
    base = alt.Chart(rows).encode(alt.X("period:T", title=None).axis(tickCount=4, labelFlush=True))
    share = alt.Y("share:Q", title="Share (%)")
    band = base.mark_area(opacity=0.25, color=charts.BLUE).encode(
        alt.Y("share_low:Q", title="Share (%)"), alt.Y2("share_high:Q")
    )
    line = base.mark_line(color=charts.BLUE, point=True).encode(
        share, tooltip=["name:N", "period:T", "share:Q", "share_low:Q", "share_high:Q", "n:Q"]
    )
    return (
        alt.layer(band, line)
        .properties(width=charts.WIDTH // 2 - 40, height=90)
        .facet(alt.Facet("name:N", title=None, sort=names), columns=2)
        .resolve_scale(y="independent")
    )


def picture(view: View) -> Any:
    """Draw the map: a point for each passage, the largest themes in colours, and their names.

    If the view shows texts, dragging over a region lists its first passages.
    """
    import altair as alt

    rows = view.pl()
    step = -(-rows.height // MOST_POINTS)
    shown = rows.gather_every(step)
    largest = (
        shown.filter(~pl.col("is_outlier"))
        .group_by("theme", "name")
        .agg(pl.len(), pl.col("x", "y").median())
        .sort("len", "theme", descending=[True, False])
    )
    short = pl.col(TEXT).str.replace_all("\n", " / ").str.slice(0, 160)
    points = shown.with_columns(pl.col("is_outlier").alias("outlier")).select(
        "x", "y", "name", "started", "outlier",
        *([short] if TEXT in shown.columns else []),
    )  # fmt: skip
    axis = alt.Axis(labels=False, ticks=False, grid=False, domain=False)
    x, y = (_between_ends(alt, shown[axis_]) for axis_ in ("x", "y"))
    brush = alt.selection_interval(name="region")
    names = largest["name"].to_list()
    dots = (
        alt.Chart(points)
        .mark_circle(size=12, opacity=0.6)
        .encode(
            alt.X("x:Q", title=None, axis=axis, scale=x),
            alt.Y("y:Q", title=None, axis=axis, scale=y),
            alt.Color("name:N", legend=None, sort=names),
            opacity=alt.condition(brush, alt.value(0.7), alt.value(0.1)),
            tooltip=["name:N", "started:N", *([f"{TEXT}:N"] if TEXT in points.columns else [])],
        )
        .add_params(brush)
        .properties(width=charts.WIDTH, height=charts.WIDTH * 2 // 3)
    )
    first = pl.col("name").str.split(", ").list.first()
    labels = (
        alt.Chart(largest.head(24).select("x", "y", first=first))
        .mark_text(fontSize=11, fontWeight=600)
        .encode(x="x:Q", y="y:Q", text="first:N")
    )
    chart: Any = dots + labels
    if TEXT not in points.columns:
        return chart
    listed = (
        alt.Chart(points)
        .transform_filter(brush)
        .transform_window(row_number="row_number()")
        .transform_filter(f"datum.row_number <= {_LISTED}")
        .mark_text(align="left", limit=charts.WIDTH, fontSize=11)
        .encode(
            alt.Y("row_number:O", axis=None), x=alt.value(0), text=f"{TEXT}:N",
            tooltip=["name:N", "started:N", f"{TEXT}:N"],
        )
        .properties(width=charts.WIDTH, height=_LISTED * 16)
    )  # fmt: skip
    return alt.vconcat(chart, listed)


def _between_ends(alt: Any, coordinates: pl.Series) -> Any:
    """Return a scale that draws the few passages far from all others at the edge."""
    low, high = (float(coordinates.quantile(end) or 0) for end in (0.01, 0.99))
    margin = 0.1 * (high - low) or 1.0
    domain = [low - margin, high + margin]
    return alt.Scale(domain=domain, zero=False, nice=False, clamp=True)


def change(view: View) -> Any:
    """Draw the change of each theme's share, with its interval."""
    import altair as alt

    rows = view.pl()
    names = rows["name"].to_list()
    base = alt.Chart(rows).encode(alt.Y("name:N", title=None, sort=names).axis(labelLimit=260))
    title = "Change of the share (percentage points)"
    bars = base.mark_rule(color=charts.GREY).encode(alt.X("low:Q", title=title), alt.X2("high:Q"))
    dots = base.mark_circle(size=50, color=charts.BLUE).encode(
        alt.X("change:Q", title=title), tooltip=["name:N", "before:Q", "after:Q", "change:Q"]
    )
    return (bars + dots).properties(width=charts.WIDTH, height=18 * rows.height)
