"""Exact quantiles by counting, the same on every engine; built-in quantiles differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
from ibis import _

from aico_lab.mart.sums import total
from aico_lab.metrics.engine.intervals import FEWEST, NORMAL_95

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import ibis.expr.types as ir

_TERMS: Final = (2.372271, 2.822499, 2.555851, 1.589536)
"""Terms of Student's 97.5 % quantile in 1 / degrees of freedom (Abramowitz and Stegun, 26.7.5)."""


def quantiles(
    rows: ir.Table, value: str, *, by: Sequence[str], per_mille: Mapping[str, int]
) -> ir.Table:
    """Return, for each group, the smallest value at or below which a given share of values lies.

    Quantiles are observed values, without interpolation: type 1 of Hyndman and Fan, "Sample
    quantiles in statistical packages" (1996).

    Args:
        rows: A table with the values; nulls are ignored.
        value: The column of values.
        by: The group columns; at least one.
        per_mille: The name of each quantile, and its share in per mille: 500 is the median.

    Returns:
        One row per group: `by`, `n` (the number of values), and the quantiles.
    """
    ranked = _ranked(rows.filter(rows[value].notnull()), value, by)
    found = {
        name: ranked[value].min(where=ranked.up_to * 1000 >= ranked.total * share)
        for name, share in per_mille.items()
    }
    return ranked.group_by(*by).agg(n=ranked.times.sum(), **found)


def median_interval(rows: ir.Table, value: str, *, by: Sequence[str]) -> ir.Table:
    """Return the 95 % interval of the median, for values that are correlated within a unit.

    The method is that of Woodruff, "Confidence intervals for medians and other position measures"
    (1952). The share of values up to the median has a standard error, here that of a ratio of sums
    over units. The ends of the interval are the quantiles at 0.5 minus and 0.5 plus t such errors;
    t is Student's quantile with Satterthwaite's degrees of freedom, as in `intervals`. Only sums
    leave the database, however many values there are.

    Args:
        rows: A table with the values (nulls are ignored), `unit` (see `Talk.unit`) and `user_id`.
        value: A column of whole numbers.
        by: The group columns; at least one.

    Returns:
        One row for each group: `by`, `units`, `people` (named ones), `most` (the largest unit's
        share of the values, in percent), and `low` and `high`, two observed values, which are null
        if there are fewer than `FEWEST` units.
    """
    known = rows.filter(rows[value].notnull())
    median = quantiles(known, value, by=by, per_mille={"median": 500})
    joined = known.join(median.select(*by, "median"), list(by))
    units = joined.group_by(*by, "unit").agg(
        n=_.count(),
        below=(joined[value] <= joined.median).cast("int64").sum(),
    )
    group = ibis.window(group_by=by)
    apart = units.below - units.below.sum().over(group) / units.n.sum().over(group) * units.n
    squared = units.mutate(apart=apart * apart)
    sums = squared.group_by(*by).agg(
        units=_.count(),
        n=_.n.sum(),
        largest=_.n.max(),
        squares=total(_.apart),
        fourths=total(squared.apart * squared.apart),
    )
    variance = sums.squares * sums.units / (sums.units - 1).nullif(0) / (sums.n * sums.n)
    reach = sums.select(*by, "units", reach=_student(sums) * ibis.greatest(variance, 0.0).sqrt())
    ranked = _ranked(known, value, by).join(reach, list(by))
    # The largest value has a cumulative share of 1, so both ends exist.
    low = ibis.greatest(0.5 - ranked.reach, 0.0) * ranked.total
    high = ibis.least(0.5 + ranked.reach, 1.0) * ranked.total
    enough = ranked.units >= FEWEST
    ends = ranked.group_by(*by, "units").agg(
        low=ranked[value].min(where=enough & (ranked.up_to >= low)),
        high=ranked[value].min(where=enough & (ranked.up_to >= high)),
    )
    people = known.group_by(*by).agg(people=known.user_id.nunique())
    most = sums.select(*by, most=100 * sums.largest / sums.n)
    return ends.join(people, list(by)).join(most, list(by))


def _student(sums: ir.Table) -> ir.FloatingValue:
    """Return the 97.5 % quantile of Student's t distribution, by the Cornish-Fisher expansion."""
    n = sums.units
    kurtosis = n * sums.fourths / (sums.squares * sums.squares).nullif(0)
    freedom = 2 * n / (kurtosis - (n - 3) / (n - 1).nullif(0)).nullif(0)
    # If all units are equal the variance is 0, and the quantile has no effect.
    usual = ibis.coalesce(ibis.least(ibis.greatest(freedom, 2.0), n - 1.0), 2.0)
    quantile: ir.FloatingValue = ibis.literal(NORMAL_95)
    power = usual
    for term in _TERMS:
        quantile += term / power
        power *= usual
    return quantile


def _ranked(rows: ir.Table, value: str, by: Sequence[str]) -> ir.Table:
    """Return each distinct value with `times` (its count), `up_to` (values <= it) and `total`."""
    counted = rows.group_by(*by, value).agg(times=_.count())
    group = ibis.window(group_by=by)
    up_to_here = ibis.window(group_by=by, order_by=value, preceding=None, following=0)
    return counted.mutate(
        up_to=counted.times.sum().over(up_to_here), total=counted.times.sum().over(group)
    )
