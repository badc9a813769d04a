"""Check what a notebook's parameters mean, before its kernel starts.

A parameter that is named and typed like a filter of the metrics is one: it takes what the filter
takes. A value that the notebook itself has as its default is never refused.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.etl.snapshots import Reader
    from aico_lab.metrics.engine.filters import Filters
    from aico_lab.reports.parameters import NotebookParameter

_FILTERS: Final = {
    **dict.fromkeys(("since", "until", "user", "channel", "role", "timezone"), "str"),
    **dict.fromkeys(("min_cell", "min_people"), "int"),
}
_IN_SNAPSHOT: Final = {"since", "until", "user", "channel"}
_GAP: Final = "gap_minutes"


def check_values(declared: Mapping[str, NotebookParameter], values: Mapping[str, object]) -> None:
    """Refuse values that are wrong whatever the data are.

    Args:
        declared: The notebook's parameters.
        values: Their values, of the right types.

    Raises:
        InvalidValue: A filter does not take its value, or the gap is no silence.
    """
    filters = _filters(declared, values)
    if filters is not None:
        _check_times(filters)
    gap = values.get(_GAP)
    if isinstance(gap, int | float) and gap != declared[_GAP].default:
        from aico_lab.metrics.engine.checks import to_gap_ms

        to_gap_ms(gap)


def check_in_snapshot(
    reader: Reader, declared: Mapping[str, NotebookParameter], values: Mapping[str, object]
) -> None:
    """Refuse values of filters to which nothing in a snapshot answers.

    Args:
        reader: Reads the snapshot.
        declared: The notebook's parameters.
        values: Their values.

    Raises:
        UnknownName: Nobody has that user id, or no channel that id.
        InvalidValue: The period ends before it begins.
        NeverSynced: The snapshot is of another version.
    """
    filters = _filters(declared, values)
    if filters is not None and any(getattr(filters, name) for name in _IN_SNAPSHOT):
        from aico_lab.metrics.engine.asking import check_filters

        check_filters(reader, filters)


def _check_times(filters: Filters) -> None:
    now_ms = time.time_ns() // 1_000_000
    for one in (replace(filters, until=None), replace(filters, since=None)):
        one.bounds(now_ms)
    if filters.begins(now_ms) is None:  # else the order depends on the last message
        filters.bounds(now_ms)


def _filters(
    declared: Mapping[str, NotebookParameter], values: Mapping[str, object]
) -> Filters | None:
    """Return the filters that somebody chose, or None for none."""
    chosen: dict[str, Any] = {
        name: values[name]
        for name, kind in _FILTERS.items()
        if name in declared
        and declared[name].type.removesuffix(" | None") == kind
        and values[name] != declared[name].default
    }
    if not chosen:
        return None
    from aico_lab.metrics.engine.filters import Filters

    return Filters(**chosen)
