"""The cache of a lab, `lab.cache`."""

from __future__ import annotations

import contextlib
from functools import cached_property, partial
from typing import TYPE_CHECKING

from aico_lab.adapters.rocksdb import NOT_INSTALLED
from aico_lab.cache.store import open_for_reading, open_for_writing, replace_damaged
from aico_lab.cache.typed import CacheStore
from aico_lab.errors import HomeError, LibraryMissing, StorageError
from aico_lab.home.files import private_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.cache.inspection import Inspection
    from aico_lab.cache.store import KeyValueStore
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys
    from aico_lab.storage import Storage


class Cache:
    """Opens the cache of a lab on first use; the lab closes it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @cached_property
    def store(self) -> CacheStore:
        """The cache, opened for reading and writing; a damaged one is set aside and replaced.

        Raises:
            DatabaseLocked: Another process has opened the cache for writing.
            NotADatabase: The folder is another program's store, or has another key.
        """
        self._storage.check_open()
        with private_files():
            store = open_cache(self._storage.home, self._storage.keys)
        return self._storage.keep_open(contextlib.closing(store))

    @property
    def available(self) -> CacheStore | None:
        """The store, or None if it cannot be used here, as while another process holds it."""
        self._storage.check_open()
        try:
            return self.store
        except (StorageError, HomeError):
            return None

    @property
    def held(self) -> CacheStore | None:
        """The store if this lab has opened it, else None."""
        store: CacheStore | None = self.__dict__.get("store")
        return store

    def release(self) -> None:
        """Close the store if this lab has opened it; its next use opens it again."""
        if (held := self.__dict__.pop("store", None)) is not None:
            held.close()

    def clear(self, name: str | None = None) -> None:
        """Remove all entries, of one namespace or of all, and free their space.

        Raises:
            LibraryMissing: RocksDB is not installed, so that the entries on disk would stay.
        """
        if self.store.in_memory() is not None and self._storage.home.cache.exists():
            raise LibraryMissing(NOT_INSTALLED)
        self.store.clear(name)

    def inspect(self) -> Inspection:
        """Read the whole cache beside the process that writes it, and describe its use.

        Counters are those that the process has stored last: they are up to 5 s or 10,000 calls old.

        Raises:
            LibraryMissing: There is a cache, and RocksDB is not installed.
            NotADatabase: The cache is another program's store, or has another key.
            CorruptDatabase: The cache is damaged.
        """
        from aico_lab.cache.inspection import describe

        with self.looking() as store:
            return describe(store)

    @contextlib.contextmanager
    def looking(self) -> Iterator[KeyValueStore]:
        """Open the bytes of the cache for reading only, as of now."""
        self._storage.check_open()
        if self.held is not None:
            self.held.flush()
            if (memory := self.held.in_memory()) is not None:
                yield memory
                return
        with private_files(), contextlib.closing(
            open_for_reading(self._storage.home, self._storage.keys)
        ) as store:  # fmt: skip
            yield store

    def __repr__(self) -> str:
        return "<Cache: .store reads and writes, .inspect() looks into it beside other programs>"


def open_cache(home: Home, keys: Keys) -> CacheStore:
    """Open the cache of a home for reading and writing; in memory if RocksDB is not installed.

    Raises:
        DatabaseLocked: Another connection has the cache open for writing.
        NotADatabase: The folder is another program's store, or has another key.
    """
    return CacheStore(open_for_writing(home, keys), rebuild=partial(replace_damaged, home, keys))
