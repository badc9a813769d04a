"""Read JSON that is nested deeply, as a tree of answers is, or a file made to exhaust the memory.

`ijson` keeps the path of every open object and list, so 20,000 of them in each other take a
gigabyte. So the depth is watched, and deep documents are built from events without paths.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Final, Protocol

import ijson
from ijson.common import ObjectBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEP: Final = 2_000
"""Objects and lists in each other from which on ijson's paths take too much memory."""

_DEEPEST: Final = 200_000
"""Objects and lists in each other that no export has."""

_AT_ONCE: Final = 1_000
"""Brackets that are counted together."""

_OPENING: Final = bytes.maketrans(b"{}", b"[]")
_OTHERS: Final = bytes(set(range(256)) - set(b"[]{}"))


class Stream(Protocol):
    """A stream of bytes that can only be read on."""

    def read(self, count: int = -1, /) -> bytes:
        """Return the next bytes."""


class TooDeep(Exception):
    """A document is nested too deeply for ijson."""


class Shallow:
    """A stream of JSON that raises `TooDeep` where ijson may need too much memory.

    Brackets in texts count too, as telling them apart would take longer than ijson itself. At worst
    a document that is not deep is read in the slower way.
    """

    def __init__(self, stream: Stream | IO[bytes]) -> None:
        self._stream = stream
        self._depth = 0

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            TooDeep: The objects and lists in each other are too many.
        """
        data = self._stream.read(count)
        brackets = data.translate(_OPENING, _OTHERS)
        for begin in range(0, len(brackets), _AT_ONCE):
            some = brackets[begin : begin + _AT_ONCE]
            self._depth = max(self._depth + 2 * some.count(b"[") - len(some), 0)
            if self._depth > _DEEP:
                raise TooDeep
        return data


def deep_items(stream: Stream | IO[bytes], prefix: str) -> Iterator[Any]:
    """Yield what `ijson.items` yields, from a document nested to any depth that is not absurd.

    Raises:
        ijson.JSONError: The document is damaged, or no export has so many objects in each other.
    """
    wanted = prefix.split(".") if prefix else []
    path: list[str] = []
    builder: ObjectBuilder | None = None
    depth = 0
    for event, value in ijson.basic_parse(stream, use_float=True):
        begins, ends = event in ("start_map", "start_array"), event in ("end_map", "end_array")
        if begins and depth + len(path) > _DEEPEST:
            raise ijson.JSONError("nested too deeply")
        if builder is None and event == "map_key":
            path[-1] = value
        elif builder is None and ends:
            path.pop()
        elif builder is None and path != wanted:
            if begins:
                path.append("item" if event == "start_array" else "")
        else:
            builder = builder or ObjectBuilder()
            builder.event(event, value)
            depth += begins - ends
            if not depth:
                yield builder.value
                builder = None
