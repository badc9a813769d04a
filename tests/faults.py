"""Points at which a process can be killed, and processes that are killed there."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from aico_lab import storage
from aico_lab.adapters import libsql
from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.etl import extract, snapshots, sync, writer_file
from aico_lab.etl.warehouse import Warehouse
from aico_lab.home.folder import Home
from aico_lab.lab import Lab
from aico_lab.mart.refresh import Changes
from aico_lab.schema import backup, feed, migrate
from tests.reading import reads

if TYPE_CHECKING:
    from collections.abc import Callable


def die() -> None:
    """Kill this process at once, as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def dies(
    owner: Any, name: str, *, after: bool = False, number: int = 1,
    only: Callable[..., bool] = lambda *_, **__: True,
) -> Callable[[], None]:  # fmt: skip
    """Return a patch that kills the process before or after a call of a function."""

    def patch() -> None:
        function, calls = getattr(owner, name), []

        def dying(*arguments: Any, **options: Any) -> Any:
            if only(*arguments, **options):
                calls.append(1)
            if len(calls) == number and not after:
                die()
            result = function(*arguments, **options)
            if len(calls) == number:
                die()
            return result

        setattr(owner, name, dying)

    return patch


def _half_copied() -> None:
    def copyfile(source: Path, target: Path) -> None:
        content = source.read_bytes()
        target.write_bytes(content[: len(content) // 2])
        die()

    shutil.copyfile = copyfile


def _half_checkpointed() -> None:
    """Stop DuckDB after it wrote blocks, before the header refers to them."""
    close = Warehouse.close

    def closing(warehouse: Warehouse) -> None:
        warehouse.connection.execute("SET debug_checkpoint_abort = 'before_header'")
        try:
            close(warehouse)
        except duckdb.Error:
            die()

    Warehouse.close = closing


def _into_snapshots(_source: Path, target: Path) -> bool:
    return target.parent.name == "snapshots"


def _old_snapshot(path: Path, **_: bool) -> bool:
    return path.parent.name == "snapshots" and path.name == "00000001.duckdb"


POINTS = {
    "the first batch": dies(extract, "_to_batch"),
    "a later batch": dies(extract, "_to_batch", number=2),
    "rows deleted": dies(Warehouse, "delete", after=True),
    "rows inserted": dies(Warehouse, "insert", after=True),
    "before the mart": dies(Changes, "apply"),
    "mart written": dies(Changes, "apply", after=True),
    "cursor written": dies(Warehouse, "advance", after=True),
    "after the note": dies(sync, "_note", after=True),
    "committed": dies(Warehouse, "close"),
    "half of the checkpoint": _half_checkpointed,
    "checkpointed": dies(Warehouse, "close", after=True),
    "half of a copy": _half_copied,
    "log copied": dies(writer_file, "copy", after=True),
    "before the link": dies(os, "link"),
    "after the link": dies(os, "link", after=True),
    "before the name": dies(Path, "replace", only=_into_snapshots),
    "published": dies(snapshots, "sync_folder"),
    "half of the oldest removed": dies(Path, "unlink", after=True, only=_old_snapshot),
    "before the feed is told": dies(feed, "acknowledge"),
    "after the feed is told": dies(feed, "acknowledge", after=True),
}  # fmt: skip


def sync_and_die(home: Path, key: Path, point: str, *, full: bool, by_pages: bool) -> None:
    """Sync, and be killed at a point of `POINTS`."""
    POINTS[point]()
    with Lab.open(home, key_file=key) as lab, reads(by_pages=by_pages):
        lab.sync(full=full)


INIT_POINTS = {
    "before the note": dies(Home, "prepare"),
    "note half written": dies(Path, "replace"),
    "note written": dies(Path, "replace", after=True),
    "before the key": dies(storage, "create_keys"),
    "key half written": dies(Path, "replace", number=2),
    "key written": dies(storage, "create_keys", after=True),
    "database opened": dies(LibSQLAdapter, "connect", after=True),
    "first statements": dies(libsql.Connection, "execute", number=12),
    "half of the schema": dies(libsql.Connection, "execute", number=60),
    "schema applied": dies(Home, "write_marker"),
    "marker half written": dies(Path, "replace", number=3),
    "marker written": dies(Path, "replace", number=3, after=True),
}  # fmt: skip


def init_and_die(home: Path, person: Path, point: str) -> None:
    """Create a home and its key, and be killed at a point of `INIT_POINTS`."""
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "APPDATA"):
        os.environ[name] = str(person)
    INIT_POINTS[point]()
    Lab.create(home)


def _half_backed_up() -> None:
    # In the process that copies: its parent dies with it.
    backup._COPY = (
        "import os, sys; s, t = sys.argv[1:3]; c = open(s, 'rb').read(); "
        "open(t, 'wb').write(c[:len(c) // 2]); os.kill(os.getppid(), 9)"
    )


MIGRATION_POINTS = {
    "half of the copy": _half_backed_up,
    "copied": dies(backup, "_verify"),
    "verified": dies(backup, "_verify", after=True),
    "backed up": dies(migrate, "back_up", after=True),
}


def migrate_and_die(database: Path, key: str, registry: Callable[[], Any], point: str) -> None:
    """Migrate, and be killed at a point of `MIGRATION_POINTS`."""
    MIGRATION_POINTS[point]()
    with LibSQLAdapter(database, key).connect() as connection:
        registry().upgrade(connection)


def sync_often(home: Path, key: Path, started: Any, *, full: bool) -> None:
    """Change rows and keys and sync, again and again, until the process is killed."""
    with Lab.open(home, key_file=key) as lab:
        while True:
            lab.primary.execute("UPDATE messages SET content = content || 'x' WHERE id % 7 = 1")
            lab.primary.execute("UPDATE messages SET message_id = message_id || 'x' WHERE id < 200")
            started.set()
            lab.sync(full=full)


def load_and_die(home: Path, key: Path, file: Path, point: str) -> None:
    """Load a table of another file, and be killed at a point of `POINTS`."""
    POINTS[point]()
    with Lab.open(home, key_file=key) as lab:
        lab.load(file, "orders")


def sync_slowly(home: Path, key: Path, entered: Any, go_on: Any) -> None:
    """Sync, and wait for `go_on` while the sync lock is held."""
    insert = Warehouse.insert

    def inserting(*arguments: Any) -> None:
        entered.set()
        go_on.wait(120)
        insert(*arguments)

    Warehouse.insert = inserting
    with Lab.open(home, key_file=key) as lab:
        lab.sync()


def read_slowly(home: Path, key: Path, generation: int, ready: Any, go_on: Any) -> None:
    """Open a generation, wait, read it for the first time, and exit without closing it."""
    lab = Lab.open(home, key_file=key, generation=generation)
    ready.set()
    go_on.wait(60)
    row = lab.sql("SELECT count(*) FROM raw.messages").fetchone()
    os._exit(0 if row == (300,) and lab.generation == generation else 1)


def server() -> Any:
    """Return the context of processes that start with the package imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults", "aico_lab.etl.foreign"])
    return context


def _with(
    environment: dict[str, str], function: Callable[..., None], arguments: Any, options: Any
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments, **options)


def run(function: Callable[..., None], *arguments: Any, **options: Any) -> int | None:
    """Run a function in another process, and return the exit code."""
    environment = dict(os.environ)  # the server has that of the test that started it
    process = server().Process(target=_with, args=(environment, function, arguments, options))
    process.start()
    process.join(240)
    return process.exitcode
