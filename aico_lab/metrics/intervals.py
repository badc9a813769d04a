"""Intervals by the bootstrap, which resamples people or conversations and not messages.

What one person writes is alike, so messages are no independent observations: whole people, or
whole conversations, are drawn with replacement (the cluster bootstrap: Davison and Hinkley,
"Bootstrap Methods and their Application", 1997, section 3.8), and the interval is that of the
percentiles (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). The seed
is fixed, so that the same data give the same interval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Sums: TypeAlias = Mapping[str, NDArray[np.float64]]
    Statistic: TypeAlias = Callable[[Sums], NDArray[np.float64]]

REPLICATES: Final = 1_000
SEED: Final = 20_250_730
LEVEL: Final = (2.5, 97.5)  # percent
_AT_ONCE: Final = 50


def ratio(numerator: str, denominator: str) -> Statistic:
    """The ratio of two sums, such as words by messages: a mean."""
    return lambda sums: sums[numerator] / sums[denominator]


def percent(numerator: str, denominator: str) -> Statistic:
    """The share of one sum in another, in percent."""
    return lambda sums: 100 * sums[numerator] / sums[denominator]


def bootstrap(
    rows: pl.DataFrame,
    *,
    by: Sequence[str],
    unit: str,
    statistics: Mapping[str, Statistic],
) -> pl.DataFrame:
    """Give statistics of sums for each group, each with its interval.

    Args:
        rows: Sums for each group and unit; all columns but `by` and `unit` are summed.
        by: The columns of the groups; none for one group of all.
        unit: The column that names what is drawn: a person, or a conversation.
        statistics: What each is called, and its function of sums, each an array of any shape.

    Returns:
        One row a group, in their order: `by`, `n` (units), the sums, and for each statistic `NAME`,
        `NAME_low` and `NAME_high`. Where a group has fewer than two units there is no interval;
        where a statistic is 0/0 it is null.
    """
    sums = [name for name in rows.columns if name not in {*by, unit}]
    if rows.is_empty():
        numbers = [*sums, *(n + end for n in statistics for end in ("", "_low", "_high"))]
        return rows.select(*by).with_columns(
            pl.lit(0, pl.Int64).alias("n"), *(pl.lit(None, pl.Float64).alias(x) for x in numbers)
        )
    rows = rows.sort(*by, unit, nulls_last=False)
    groups = rows.select(by).unique(maintain_order=True) if by else pl.DataFrame({"_": [0]})
    keyed = rows.with_columns(
        pl.col(unit).fill_null("").rank("dense").sub(1).cast(pl.Int64).alias("_unit"),
        (pl.struct(by).rle_id() if by else pl.lit(0)).cast(pl.Int64).alias("_group"),
    )
    table = _Table(
        keyed["_unit"].to_numpy(),
        keyed["_group"].to_numpy(),
        keyed.select(pl.col(sums).cast(pl.Float64).fill_null(0)).to_numpy(),
        sums,
    )
    units = np.bincount(table.group, minlength=groups.height)
    found = {"n": units, **{name: totals[0] for name, totals in table.totals(None).items()}}
    observed = _compute(statistics, table.totals(None))
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in statistics}
    rng = np.random.default_rng(SEED)
    for _ in range(0, REPLICATES, _AT_ONCE):
        replicate = _compute(statistics, table.totals(rng))
        for name, values in replicate.items():
            drawn[name].append(values)
    for name in statistics:
        low, high = _percentiles(np.concatenate(drawn[name]))
        few = (units < 2) | np.isnan(observed[name][0])  # noqa: PLR2004
        low[few] = high[few] = np.nan
        found |= {name: observed[name][0], f"{name}_low": low, f"{name}_high": high}
    made = groups.select(by).hstack(pl.DataFrame(found)) if by else pl.DataFrame(found)
    return made.with_columns(pl.col(pl.Float64).fill_nan(None))


class _Table:
    """Sums of units in groups, and what comes out when units are drawn."""

    def __init__(
        self,
        unit: NDArray[np.int64],
        group: NDArray[np.int64],
        values: NDArray[np.float64],
        names: Sequence[str],
    ) -> None:
        from scipy import sparse

        self.group = group
        self._names = names
        self._groups = int(group.max()) + 1
        self._units = int(unit.max()) + 1
        columns = len(names)
        cells = (group[:, None] * columns + np.arange(columns)).ravel()
        self._matrix = sparse.csr_matrix(
            (values.ravel(), (cells, np.repeat(unit, columns))),
            shape=(self._groups * columns, self._units),
        )

    def totals(self, rng: np.random.Generator | None) -> dict[str, NDArray[np.float64]]:
        """Sum over all units once, or over a few draws of them: arrays of (draws, groups)."""
        if rng is None:
            times = np.ones((1, self._units))
        else:
            times = np.stack(
                [
                    np.bincount(rng.integers(0, self._units, self._units), minlength=self._units)
                    for _ in range(_AT_ONCE)
                ]
            ).astype(np.float64)
        summed = (self._matrix @ times.T).T.reshape(len(times), self._groups, len(self._names))
        return {name: summed[:, :, place] for place, name in enumerate(self._names)}


def _compute(statistics: Mapping[str, Statistic], sums: Sums) -> dict[str, NDArray[np.float64]]:
    with np.errstate(divide="ignore", invalid="ignore"):
        made = {name: statistic(sums) for name, statistic in statistics.items()}
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in made.items()}


def _percentiles(drawn: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the ends of the interval, of the draws for which there is a value."""
    low = np.full(drawn.shape[1], np.nan)
    high = low.copy()
    for group, values in enumerate(drawn.T):
        known = values[~np.isnan(values)]
        if known.size:
            low[group], high[group] = np.percentile(known, LEVEL)
    return low, high
