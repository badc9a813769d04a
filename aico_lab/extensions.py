"""What installed packages add: objects that they name under entry points."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, TypeVar

from aico_lab.errors import ExtensionBroken

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


def added(group: str, ours: Iterable[str]) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name, without names that this package has itself.

    Args:
        group: Such as "aico_lab.metrics".
        ours: The names of this package.
    """
    taken = set(ours)
    return {name: point for name, point in _points(group).items() if name not in taken}


@functools.cache
def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=group), key=_order)}


def _order(point: EntryPoint) -> tuple[str, str]:
    return point.name, point.value


def loaded(point: EntryPoint, kind: str, type_: type[T]) -> T:
    """Return the object of an entry point, whose attribute `name` is the name of the entry point.

    Args:
        point: Where the object is.
        kind: What it should be, in an error.
        type_: Its type.

    Raises:
        ExtensionBroken: It cannot be imported, or is something else.
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
