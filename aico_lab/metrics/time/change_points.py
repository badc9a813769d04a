"""Change points: when the level of a measure changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import polars as pl

from aico_lab import charts
from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine import claims, draw, gaps, series
from aico_lab.metrics.engine.days import written_day
from aico_lab.metrics.engine.intervals import MOST
from aico_lab.metrics.engine.metric import NOTE, Column, Parameter, metric

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from numpy.typing import NDArray

    from aico_lab.metrics.engine.answer import Answer
    from aico_lab.metrics.engine.metric import Chart
    from aico_lab.metrics.engine.series import Measure
    from aico_lab.metrics.engine.talk import Talk, Unit


_SAID: Final = 4
"""The most phases that the finding names."""


_FARTHEST: Final = 3.0
"""The distance from the median, in standard deviations, at which values are clipped."""


_SIGMA: Final = 1.4826
"""Ratio of a normal distribution's standard deviation to its median absolute deviation."""


_AUTOCORRELATIONS: Final = np.arange(-9, 10) / 10


_ROUNDS: Final = 10


def _finish(
    rows: pl.DataFrame, talk: Talk, measure: Measure, period: Unit, penalty: float
) -> pl.DataFrame:
    made = series.in_periods(rows, talk, measure, period)
    if not made.is_empty():
        made = gaps.with_longest(made, made["unit"][0])
    known = made.filter("complete", pl.col("value").is_not_null())
    if known.is_empty():
        # One row, so that the finding says that there is too little data.
        none = pl.DataFrame(
            {"start": [None], "end": [None], "n": [0], "people": [0], "level": [None]}
            | {"periods": [0], "phases": [0]}
            | {gaps.FIRST: [None], gaps.LAST: [None]}
        )
        return none.join(made.select("measure", "unit", MOST, NOTE).head(1), how="cross")
    values = known["value"].to_numpy()
    signal = values if measure == "sentiment" else np.log1p(values)
    unit = known["unit"][0]
    ends = [len(values)]
    if len(values) >= _fewest(unit):
        ends = _segments(_cut(signal), _shortest(unit), penalty)
    segment = np.searchsorted(ends, np.arange(len(values)), side="right")
    silent = _is_silent(known)
    if own := set(segment[silent]) - set(segment[~silent]):
        segment[silent] = min(own)  # one segment, from the first silent period to the last
        silent[:] = False
    found = known.with_columns(segment=pl.Series(segment), silent=pl.Series(silent))
    return found.group_by("segment", maintain_order=True).agg(
        pl.col("start").filter(~pl.col("silent")).first(),
        pl.col("end").filter(~pl.col("silent")).last().dt.offset_by("-1d"),
        n=(~pl.col("silent")).sum().cast(pl.Int64),
        people=pl.col("people").max(),
        level=pl.col("value").filter(~pl.col("silent")).mean(),
        measure=pl.col("measure").first(),
        unit=pl.col("unit").first(),
        **{name: pl.col(name).first() for name in (MOST, NOTE, *gaps.HIDDEN)},
        periods=pl.lit(known.height),
        phases=pl.lit(len(set(segment))),
    )


def _is_silent(known: pl.DataFrame) -> NDArray[np.bool_]:
    """Return whether each period lies in the longest gap, if that lasts weeks."""
    row = known.row(0, named=True)
    if not gaps.is_long(row):
        return np.zeros(known.height, dtype=bool)
    return known["start"].is_between(row[gaps.FIRST], row[gaps.LAST]).to_numpy(writable=True)


def _shortest(unit: str) -> int:
    """Return the fewest periods of a segment."""
    return 7 if unit == "day" else 3


def _fewest(unit: str) -> int:
    """Return the fewest periods of a series: two segments besides the first value."""
    return max(series.FEWEST, 2 * _shortest(unit) + 1)


def _cut(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clip outliers, since a few neighbouring ones would form a segment."""
    middle = np.median(signal)
    away = _FARTHEST * _SIGMA * np.median(np.abs(signal - middle))
    return np.clip(signal, middle - away, middle + away) if away > 0 else signal


def _segments(signal: NDArray[np.float64], shortest: int, penalty: float) -> list[int]:
    """Return the end of each segment: the index after its last value."""
    n = len(signal) - 1
    best, ends = np.inf, [n]
    if np.ptp(signal) == 0:
        return [n + 1]
    signal = (signal - signal.mean()) / signal.std()
    for autocorrelation in _AUTOCORRELATIONS:
        independent = signal[1:] - autocorrelation * signal[:-1]
        for squares, found in _candidates(independent - independent.mean(), shortest, penalty):
            # The bound on squares selects the fewest segments if none has any noise.
            fit = n * np.log(max(squares, 1e-9)) + penalty * len(found)
            if fit < best:
                best, ends = fit, found
    return [end + 1 for end in ends]


def _candidates(
    signal: NDArray[np.float64], shortest: int, penalty: float
) -> list[tuple[float, list[int]]]:
    """Return segmentations of independent values, each with its residual sum of squares."""
    n = len(signal)
    made = [(float(signal @ signal), [n])]
    if n < 2 * shortest:
        return made
    import ruptures

    # With the linear kernel the cost is l2, and the search is PELT in C.
    search = ruptures.KernelCPD(kernel="linear", min_size=shortest).fit(signal)
    # Half the mean square of successive differences, which changes of level hardly affect.
    squares = n * float(np.mean(np.diff(signal) ** 2)) / 2
    for _ in range(_ROUNDS):
        # The search penalises squares, but the criterion their logarithm: convert by its slope.
        ends: list[int] = search.predict(pen=penalty * max(squares, 1e-9) / n)
        if ends == made[-1][1] and len(made) > 1:
            break
        parts = np.split(signal, ends[:-1])
        squares = float(sum(((part - part.mean()) ** 2).sum() for part in parts))
        made.append((squares, ends))
    return made


def _describe(rows: pl.DataFrame) -> str:
    row = rows.row(0, named=True)
    found = _describe_phases(rows)
    return found if row["periods"] < _fewest(row["unit"]) else gaps.told(found, row)


def _describe_phases(rows: pl.DataFrame) -> str:
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
    phases = [f"{claims.written(level)} from {written_day(start)}" for start, level in said]
    more = ", …" if rows.height > len(phases) else ""
    listed = f"{', '.join(phases)}{more}{claims.doubt(number, f'{unit}s')}{mainly}"
    of = "; of the rows that are shown" if rows.height < found else ""
    left_out = measure != "sentiment" and not _holds_silence(rows)
    without = " (without the longest silence)" if left_out else ""
    return f"{found} phases of {name} in {within}{of}, mean per {unit}{without}: {listed}"


def _holds_silence(rows: pl.DataFrame) -> bool:
    """Return whether a long silence is a phase of its own, or there is none."""
    row = rows.row(0, named=True)
    if not gaps.is_long(row):
        return True
    whole = (pl.col("start") <= row[gaps.FIRST]) & (pl.col("end") >= row[gaps.LAST])
    return not rows.filter(whole, level=0).is_empty()


def _draw(answer: Answer) -> Chart:
    import altair as alt

    measure, unit = answer.parameters["measure"], answer.pl()["unit"][0]
    rows = answer.pl().filter(pl.col("n") > 0)
    rows = rows.with_columns(
        after=pl.col("end").dt.offset_by("1d"),
        text=pl.Series([claims.written(level) for level in rows["level"]], dtype=pl.String),
    )
    texts = alt.Chart(rows.drop("after")).encode(series.axis(answer))
    base = alt.Chart(_broken(rows, answer.hidden())).encode(series.axis(answer))
    y = alt.Y("level:Q", title=f"{series.TITLES[measure]} of a {unit}, mean")
    y = y.scale(zero=measure != "sentiment" or rows.height == 1)
    changes = [texts.mark_rule(color=charts.GREY, strokeDash=[4, 4], strokeWidth=1)]
    return alt.layer(
        *(changes if (rows["phases"] > 1).any() else []),
        base.mark_rule(strokeWidth=4, color=charts.BLUE).encode(alt.X2("after:T"), y),
        texts.mark_text(align="left", dx=3, dy=-10, fontSize=11).encode(y, text="text:N"),
    ).properties(width=draw.WIDTH, height=220)


def _broken(rows: pl.DataFrame, hidden: claims.Row) -> pl.DataFrame:
    """Return phases as they are drawn: without a long silence, which no other level includes.

    Args:
        rows: The phases, with `after`, the day after the last one.
        hidden: The hidden columns of a row.
    """
    if not gaps.is_long(hidden):
        return rows
    first, last = (pl.lit(hidden[end], pl.Date) for end in (gaps.FIRST, gaps.LAST))
    around = (pl.col("start") < first) & (pl.col("end") > last)
    before = rows.filter(around).with_columns(after=first)
    after = rows.filter(around).with_columns(start=last.dt.offset_by("1d"))
    return pl.concat([rows.filter(~around), before, after]).sort("start")


@metric(
    domain="time",
    question="When did a new phase begin?",
    source="Changes of an AR(1) series' mean: Chakar, Lebarbier, Lévy-Leduc and Robin (2017); "
    "PELT: Killick, Fearnhead and Eckley (2012), as in ruptures: Truong, Oudre and Vayatis (2020)",
    parameters=[
        series.CHOSEN_MEASURE,
        Parameter(
            "period",
            str,
            "week",
            "A local day, or a week (Monday to Sunday). Differences between weekdays hide changes "
            "between days.",
            choices=("day", "week"),
        ),
        Parameter(
            "penalty",
            float,
            11.5,
            "The least gain in twice the log-likelihood by one more segment; a larger penalty "
            "makes fewer segments.",
        ),
    ],
    columns=[
        Column("start", "date", "first day of the segment"),
        Column("end", "date", "last day of the segment"),
        Column("n", "integer", "periods of the segment, of which the level is the mean"),
        Column("people", "integer", "most people in one period of the segment"),
        Column("level", "number", "mean of the measure over the periods of the segment"),
        Column("periods", "integer", "periods of all segments, in every row"),
        Column("phases", "integer", "number of segments, in every row"),
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
def change_points(
    talk: Talk,
    *,
    measure: Measure,  # noqa: ARG001
    period: Literal["day", "week"],  # noqa: ARG001
    penalty: float,
) -> ir.Table:
    """Segments of time within which a measure keeps its level.

    Levels and the autocorrelation of neighbouring periods (-0.9 to 0.9) are estimated together by
    maximum likelihood. For each autocorrelation, its part of the previous value is subtracted from
    each period, and the result is segmented. The chosen segmentation has the least
    n * log(sum of squared distances to the segment means) plus `penalty` for every segment. Hence
    the more neighbours resemble each other, the more levels must differ to count as a change. In
    simulated series without a change, of 12 to 180 weeks, a change is found in 2 to 5 % of series
    with an autocorrelation of 0 to 0.3, and in 4 to 9 % at 0.6 (11 % with skewed noise, and up to
    20 % for very sparse counts, below one in a period).

    Counts enter as log(1 + count), so that doubling has the same weight at every level; periods
    without messages are 0. Sentiment is the mean of the period's scored messages; periods without
    any are left out. Values more than 3 standard deviations (estimated by the median absolute
    deviation) from the median are clipped. Segments have at least 3 periods, or 7 days. The longest
    time without messages, if it has at least 28 days, is either one segment or counts in no level:
    a mean with it would be that of no week in which something was written. Only whole periods are
    used: not those in which the data or the filters begin or end. With fewer than 12
    periods, or 15 days, no changes are sought. If the span has more than 2,000 periods, longer ones
    are used (weeks, months, years, decades); see `unit`.
    """
    if penalty <= 0:
        raise InvalidValue(f"penalty must be more than 0, not {penalty:g}.")
    # `finish` applies the parameters: it builds periods of any length from days.
    return series.by_day(talk)
