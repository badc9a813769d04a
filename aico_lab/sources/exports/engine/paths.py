"""Find the path of a conversation through a tree of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def newest_leaf(parents: Mapping[str, str | None], seconds: Mapping[str, float]) -> str | None:
    """Return the message without an answer that was written last; of equal ones, the last one.

    Args:
        parents: The parent of each message, in the order of the file.
        seconds: The time of each message in seconds since 1970.
    """
    answered = set(parents.values())
    leaves = [key for key in parents if key not in answered] or list(parents)
    order = {key: number for number, key in enumerate(leaves)}
    return max(leaves, key=lambda key: (seconds[key], order[key]), default=None)


def path_to(parents: Mapping[str, str | None], last: str | None) -> list[str]:
    """Return the messages from the first one to the last one; a cycle ends the path."""
    path: list[str] = []
    seen: set[str] = set()
    while last is not None and last in parents and last not in seen:
        seen.add(last)
        path.append(last)
        last = parents[last]
    return path[::-1]
