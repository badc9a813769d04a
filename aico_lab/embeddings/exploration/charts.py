"""Charts of the results of explorations: themes, the map, shares over time and their change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from aico_lab import charts
from aico_lab.embeddings.exploration.views import TEXT

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aico_lab.embeddings.exploration.views import View

MOST_POINTS: Final = 5_000
"""The maximum number of passages that a map draws: more would make a page slow and large."""

_LISTED: Final = 10
"""The maximum number of passages of a selected region that are listed."""

_HINT: Final = f"Drag over the map to list the first {_LISTED} passages of a region."

_LONGEST: Final = 600
"""The maximum number of characters of a passage in a tooltip."""

_WIDGET_HEIGHT: Final = 480

_ROW: Final = 34
"""The height of a bar whose label has two lines, as the names of themes need."""

_COLOURS: Final = (
    charts.BLUE, charts.VERMILION, charts.GREEN, charts.PURPLE, "#E69F00", "#56B4E9",
)  # fmt: skip
_CLEAR: Final = "clear change"
_UNCLEAR: Final = "may be chance"
_TICKS: Final = 4
"""The maximum number of labels of an axis of time."""

_OTHERS: Final = "all other themes"


def themes(view: View) -> Any:
    """Draw the number of passages of each theme as bars."""
    import altair as alt

    rows = view.pl()
    return (
        alt.Chart(rows)
        .mark_bar(color=charts.BLUE)
        .encode(
            alt.X("passages:Q", title="Passages").axis(tickMinStep=1, format=",d"),
            alt.Y("name:N", title=None, sort=rows["name"].to_list()),
            tooltip=["name:N", "passages:Q", "people:Q", "outliers:Q"],
        )
        .properties(width=charts.WIDTH, height=_ROW * rows.height)
    )


def over_time(view: View) -> Any:
    """Draw the share of each theme in each period, with its interval, in one panel per theme."""
    import altair as alt

    is_month = view.headings["period"] == "Month"
    rows = _with_gaps(view.pl(), "1mo" if is_month else "1w").with_columns(
        panel=pl.col("name").str.replace(r"^(.*?, .*?,) ", "$1\n")
    )
    order = view.pl()["theme"].unique(maintain_order=True).to_list()
    panels = dict(rows.select("theme", "panel").iter_rows())
    periods = rows["period"].unique().sort()
    chosen = periods.gather_every(-(-len(periods) // _TICKS)).to_list()
    ticks = [alt.DateTime(year=one.year, month=one.month, date=one.day) for one in chosen]
    form = "%b %Y" if is_month else "%d %b %Y"
    base = alt.Chart(rows).encode(
        alt.X("period:T", title=None).axis(values=ticks, format=form, labelFlush=True)
    )
    share = alt.Y("share:Q", title="Share (%)")
    low, high = alt.Y("share_low:Q", title="Share (%)"), alt.Y2("share_high:Q")
    band = base.mark_area(opacity=0.25, color=charts.BLUE).encode(low, high)
    ends = base.mark_rule(opacity=0.25, color=charts.BLUE).encode(low, high)
    line = base.mark_line(color=charts.BLUE, point=True).encode(
        share, tooltip=["name:N", "period:T", "share:Q", "share_low:Q", "share_high:Q", "n:Q"]
    )
    return (
        alt.layer(band, ends, line)
        .properties(width=charts.WIDTH // 2 - 40, height=90)
        .facet(
            # In two lines: long titles would make the panels of a page narrow.
            alt.Facet("panel:N", title=None, sort=[panels[one] for one in order]).header(
                labelExpr="split(datum.label, '\\n')", labelLimit=charts.WIDTH // 4 - 20
            ),
            columns=2,
        )
        .resolve_scale(y="independent")
    )


def _with_gaps(rows: pl.DataFrame, every: str) -> pl.DataFrame:
    """Add a row without a share where a period without passages begins, to interrupt the lines."""
    after = pl.col("period").dt.offset_by(every)
    following = rows.select("theme", "name", period=after)
    last = pl.col("period") <= rows["period"].max()
    gaps = following.join(rows, ["theme", "period"], how="anti").filter(last)
    return pl.concat([rows, gaps], how="diagonal").sort("theme", "period")


def _palette(largest: Sequence[str]) -> dict[str, str]:
    """Return the colours of the largest themes, and grey for all others, if there are any."""
    own = dict(zip(largest, _COLOURS, strict=False))
    return own if len(own) == len(largest) else {**own, _OTHERS: charts.GREY}


def _in_palette(own: Collection[str]) -> pl.Expr:
    """Return the name of a row's theme where it has a colour of its own."""
    return pl.when(pl.col("name").is_in(list(own))).then("name").otherwise(pl.lit(_OTHERS))


def _colours(alt: Any, rows: pl.DataFrame, largest: Sequence[str]) -> tuple[pl.DataFrame, Any]:
    """Return rows with a column `colour`, and its encoding: the largest themes, and all others."""
    palette = _palette(largest)
    own = list(largest[: len(_COLOURS)])
    scale = alt.Scale(domain=list(palette), range=list(palette.values()))
    legend = alt.Legend(title=None, orient="bottom")
    rank = pl.col("name").replace_strict(
        {name: place for place, name in enumerate(own)}, default=len(own), return_dtype=pl.Int64()
    )
    return rows.with_columns(colour=_in_palette(palette), rank=rank), alt.Color(
        "colour:N", scale=scale, legend=legend
    )


def by_person(view: View) -> Any:
    """Draw the shares of themes of each person as a bar, the largest themes in colours."""
    import altair as alt

    rows = view.pl()
    sizes = rows.group_by("theme", "name").agg(pl.col("passages").sum())
    largest = sizes.sort("passages", "theme", descending=[True, False])["name"].to_list()
    rows, colour = _colours(alt, rows, largest)
    people = rows["person"].unique(maintain_order=True).to_list()
    return (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            alt.X("passages:Q", stack="normalize", title="Share of the person's passages").axis(
                format="%"
            ),
            alt.Y("person:N", title=None, sort=people),
            colour,
            order=alt.Order("rank:Q"),
            tooltip=["person:N", "name:N", "passages:Q", "share:Q", "n:Q"],
        )
        .properties(width=charts.WIDTH, height=22 * len(people))
    )


def picture(view: View) -> Any:
    """Draw the map: a point for each passage, the largest themes in colours, and their names.

    If the view shows texts, dragging over a region lists its first passages.
    """
    import altair as alt

    rows = view.pl()
    drawn = np.linspace(0, rows.height - 1, min(rows.height, MOST_POINTS)).round().astype(int)
    shown = rows[drawn]
    sizes = shown.group_by("theme", "name").agg(
        pl.len(),
        pl.col("x", "y").filter(~pl.col("is_outlier")).median(),
    )
    largest = sizes.sort("len", "theme", descending=[True, False])
    short = pl.col(TEXT).str.replace_all("\n", " / ").str.slice(0, _LONGEST)
    points, colour = _colours(alt, shown, largest["name"].to_list())
    points = points.with_columns(pl.col("is_outlier").alias("outlier")).select(
        "x", "y", "name", "colour", "started", "outlier",
        *([short] if TEXT in shown.columns else []),
    )  # fmt: skip
    axis = alt.Axis(labels=False, ticks=False, grid=False, domain=False)
    x, y = (_between_ends(alt, shown[axis_]) for axis_ in ("x", "y"))
    brush = alt.selection_interval(name="region")
    dots = (
        alt.Chart(points)
        .mark_circle(size=12, opacity=0.6)
        .encode(
            alt.X("x:Q", title=None, axis=axis, scale=x),
            alt.Y("y:Q", title=None, axis=axis, scale=y),
            colour,
            opacity=alt.condition(brush, alt.value(0.7), alt.value(0.1)),
            tooltip=["name:N", "started:N", *([f"{TEXT}:N"] if TEXT in points.columns else [])],
        )
        .add_params(brush)
        .properties(width=charts.WIDTH, height=charts.WIDTH * 2 // 3)
    )
    first = pl.col("name").str.split(", ").list.first()
    labels = (
        alt.Chart(largest.drop_nulls("x").head(24).select("x", "y", first=first))
        .mark_text(fontSize=11, fontWeight=600)
        .encode(x="x:Q", y="y:Q", text="first:N")
    )
    chart: Any = dots + labels
    if TEXT not in points.columns:
        return chart
    heading = "datum.row_number + '. ' + datum.started + ', ' + datum.name"
    listed = (
        alt.Chart(points)
        .transform_filter({"param": "region", "empty": False})
        .transform_window(row_number="row_number()")
        .transform_filter(f"datum.row_number <= {_LISTED}")
        .transform_calculate(line=f"{heading} + '\\n' + datum.{TEXT}")
        .mark_text(align="left", limit=charts.WIDTH, fontSize=11, lineBreak="\n")
        .encode(
            alt.Y("row_number:O", axis=None), x=alt.value(0), text="line:N",
            tooltip=["name:N", "started:N", f"{TEXT}:N"],
        )
    )  # fmt: skip
    hint = (
        alt.Chart(pl.DataFrame({"line": [_HINT]}))
        .mark_text(
            align="left", fontSize=11, color=charts.MUTED,
            opacity=alt.expr("length(data('region_store')) ? 0 : 1"),
        )
        .encode(x=alt.value(0), y=alt.value(_ROW // 2), text="line:N")
    )  # fmt: skip
    below = (hint + listed).properties(width=charts.WIDTH, height=_LISTED * _ROW)
    return alt.vconcat(chart, below).resolve_legend(color="independent")


def scatter(view: View) -> Any:
    """Draw all passages of the map with WebGL, as a widget of jupyter-scatter.

    The text of messages is among what hovering shows only if `content` is True.

    Raises:
        ImportError: jupyter-scatter is not installed.
    """
    import jscatter

    properties = ["theme", "time", *([TEXT] if view.content else [])]
    rows = view.pl()
    sizes = rows.group_by("theme", "name").len().sort("len", "theme", descending=[True, False])
    palette = _palette(sizes["name"].to_list())
    # With categories in the order of the palette: else jscatter confuses colours in its legend.
    named = rows.drop("theme").with_columns(
        colour=_in_palette(palette).cast(pl.Enum(list(palette)))
    )
    drawn = jscatter.Scatter(
        data=named.rename({"name": "theme", "started": "time"})
        .select("x", "y", "colour", *properties)
        .to_pandas(),
        x="x",
        y="y",
        color_by="colour",
        color_map=palette,
        legend=True,
        axes=False,
        height=_WIDGET_HEIGHT,
    )
    drawn.tooltip(enable=True, properties=properties)
    return drawn.widget


def _between_ends(alt: Any, coordinates: pl.Series) -> Any:
    """Return a scale that draws the few passages far from all others at the edge."""
    low, high = (float(coordinates.quantile(end) or 0) for end in (0.01, 0.99))
    margin = 0.1 * (high - low) or 1.0
    domain = [low - margin, high + margin]
    return alt.Scale(domain=domain, zero=False, nice=False, clamp=True)


def change(view: View) -> Any:
    """Draw the change of each theme's share, with its interval."""
    import altair as alt

    rows = view.pl().with_columns(
        clear=pl.when("is_clear").then(pl.lit(_CLEAR)).otherwise(pl.lit(_UNCLEAR))
    )
    names = rows["name"].to_list()
    base = alt.Chart(rows).encode(
        alt.Y("name:N", title=None, sort=names),
        alt.Color(
            "clear:N",
            scale=alt.Scale(domain=[_CLEAR, _UNCLEAR], range=[charts.VERMILION, charts.GREY]),
            legend=alt.Legend(title=None, orient="bottom"),
        ),
    )
    title = "Change of the share (percentage points)"
    zero = alt.Chart(pl.DataFrame({"zero": [0]})).mark_rule(color=charts.MUTED).encode(x="zero:Q")
    bars = base.mark_rule(strokeWidth=2).encode(alt.X("low:Q", title=title), alt.X2("high:Q"))
    dots = base.mark_circle(size=60, opacity=1).encode(
        alt.X("change:Q", title=title),
        tooltip=["name:N", "before:Q", "after:Q", "change:Q", "without:Q", "people:Q"],
    )
    return (zero + bars + dots).properties(width=charts.WIDTH, height=_ROW * rows.height)
