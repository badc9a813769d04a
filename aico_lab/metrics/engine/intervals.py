"""95 % intervals of statistics of sums, by the jackknife over people or conversations.

Messages of one person resemble each other, so they are not independent observations. The units are
whole people, or whole conversations if at most one person is named. Each unit is left out in turn;
the spread of the leave-one-out statistics gives the standard error (Efron and Stein, "The jackknife
estimate of variance", 1981). For sums over clusters this is the estimator that MacKinnon, Nielsen
and Webb (2023) recommend for few clusters. Means of amounts are estimated on the logarithmic scale
and shares on the logit scale, where their distribution is closer to normal.

A few units often carry most of the spread. Hence the quantile is that of Student's t distribution
with Satterthwaite's degrees of freedom, for a variance estimated from n values of kurtosis k:
2 n / (k - (n - 3) / (n - 1)), and at most n - 1.

`tests/test_metrics_coverage.py` simulates the coverage of these intervals: 92 to 97 % with at least
50 units of skewed sizes, where bootstrap percentiles cover 74 to 95 %. It is lower, 85 to 93 %,
where heavy units also differ in their values. The method is deterministic; its time and memory grow
with the number of units like those of a few sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[np.float64]
    Sums: TypeAlias = Mapping[str, Numbers]

Scale: TypeAlias = Literal["identity", "log", "logit", "atanh"]

FEWEST: Final = 10
"""The fewest units of an interval: with fewer, its simulated coverage is too low."""

FEW: Final = 30
"""Below this number of units an interval is called rough, and a finding uncertain."""

UNITS: Final = "_units"
UNIT: Final = "_unit"
MIXED: Final = "people and unnamed conversations"
"""The noun of the units if some conversations name a person and others do not."""

MOST: Final = "_most"
"""Hidden columns of an answer: the number of units of a row (`_units`), the noun of the units
(`_unit`), and the largest unit's share of the counted amount, in percent (`_most`)."""

COUNTED: Final = "_counted"
"""A hidden column: the noun, in the plural, of the amount of which `_most` is a share."""

TOTAL: Final = "_total"
"""A hidden column with a total over all rows, also over rows that are left out of the answer."""

PEOPLE_OF: Final = "_people_"
"""Prefix of hidden columns that count the people of a value, where the row has more people."""

NORMAL_95: Final = 1.959963984540054
"""The quantile of the normal distribution for 95 % intervals."""

_EQUAL: Final = 1e-12
"""Smaller differences between statistics are rounding errors of sums."""

_AT_ONCE: Final = 500_000
"""The number of rows per batch, which bounds the memory."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """A function of sums, with the scale of its interval.

    Attributes:
        function: Maps sums, arrays of one shape, to the values of the statistic.
        of: The sums, such as the denominator, of which a unit needs at least one other than 0 to
            contribute.
        scale: The scale on which the statistic is nearly normal.
        whole: The factor of the result: 100 for percent.
        within: The least and the greatest possible value.
    """

    function: Callable[[Sums], Numbers]
    of: tuple[str, ...]
    scale: Scale = "identity"
    whole: float = 1.0
    within: tuple[float, float] = (-np.inf, np.inf)


def mean(
    total: str,
    count: str,
    *,
    scale: Scale = "identity",
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Statistic:
    """Return the statistic total / count.

    Args:
        total: The name of the sum of amounts.
        count: The name of their number.
        scale: 'log' for amounts that are never negative.
        within: The least and the greatest possible amount.
    """
    return Statistic(lambda sums: sums[total] / sums[count], (count,), scale, within=within)


def percent(part: str, whole: str) -> Statistic:
    """Return the share of one sum in another, in percent."""
    return Statistic(lambda sums: sums[part] / sums[whole], (whole,), "logit", whole=100.0)


def estimate(
    rows: pl.DataFrame,
    *,
    by: Sequence[str],
    unit: str,
    statistics: Mapping[str, Statistic],
    silent: int = 0,
    counted: str = "observations",
) -> pl.DataFrame:
    """Compute statistics of sums for each group, each with its 95 % interval.

    Args:
        rows: One row for each group and unit, in any order: sums, and `known`, whether the unit is
            a named person or a conversation with one.
        by: The group columns; empty for a single group.
        unit: The noun of the units, in the plural: 'people', 'conversations', 'weeks'.
        statistics: The statistics by name.
        silent: The number of further units per group whose sums are all 0. They enter the variance,
            but do not count as units that a statistic rests on.
        counted: The noun, in the plural, of the first sum in `of` of the first statistic.

    Returns:
        One row for each group, sorted: `by`, the sums, `people` (named people of the first
        statistic), `_unit`, and for each statistic `NAME`, `NAME_low`, `NAME_high`, and the numbers
        of units and people that it rests on, `_units_NAME` and `_people_NAME`. `_units`, `_most`
        (the largest unit's share, in percent) and `_counted` belong to the first statistic. A
        statistic of 0/0 is null. An interval is null if fewer than `FEWEST` units contribute, or if
        all units are equal, except for shares of 0 or 100 %.
    """
    sums = [name for name in rows.columns if name not in {*by, "known"}]
    if rows.is_empty():
        return _nothing(rows, by, sums, statistics).with_columns(pl.lit(counted).alias(COUNTED))
    # Floating-point sums depend on the order of the rows: sort, so that results are reproducible.
    rows = rows.with_columns(
        pl.col(sums).cast(pl.Float64).fill_null(0), pl.col("known").cast(pl.Boolean)
    ).sort(*by, "known", *sums, nulls_last=False)
    group = _numbered(rows, by)
    values = {name: rows[name].to_numpy() for name in sums}
    found: dict[str, Numbers] = {
        name: np.bincount(group, weights=column).astype(np.float64)
        for name, column in values.items()
    }
    given = _Units(values, group, found, rows["known"].to_numpy(), silent)
    made: dict[str, Numbers | NDArray[np.int64]] = {**found}
    for name, statistic in statistics.items():
        spread = _Spread(statistic, given)
        low, high = spread.interval()
        made.setdefault("people", spread.people)
        made.setdefault(UNITS, spread.contributing)
        made.setdefault(MOST, 100 * spread.largest)
        made |= {f"{UNITS}_{name}": spread.contributing, f"{PEOPLE_OF}{name}": spread.people}
        made |= {name: spread.value * statistic.whole}
        made |= {f"{name}_low": low * statistic.whole, f"{name}_high": high * statistic.whole}
    table = pl.DataFrame(made).with_columns(unit_of("people", unit), pl.lit(counted).alias(COUNTED))
    if unit != "people":
        table = table.with_columns(
            pl.min_horizontal(name, 1)
            for name in ("people", *(f"{PEOPLE_OF}{name}" for name in statistics))
        )
    if by:
        table = rows.select(by).unique(maintain_order=True).hstack(table)
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


def unit_of(people: str, unit: str) -> pl.Expr:
    """Return the column `_unit`: `unit`, or `MIXED` if some units are unnamed conversations.

    Args:
        people: The column that counts the units that are named people.
        unit: The noun of the units, in the plural: 'people', 'conversations', 'weeks'.
    """
    if unit != "people":
        return pl.lit(unit).alias(UNIT)
    unnamed = pl.col(people) < pl.col(UNITS)
    return pl.when(unnamed).then(pl.lit(MIXED)).otherwise(pl.lit(unit)).alias(UNIT)


def _numbered(rows: pl.DataFrame, by: Sequence[str]) -> NDArray[np.int64]:
    """Return the group number of each sorted row, from 0."""
    if not by:
        return np.zeros(rows.height, np.int64)
    return rows.select(pl.struct(by).rle_id().cast(pl.Int64)).to_series().to_numpy()


def _nothing(
    rows: pl.DataFrame, by: Sequence[str], sums: Sequence[str], statistics: Mapping[str, Statistic]
) -> pl.DataFrame:
    numbers = [*sums, *(n + end for n in statistics for end in ("", "_low", "_high"))]
    return rows.select(*by).with_columns(
        *(pl.lit(None, pl.Float64).alias(name) for name in numbers),
        pl.lit(0, pl.Int64).alias("people"),
        *(
            pl.lit(0, pl.Int64).alias(name)
            for name in (
                UNITS,
                *(f"{of}{x}" for x in statistics for of in (f"{UNITS}_", PEOPLE_OF)),
            )
        ),
        pl.lit(None, pl.Float64).alias(MOST),
        pl.lit("", pl.String).alias(UNIT),
    )


@dataclass(frozen=True, slots=True)
class _Units:
    """The sums of every unit in every group.

    Attributes:
        values: For each sum, an array with one value per row (unit and group).
        group: The group number of each row.
        sums: For each sum, an array with one value per group.
        known: Whether the unit of each row names a person.
        silent: The number of further units in each group whose sums are all 0.
    """

    values: Mapping[str, Numbers]
    group: NDArray[np.int64]
    sums: Mapping[str, Numbers]
    known: NDArray[np.bool_]
    silent: int


class _Spread:
    """The leave-one-out deviations of a statistic, for each group.

    Attributes:
        value: The statistic, untransformed.
        contributing: The number of units that the statistic rests on.
        people: The number of these units that name a person.
        largest: The largest unit's share, from 0 to 1, of the statistic's first sum in `of`.
    """

    def __init__(self, statistic: Statistic, units: _Units) -> None:
        values, group, sums = units.values, units.group, units.sums
        self._statistic = statistic
        self.value = _compute(statistic, sums)
        groups = len(self.value)
        parts = [values[of] != 0 for of in statistic.of]
        self.contributing: NDArray[np.int64] = _fewest(parts, group, groups)
        self.people: NDArray[np.int64] = _fewest([p & units.known for p in parts], group, groups)
        part = np.any(parts, axis=0)
        self._n = np.bincount(group[part], minlength=groups).astype(float) + units.silent
        largest = np.zeros(groups)
        np.maximum.at(largest, group, values[statistic.of[0]])
        with np.errstate(divide="ignore", invalid="ignore"):
            self.largest: Numbers = largest / sums[statistic.of[0]]
        # Sums of squares and of fourth powers: on the statistic's scale, and untransformed.
        self._scaled, self._plain = np.zeros((2, groups)), np.zeros((2, groups))
        transformed = _to_scale(statistic.scale, self.value)
        for start in range(0, len(group), _AT_ONCE):
            chosen = slice(start, start + _AT_ONCE)
            mine, counts_here = group[chosen], part[chosen]
            left = {name: sums[name][mine] - column[chosen] for name, column in values.items()}
            without = _compute(statistic, left)
            for powers, scale, all_of in (
                (self._scaled, statistic.scale, transformed),
                (self._plain, "identity", self.value),
            ):
                with np.errstate(invalid="ignore"):  # at the end of a scale: inf - inf
                    deviation = _to_scale(scale, without) - all_of[mine]
                squared = np.where(counts_here, deviation, 0.0) ** 2
                powers[0] += np.bincount(mine, weights=squared, minlength=groups)
                powers[1] += np.bincount(mine, weights=squared**2, minlength=groups)
        with np.errstate(invalid="ignore"):
            rounding = self._n * (_EQUAL * np.maximum(np.abs(self.value), 1)) ** 2
            self._alike = self._plain[0] <= rounding

    def interval(self) -> tuple[Numbers, Numbers]:
        """Return the low and high ends for each group; NaN where there is no interval."""
        scale = self._statistic.scale
        middle = _to_scale(scale, self.value)
        reach = self._reach(self._scaled)
        with np.errstate(invalid="ignore"):
            low, high = _from_scale(scale, middle - reach), _from_scale(scale, middle + reach)
        if scale != "identity":
            # Without some unit the statistic is at the end of its scale, so the reach is infinite.
            plain = self._at_the_end()
            low, high = (
                np.where(np.isfinite(reach), end, other)
                for end, other in zip((low, high), plain, strict=True)
            )
        low, high = (np.clip(end, *self._statistic.within) for end in (low, high))
        none = (self.contributing < FEWEST) | np.isnan(self.value)
        # Equal units say nothing about variation, except for shares of 0 or 1 (see `wilson`).
        rare = (scale == "logit") & ((self.value == 0) | (self.value == 1))
        none |= self._alike & ~rare
        low[none] = high[none] = np.nan
        return low, high

    def _reach(self, powers: Numbers) -> Numbers:
        """Return half the width of the interval; NaN where the variance is 0 or undefined."""
        squares, fourths = powers
        n = self._n
        with np.errstate(all="ignore"):
            variance = (n - 1) / n * squares
            kurtosis = n * fourths / squares**2
            freedom = np.clip(2 * n / (kurtosis - (n - 3) / (n - 1)), 1, n - 1)
            reach = student(freedom) * np.sqrt(variance)
        return np.where(np.isfinite(reach) & (squares > 0), reach, np.nan)

    def _at_the_end(self) -> tuple[Numbers, Numbers]:
        """Return low and high ends for groups in which a leave-one-out statistic is infinite."""
        if self._statistic.scale != "logit":
            reach = self._reach(self._plain)
            least = 0.0 if self._statistic.scale == "log" else -1.0
            most = np.inf if self._statistic.scale == "log" else 1.0
            return np.clip(self.value - reach, least, most), np.clip(
                self.value + reach, least, most
            )
        with np.errstate(all="ignore"):
            variance = (self._n - 1) / self._n * self._plain[0]
            independent = self.value * (1 - self.value) / variance
        independent = np.where(np.isfinite(independent), independent, self._n)
        return wilson(self.value, independent, student(np.maximum(self._n - 1, 1)))


def wilson(share: Numbers, n: Numbers, quantile: Numbers) -> tuple[Numbers, Numbers]:
    """Return the interval of Wilson (1927) for a share of `n` independent observations.

    Args:
        share: The share, from 0 to 1.
        n: The number of observations.
        quantile: The quantile of the normal or of Student's t distribution.
    """
    with np.errstate(all="ignore"):
        squared = quantile**2 / n
        middle = (share + squared / 2) / (1 + squared)
        half = np.sqrt(share * (1 - share) / n + squared / n / 4) * quantile / (1 + squared)
    # For shares of 0 and 1 one end equals the share exactly; rounding would shift it.
    low, high = np.where(share <= 0, 0, middle - half), np.where(share >= 1, 1, middle + half)
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


def student(freedom: Numbers) -> Numbers:
    """Return the 97.5 % quantile of Student's t distribution."""
    from scipy import special

    quantile: Numbers = special.stdtrit(freedom, 0.975)
    return quantile


def _fewest(
    parts: Sequence[NDArray[np.bool_]], group: NDArray[np.int64], groups: int
) -> NDArray[np.int64]:
    """Return, for each group, the smallest number of units among the given masks."""
    counts: NDArray[np.int64] = np.min(
        [np.bincount(group[part], minlength=groups) for part in parts], axis=0
    )
    return counts


def _compute(statistic: Statistic, sums: Sums) -> Numbers:
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistic.function(sums)
    return np.where(np.isfinite(values), values, np.nan)


def _to_scale(scale: Scale, values: Numbers) -> Numbers:
    with np.errstate(divide="ignore", invalid="ignore"):
        match scale:
            case "log":
                return np.log(values)
            case "logit":
                return np.log(values / (1 - values))
            case "atanh":
                return np.arctanh(values)
    return values


def _from_scale(scale: Scale, values: Numbers) -> Numbers:
    with np.errstate(over="ignore", invalid="ignore"):
        match scale:
            case "log":
                return np.exp(values)
            case "logit":
                return 1 / (1 + np.exp(-values))
            case "atanh":
                return np.tanh(values)
    return values.copy()
