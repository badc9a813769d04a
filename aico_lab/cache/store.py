"""A store of keys and values: RocksDB's where it is installed, else one in memory.

Values are bytes; who writes one knows how to read it. A key's namespace is what stands before its
first colon, `session` in `session:active_context`. Rows of some tables of the primary database may
be kept under `row_key`; those that changed are removed by the next sync, and not before.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Protocol

from aico_lab.adapters.rocksdb import RocksDBAdapter
from aico_lab.adapters.rocksdb_codec import checked, namespace_of
from aico_lab.errors import ConnectionIsClosed, InvalidValue, LibraryMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aico_lab.home import Home
    from aico_lab.keys import Keys


class KeyValueStore(Protocol):
    """What `aico_lab.adapters.rocksdb.RocksDBConnection` and `MemoryStore` both do, for any thread.

    All raise ConnectionIsClosed after `close`, and InvalidValue for what is not bytes.
    """

    def get(self, key: bytes) -> bytes | None:
        """Give the value of a key, or None."""

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value."""

    def delete(self, key: bytes) -> None:
        """Remove a key; one that is not there is passed over."""

    def items(self, namespace: bytes | None = None) -> list[tuple[bytes, bytes]]:
        """Give the keys and values of a namespace, or all of them, in order of the keys."""

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Remove and store several keys at once, all or none."""

    def refresh(self) -> None:
        """Let a reader see what the writer has written since."""

    def close(self) -> None:
        """Release what the store holds; a second call does nothing."""


class MemoryStore:
    """Keeps everything in this process, until it is closed."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] | None = {}
        self._lock = threading.Lock()

    def get(self, key: bytes) -> bytes | None:
        """Give the value of a key, or None."""
        return self._open().get(checked(key))

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value."""
        self.write({key: value})

    def delete(self, key: bytes) -> None:
        """Remove a key; one that is not there is passed over."""
        self.write({}, [key])

    def items(self, namespace: bytes | None = None) -> list[tuple[bytes, bytes]]:
        """Give the keys and values of a namespace, or all of them, in order of the keys."""
        with self._lock:
            found = list(self._open().items())
        return sorted(item for item in found if namespace in (None, namespace_of(item[0])))

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Remove and store several keys at once, all or none."""
        gone = [checked(key) for key in deletes]
        new = {checked(key): checked(value) for key, value in puts.items()}
        with self._lock:
            values = self._open()
            for key in gone:
                values.pop(key, None)
            values.update(new)

    def refresh(self) -> None:
        """Do nothing: there is no other writer."""

    def close(self) -> None:
        """Forget everything; a second call does nothing."""
        self._values = None

    def _open(self) -> dict[bytes, bytes]:
        if self._values is None:
            raise ConnectionIsClosed("The cache in memory was closed before.")
        return self._values


CACHED_TABLES = ("users", "user_profiles", "preferences")
"""The tables whose rows may be cached: those that `aico_lab.projections.cache` looks after."""


def row_key(table: str, *key: str) -> bytes:
    """Give the cache's key of a row, in the form in which the change feed names it.

    Args:
        table: One of `CACHED_TABLES`.
        key: The values of the columns that identify the row.

    Raises:
        InvalidValue: The rows of that table may not be cached: nothing would remove them.
    """
    if table not in CACHED_TABLES:
        raise InvalidValue(f"Rows of {table!r} are not cached: take {', '.join(CACHED_TABLES)}.")
    # As SQLite's json_array writes several columns.
    named = key[0] if len(key) == 1 else json.dumps(key, ensure_ascii=False, separators=(",", ":"))
    return f"{table}:{named}".encode()


def open_cache(home: Home, keys: Keys, *, read_only: bool = False) -> KeyValueStore:
    """Open the cache of a home, or one in memory where RocksDB is not installed.

    Args:
        home: The lab's folder.
        keys: Its opened keys.
        read_only: Look into it beside the process that holds it.

    Raises:
        DatabaseLocked: Another connection holds it.
        NotADatabase: It is something else, or the key is not its key.
    """
    if read_only and not home.cache.exists():
        return MemoryStore()
    try:
        return RocksDBAdapter(home.cache, keys.rocksdb(), read_only=read_only).connect()
    except LibraryMissing:
        return MemoryStore()
