"""Recognise messages whose time is that of an import into another program, not their own.

Programs that import a chat often give every message the time of the import. Nobody can write six
messages and read the answers within two seconds, so both sides must alternate: a bot may well send
many messages at once. Where successive messages are only milliseconds apart, a few of them suffice.
"""

from __future__ import annotations

import pickle
import zlib
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from aico_lab.sources.exports.engine.conversation import Said

AT_ONCE: Final = timedelta(seconds=2)
_FILE_AT_ONCE: Final = timedelta(seconds=10)
"""The most time in which a program imports all chats of a small file."""

_FEWEST: Final = 6
_FEWEST_ON_MINUTES: Final = 60
"""Where times have no seconds, many messages share one."""

_FEWEST_AMONG_OTHERS: Final = 30
"""Messages at once in a chat that has other times as well: groups can be lively."""

_NEXT_AT_ONCE: Final = timedelta(milliseconds=5)
"""The most time between two messages that only a program stores one after the other."""

_FEWEST_IN_ONE_SECOND: Final = 12
"""Messages at once, by times in whole seconds, in a chat that has other times as well."""

_CHANGES: Final = 3
_FEWEST_CHATS: Final = 3
_BLOCK: Final = 1_000
_MANY: Final = 20_000
"""Messages that are not held back any more for judging the times of a file."""


class Run:
    """Successive messages at the same time, compressed if they are many.

    Attributes:
        first: The first time without its zone, or None.
    """

    def __init__(self, *, has_seconds: bool = False) -> None:
        """Begin a run without messages.

        Args:
            has_seconds: Whether the times are exact to the second for sure; otherwise times on
                full minutes may lack their seconds.
        """
        self.first: datetime | None = None
        self._count = self._changes = 0
        self._side: tuple[str | None, str | None] | None = None
        self._has_seconds = has_seconds
        self._row = _Row()
        self._blocks: list[bytes] = []
        self._last: list[Said] = []

    def takes(self, said: Said) -> bool:
        """Return whether a message is at the time of the run, and add it if so."""
        if said.time is not None:
            time = said.time.replace(tzinfo=None)
            if self.first is None:
                self.first = time
            elif abs(time - self.first) > AT_ONCE:
                return False
            self._has_seconds |= bool(time.second or time.microsecond)
        side = (said.role, said.author)
        is_change = self._side is not None and side != self._side
        self._changes += is_change
        self._side = side
        self._row.add(None if said.time is None else time, is_change=is_change)
        self._count += 1
        self._last.append(said)
        if len(self._last) >= _BLOCK:
            self._blocks.append(zlib.compress(pickle.dumps(self._last)))
            self._last = []
        return True

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Said]:
        packed = (pickle.loads(zlib.decompress(one)) for one in self._blocks)  # noqa: S301 - ours
        return chain(chain.from_iterable(packed), self._last)

    def is_of_an_import(self, *, whole: bool) -> bool:
        """Return whether the time of the run is that of an import.

        Args:
            whole: Whether the run is the whole chat.
        """
        fewest = _FEWEST if self._has_seconds else _FEWEST_ON_MINUTES
        if not whole and self._has_seconds and self._row.is_of_a_program:
            return True
        if not whole:
            fewest = max(fewest, _FEWEST_AMONG_OTHERS)
        changes = _CHANGES if whole else fewest // 3
        return self.first is not None and self._count >= fewest and self._changes >= changes


class _Row:
    """Counts the messages that follow each other within milliseconds.

    Attributes:
        is_of_a_program: Whether so many did, from both sides, that only a program stores them so.
    """

    def __init__(self) -> None:
        self.is_of_a_program = False
        self._last: datetime | None = None
        self._begin()

    def _begin(self) -> None:
        self._count = self._changes = 0
        self._has_fractions = False

    def add(self, time: datetime | None, *, is_change: bool) -> None:
        """Add a message; one without a time only changes the side."""
        if time is None:
            self._changes += is_change
            return
        if self._last is None or abs(time - self._last) > _NEXT_AT_ONCE:
            self._begin()
            is_change = False
        self._last = time
        self._count += 1
        self._changes += is_change
        self._has_fractions |= bool(time.microsecond)
        fewest = _FEWEST if self._has_fractions else _FEWEST_IN_ONE_SECOND
        changes = max(_CHANGES, fewest // 3)
        self.is_of_a_program |= self._count >= fewest and self._changes >= changes


def runs(messages: Iterable[Said], *, has_seconds: bool = False) -> Iterator[Run]:
    """Yield the messages in runs at one time; one without a time is in the run before it.

    Args:
        messages: The messages of a chat.
        has_seconds: See `Run`.
    """
    run = Run(has_seconds=has_seconds)
    for said in messages:
        if not run.takes(said):
            yield run
            run = Run(has_seconds=has_seconds)
            run.takes(said)
    if len(run):
        yield run


class FileTimes:
    """Judges whether all chats of a file have the time of one import.

    Attributes:
        are_real: Whether the times of the file are too far apart for that.
    """

    def __init__(self) -> None:
        self.are_real = False
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._chats = self._messages = 0
        self._has_seconds = False

    def note(self, messages: Iterable[Said]) -> None:
        """Note the first messages of a chat."""
        self._chats += 1
        for said in messages:
            self._messages += 1
            if said.time is None:
                continue
            time = said.time.replace(tzinfo=None)
            self._first = time if self._first is None else min(self._first, time)
            self._last = time if self._last is None else max(self._last, time)
            self._has_seconds |= bool(time.second or time.microsecond)
            if self._last - self._first > _FILE_AT_ONCE or self._messages > _MANY:
                self.are_real = True
                return

    @property
    def are_of_an_import(self) -> bool:
        """Whether the chats noted so far have the time of one import."""
        return (
            not self.are_real
            and self._has_seconds
            and self._chats >= _FEWEST_CHATS
            and self._messages >= _FEWEST
        )
