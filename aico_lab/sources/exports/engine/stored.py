"""Keep the rows of an export in little memory, and read them in the order of the conversation.

Some products write the newest message first, and one conversation may be as large as its file.
"""

from __future__ import annotations

import json
import zlib
from datetime import UTC
from itertools import chain
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Final, Self
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

StoredRow = list[object]

_BLOCK: Final = 300
_WAITING: Final = 30_000
"""Rows of all chats that wait to be compressed."""

_IN_MEMORY: Final = 32 << 20
"""Bytes of compressed rows in memory; further ones are in a file."""

_RECENT: Final = 50_000


class Shelf:
    """Compressed blocks, in memory, or encrypted in a file without a name if they are many.

    The key is in memory only, so no text can be read from the disk, not even after a crash.
    """

    def __init__(self) -> None:
        self._blocks: list[bytes | tuple[int, int]] = []
        self._size = 0
        self._file: IO[bytes] | None = None
        self._cipher: ChaCha20Poly1305 | None = None
        self._waiting = 0
        self._chats: WeakSet[Stored] = WeakSet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def begin(self, *, newest_first: bool) -> Stored:
        """Return a chat without rows.

        Args:
            newest_first: The order to assume if the times do not tell it.
        """
        chat = Stored(self, newest_first=newest_first)
        self._chats.add(chat)
        return chat

    def wait(self) -> None:
        """Count a row that waits to be compressed; if these are many, compress those of all chats.

        There may be many chats, each with few rows.
        """
        self._waiting += 1
        if self._waiting >= _WAITING:
            self._waiting = 0
            for chat in self._chats:
                chat.compress()

    def put(self, block: bytes) -> int:
        """Store a block and return its number."""
        number = len(self._blocks)
        if self._size + len(block) <= _IN_MEMORY:
            self._size += len(block)
            self._blocks.append(block)
            return number
        if self._file is None or self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

            self._file = TemporaryFile(prefix="aico-lab-")  # noqa: SIM115 closed with the shelf
            self._cipher = ChaCha20Poly1305(ChaCha20Poly1305.generate_key())
        sealed = self._cipher.encrypt(_nonce(number), block, None)
        self._blocks.append((self._file.seek(0, 2), len(sealed)))
        self._file.write(sealed)
        return number

    def get(self, number: int) -> bytes:
        """Return a block."""
        block = self._blocks[number]
        if isinstance(block, bytes):
            return block
        if self._file is None or self._cipher is None:
            raise ValueError("the block is in no file")
        self._file.seek(block[0])
        return self._cipher.decrypt(_nonce(number), self._file.read(block[1]), None)


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")  # the key is used for one file, and the number once


class Stored:
    """Rows of JSON values of one chat, compressed."""

    def __init__(self, shelf: Shelf, *, newest_first: bool) -> None:
        """Begin without rows; see `Shelf.begin`."""
        self._shelf = shelf
        self._assumed = newest_first
        self._later = self._earlier = 0
        self._last: float | None = None
        self._blocks: list[int] = []
        self._rows: list[StoredRow] = []

    @property
    def newest_first(self) -> bool:
        """Whether most rows go backwards in time; as assumed if their times do not tell."""
        return self._assumed if self._later == self._earlier else self._earlier > self._later

    def append(self, row: StoredRow, time: datetime | None) -> None:
        """Add a row with its time."""
        if time is not None:
            seconds = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
            if self._last is not None:
                self._later += seconds > self._last
                self._earlier += seconds < self._last
            self._last = seconds
        self._rows.append(row)
        self._shelf.wait()
        if len(self._rows) >= _BLOCK:
            self.compress()

    def compress(self) -> None:
        """Compress the rows that wait for it."""
        if self._rows:
            self._blocks.append(self._shelf.put(zlib.compress(json.dumps(self._rows).encode(), 1)))
            self._rows = []

    def oldest_first(self) -> Iterator[StoredRow]:
        """Yield the rows in the order in which the conversation went."""
        self.compress()
        blocks = reversed(self._blocks) if self.newest_first else iter(self._blocks)
        unpacked = (json.loads(zlib.decompress(self._shelf.get(block))) for block in blocks)
        if self.newest_first:
            return chain.from_iterable(reversed(rows) for rows in unpacked)
        return chain.from_iterable(unpacked)


class Seen:
    """Remembers recent ids, in bounded memory.

    An id that returns after many others is not recognised; the database stores it once anyway.
    """

    def __init__(self) -> None:
        self._current: set[tuple[str, str]] = set()
        self._previous: set[tuple[str, str]] = set()

    def add(self, chat: str, name: str | None) -> bool:
        """Return whether an id in a chat is new, and remember it."""
        if name is None:
            return True
        key = (chat, name)
        if key in self._current or key in self._previous:
            return False
        self._current.add(key)
        if len(self._current) >= _RECENT:
            self._previous, self._current = self._current, set()
        return True
