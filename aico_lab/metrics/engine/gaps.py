"""The longest run of periods in which nothing was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from aico_lab.metrics.engine import claims, periods
from aico_lab.metrics.engine.days import written_day, written_days

if TYPE_CHECKING:
    from collections.abc import Mapping

LENGTH: Final = "_gap"
FIRST: Final = "_gap_from"
LAST: Final = "_gap_until"
PERIODS: Final = "_periods"
ALIKE: Final = "_gaps_alike"
"""Hidden columns, the same in every row: the number of periods of the longest gap, its first and
last day (null without a gap), the number of all periods, and the number of gaps of this length."""

_UNIT: Final = "_gap_unit"

HIDDEN: Final = (LENGTH, FIRST, LAST, PERIODS, ALIKE, _UNIT)

_LONG: Final = 28
"""A finding names a time without messages of at least so many days."""


def with_longest(rows: pl.DataFrame, unit: str, n: str = "n") -> pl.DataFrame:
    """Add the longest gap to every row, the first of those of equal length.

    Args:
        rows: All periods in order, with `start` and `complete`. Unfinished periods, of which the
            data or the filters cover a part, are no gap.
        unit: The length of a period: 'day', 'week', 'month', 'year' or 'decade'.
        n: The column that is 0 where nothing was written.
    """
    step = periods.STEP.get(unit) or {"year": "1y", "decade": "10y"}[unit]
    runs = (
        rows.select("start", empty=(pl.col(n).fill_null(0) == 0) & pl.col("complete"))
        .with_columns(run=pl.col("empty").rle_id())
        .filter("empty")
        .group_by("run", maintain_order=True)
        .agg(pl.len().alias("length"), pl.col("start").first(), last=pl.col("start").last())
    )
    length, first, last, alike = 0, None, None, 0
    if runs.height:
        row = runs.row(runs["length"].arg_max() or 0, named=True)
        length, first = row["length"], row["start"]
        alike = runs.filter(length=length).height
        last = pl.select(pl.lit(row["last"], pl.Date).dt.offset_by(step).dt.offset_by("-1d")).item()
    return rows.with_columns(
        pl.lit(length, pl.Int64).alias(LENGTH),
        pl.lit(first, pl.Date).alias(FIRST),
        pl.lit(last, pl.Date).alias(LAST),
        pl.lit(rows.height, pl.Int64).alias(PERIODS),
        pl.lit(alike, pl.Int64).alias(ALIKE),
        pl.lit(unit).alias(_UNIT),
    )


def described(row: Mapping[str, Any], what: str = "nothing was written") -> str:
    """Return a clause about the longest gap, such as 'nothing was written for 3 days, from ...'."""
    length = claims.counted(row[LENGTH], f"{row[_UNIT]}s")
    if row[FIRST] == row[LAST]:
        return f"{what} on {written_day(row[FIRST])}{_alike(row)}"
    return f"{what} for {length}, from {written_days(row[FIRST], row[LAST])}{_alike(row)}"


def _alike(row: Mapping[str, Any]) -> str:
    """Return how many other gaps are as long: ' (like 2 other breaks)', or ''."""
    others = row[ALIKE] - 1
    return f" (like {claims.counted(others, 'other breaks')})" if others > 0 else ""


def is_long(row: Mapping[str, Any]) -> bool:
    """Return whether the longest gap lasts weeks."""
    first, last = row.get(FIRST), row.get(LAST)
    return first is not None and last is not None and (last - first).days + 1 >= _LONG


def told(finding: str, row: Mapping[str, Any]) -> str:
    """Return the finding on a measure, with a clause about the longest gap if that lasts weeks."""
    if not is_long(row):
        return finding
    without = "no message had a score" if row["measure"] == "sentiment" else "nothing was written"
    return f"{finding}; {described(row, without)}"


def longest(row: Mapping[str, Any]) -> str:
    """Return a clause such as 'the longest break: 3 days, from ... to ...'."""
    length = claims.counted(row[LENGTH], f"{row[_UNIT]}s")
    on = "on" if row[FIRST] == row[LAST] else "from"
    when = f"{on} {written_days(row[FIRST], row[LAST])}"
    return f"the longest break: {length}, {when}{_alike(row)}"
