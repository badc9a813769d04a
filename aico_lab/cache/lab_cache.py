"""The cache of a lab, `lab.cache`."""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import TYPE_CHECKING

from aico_lab.cache.store import open_cache
from aico_lab.home.files import private_files

if TYPE_CHECKING:
    from aico_lab.cache.store import KeyValueStore
    from aico_lab.storage import Storage


class Cache:
    """Opens the cache of a lab on first use; the lab closes it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @cached_property
    def store(self) -> KeyValueStore:
        """The cache, opened for reading and writing.

        Raises:
            DatabaseLocked: Another process has opened the cache for writing.
        """
        return self._open(read_only=False)

    @cached_property
    def reader(self) -> KeyValueStore:
        """The cache, opened for reading, even while another process writes it."""
        return self._open(read_only=True)

    @property
    def held(self) -> KeyValueStore | None:
        """The store if this lab has opened it for writing, else None."""
        store: KeyValueStore | None = self.__dict__.get("store")
        return store

    @private_files()
    def _open(self, *, read_only: bool) -> KeyValueStore:
        self._storage.check_open()
        store = open_cache(self._storage.home, self._storage.keys, read_only=read_only)
        return self._storage.keep_open(contextlib.closing(store))

    def __repr__(self) -> str:
        return "<Cache: .store reads and writes, .reader reads beside another process>"
