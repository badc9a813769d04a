"""Temporal behaviour over weeks and months: in which direction it goes, and when it changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import altair as alt
import numpy as np
import polars as pl

from aico_lab.errors import InvalidValue
from aico_lab.metrics import draw, periods
from aico_lab.metrics.registry import CATALOGUE, PEOPLE, Column, interval
from aico_lab.reports import charts

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from numpy.typing import NDArray

    from aico_lab.metrics.answer import Answer
    from aico_lab.metrics.registry import Chart
    from aico_lab.metrics.talk import Talk, Unit

_SMOOTHED: Final = 5
"""Periods of a moving average."""

_FEWEST: Final = 5
"""With four periods, no order of them is so rare that it would be a trend at 95 %."""

_MOST: Final = 3_000
"""Periods of which every two are compared: more take seconds and hundreds of megabytes."""

_TITLES: Final = {"messages": "Messages", "users": "People", "sentiment": "Sentiment"}

_SAID: Final = 4
"""Phases that a sentence names."""

_SHORTEST: Final = {"day": 7, "week": 3}
"""Periods of a segment."""


def _series(talk: Talk, measure: str, unit: Unit) -> ir.Table:
    days = talk.daily.mutate(start=periods.start_of(talk.daily, unit))
    measures = {
        "messages": days.n_messages.sum(),
        "users": days.user_id.nunique(where=days.role == "user"),
        "sentiment": days.sentiment_sum.sum() / days.n_scored.sum().nullif(0),
    }
    return days.group_by("start").agg(
        n=days.n_messages.sum(), people=days.user_id.nunique(), value=measures[measure]
    )


def _finish_trend(rows: pl.DataFrame, talk: Talk, measure: str, period: Unit) -> pl.DataFrame:  # noqa: ARG001
    made = periods.on_calendar(rows, talk, period)
    known = made.filter("whole").select("start", pl.col("value").cast(pl.Float64))
    slope, low, high = _theil_sen(known["value"].to_numpy(), period)
    smooth = known.select("start", smooth=pl.col("value").rolling_mean(_SMOOTHED, center=True))
    return made.join(smooth, on="start", how="left", maintain_order="left").with_columns(
        slope=pl.lit(slope, pl.Float64),
        slope_low=pl.lit(low, pl.Float64),
        slope_high=pl.lit(high, pl.Float64),
        complete="whole",
    )


def _theil_sen(
    values: NDArray[np.float64], unit: Unit
) -> tuple[float | None, float | None, float | None]:
    """Give the median slope between every two values, and its interval."""
    if len(values) < _FEWEST:
        return None, None, None
    if len(values) > _MOST:
        raise InvalidValue(
            f"A trend over {len(values):,} {unit}s compares too many pairs of them: give `since`, "
            "or take longer periods."
        )
    from scipy import stats

    found = stats.theilslopes(values, np.arange(len(values)))
    return float(found.slope), float(found.low_slope), float(found.high_slope)


def _describe_trend(rows: pl.DataFrame) -> str:
    row = rows.row(0, named=True)
    if row["slope"] is None:
        return f"Fewer than {_FEWEST} complete periods: too few for a direction"
    direction = "No clear change"
    if row["slope_low"] > 0:
        direction = "It goes up"
    elif row["slope_high"] < 0:
        direction = "It goes down"
    return (
        f"{direction}: {row['slope']:+,.3g} a period "
        f"({row['slope_low']:+,.3g} to {row['slope_high']:+,.3g})"
    )


def _draw_trend(answer: Answer) -> Chart:
    unit: Unit = answer.parameters["period"]
    title = f"{_TITLES[answer.parameters['measure']]} of a {unit}"
    bars = periods.bars(answer, unit, "value", title=title, height=220)
    half = {"day": "12h", "week": "84h", "month": "15d"}[unit]
    rows = periods.recent(answer, unit).with_columns(
        middle=pl.col("start").cast(pl.Datetime("ms")).dt.offset_by(half),
        line=pl.lit(f"mean of {_SMOOTHED} {unit}s"),
    )
    smooth = rows.filter(pl.col("smooth").is_not_null())
    if smooth.is_empty():  # a legend of nothing has no size
        return bars
    line = (
        alt.Chart(smooth)
        .mark_line(strokeWidth=2.5)
        .encode(
            alt.X("middle:T"),
            alt.Y("smooth:Q"),
            alt.Stroke("line:N", title=None).scale(range=[charts.VERMILION]),
        )
    )
    return alt.layer(bars, line).properties(width=draw.WIDTH)


@CATALOGUE.metric(
    domain="time",
    question="Is more written as time goes by, or less?",
    source="Theil (1950), Sen (1968), whose interval is that of Kendall's rank correlation",
    columns=[
        Column("start", "date", "first day of the period"),
        Column("n", "integer", "messages"),
        PEOPLE,
        Column("value", "number", "messages or people of the period"),
        Column("smooth", "number", f"mean of the {_SMOOTHED} complete periods around it"),
        Column("slope", "number", "change of value from one period to the next, in every row"),
        interval("slope"),
        Column("complete", "truth", "whether the period is whole, so that the trend rests on it"),
    ],
    finish=_finish_trend,
    finding=_describe_trend,
    chart=_draw_trend,
)
def trend(
    talk: Talk,
    *,
    measure: Literal["messages", "users"] = "messages",
    period: Literal["day", "week", "month"] = "week",
) -> ir.Table:
    """Messages or people of each local period, and the overall direction of the whole periods.

    The slope is Theil and Sen's: the median of the slopes between every two periods, on which few
    unusual ones have no influence. It goes up or down where its 95 % interval leaves out 0; the
    interval takes periods for independent, and is too narrow where neighbours are alike. Periods
    in which nobody wrote are 0. Periods in which the data or the filters begin or end are shown,
    but take no part. Fewer than 5 whole periods have no direction.

    Args:
        measure: Messages, or distinct known people who wrote (role user).
        period: A local day, a week from Monday, or a calendar month.
    """
    return _series(talk, measure, period)


def _finish_changes(
    rows: pl.DataFrame, talk: Talk, measure: str, period: Unit, penalty: float
) -> pl.DataFrame:
    known = (
        periods.on_calendar(rows, talk, period)
        .filter("whole", pl.col("value").is_not_null())
        .with_columns(pl.col("value").cast(pl.Float64))
    )
    values = known["value"].to_numpy()
    signal = values if measure == "sentiment" else np.log1p(values)
    ends = _segments(signal, _SHORTEST[period], penalty)
    segment = np.searchsorted(ends, np.arange(len(values)), side="right")
    found = known.with_columns(segment=pl.Series(segment)).group_by("segment", maintain_order=True)
    return found.agg(
        pl.col("start").first(),
        pl.col("end").last().dt.offset_by("-1d"),
        n=pl.len(),
        people=pl.col("people").max(),
        level=pl.col("value").mean(),
    )


def _segments(signal: NDArray[np.float64], shortest: int, penalty: float) -> list[int]:
    """Give where each segment ends: the place after its last value."""
    n = len(signal)
    # Half the mean square of successive differences: a change of level hardly adds to it.
    noise = float(np.mean(np.diff(signal) ** 2)) / 2 if n > 1 else 0.0
    if n < 2 * shortest or noise == 0:
        return [n]
    import ruptures

    # The linear kernel's cost is that of l2, and its search is PELT, in C.
    search = ruptures.KernelCPD(kernel="linear", min_size=shortest).fit(signal - signal.mean())
    ends: list[int] = search.predict(pen=penalty * noise * float(np.log(n)))
    return ends


def _describe_changes(rows: pl.DataFrame) -> str:
    said = rows.select("start", "level").head(_SAID).rows()
    phases = [f"{_written(level)} from {start}" for start, level in said]
    more = ", …" if rows.height > _SAID else ""
    number = "1 phase" if rows.height == 1 else f"{rows.height} phases"
    return f"{number}, in the mean of a period: {', '.join(phases)}{more}"


def _written(level: float) -> str:
    return f"{level:,.3g}" if level < 1000 else f"{level:,.0f}"  # noqa: PLR2004


def _draw_changes(answer: Answer) -> Chart:
    parameters = answer.parameters
    rows = answer.pl().with_columns(
        after=pl.col("end").dt.offset_by("1d"),
        text=pl.Series([_written(level) for level in answer.pl()["level"]], dtype=pl.String),
    )
    base = alt.Chart(rows).encode(periods.axis(answer, parameters["period"]))
    y = alt.Y(
        "level:Q", title=f"{_TITLES[parameters['measure']]} of a {parameters['period']}, mean"
    )
    y = y.scale(zero=parameters["measure"] != "sentiment")
    return alt.layer(
        base.mark_rule(color=charts.GREY, strokeDash=[4, 4], strokeWidth=1),
        base.mark_rule(strokeWidth=4, color=charts.BLUE).encode(alt.X2("after:T"), y),
        base.mark_text(align="left", dx=3, dy=-10, fontSize=11).encode(y, text="text:N"),
    ).properties(width=draw.WIDTH, height=220)


@CATALOGUE.metric(
    domain="time",
    question="When did a new phase begin?",
    source="PELT: Killick, Fearnhead and Eckley (2012), as in ruptures: Truong, Oudre and Vayatis "
    "(2020)",
    columns=[
        Column("start", "date", "first day of the segment"),
        Column("end", "date", "last day of the segment"),
        Column("n", "integer", "periods"),
        Column("people", "integer", "people of its period with the most of them"),
        Column("level", "number", "mean of the measure in a period"),
    ],
    finish=_finish_changes,
    finding=_describe_changes,
    chart=_draw_changes,
)
def change_points(
    talk: Talk,
    *,
    measure: Literal["messages", "users", "sentiment"] = "messages",
    period: Literal["day", "week"] = "week",
    penalty: float = 3.0,
) -> ir.Table:
    """Segments of time within which a measure keeps its level.

    The segmentation that minimises the squared distances to each segment's mean, plus, for every
    segment, `penalty` times the variance of the noise times the logarithm of the number of periods.
    Counts are taken as log(1 + count), so that doubling weighs the same everywhere; periods in
    which nobody wrote are 0. Sentiment is the mean of the period's scored messages; periods without
    any are left out. The noise is half the mean square of successive differences (von Neumann,
    1941). Segments have at least 3 weeks, or 7 days. Only whole periods take part: not the one in
    which the data or the filters begin, nor the one in which they end. Of series without a change
    about one in twenty is found to have one, and more where neighbouring periods are alike.

    Args:
        measure: Messages, distinct known people who wrote (role user), or the mean sentiment.
        period: A local day, or a week from Monday. Weekdays that differ hide changes between days.
        penalty: More makes fewer segments. 3 is that of the modified BIC (Zhang and Siegmund 2007),
            2 that of the BIC.
    """
    if penalty <= 0:
        raise InvalidValue(f"The penalty of a segment is more than 0, not {penalty:g}.")
    return _series(talk, measure, period)
