"""Rewrite the warehouse, so that no file of it has anything of rows that were removed.

DuckDB leaves removed rows in its file until their blocks are used again, and earlier snapshots and
answers have them, too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aico_lab.adapters.duckdb import copy_database
from aico_lab.etl import snapshots
from aico_lab.etl.pins import pinned
from aico_lab.etl.publishing import LOCK_SECONDS, busy
from aico_lab.etl.snapshots import NOTE
from aico_lab.etl.soundness import read_whole
from aico_lab.etl.warehouse import MEMORY_LIMIT_OF_LONG_ROWS, open_warehouse
from aico_lab.home.files import held, os_errors, remove_whole

if TYPE_CHECKING:
    from aico_lab.home.folder import Home


def rewrite(home: Home, key: str | None) -> dict[str, int]:
    """Replace the writer's file by one with the present rows only, and publish only that.

    Args:
        home: The lab's folder; its warehouse is up to date.
        key: DuckDB's key.

    Returns:
        The number of `snapshots` and of folders of `answers` that were removed, and of removed
        snapshots that a process still reads (`read`): it has them until it closes them.

    Raises:
        SyncBusy: Another process is writing the warehouse.
        StorageError: DuckDB failed; a later call goes on.
    """
    with held(home.warehouse / "sync.lock", LOCK_SECONDS, busy):
        fresh = home.warehouse / "fresh.duckdb"
        with os_errors(home.warehouse):
            for path in (fresh, snapshots.log(fresh)):
                remove_whole(path)
        newest = snapshots.newest(home.snapshots)
        with open_warehouse(home.writer, key, temporary=home.temporary / "writer") as warehouse:
            generation = max(newest, warehouse.generation) + 1
            warehouse.connection.execute("UPDATE meta.state SET generation = ?", [generation])
            with warehouse.memory(MEMORY_LIMIT_OF_LONG_ROWS):
                copy_database(warehouse.connection, fresh, key)
            warehouse.connection.execute("CHECKPOINT")
        with os_errors(home.warehouse):
            (home.warehouse / NOTE).unlink(missing_ok=True)
            remove_whole(snapshots.log(home.writer))
            fresh.replace(home.writer)
        read = partial(read_whole, key=key, temporary=home.temporary, where=home.writer.name)
        snapshots.publish(home.writer, home.snapshots, generation, read=read, link=False)
        in_use = pinned(home.snapshots)
        gone = snapshots.remove_others(home.snapshots, generation)
        answers = 0
        if home.answers.is_dir():
            with os_errors(home.answers):
                for folder in home.answers.iterdir():
                    remove_whole(folder)
                    answers += 1
        return {
            "snapshots": len(gone),
            "answers": answers,
            "read": len(in_use.intersection(gone)),
        }
