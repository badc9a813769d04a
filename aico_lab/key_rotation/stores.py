"""Write each store of a home anew under another key, beside the old one, and read it whole.

A new file gets its name by a rename when it is complete, so that it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.duckdb import ALIAS, DuckDBAdapter, copy_with_key
from aico_lab.adapters.libsql import Connection, LibSQLAdapter
from aico_lab.adapters.libsql_exclusive import ExclusiveConnection
from aico_lab.adapters.libsql_seal import PageSeal, older
from aico_lab.adapters.rocksdb import RocksDBAdapter
from aico_lab.adapters.sealed import reseal
from aico_lab.errors import CorruptDatabase, HomeBusy, LibraryMissing, StorageError
from aico_lab.etl.snapshots import log
from aico_lab.etl.soundness import read_whole
from aico_lab.home.files import make_private, os_errors, private_files, remove_whole, sync_folder
from aico_lab.home.staged import STAGED, put_seal_in_place, seal_of, staged, staged_copies
from aico_lab.integrity.guard import seal_anew
from aico_lab.schema.backup import backups_of, copy_files
from aico_lab.schema.core import CORE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys

_BATCH: Final = 1_000  # entries or pages
_BUSY_SECONDS: Final = 2
_NAMED: Final = 5
_MEMORY: Final = "400MB"


@contextlib.contextmanager
def alone(home: Home, key: str | None) -> Iterator[Connection]:
    """Open the primary database while no other connection has it open; its log is empty then.

    Raises:
        HomeBusy: Another program has it open.
    """
    _check_seal(home, key)
    try:
        connection = ExclusiveConnection(home.primary, key, busy_timeout=_BUSY_SECONDS)
    except StorageError as locked:
        if not locked.transient:
            raise
        raise HomeBusy(
            "aico.db is open in another program: close that one, and run the command again."
        ) from locked
    with connection:
        connection.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
        yield connection


def _check_seal(home: Home, key: str | None) -> None:
    """Seal what was written last, and compare every page, so that the new seal blesses no damage.

    Raises:
        CorruptDatabase: A page is not as it was sealed, or the database is older than its seal.
    """
    with LibSQLAdapter(home.primary, key, create=False).connect() as connection:
        seal = connection.seal
        if seal is None:
            return
        if lost := seal.settle(connection):
            raise older(lost)
        if changed := seal.examine(connection):
            pages = ", ".join(map(str, sorted(changed)[:_NAMED]))
            raise CorruptDatabase(
                f"Pages {pages} of aico.db are not as they were sealed: run "
                "`aico-lab verify --deep`."
            )


def stage_primary(home: Home, connection: Connection, new: Keys) -> None:
    """Write the primary database anew."""
    target = staged(home.path, "libsql")
    _stage_database(home.primary, target, connection, new, is_sealed=True)


def stage_backups(home: Home, connection: Connection, new: Keys) -> None:
    """Write the backups from before migrations anew."""
    for backup in backups_of(home.primary):
        with connection.open_beside(backup) as opened:
            _stage_database(backup, staged_backup(backup), opened, new)


def staged_backup(backup: Path) -> Path:
    """Return the path of a backup's copy under the new key."""
    return backup.with_name(f".{backup.name}.rekeyed")


def _stage_database(
    source: Path, target: Path, connection: Connection, new: Keys, *, is_sealed: bool = False
) -> None:
    """Write a libSQL file anew; the cipher changes nothing but the encryption of its pages.

    `VACUUM INTO` would write plain text, and the driver changes no key in WAL mode.
    """
    partial = _partial(target)
    key = new.libsql() or ""
    try:
        copy_files(source, partial)
        with private_files(), connection.open_beside(partial) as copy:
            copy.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
            copy.fetch_all("PRAGMA journal_mode = DELETE")
            copy.fetch_all("PRAGMA journal_mode = OFF")  # a copy that is left half is made again
            copy.fetch_all(f"PRAGMA rekey = '{key}'")
        with Connection(partial, key, busy_timeout=_BUSY_SECONDS) as copy:
            sound = copy.fetch_all("PRAGMA quick_check") == [("ok",)]
            if not sound or _content(copy) != _content(connection):
                raise CorruptDatabase(
                    f"{source.name} and its copy under the new key differ: run `aico-lab doctor`."
                )
        if is_sealed:
            _seal_copy(partial, key)
        with os_errors(target):
            for suffix in ("-wal", "-shm", "-journal", ".tail"):
                partial.with_name(f"{partial.name}{suffix}").unlink(missing_ok=True)
            _put(partial, target)
            if is_sealed:
                _put(seal_of(partial), seal_of(target))
    except BaseException:
        for left in partial.parent.glob(f"{partial.name}*"):
            left.unlink(missing_ok=True)
        raise


def _seal_copy(copy: Path, key: str) -> None:
    """Seal a copy under the new key, in the mode in which the database is used."""
    with Connection(copy, key, busy_timeout=_BUSY_SECONDS) as connection:
        connection.fetch_all("PRAGMA journal_mode = WAL")
        CORE.apply_core_schemas(connection)
        seal_anew(connection, PageSeal(copy, key), "a new key of the home")


def _content(connection: Connection) -> tuple[int, bytes]:
    """Return the number of pages after the first one, and a digest of their decrypted content."""
    digest, pages = hashlib.blake2b(), 0
    query = "SELECT data FROM sqlite_dbpage WHERE pgno > 1 ORDER BY pgno"
    for batch in connection.fetch_batches(query, size=_BATCH):
        pages += len(batch)
        for (page,) in batch:
            digest.update(page)
    return pages, digest.digest()


def stage_warehouse(home: Home, old: Keys, new: Keys) -> None:
    """Write the writer's file of the warehouse anew, with its log."""
    target = staged(home.path, "duckdb")
    with os_errors(home.warehouse):
        if not home.writer.exists():
            target.unlink(missing_ok=True)
            return
    partial, key = _partial(target), new.duckdb() or ""
    try:
        copy_with_key(_warehouse(home.writer, old.duckdb(), home), partial, key)
        if log(home.writer).exists():
            raise CorruptDatabase("The log of writer.duckdb remains: run `aico-lab sync --full`.")
        read_whole(partial, key, temporary=home.temporary, where=home.writer.name)
        if _counts(_warehouse(home.writer, old.duckdb(), home, read_only=True)) != _counts(
            _warehouse(partial, key, home, read_only=True)
        ):
            raise CorruptDatabase("The copy of writer.duckdb differs: run `aico-lab sync --full`.")
        with os_errors(target):
            _put(partial, target)
    except BaseException:
        for left in (partial, log(partial)):
            left.unlink(missing_ok=True)
        raise


def _warehouse(
    path: Path, key: str | None, home: Home, *, read_only: bool = False
) -> DuckDBAdapter:
    return DuckDBAdapter(
        path, key, read_only=read_only, temporary=home.temporary, memory_limit=_MEMORY
    )


def _counts(adapter: DuckDBAdapter) -> dict[str, int]:
    """Return the rows of each table, and the number of views."""
    with contextlib.closing(adapter.connect()) as connection:
        tables = _ask(connection, "duckdb_tables()", "schema_name, table_name")
        found = {}
        for schema, table in tables:
            named = ".".join('"' + name.replace('"', '""') + '"' for name in (schema, table))
            found[named] = connection.execute(f"SELECT count(*) FROM {named}").fetchall()[0][0]
        return found | {"views": len(_ask(connection, "duckdb_views()", "view_name"))}


def _ask(connection: duckdb.DuckDBPyConnection, table: str, columns: str) -> list[tuple[str, ...]]:
    query = f"SELECT {columns} FROM {table} WHERE database_name = '{ALIAS}'"
    return connection.execute(query).fetchall()


def stage_vectors(home: Home, old: Keys, new: Keys) -> None:
    """Write the sealed file of the vectors anew."""
    source, target = home.path / STAGED["chroma"][0], staged(home.path, "chroma")
    if not source.exists():
        target.unlink(missing_ok=True)
        return
    partial = _partial(target)
    try:
        reseal(source, partial, old.chroma() or "", new.chroma() or "")
        with os_errors(target):
            _put(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def stage_cache(home: Home, old: Keys, new: Keys) -> None:
    """Write the entries of the cache into a new store; a cache that cannot be read is removed."""
    target = staged(home.path, "rocksdb")
    partial = _partial(target)
    with os_errors(home.path):
        remove_whole(partial)
        if not home.cache.exists():
            remove_whole(target)
            return
    try:
        with (
            RocksDBAdapter(home.cache, old.rocksdb(), read_only=True).connect() as source,
            RocksDBAdapter(partial, new.rocksdb()).connect() as copy,
            contextlib.closing(source.scan()) as entries,
        ):
            batch: dict[bytes, bytes] = {}
            for key, value in entries:
                batch[key] = value
                if len(batch) == _BATCH:
                    copy.write(batch)
                    batch = {}
            copy.write(batch)
            copy.compact()
        with os_errors(target):
            make_private(partial)
            remove_whole(target)
            _put(partial, target)
    except (CorruptDatabase, LibraryMissing):  # it can be lost
        with os_errors(home.path):
            for path in (partial, target, home.cache):
                remove_whole(path)
    except BaseException:
        remove_whole(partial)
        raise


def remove_staged(home: Home) -> None:
    """Remove all copies under the new key, also those that were left half."""
    with os_errors(home.path):
        for copy in staged_copies(home.path):
            remove_whole(copy)


def put_in_place(home: Home, store: str) -> None:
    """Replace a store by its copy under the new key; do nothing if there is none.

    Snapshots and kept answers of the warehouse, which can be made again, are removed before.
    """
    target, copy = home.path / STAGED[store][0], staged(home.path, store)
    with os_errors(target):
        if not copy.exists():
            return
        if store == "duckdb":
            remove_whole(home.snapshots)
            remove_whole(home.answers)
        if target.is_dir():  # a folder replaces no other one
            former = copy.with_name(f"{copy.name}.former")
            remove_whole(former)
            target.rename(former)
        _put(copy, target)
        if store == "libsql":
            put_seal_in_place(home.path)


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def _put(path: Path, name: Path) -> None:
    """Rename a file or folder durably."""
    for file in [*path.iterdir()] if path.is_dir() else [path]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    path.replace(name)
    sync_folder(name.parent)
