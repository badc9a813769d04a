"""Whether a measure grows or falls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import polars as pl

from aico_lab import charts
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import MOST
from aico_lab.metrics.engine.metric import PEOPLE, Column, Parameter, interval, metric
from aico_lab.metrics.time import series

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from numpy.typing import NDArray

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk, Unit
    from aico_lab.metrics.time.series import Measure


_SMOOTHED: Final = 5
"""Periods of a moving average."""


_GOLDEN: Final = (5**0.5 - 1) / 2
"""Multiples of the golden section leave remainders that fill an interval evenly, in any part."""


_AUTOCORRELATION: Final = (-0.3, 0.9)
"""As far as an estimate is believed: that of a dozen periods is uncertain by 0.3."""


def _finish(rows: pl.DataFrame, talk: Talk, measure: Measure, period: Unit) -> pl.DataFrame:
    made = series.in_periods(rows, talk, measure, period).with_row_index("place")
    known = made.filter("complete", pl.col("value").is_not_null())
    slope, low, high = _theil_sen(
        known["place"].cast(pl.Float64).to_numpy(),
        known["value"].to_numpy(),
        whole_numbers=measure != "sentiment",
    )
    smooth = known.select("start", smooth=pl.col("value").rolling_mean(_SMOOTHED, center=True))
    return made.join(smooth, on="start", how="left", maintain_order="left").with_columns(
        slope=pl.lit(slope, pl.Float64),
        slope_low=pl.lit(low, pl.Float64),
        slope_high=pl.lit(high, pl.Float64),
        periods=known.height,
    )


def _theil_sen(
    x: NDArray[np.float64], y: NDArray[np.float64], *, whole_numbers: bool
) -> tuple[float | None, float | None, float | None]:
    """Return the median slope between every two values, and its interval."""
    n = len(y)
    if n < series.FEWEST:
        return None, None, None
    from scipy import stats

    slope = float(stats.theilslopes(_rounded(y), x).slope)
    if whole_numbers:
        # Ties give slopes of 0, so that ends of the interval would often be exactly 0.
        y = y + np.arange(n) * _GOLDEN % 1 - 0.5
    y = _rounded(y)
    spread = stats.theilslopes(y, x).slope
    alike = _autocorrelation(stats.rankdata(_rounded(y - spread * x)))
    lag = np.arange(1, n - 2)
    weights = (n - lag) * (n - lag - 1.0) * (n - lag - 2)
    inflation = 1 + 2 * (weights @ alike**lag) / (n * (n - 1.0) * (n - 2))
    # The effective sample size.
    independent = n * (1 - alike) / (1 + alike)
    away = stats.t.ppf(0.975, max(independent - 1, 2)) * np.sqrt(inflation)
    # scipy's interval is that of independent values, and of the normal distribution.
    found = stats.theilslopes(y, x, alpha=2 * stats.norm.sf(away))
    low, high = float(found.low_slope), float(found.high_slope)
    return slope, min(low, slope), max(high, slope)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make numbers equal that differ by the order in which they were added."""
    return np.round(values, 9)


def _autocorrelation(residuals: NDArray[np.float64]) -> float:
    """Estimate the correlation of neighbours, corrected for the line that was taken away."""
    n = len(residuals)
    apart = residuals - residuals.mean()
    total = apart @ apart
    found = apart[1:] @ apart[:-1] / total if total > 0 else 0.0
    return float(np.clip((n * found + 2) / (n - 4), *_AUTOCORRELATION))


def _describe(rows: pl.DataFrame) -> str:
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
    return f"No clear direction of {name} in {within}: {found}"


def _draw(answer: Answer) -> Chart:
    import altair as alt

    unit = answer.pl()["unit"][0]
    title = f"{series.TITLES[answer.parameters['measure']]} of a {unit}"
    bars = series.bars(answer, title=title)
    rows = series.recent(answer).with_columns(
        middle=pl.col("start").cast(pl.Datetime("ms"))
        + (pl.col("end") - pl.col("start")).cast(pl.Duration("ms")) / 2,
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


@metric(
    domain="time",
    question="Is more written as time goes by, or less?",
    source="Theil (1950), Sen (1968); autocorrelation as in Hamed and Rao (1998), corrected as in "
    "Marriott and Pope (1954); counts spread as in Machado and Santos Silva (2005)",
    parameters=[
        Parameter(
            "measure",
            str,
            "messages",
            "Messages, distinct known people who wrote (role user), or the mean sentiment.",
            choices=("messages", "users", "sentiment"),
        ),
        Parameter(
            "period",
            str,
            "week",
            "A local day, a week from Monday, or a calendar month.",
            choices=("day", "week", "month"),
        ),
    ],
    columns=[
        Column("start", "date", "first day of the period"),
        Column("n", "integer", "messages; of sentiment, those with a score"),
        PEOPLE,
        Column("value", "number", "messages, people or mean sentiment of the period"),
        Column("smooth", "number", f"mean of the {_SMOOTHED} complete periods around it"),
        Column("slope", "number", "change of value from one period to the next, in every row"),
        interval("slope"),
        Column("complete", "truth", "whether the period is whole, so that the trend rests on it"),
        Column("periods", "integer", "complete periods that have a value, in every row"),
        series.MEASURE,
        series.UNIT,
    ],
    finish=_finish,
    finding=_describe,
    of_all=True,
    far="left out",
    chart=_draw,
)
def trend(
    talk: Talk,
    *,
    measure: Literal["messages", "users", "sentiment"] = "messages",  # noqa: ARG001
    period: Literal["day", "week", "month"] = "week",  # noqa: ARG001
) -> ir.Table:
    """Messages, people or sentiment of each local period, and the direction of the whole periods.

    The slope is Theil and Sen's: the median of the slopes between every two periods, on which few
    unusual ones have no influence. It goes up or down where its 95 % interval leaves out 0. Counts
    are spread evenly over half a unit around each for the interval, or ties would hide a direction.

    Neighbouring periods are alike, which makes the interval wider: by Hamed and Rao's factor, for
    the autocorrelation of the ranks of what the line leaves over (lag 1, corrected for its bias,
    from -0.3 to 0.9, its powers at longer lags), and by Student's distribution for the number of
    independent periods that would tell as much; it goes no farther than the least and the
    greatest slope. Of simulated series without a direction, of 12 to 180 periods and an
    autocorrelation of 0 to 0.6, about 3 to 8 % are found to have one.

    Periods in which nobody wrote are 0, and have no sentiment: they take no part in its trend.
    Periods in which the data or the filters begin or end are shown, but take no part. Fewer than 12
    whole periods have no direction. Where the span has more than 2,000 periods, longer ones are
    taken (weeks, months, years, decades), as `unit` says.
    """
    # Parameters matter later: of days, periods of any length are made.
    return series.by_day(talk)
