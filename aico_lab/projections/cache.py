"""Remove rows from the cache after they changed in the primary database.

The cursor of the change feed is a key of the cache, written together with the removals. The cache
does not delay the pruning of the feed: if the feed cannot be continued at the cursor, all cached
rows are removed, which only costs reading them again.

A row that is read before a change and cached after the removal stays until it changes again: cache
a row right after reading it, and do not cache rows that must never be outdated.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from aico_lab.cache.store import CACHED_TABLES, open_cache
from aico_lab.errors import CorruptDatabase, NotADatabase
from aico_lab.home.files import os_errors, remove_whole
from aico_lab.projections.result import Projected
from aico_lab.schema import feed

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection
    from aico_lab.cache.store import KeyValueStore
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys

CURSOR = b"projection:cache"


def sync_cache(
    primary: Connection,
    home: Home,
    keys: Keys,
    opened: KeyValueStore | None,
    *,
    full: bool = False,
) -> Projected:
    """Remove changed rows from the cache of a home, if it has one.

    Args:
        primary: The primary database.
        home: The lab's folder.
        keys: The home's opened keys.
        opened: The cache, if this process has it open for writing, else None.
        full: Check every entry, and delete a damaged cache.

    Raises:
        DatabaseLocked: Another process has the cache open for writing.
        StorageError: The cache is damaged, and `full` is False.
    """
    if opened is not None:
        return invalidate(primary, opened)
    if not home.cache.exists():
        return Projected("nothing")
    try:
        with contextlib.closing(open_cache(home, keys)) as store:
            if full:
                store.items()  # reads, and so checks, every entry
            return invalidate(primary, store)
    except (CorruptDatabase, NotADatabase):
        if not full:
            raise
        with os_errors(home.cache):
            remove_whole(home.cache)
        return Projected("full")


def invalidate(primary: Connection, store: KeyValueStore) -> Projected:
    """Remove every cached row that changed since the last call.

    Args:
        primary: The primary database.
        store: The cache, opened for writing.

    Raises:
        StorageError: A database failed; the cache is unchanged.
    """
    started = time.perf_counter()
    with primary.snapshot():
        target = feed.head(primary)
        cursor = _cursor(store.get(CURSOR))
        if cursor == target:
            return Projected("nothing")
        following = cursor is not None and feed.continues(primary, cursor)
        if cursor is not None and following:
            gone = _changed(primary, cursor.seq, target.seq)
        else:
            gone = [key for table in CACHED_TABLES for key, _ in store.items(table.encode())]
    cached = [key for key in gone if store.get(key) is not None]
    store.write({CURSOR: json.dumps(asdict(target)).encode()}, cached)
    return Projected(
        "increment" if following else "full",
        deleted=len(cached),
        seconds=time.perf_counter() - started,
    )


def _changed(primary: Connection, since: int, until: int) -> list[bytes]:
    marks = ", ".join("?" for _ in CACHED_TABLES)
    return [
        table.encode() + b":" + key
        for table, key in primary.fetch_all(
            "SELECT DISTINCT table_name, CAST(row_key AS BLOB) FROM change_log "
            f"WHERE seq > ? AND seq <= ? AND table_name IN ({marks})",
            [since, until, *CACHED_TABLES],
        )
    ]


def _cursor(stored: bytes | None) -> feed.Cursor | None:
    return None if stored is None else feed.Cursor(**json.loads(stored))
