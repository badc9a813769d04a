"""Where a sync can be killed, and a process that is killed there."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from aico_lab.etl import extract, snapshots, sync
from aico_lab.etl.warehouse import Warehouse
from aico_lab.lab import Lab
from aico_lab.mart.refresh import Changes
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Callable


def die() -> None:
    """Leave as `kill -9` makes one leave."""
    os.kill(os.getpid(), signal.SIGKILL)


def dies(
    owner: Any, name: str, *, after: bool = False, number: int = 1,
    only: Callable[..., bool] = lambda *_, **__: True,
) -> Callable[[], None]:  # fmt: skip
    """Die at a call of a function, before it or after it."""

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
    """DuckDB itself stops where the blocks are written, and the header does not name them yet."""
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
    "log copied": dies(snapshots, "_copy", after=True),
    "before the link": dies(os, "link"),
    "after the link": dies(os, "link", after=True),
    "before the name": dies(Path, "replace", only=_into_snapshots),
    "published": dies(snapshots, "sync_folder"),
    "half of the oldest removed": dies(Path, "unlink", after=True, only=_old_snapshot),
    "before the feed is told": dies(feed, "acknowledge"),
    "after the feed is told": dies(feed, "acknowledge", after=True),
}  # fmt: skip


def sync_and_die(home: Path, key: Path, point: str, *, full: bool, by_pages: bool) -> None:
    """Sync until that point."""
    if by_pages:
        extract.PAGEWISE = 0
    POINTS[point]()
    with Lab.open(home, key_file=key) as lab:
        lab.sync(full=full)


def load_and_die(home: Path, key: Path, file: Path, point: str) -> None:
    """Load a table of another file until that point."""
    POINTS[point]()
    with Lab.open(home, key_file=key) as lab:
        lab.load(file, "orders")


def sync_slowly(home: Path, key: Path, entered: Any, go_on: Any) -> None:
    """Sync, but wait while the warehouse is held."""
    insert = Warehouse.insert

    def inserting(*arguments: Any) -> None:
        entered.set()
        go_on.wait(20)
        insert(*arguments)

    Warehouse.insert = inserting
    with Lab.open(home, key_file=key) as lab:
        lab.sync()


def read_slowly(home: Path, key: Path, generation: int, ready: Any, go_on: Any) -> None:
    """Open a generation, wait, read it for the first time, and end as a kill would end it."""
    lab = Lab.open(home, key_file=key, generation=generation)
    ready.set()
    go_on.wait(60)
    row = lab.sql("SELECT count(*) FROM raw.messages").fetchone()
    os._exit(0 if row == (300,) and lab.generation == generation else 1)


def server() -> Any:
    """Give what forks processes in which the package is loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults", "aico_lab.etl.foreign"])
    return context


def run(function: Callable[..., None], *arguments: Any, **options: Any) -> int | None:
    """Run a function in a process of its own, and give the exit code."""
    process = server().Process(target=function, args=arguments, kwargs=options)
    process.start()
    process.join(60)
    return process.exitcode
