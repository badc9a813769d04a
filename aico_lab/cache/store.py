"""Where the cache keeps bytes: RocksDB if it is installed, else the memory of this process."""

from __future__ import annotations

import contextlib
import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from aico_lab.adapters.rocksdb import CALLS, RocksDBAdapter
from aico_lab.adapters.rocksdb_codec import FormerFormat, checked, namespace_of
from aico_lab.errors import (
    ConnectionIsClosed,
    CorruptDatabase,
    DatabaseLocked,
    LibraryMissing,
)
from aico_lab.home.files import held, os_errors, remove_whole, write_atomically

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from pathlib import Path

    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys

_PATIENCE: Final = 30.0
_DAMAGE: Final = "damage.json"


class KeyValueStore(Protocol):
    """The common interface of `RocksDBConnection` and `MemoryStore`, usable from any thread.

    The namespace of a key is the part before its first colon. All methods raise ConnectionIsClosed
    after `close`, and InvalidValue for anything but bytes.
    """

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None if it is absent."""

    def put(self, key: bytes, value: bytes) -> None:
        """Store a value."""

    def delete(self, key: bytes) -> None:
        """Remove a key; an absent key is ignored."""

    def items(self, namespace: bytes | None = None) -> list[tuple[bytes, bytes]]:
        """Return the key-value pairs of a namespace, or all of them, sorted by key."""

    def scan(self, namespace: bytes | None = None) -> Generator[tuple[bytes, bytes]]:
        """Yield the key-value pairs of a namespace, or all of them, in any order."""

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Remove keys, then store values, atomically."""

    def clear(self, namespace: bytes) -> None:
        """Remove all keys of a namespace."""

    def compact(self) -> None:
        """Free the space of removed and replaced values."""

    def ticks(self) -> dict[str, int]:
        """Return the store's own counters since it was opened."""

    def gauges(self) -> dict[str, int]:
        """Return the present state of the store in this process."""

    def live_files(self) -> list[dict[str, Any]]:
        """Return the store's tables."""

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
        return sorted(self.scan(namespace))

    def scan(self, namespace: bytes | None = None) -> Generator[tuple[bytes, bytes]]:
        """Yield the key-value pairs of a namespace, or all of them, as of the first one."""
        with self._lock:
            found = list(self._open().items())
        yield from (item for item in found if namespace in (None, namespace_of(item[0])))

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Remove keys, then store values, atomically."""
        gone = [checked(key) for key in deletes]
        new = {checked(key): checked(value) for key, value in puts.items()}
        with self._lock:
            values = self._open()
            for key in gone:
                values.pop(key, None)
            values.update(new)

    def clear(self, namespace: bytes) -> None:
        """Remove all keys of a namespace."""
        self.write({}, [key for key, _ in self.scan(namespace)])

    def compact(self) -> None:
        """Do nothing, since Python frees the space."""

    def ticks(self) -> dict[str, int]:
        """Return no counters."""
        return {}

    def gauges(self) -> dict[str, int]:
        """Return nothing."""
        return {}

    def live_files(self) -> list[dict[str, Any]]:
        """Return no tables."""
        return []

    def close(self) -> None:
        """Discard all values; a second call does nothing."""
        self._values = None

    def __repr__(self) -> str:
        return f"<Cache in memory: {CALLS}>"

    def _open(self) -> dict[bytes, bytes]:
        if self._values is None:
            raise ConnectionIsClosed("The cache in memory was closed before.")
        return self._values


def open_for_writing(home: Home, keys: Keys) -> KeyValueStore:
    """Open the store of a home, or an empty one in memory if RocksDB is not installed.

    A damaged store is set aside as `cache.damaged-<time>`, which replaces an earlier one, and an
    empty store takes its place. One of an earlier version of this program is removed.

    Raises:
        DatabaseLocked: Another connection has the cache open for writing.
        NotADatabase: The folder is another program's store, or has another key.
    """
    try:
        return _connect(home, keys)
    except LibraryMissing:
        return MemoryStore()
    except CorruptDatabase:
        pass
    with held(home.temporary / "cache.lock", _PATIENCE, _busy):
        try:  # another process may have replaced it meanwhile
            return _connect(home, keys)
        except FormerFormat:
            with os_errors(home.cache):
                remove_whole(home.cache)
            return _connect(home, keys)
        except CorruptDatabase as damage:
            _set_aside(home, str(damage))
            return _connect(home, keys)


def open_for_reading(home: Home, keys: Keys) -> KeyValueStore:
    """Open the store of a home beside the process that writes it; in memory if there is none.

    Raises:
        LibraryMissing: RocksDB is not installed.
        NotADatabase: The folder is another program's store, or has another key.
        CorruptDatabase: The store is damaged.
    """
    if not home.cache.exists():
        return MemoryStore()
    return RocksDBAdapter(home.cache, keys.rocksdb(), read_only=True).connect()


def replace_damaged(home: Home, keys: Keys, reason: str) -> KeyValueStore:
    """Set the closed store of a home aside, and return an empty one; see `open_for_writing`."""
    with held(home.temporary / "cache.lock", _PATIENCE, _busy):
        _set_aside(home, reason)
        return _connect(home, keys)


def _connect(home: Home, keys: Keys) -> KeyValueStore:
    if home.cache.exists() and not home.cache.is_dir():
        raise CorruptDatabase(f"{home.cache} is a file and not a folder.")
    return RocksDBAdapter(home.cache, keys.rocksdb()).connect()


def past_damage(home: Home) -> dict[str, Any] | None:
    """Return how often the cache was found damaged, last when and why; None if it never was."""
    for folder in _set_aside_before(home):
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads((folder / _DAMAGE).read_bytes())
            return {**found, "folder": folder.name}
    return None


def _set_aside(home: Home, reason: str) -> None:
    """Rename the folder of the cache, and remove the one that was set aside before."""
    before = past_damage(home)
    now = datetime.now(UTC)
    aside = home.path / f"cache.damaged-{now:%Y%m%dT%H%M%SZ}"
    with os_errors(home.cache):
        for old in _set_aside_before(home):
            remove_whole(old)
        if not home.cache.is_dir():  # something else lies in its place
            aside.mkdir(mode=0o700)
            home.cache.rename(aside / home.cache.name)
        else:
            home.cache.rename(aside)
        times = before["times"] + 1 if before else 1
        record = {"times": times, "last": f"{now:%Y-%m-%d %H:%M:%S} UTC", "reason": reason}
        write_atomically(aside / _DAMAGE, json.dumps(record).encode())


def _set_aside_before(home: Home) -> list[Path]:
    return sorted(home.path.glob("cache.damaged-*"), reverse=True)


def _busy(who: str) -> DatabaseLocked:
    return DatabaseLocked(f"The damaged cache is being replaced by {who}: try again.")
