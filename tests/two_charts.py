"""Cells that draw charts, and selectors that find the charts on a page."""

from __future__ import annotations

SETUP = "import altair as alt, polars as pl\nfrom aico_lab import charts\ncharts.enable()"
BARS = """
frame = pl.DataFrame({"x": ["a", "</script><b>"], "y": [1, 2]})
alt.Chart(frame, title="Bars").mark_bar().encode(x="x:N", y="y:Q")
"""
DAYS = """
from datetime import date
frame = pl.DataFrame({"day": [date(2018, 4, 1), date(2018, 4, 2)], "y": [1, 2]})
alt.Chart(frame, title="Days").mark_bar().encode(
    alt.X("yearmonthdate(day):O").axis(format="%Y-%m-%d"), y="y:Q"
)
"""
WIDE = """
frame = pl.DataFrame({"x": range(100), "y": range(100)})
alt.Chart(frame, title="Wide").mark_bar().encode(x="x:O", y="y:Q").properties(width=1400)
"""
PANELS = """
panel = alt.Chart(frame, title="Panel").mark_line().encode(x="x:Q", y="y:Q").properties(width=500)
panel | panel
"""
TALL = """
alt.Chart(frame, title="Tall").mark_bar().encode(x="y:Q", y="x:O").properties(height=2400)
"""

CHART = ".aico-lab-chart"
DRAWN = f"{CHART} .vega-embed svg.marks"
PICTURE = f"{CHART} .aico-lab-plot > img"
