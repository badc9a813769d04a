"""The cache of a lab: what `lab.cache` is."""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import TYPE_CHECKING

from aico_lab.cache.store import open_cache
from aico_lab.home import private_files

if TYPE_CHECKING:
    from aico_lab.cache.store import KeyValueStore
    from aico_lab.storage import Storage


class Cache:
    """Opens the cache of a lab on first use; it is closed with the lab."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @cached_property
    def store(self) -> KeyValueStore:
        """The cache, to be read and written.

        Raises:
            DatabaseLocked: Another process has opened it to write.
        """
        return self._open(read_only=False)

    @cached_property
    def reader(self) -> KeyValueStore:
        """The cache as it is on disk, also while another process writes it."""
        return self._open(read_only=True)

    @property
    def held(self) -> KeyValueStore | None:
        """The store if this lab has opened it, else None."""
        store: KeyValueStore | None = self.__dict__.get("store")
        return store

    @private_files()
    def _open(self, *, read_only: bool) -> KeyValueStore:
        self._storage.check_open()
        store = open_cache(self._storage.home, self._storage.keys, read_only=read_only)
        return self._storage.keep_open(contextlib.closing(store))

    def __repr__(self) -> str:
        return "<Cache: .store reads and writes it, .reader looks into it beside another process>"
