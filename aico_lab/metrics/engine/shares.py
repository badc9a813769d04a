"""Shares of people, with their intervals."""

from __future__ import annotations

import numpy as np
import polars as pl

from aico_lab.metrics.engine.intervals import FEWEST, NORMAL_95, UNIT, UNITS, wilson


def with_share(rows: pl.DataFrame, part: str, whole: str, name: str) -> pl.DataFrame:
    """Add a share of people, in percent, with the interval of Wilson (1927).

    Each person counts or not, so the share is a proportion of independent observations. The
    interval is null below `FEWEST` people.

    Args:
        rows: The rows to extend.
        part: The column that counts the people in the share.
        whole: The column that counts all people.
        name: The name of the new column; `NAME_low` and `NAME_high` are added as well.
    """
    n = rows[whole].cast(pl.Float64).to_numpy()
    share = rows.select(pl.col(part) / pl.col(whole)).to_series().to_numpy()
    low, high = wilson(share, n, np.full(len(n), NORMAL_95))
    enough = pl.when(pl.col(whole) >= FEWEST)
    return rows.with_columns(
        pl.Series(name, share * 100),
        enough.then(pl.Series(low * 100)).alias(f"{name}_low"),
        enough.then(pl.Series(high * 100)).alias(f"{name}_high"),
        pl.col(whole).cast(pl.Int64).alias(UNITS),
        pl.lit("people").alias(UNIT),
    )
