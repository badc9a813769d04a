"""Extensions: objects that installed packages provide through entry points."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, TypeVar

from aico_lab.errors import ExtensionBroken

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


def added(group: str, ours: Iterable[str]) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, except names that this package uses itself.

    Args:
        group: The group, such as "aico_lab.metrics".
        ours: The names that this package uses.
    """
    taken = set(ours)
    return {point.name: point for point in _kept(group) if point.name not in taken}


def points(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points that installed packages have in a group, in the order of names."""
    return tuple(sorted(entry_points(group=group), key=_order))


_kept = functools.cache(points)  # names are looked up often


def _order(point: EntryPoint) -> tuple[str, str]:
    return point.name, point.value


def loaded(point: EntryPoint, kind: str, type_: type[T]) -> T:
    """Load the object of an entry point, whose attribute `name` must equal that of the entry point.

    Args:
        point: The entry point.
        kind: The kind of object, as named in errors, such as "metric".
        type_: The expected type.

    Raises:
        ExtensionBroken: The object cannot be imported, or has another type or name.
    """
    package = point.dist.name if point.dist else point.value
    try:
        found = point.load()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ExtensionBroken(kind, point.name, package, reason) from error
    if not isinstance(found, type_) or getattr(found, "name", None) != point.name:
        raise ExtensionBroken(
            kind, point.name, package, f"{point.value} is not a {kind} of that name"
        )
    return found
