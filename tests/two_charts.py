"""A notebook of two charts, and how to find them on a page."""

from __future__ import annotations

SETUP = "import altair as alt, polars as pl\nfrom aico_lab.reports import charts\ncharts.enable()"
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

CHART = ".aico-lab-chart"
DRAWN = f"{CHART} .vega-embed svg.marks"
PICTURE = f"{CHART} > img"
