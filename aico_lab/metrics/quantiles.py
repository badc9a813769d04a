"""Exact quantiles by counting, the same on every engine; engines' own ones differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ibis

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
    counted = rows.filter(rows[value].notnull()).group_by(*by, value).agg(times=ibis._.count())
    group = ibis.window(group_by=by)
    up_to_here = ibis.window(group_by=by, order_by=value, preceding=None, following=0)
    ranked = counted.mutate(
        up_to=counted.times.sum().over(up_to_here), total=counted.times.sum().over(group)
    )
    found = {
        name: ranked[value].min(where=ranked.up_to * 1000 >= ranked.total * share)
        for name, share in per_mille.items()
    }
    return ranked.group_by(*by).agg(n=ranked.times.sum(), **found)
