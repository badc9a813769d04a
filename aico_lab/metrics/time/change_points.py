"""When the level of a measure changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import polars as pl

from aico_lab import charts
from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine import claims, draw
from aico_lab.metrics.engine.intervals import MOST
from aico_lab.metrics.engine.metric import Column, Parameter, metric
from aico_lab.metrics.time import series

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from numpy.typing import NDArray

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.talk import Talk, Unit
    from aico_lab.metrics.time.series import Measure


_SAID: Final = 4
"""Phases that a sentence names."""


_FARTHEST: Final = 3.0
"""Standard deviations from the median, at which the values are cut."""


_SIGMA: Final = 1.4826
"""The standard deviation of a normal distribution, by its median absolute deviation."""


_AUTOCORRELATIONS: Final = np.arange(-9, 10) / 10


_ROUNDS: Final = 10


def _finish(
    rows: pl.DataFrame, talk: Talk, measure: Measure, period: Unit, penalty: float
) -> pl.DataFrame:
    made = series.in_periods(rows, talk, measure, period)
    known = made.filter("complete", pl.col("value").is_not_null())
    if known.is_empty():
        # One row, so that the answer says that there is too little.
        none = pl.DataFrame(
            {"start": [None], "end": [None], "n": [0], "people": [0], "level": [None]}
            | {"periods": [0], "phases": [0]}
        )
        return none.join(made.select("measure", "unit", MOST).head(1), how="cross")
    values = known["value"].to_numpy()
    signal = values if measure == "sentiment" else np.log1p(values)
    unit = known["unit"][0]
    ends = [len(values)]
    if len(values) >= _fewest(unit):
        ends = _segments(_cut(signal), _shortest(unit), penalty)
    segment = np.searchsorted(ends, np.arange(len(values)), side="right")
    found = known.with_columns(segment=pl.Series(segment)).group_by("segment", maintain_order=True)
    return found.agg(
        pl.col("start").first(),
        pl.col("end").last().dt.offset_by("-1d"),
        n=pl.len(),
        people=pl.col("people").max(),
        level=pl.col("value").mean(),
        measure=pl.col("measure").first(),
        unit=pl.col("unit").first(),
        **{MOST: pl.col(MOST).first()},
        periods=pl.lit(known.height),
        phases=pl.lit(len(ends)),
    )


def _shortest(unit: str) -> int:
    """Return how many periods a segment has at least."""
    return 7 if unit == "day" else 3


def _fewest(unit: str) -> int:
    """Return how many periods are needed: two segments, besides the first value."""
    return max(series.FEWEST, 2 * _shortest(unit) + 1)


def _cut(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move far values nearer, as a few of them next to each other would be a segment."""
    middle = np.median(signal)
    away = _FARTHEST * _SIGMA * np.median(np.abs(signal - middle))
    return np.clip(signal, middle - away, middle + away) if away > 0 else signal


def _segments(signal: NDArray[np.float64], shortest: int, penalty: float) -> list[int]:
    """Return where each segment ends: the place after its last value."""
    n = len(signal) - 1
    best, ends = np.inf, [n]
    if np.ptp(signal) == 0:
        return [n + 1]
    signal = (signal - signal.mean()) / signal.std()
    for autocorrelation in _AUTOCORRELATIONS:
        independent = signal[1:] - autocorrelation * signal[:-1]
        for squares, found in _candidates(independent - independent.mean(), shortest, penalty):
            # Of segments without any noise, the fewest.
            fit = n * np.log(max(squares, 1e-9)) + penalty * len(found)
            if fit < best:
                best, ends = fit, found
    return [end + 1 for end in ends]


def _candidates(
    signal: NDArray[np.float64], shortest: int, penalty: float
) -> list[tuple[float, list[int]]]:
    """Return segmentations of independent values, and the sum of squares that each leaves."""
    n = len(signal)
    made = [(float(signal @ signal), [n])]
    if n < 2 * shortest:
        return made
    import ruptures

    # The linear kernel's cost is that of l2, and its search is PELT, in C.
    search = ruptures.KernelCPD(kernel="linear", min_size=shortest).fit(signal)
    # Half the mean square of successive differences: a change of level hardly adds to it.
    squares = n * float(np.mean(np.diff(signal) ** 2)) / 2
    for _ in range(_ROUNDS):
        # The search adds a penalty to the squares, not to their logarithm: that has this slope.
        ends: list[int] = search.predict(pen=penalty * max(squares, 1e-9) / n)
        if ends == made[-1][1] and len(made) > 1:
            break
        parts = np.split(signal, ends[:-1])
        squares = float(sum(((part - part.mean()) ** 2).sum() for part in parts))
        made.append((squares, ends))
    return made


def _describe(rows: pl.DataFrame) -> str:
    number, unit, found, measure, most = rows.select(
        "periods", "unit", "phases", "measure", MOST
    ).row(0)
    if number < _fewest(unit):
        return claims.too_little(number, f"complete {unit}s", _fewest(unit))
    within = claims.counted(number, f"{unit}s")
    if measure != "sentiment" and not (rows["level"] != 0).any():
        return f"Too little data: nothing was written in {within}"
    _goes, name = series.SAID[measure]
    mainly = series.dominated(measure, most)
    if found == 1:
        return f"No change of the level of {name} is found in {within}{mainly}"
    said = rows.select("start", "level").head(_SAID).rows()
    phases = [f"{claims.written(level)} from {start}" for start, level in said]
    more = ", …" if rows.height > len(phases) else ""
    listed = f"{', '.join(phases)}{more}{claims.doubt(number, f'{unit}s')}{mainly}"
    of = "; of the rows that are shown" if rows.height < found else ""
    return f"{found} phases of {name} in {within}{of}, in the mean of a {unit}: {listed}"


def _draw(answer: Answer) -> Chart:
    import altair as alt

    measure, unit = answer.parameters["measure"], answer.pl()["unit"][0]
    rows = answer.pl().filter(pl.col("n") > 0)
    rows = rows.with_columns(
        after=pl.col("end").dt.offset_by("1d"),
        text=pl.Series([claims.written(level) for level in rows["level"]], dtype=pl.String),
    )
    base = alt.Chart(rows).encode(series.axis(answer))
    y = alt.Y("level:Q", title=f"{series.TITLES[measure]} of a {unit}, mean")
    y = y.scale(zero=measure != "sentiment")
    return alt.layer(
        base.mark_rule(color=charts.GREY, strokeDash=[4, 4], strokeWidth=1),
        base.mark_rule(strokeWidth=4, color=charts.BLUE).encode(alt.X2("after:T"), y),
        base.mark_text(align="left", dx=3, dy=-10, fontSize=11).encode(y, text="text:N"),
    ).properties(width=draw.WIDTH, height=220)


@metric(
    domain="time",
    question="When did a new phase begin?",
    source="Changes of an AR(1) series' mean: Chakar, Lebarbier, Lévy-Leduc and Robin (2017); "
    "PELT: Killick, Fearnhead and Eckley (2012), as in ruptures: Truong, Oudre and Vayatis (2020)",
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
            "A local day, or a week from Monday. Weekdays that differ hide changes between days.",
            choices=("day", "week"),
        ),
        Parameter(
            "penalty",
            float,
            11.5,
            "More makes fewer segments: how much twice the logarithm of the likelihood must"
            " gain by one more.",
        ),
    ],
    columns=[
        Column("start", "date", "first day of the segment"),
        Column("end", "date", "last day of the segment"),
        Column("n", "integer", "periods"),
        Column("people", "integer", "people of its period with the most of them"),
        Column("level", "number", "mean of the measure in a period"),
        Column("periods", "integer", "periods of all segments, in every row"),
        Column("phases", "integer", "how many segments there are, in every row"),
        series.MEASURE,
        series.UNIT,
    ],
    finish=_finish,
    finding=_describe,
    of_all=True,
    far="left out",
    chart=_draw,
)
def change_points(
    talk: Talk,
    *,
    measure: Literal["messages", "users", "sentiment"] = "messages",  # noqa: ARG001
    period: Literal["day", "week"] = "week",  # noqa: ARG001
    penalty: float,
) -> ir.Table:
    """Segments of time within which a measure keeps its level.

    The most likely levels and autocorrelation of neighbouring periods (from -0.9 to 0.9) together:
    of all segmentations of each period less its autocorrelated part of the one before, that with
    the least n * log(squared distances to each segment's mean), plus `penalty` for every segment.
    So a level must differ more from the one before where neighbours are alike anyway. Of simulated
    series without a change, of 12 to 180 weeks, 2 to 5 % are found to have one where the
    autocorrelation is 0 to 0.3, and 4 to 9 % where it is 0.6 (11 % where the noise is skewed, and
    up to 20 % of very sparse counts, below one in a period).

    Counts are taken as log(1 + count), so that doubling weighs the same everywhere; periods in
    which nobody wrote are 0. Sentiment is the mean of the period's scored messages; periods without
    any are left out. Values farther than 3 standard deviations (by the median absolute deviation)
    from the median weigh as if they were there. Segments have at least 3 periods, or 7 days. Only
    whole periods take part: not the one in which the data or the filters begin, nor the one in
    which they end. Of fewer than 12 periods, or 15 days, no changes are sought. Where the span has
    more than 2,000 periods, longer ones are taken (weeks, months, years, decades), as `unit` says.
    """
    if penalty <= 0:
        raise InvalidValue(f"The penalty of a segment is more than 0, not {penalty:g}.")
    # Parameters matter later: of days, periods of any length are made.
    return series.by_day(talk)
