"""Validate the values of a notebook's parameters before its kernel starts.

A parameter with the name and type of a filter of the metrics is validated like that filter. The
notebook's own defaults are always accepted.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from aico_lab.errors import InvalidValue, NeverSynced
from aico_lab.period import counts_back
from aico_lab.zones import get_zone, to_local

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.etl.reader import Reader
    from aico_lab.metrics.engine.filters import Filters
    from aico_lab.reports.parameters import NotebookParameter

_FILTERS: Final = {
    **dict.fromkeys(("since", "until", "user", "channel", "role", "timezone"), "str"),
    **dict.fromkeys(("min_cell", "min_people"), "int"),
}
_IN_SNAPSHOT: Final = {"since", "until", "user", "channel"}
_GAP: Final = "gap_minutes"


def check_values(declared: Mapping[str, NotebookParameter], values: Mapping[str, object]) -> None:
    """Validate values as far as possible without a snapshot.

    Args:
        declared: The notebook's parameters.
        values: Their values, of the right types.

    Raises:
        InvalidValue: A filter rejects its value, or `gap_minutes` is out of range.
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
    """Validate values of filters against a snapshot.

    Args:
        reader: The reader of the snapshot.
        declared: The notebook's parameters.
        values: Their values.

    Raises:
        UnknownName: No message has that user or channel.
        InvalidValue: The period ends before it begins.
        NeverSynced: The snapshot was made by another version of aico_lab.
    """
    filters = _filters(declared, values)
    if filters is not None and any(getattr(filters, name) for name in _IN_SNAPSHOT):
        from aico_lab.metrics.engine.asking import check_filters

        check_filters(reader, filters)


def resolve_values(reader: Reader, values: Mapping[str, object]) -> dict[str, object]:
    """Return the values with the first day or moment instead of a period that counts back.

    '30d' means other days as soon as there are newer messages.

    Args:
        reader: The reader of the snapshot.
        values: The values of a notebook's parameters, which `check_in_snapshot` accepts.
    """
    since = values.get("since")
    if not isinstance(since, str) or counts_back(since) is None:
        return dict(values)
    from aico_lab.metrics.engine.asking import check_filters
    from aico_lab.metrics.engine.filters import Filters

    zone = values.get("timezone")
    # The notebook's own defaults may be no filters, in spite of their names.
    with contextlib.suppress(InvalidValue, NeverSynced):
        filters = Filters(since=since, timezone=zone if isinstance(zone, str) else "UTC")
        start_ms = check_filters(reader, filters)
        if start_ms is not None:
            begins = to_local(start_ms, get_zone(filters.timezone))
            in_hours = since.strip().endswith("h")
            exact = begins.isoformat() if in_hours else begins.date().isoformat()
            return {**values, "since": exact}
    return dict(values)


def _check_times(filters: Filters) -> None:
    now_ms = time.time_ns() // 1_000_000
    for one in (replace(filters, until=None), replace(filters, since=None)):
        one.bounds(now_ms)
    if filters.begins(now_ms) is None:  # a relative `since` depends on the last message
        filters.bounds(now_ms)


def _filters(
    declared: Mapping[str, NotebookParameter], values: Mapping[str, object]
) -> Filters | None:
    """Return the filters whose values differ from the defaults, or None if there are none."""
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
