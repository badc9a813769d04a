"""Remove entries from the cache after their rows changed in the primary database.

The cursor of the change feed is a key of the cache, written together with the removals. The cache
does not delay the pruning of the feed: if the feed cannot be continued at the cursor, all entries
of rows are removed, which only costs reading them again.

A row that is read before a change and cached after the removal stays until it changes again, or
expires: cache a row right after reading it, and do not cache rows that must never be outdated.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from aico_lab.cache.lab_cache import open_cache
from aico_lab.cache.namespaces import NAMESPACES
from aico_lab.cache.store import open_for_reading, past_damage
from aico_lab.cache.typed import CURSOR
from aico_lab.errors import CorruptDatabase, NotADatabase
from aico_lab.home.files import os_errors, remove_whole
from aico_lab.projections.result import Projected
from aico_lab.schema import feed

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection
    from aico_lab.cache.typed import CacheStore
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys


def sync_cache(
    primary: Connection,
    home: Home,
    keys: Keys,
    opened: CacheStore | None,
    *,
    full: bool = False,
) -> Projected:
    """Remove changed rows and expired entries from the cache of a home, if it has one.

    A damaged cache is set aside, and an empty one takes its place.

    Args:
        primary: The primary database.
        home: The lab's folder.
        keys: The home's opened keys.
        opened: The cache, if this process has it open for writing, else None.
        full: Read every entry, and delete a cache that is another program's or has another key.

    Raises:
        DatabaseLocked: Another process has the cache open for writing.
        NotADatabase: The cache is not of this home, and `full` is False.
    """
    if opened is None and not home.cache.exists():
        return Projected("nothing")
    before = past_damage(home)
    try:
        with contextlib.ExitStack() as closing:
            store = opened or closing.enter_context(open_cache(home, keys))
            done = invalidate(primary, store)
            if full or store.is_sweep_due():
                with contextlib.suppress(CorruptDatabase):  # replaced by an empty one
                    store.sweep()
    except NotADatabase:
        if not full:
            raise
        with os_errors(home.cache):
            remove_whole(home.cache)
        return Projected("full")
    return replace(done, mode="full", rebuilt=True) if past_damage(home) != before else done


def is_behind(primary: Connection, home: Home, keys: Keys) -> bool:
    """Return whether rows have changed since the cache of a home was brought up to date.

    Raises:
        StorageError: The cache is damaged, or another program's.
    """
    with contextlib.closing(open_for_reading(home, keys)) as store:
        known = store.get(CURSOR)
    return home.cache.exists() and (
        known is None or feed.Cursor(**json.loads(known)) != feed.head(primary)
    )


def invalidate(primary: Connection, store: CacheStore) -> Projected:
    """Remove every entry of a row that changed since the last call.

    Args:
        primary: The primary database.
        store: The cache.

    Raises:
        StorageError: A database failed; the cache is unchanged.
    """
    started = time.perf_counter()
    with primary.snapshot():
        target = feed.head(primary)
        known = store.position()
        cursor = None if known is None else feed.Cursor(**json.loads(known))
        if cursor == target:
            return Projected("nothing")
        following = cursor is not None and feed.continues(primary, cursor)
        if cursor is not None and following:
            rows = _changed(primary, cursor.seq, target.seq)
        else:
            rows = None
    deleted = store.invalidate(rows, json.dumps(asdict(target)).encode())
    return Projected(
        "increment" if following else "full",
        deleted=deleted,
        seconds=time.perf_counter() - started,
    )


def _changed(primary: Connection, since: int, until: int) -> set[tuple[str, str]]:
    """Return the tables and first key columns of the rows that changed in a part of the feed."""
    tables = [table for one in NAMESPACES.values() for table in one.tables]
    columns = feed.tracked_tables(primary)
    found = set()
    for table, named in primary.fetch_all(
        "SELECT DISTINCT table_name, CAST(row_key AS BLOB) FROM change_log "
        f"WHERE seq > ? AND seq <= ? AND table_name IN ({', '.join('?' for _ in tables)})",
        [since, until, *tables],
    ):
        with contextlib.suppress(ValueError):  # not text, as no key of the cache is
            key = named.decode()
            found.add((table, str(json.loads(key)[0]) if len(columns[table]) > 1 else key))
    return found
