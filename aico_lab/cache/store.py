"""A key-value store: RocksDB if it is installed, else in memory.

Keys and values are bytes; their encoding is up to the writer. The namespace of a key is the part
before its first colon, `session` in `session:active_context`. Rows of the tables `CACHED_TABLES`
may be stored under `row_key`; the next sync, and nothing earlier, removes changed rows.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Protocol

from aico_lab.adapters.rocksdb import CALLS, RocksDBAdapter
from aico_lab.adapters.rocksdb_codec import checked, namespace_of
from aico_lab.errors import ConnectionIsClosed, InvalidValue, LibraryMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys


class KeyValueStore(Protocol):
    """The common interface of `RocksDBConnection` and `MemoryStore`, usable from any thread.

    All methods raise ConnectionIsClosed after `close`, and InvalidValue for anything but bytes.
    """

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None if it is absent."""

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value."""

    def delete(self, key: bytes) -> None:
        """Remove a key; an absent key is ignored."""

    def items(self, namespace: bytes | None = None) -> list[tuple[bytes, bytes]]:
        """Return the key-value pairs of a namespace, or all of them, sorted by key."""

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Remove keys, then store values, atomically."""

    def refresh(self) -> None:
        """Make the latest writes of another process visible to a reader."""

    def close(self) -> None:
        """Release the store's resources; a second call does nothing."""


class MemoryStore:
    """Keeps all values in this process until it is closed."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] | None = {}
        self._lock = threading.Lock()

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None if it is absent."""
        return self._open().get(checked(key))

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value."""
        self.write({key: value})

    def delete(self, key: bytes) -> None:
        """Remove a key; an absent key is ignored."""
        self.write({}, [key])

    def items(self, namespace: bytes | None = None) -> list[tuple[bytes, bytes]]:
        """Return the key-value pairs of a namespace, or all of them, sorted by key."""
        with self._lock:
            found = list(self._open().items())
        return sorted(item for item in found if namespace in (None, namespace_of(item[0])))

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Remove keys, then store values, atomically."""
        gone = [checked(key) for key in deletes]
        new = {checked(key): checked(value) for key, value in puts.items()}
        with self._lock:
            values = self._open()
            for key in gone:
                values.pop(key, None)
            values.update(new)

    def refresh(self) -> None:
        """Do nothing, since there is no other writer."""

    def close(self) -> None:
        """Discard all values; a second call does nothing."""
        self._values = None

    def __repr__(self) -> str:
        return f"<Cache in memory: {CALLS}>"

    def _open(self) -> dict[bytes, bytes]:
        if self._values is None:
            raise ConnectionIsClosed("The cache in memory was closed before.")
        return self._values


CACHED_TABLES = ("users", "user_profiles", "preferences")
"""The tables whose rows may be cached: `aico_lab.projections.cache` removes their changed rows."""


def row_key(table: str, *key: str) -> bytes:
    """Return the cache key of a row, in the form in which the change feed names the row.

    Args:
        table: One of `CACHED_TABLES`.
        key: The values of the primary key's columns.

    Raises:
        InvalidValue: The table is not one of `CACHED_TABLES`, so nothing would remove the row.
    """
    if table not in CACHED_TABLES:
        raise InvalidValue(f"Rows of {table!r} are not cached: use {', '.join(CACHED_TABLES)}.")
    # Several columns are written as SQLite's json_array writes them.
    named = key[0] if len(key) == 1 else json.dumps(key, ensure_ascii=False, separators=(",", ":"))
    return f"{table}:{named}".encode()


def open_cache(home: Home, keys: Keys, *, read_only: bool = False) -> KeyValueStore:
    """Open the cache of a home, or an empty one in memory if RocksDB is not installed.

    Args:
        home: The lab's folder.
        keys: The home's opened keys.
        read_only: Open for reading beside the process that writes; without a cache on disk, the
            store is in memory.

    Raises:
        DatabaseLocked: Another connection has the cache open for writing.
        NotADatabase: The folder is not a RocksDB database, or has another key.
    """
    if read_only and not home.cache.exists():
        return MemoryStore()
    try:
        return RocksDBAdapter(home.cache, keys.rocksdb(), read_only=read_only).connect()
    except LibraryMissing:
        return MemoryStore()
