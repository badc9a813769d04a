"""Trend: whether a measure rises or falls over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from aico_lab import charts
from aico_lab.metrics.engine import claims, draw, gaps, periods, series
from aico_lab.metrics.engine.intervals import MOST
from aico_lab.metrics.engine.metric import PEOPLE, Column, interval, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from numpy.typing import NDArray

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.series import Measure
    from aico_lab.metrics.engine.talk import Talk, Unit


_SMOOTHED: Final = 5
"""The number of periods in the moving average."""


_GOLDEN: Final = (5**0.5 - 1) / 2
"""The fractional parts of multiples of the golden section fill an interval evenly."""


_AUTOCORRELATION: Final = (-0.3, 0.9)
"""Limits of the estimate, whose uncertainty is about 0.3 with a dozen periods."""


def _finish(rows: pl.DataFrame, talk: Talk, measure: Measure, period: Unit) -> pl.DataFrame:
    made = series.in_periods(rows, talk, measure, period).with_row_index("place")
    if not made.is_empty():
        made = gaps.with_longest(made, made["unit"][0])
    known = made.filter("complete", pl.col("value").is_not_null())
    slope, low, high = _theil_sen(
        known["place"].cast(pl.Float64).to_numpy(),
        known["value"].to_numpy(),
        whole_numbers=measure != "sentiment",
    )
    whole = pl.when("complete").then("value")  # one null among the values makes their mean null
    return made.with_columns(
        smooth=whole.rolling_mean(_SMOOTHED, min_samples=_SMOOTHED, center=True),
        slope=pl.lit(slope, pl.Float64),
        slope_low=pl.lit(low, pl.Float64),
        slope_high=pl.lit(high, pl.Float64),
        periods=known.height,
    )


def _theil_sen(
    x: NDArray[np.float64], y: NDArray[np.float64], *, whole_numbers: bool
) -> tuple[float | None, float | None, float | None]:
    """Return the median slope between all pairs of values, and the ends of its interval."""
    n = len(y)
    if n < series.FEWEST:
        return None, None, None
    from scipy import stats

    slope = float(stats.theilslopes(_rounded(y), x).slope)
    if whole_numbers:
        # Spread tied counts: their slopes of 0 would often put an end of the interval at 0.
        y = y + np.arange(n) * _GOLDEN % 1 - 0.5
    y = _rounded(y)
    spread = stats.theilslopes(y, x).slope
    alike = _autocorrelation(stats.rankdata(_rounded(y - spread * x)))
    lag = np.arange(1, n - 2)
    weights = (n - lag) * (n - lag - 1.0) * (n - lag - 2)
    inflation = 1 + 2 * (weights @ alike**lag) / (n * (n - 1.0) * (n - 2))
    # The effective sample size of an AR(1) series.
    independent = n * (1 - alike) / (1 + alike)
    away = stats.t.ppf(0.975, max(independent - 1, 2)) * np.sqrt(inflation)
    # Pass the wider quantile to scipy, whose interval assumes independent values.
    found = stats.theilslopes(y, x, alpha=2 * stats.norm.sf(away))
    low, high = float(found.low_slope), float(found.high_slope)
    return slope, min(low, slope), max(high, slope)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round off the differences that come from the order of floating-point sums."""
    return np.round(values, 9)


def _autocorrelation(residuals: NDArray[np.float64]) -> float:
    """Return the lag-1 autocorrelation of residuals, corrected for the fitted line's bias."""
    n = len(residuals)
    apart = residuals - residuals.mean()
    total = apart @ apart
    found = apart[1:] @ apart[:-1] / total if total > 0 else 0.0
    return float(np.clip((n * found + 2) / (n - 4), *_AUTOCORRELATION))


def _describe(rows: pl.DataFrame) -> str:
    row = rows.row(0, named=True)
    return gaps.told(_describe_slope(rows), row)


def _describe_slope(rows: pl.DataFrame) -> str:
    row = rows.row(0, named=True)
    unit, number = row["unit"], row["periods"]
    if row["slope"] is None:
        return claims.too_little(number, f"complete {unit}s", series.FEWEST)
    if row["measure"] != "sentiment" and not (rows.filter("complete")["value"] != 0).any():
        return f"Too little data: nothing was written in {claims.counted(number, f'{unit}s')}"
    slope, low, high = (
        claims.written(row[f"slope{end}"], signed=True) for end in ("", "_low", "_high")
    )
    found = (
        f"{slope} a {unit} (95 % interval {low} to {high}){claims.doubt(number, f'{unit}s')}"
        f"{series.dominated(row['measure'], row[MOST])}"
    )
    within = claims.counted(number, f"{unit}s")
    goes, name = series.SAID[row["measure"]]
    if row["slope_low"] > 0:
        return f"{goes} up in {within}: {found}"
    if row["slope_high"] < 0:
        return f"{goes} down in {within}: {found}"
    if _is_vague(rows):
        return f"No clear direction of {name} in {within}"
    return f"No clear direction of {name} in {within}: {found}"


def _is_vague(rows: pl.DataFrame) -> bool:
    """Return whether the interval of the slope is wider than the range of the values."""
    row, values = rows.row(0, named=True), rows.filter("complete")["value"].drop_nulls()
    if row["slope_low"] is None or row["slope_high"] is None or values.is_empty():
        return False
    span = values.max() - values.min()  # type: ignore[operator]
    if row["measure"] != "sentiment":
        span = max(span, 1)  # counts are spread within a unit
    return bool(row["slope_high"] - row["slope_low"] > span)


def _draw(answer: Answer) -> Chart:
    import altair as alt

    unit = answer.pl()["unit"][0]
    title = f"{series.TITLES[answer.parameters['measure']]} of a {unit}"
    bars = series.bars(answer, title=title)
    rows = series.recent(answer).with_columns(
        middle=pl.col("start").cast(pl.Datetime("ms"))
        + (pl.col("end") - pl.col("start")).cast(pl.Duration("ms")) / 2,
    )
    mean = f"mean of {_SMOOTHED} {unit}s"
    smooth = rows.select("middle", level="smooth", line=pl.lit(mean))
    # The line breaks at nulls; one point between two of them is no visible line.
    level = pl.col("level")
    drawn = level.is_not_null() & (level.shift(1).is_not_null() | level.shift(-1).is_not_null())
    smooth = smooth.with_columns(pl.when(drawn).then("level").alias("level"))
    lines = pl.concat(
        [
            smooth if smooth["level"].count() else smooth.clear(),
            # A slope that the finding does not state is not drawn either.
            _line(rows).clear() if _is_vague(answer.pl()) else _line(rows),
        ]
    )
    if lines.is_empty():  # an empty legend has no size
        return bars
    names = lines["line"].unique(maintain_order=True).to_list()
    colours = [charts.VERMILION if name == mean else charts.INK for name in names]
    dashes = [[1, 0] if name == mean else [6, 4] for name in names]
    line = alt.Chart(lines).encode(
        alt.X("middle:T"),
        alt.Y("level:Q"),
        alt.Stroke("line:N", title=None).scale(domain=names, range=colours),
        alt.StrokeDash("line:N", title=None).scale(domain=names, range=dashes),
    )
    return alt.layer(bars, line.mark_line(strokeWidth=2)).properties(width=draw.WIDTH)


def _line(rows: pl.DataFrame) -> pl.DataFrame:
    """Return both ends of the line of the median slope; no rows if there is no slope.

    The line goes through the median distance of the complete periods, as Theil and Sen's estimator
    does. Of counts, only the part above 0 is drawn.

    Args:
        rows: The rows that are drawn, with `middle`, the moment in the middle of the period.
    """
    known = rows.with_row_index("place").filter("complete", pl.col("value").is_not_null())
    nothing = pl.DataFrame(schema={"middle": rows["middle"].dtype, "level": pl.Float64,
                                   "line": pl.String})  # fmt: skip
    slope = rows["slope"][0]
    if slope is None or known.height < 2:  # noqa: PLR2004
        return nothing
    start = float((known["value"] - slope * known["place"]).median())
    ends = [float(known["place"][0]), float(known["place"][-1])]
    if known["measure"][0] != "sentiment" and slope:
        at_zero = -start / slope
        ends = [max(ends[0], at_zero), ends[1]] if slope > 0 else [ends[0], min(ends[1], at_zero)]
    if ends[0] >= ends[1]:
        return nothing
    first, last = known["middle"][0], known["middle"][-1]
    apart = (last - first) / (known["place"][-1] - known["place"][0])
    return pl.DataFrame(
        {
            "middle": [first + apart * (end - known["place"][0]) for end in ends],
            "level": [start + slope * end for end in ends],
            "line": ["median slope"] * 2,
        },
        schema=nothing.schema,
    )


@metric(
    domain="time",
    question="Does a measure rise or fall over time?",
    source="Theil (1950), Sen (1968); autocorrelation as in Hamed and Rao (1998), corrected as in "
    "Marriott and Pope (1954); counts spread as in Machado and Santos Silva (2005)",
    parameters=[series.CHOSEN_MEASURE, periods.DAY_WEEK_OR_MONTH],
    columns=[
        Column("start", "date", "first day of the period"),
        Column("n", "integer", "messages; for sentiment, messages with a score"),
        PEOPLE,
        Column("value", "number", "messages, people or mean sentiment of the period"),
        Column(
            "smooth",
            "number",
            f"mean of {_SMOOTHED} complete periods in a row, with this one in the middle",
        ),
        Column(
            "slope", "number", "median change of value from one period to the next, in every row"
        ),
        interval("slope"),
        Column("complete", "truth", "whether the period is whole, and so used for the trend"),
        Column("periods", "integer", "complete periods with a value, in every row"),
        series.MEASURE,
        series.UNIT,
    ],
    finish=_finish,
    finding=_describe,
    of_all=True,
    far="left out",
    estimated="among them",
    chart=_draw,
)
def trend(
    talk: Talk,
    *,
    measure: Measure,  # noqa: ARG001
    period: Unit,  # noqa: ARG001
) -> ir.Table:
    """Messages, people or sentiment of each local period, and the slope over whole periods.

    The slope is the Theil-Sen estimator: the median of the slopes between all pairs of periods,
    which a few unusual periods do not affect. The trend is up or down if the 95 % interval excludes
    0; the finding leaves out an interval that is wider than the range of the values. For the
    interval, counts are spread evenly within half a unit to either side, since ties
    would hide a trend.

    Neighbouring periods resemble each other, so the interval is widened: by Hamed and Rao's factor
    for the autocorrelation of the ranks of the residuals (lag 1, bias-corrected, limited to -0.3
    to 0.9, with its powers at longer lags), and by Student's t distribution for the effective
    number of independent periods. Neither end of the interval lies
    beyond the least or the greatest of the slopes between pairs. In simulated
    series without a trend, of 12 to 120 periods, a trend is found in 3 to 6 % for an
    autocorrelation of 0 or 0.3, and in 6 to 8 % for one of 0.6, as far as 1,000 series of normal
    values or of skewed counts tell.

    Periods without messages count as 0; they have no sentiment, and its trend leaves them out. If
    they are four weeks or more in a row, the finding names the longest such gap.
    Periods in which the data or the filters begin or end are shown, but not used for the slope.
    With fewer than 12 whole periods there is no slope. If the span has more than 2,000 periods,
    longer ones are used (weeks, months, years, decades); see `unit`.
    """
    # `finish` applies the parameters: it builds periods of any length from days.
    return series.by_day(talk)
