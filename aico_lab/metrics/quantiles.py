"""Exact quantiles by counting, the same on every engine; engines' own ones differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis
from ibis import _

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import ibis.expr.types as ir


def quantiles(
    rows: ir.Table, value: str, *, by: Sequence[str], per_mille: Mapping[str, int]
) -> ir.Table:
    """Give the smallest value that is at least as large as a share of all values.

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


def median_interval(rows: ir.Table, value: str, *, by: Sequence[str], unit: str) -> ir.Table:
    """Give the 95 % interval of the median, for values that are alike within a unit.

    Woodruff, "Confidence intervals for medians and other position measures" (1952): the share of
    values up to the median has a standard error, here that of a ratio of sums over units; the
    interval reaches from the value at half less 1.96 such errors to the one at half and as many.
    Nothing is drawn at random and nothing but sums leaves the engine, however many values there
    are. A group whose values are all from one unit has no interval.

    Args:
        rows: Where the values are; those without one do not count.
        value: A column of whole numbers.
        by: The columns of the groups; at least one.
        unit: The column that names whose values they are: a conversation, or a person.

    Returns:
        One row a group that has an interval: `by`, `low` and `high`, two values that occur.
    """
    known = rows.filter(rows[value].notnull())
    median = quantiles(known, value, by=by, per_mille={"median": 500})
    joined = known.join(median.select(*by, "median"), list(by))
    units = joined.group_by(*by, unit).agg(
        n=_.count(), below=(joined[value] <= joined.median).cast("int64").sum()
    )
    sums = units.group_by(*by).agg(
        units=_.count(),
        n=_.n.sum(),
        below=_.below.sum(),
        nn=(_.n * _.n).sum(),
        nb=(_.n * _.below).sum(),
        bb=(_.below * _.below).sum(),
    )
    sums = sums.filter(_.units > 1)
    share = sums.below / sums.n
    squares = sums.bb - 2 * share * sums.nb + share * share * sums.nn
    variance = squares * sums.units / (sums.units - 1) / (sums.n * sums.n)
    reach = sums.select(*by, reach=1.96 * ibis.greatest(variance, 0.0).sqrt())
    ranked = _ranked(known, value, by).join(reach, list(by))
    # The largest value has a share of 1, so that both ends are there.
    low = ibis.greatest(0.5 - ranked.reach, 0.0) * ranked.total
    high = ibis.least(0.5 + ranked.reach, 1.0) * ranked.total
    return ranked.group_by(*by).agg(
        low=ranked[value].min(where=ranked.up_to >= low),
        high=ranked[value].min(where=ranked.up_to >= high),
    )


def _ranked(rows: ir.Table, value: str, by: Sequence[str]) -> ir.Table:
    """Give each value once, with how often it occurs, how many are not larger, and how many."""
    counted = rows.group_by(*by, value).agg(times=_.count())
    group = ibis.window(group_by=by)
    up_to_here = ibis.window(group_by=by, order_by=value, preceding=None, following=0)
    return counted.mutate(
        up_to=counted.times.sum().over(up_to_here), total=counted.times.sum().over(group)
    )
