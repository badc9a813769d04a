"""Exact quantiles by counting, the same on every engine; engines' own ones differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import ibis
from ibis import _

from aico_lab.metrics.engine.intervals import FEWEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import ibis.expr.types as ir

_NORMAL: Final = 1.959963984540054
_TERMS: Final = (2.372271, 2.822499, 2.555851, 1.589536)
"""Terms of Student's 97.5 % quantile in 1 / degrees of freedom (Abramowitz and Stegun, 26.7.5)."""


def quantiles(
    rows: ir.Table, value: str, *, by: Sequence[str], per_mille: Mapping[str, int]
) -> ir.Table:
    """Return the smallest value that is at least as large as a share of all values.

    These are values that occur, with nothing made up between two of them: type 1 of Hyndman and
    Fan, "Sample quantiles in statistical packages" (1996).

    Args:
        rows: Where the values are; those without one do not count.
        value: A column of whole numbers.
        by: The columns of the groups; at least one.
        per_mille: What each quantile is called, and the share: 500 is the median.

    Returns:
        One row a group: `by`, `n` (how many values), and the quantiles.
    """
    ranked = _ranked(rows.filter(rows[value].notnull()), value, by)
    found = {
        name: ranked[value].min(where=ranked.up_to * 1000 >= ranked.total * share)
        for name, share in per_mille.items()
    }
    return ranked.group_by(*by).agg(n=ranked.times.sum(), **found)


def median_interval(rows: ir.Table, value: str, *, by: Sequence[str]) -> ir.Table:
    """Return the 95 % interval of the median, for values that are alike within a unit.

    Woodruff, "Confidence intervals for medians and other position measures" (1952): the share of
    values up to the median has a standard error, here that of a ratio of sums over units; the
    interval reaches from the value at half less some such errors to the one at half and as many.
    As in `intervals`, their number is Student's quantile with Satterthwaite's degrees of freedom.
    Only sums leave the database, however many values there are.

    Args:
        rows: Where the values are; those without one do not count. `unit` names the person or
            conversation of each, as `Talk.unit` does, and `user_id` the person.
        value: A column of whole numbers.
        by: The columns of the groups; at least one.

    Returns:
        One row for each group: `by`, `units`, `people` (those who are named), `most` (the largest
        unit's share of the values, in percent), and `low` and `high`, two values that occur; these
        are null where there are fewer than `FEWEST` units.
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
        squares=_.apart.sum(),
        fourths=(squared.apart * squared.apart).sum(),
    )
    variance = sums.squares * sums.units / (sums.units - 1).nullif(0) / (sums.n * sums.n)
    reach = sums.select(*by, "units", reach=_student(sums) * ibis.greatest(variance, 0.0).sqrt())
    ranked = _ranked(known, value, by).join(reach, list(by))
    # The largest value has a share of 1, so that both ends are there.
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
    """Return the 97.5 % quantile of Student's distribution, by the series of Fisher and Cornish."""
    n = sums.units
    kurtosis = n * sums.fourths / (sums.squares * sums.squares).nullif(0)
    freedom = 2 * n / (kurtosis - (n - 3) / (n - 1).nullif(0)).nullif(0)
    # Where all units are alike, the variance is 0, and the quantile plays no part.
    usual = ibis.coalesce(ibis.least(ibis.greatest(freedom, 2.0), n - 1.0), 2.0)
    quantile: ir.FloatingValue = ibis.literal(_NORMAL)
    power = usual
    for term in _TERMS:
        quantile += term / power
        power *= usual
    return quantile


def _ranked(rows: ir.Table, value: str, by: Sequence[str]) -> ir.Table:
    """Return each value once, with how often it occurs, how many are not larger, and how many."""
    counted = rows.group_by(*by, value).agg(times=_.count())
    group = ibis.window(group_by=by)
    up_to_here = ibis.window(group_by=by, order_by=value, preceding=None, following=0)
    return counted.mutate(
        up_to=counted.times.sum().over(up_to_here), total=counted.times.sum().over(group)
    )
