"""Keep the rows of an export in little memory, and read them in the order of the conversation.

Some products write the newest message first, and one conversation may be as large as its file.
"""

from __future__ import annotations

import json
import zlib
from datetime import UTC
from itertools import chain
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

Row = list[object]

_BLOCK: Final = 300
_RECENT: Final = 50_000


class Stored:
    """Rows of JSON values, compressed in memory."""

    def __init__(self, *, newest_first: bool) -> None:
        """Begin without rows.

        Args:
            newest_first: The order to assume if the times do not tell it.
        """
        self._assumed = newest_first
        self._later = self._earlier = 0
        self._last: float | None = None
        self._blocks: list[bytes] = []
        self._rows: list[Row] = []

    def __bool__(self) -> bool:
        return bool(self._blocks or self._rows)

    @property
    def newest_first(self) -> bool:
        """Whether most rows go backwards in time; as assumed if their times do not tell."""
        return self._assumed if self._later == self._earlier else self._earlier > self._later

    def append(self, row: Row, time: datetime | None) -> None:
        """Add a row with its time."""
        if time is not None:
            seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
            if self._last is not None:
                self._later += seconds > self._last
                self._earlier += seconds < self._last
            self._last = seconds
        self._rows.append(row)
        if len(self._rows) >= _BLOCK:
            self._blocks.append(zlib.compress(json.dumps(self._rows).encode()))
            self._rows = []

    def oldest_first(self) -> Iterator[Row]:
        """Yield the rows in the order in which the conversation went."""
        blocks = [None, *reversed(self._blocks)] if self.newest_first else [*self._blocks, None]
        unpacked = (
            self._rows if block is None else json.loads(zlib.decompress(block)) for block in blocks
        )
        if self.newest_first:
            return chain.from_iterable(reversed(rows) for rows in unpacked)
        return chain.from_iterable(unpacked)


class Seen:
    """Remembers recent ids, in bounded memory.

    An id that returns after many others is not recognised; the database stores it once anyway.
    """

    def __init__(self) -> None:
        self._current: set[str] = set()
        self._previous: set[str] = set()

    def add(self, name: str | None) -> bool:
        """Return whether an id is new, and remember it."""
        if name is None:
            return True
        if name in self._current or name in self._previous:
            return False
        self._current.add(name)
        if len(self._current) >= _RECENT:
            self._previous, self._current = self._current, set()
        return True
