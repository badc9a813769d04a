"""Write the warehouse while no other process does, and publish a snapshot of it at the end."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from aico_lab.errors import CorruptDatabase, SyncBusy
from aico_lab.etl import snapshots
from aico_lab.etl.misplaced import clear_misplaced
from aico_lab.etl.snapshots import NOTE
from aico_lab.etl.soundness import read_whole
from aico_lab.etl.warehouse import open_warehouse
from aico_lab.home.files import held, os_errors, remove_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aico_lab.etl.warehouse import Warehouse
    from aico_lab.home.folder import Home

LOCK_SECONDS = 60


@contextmanager
def publishing(
    home: Home, key: str | None, *, link: bool = True, then: Callable[[], None] = lambda: None
) -> Iterator[tuple[Warehouse, int]]:
    """Write the warehouse exclusively; at the end, publish a snapshot of a new generation.

    Args:
        home: The lab's folder.
        key: DuckDB's key.
        link: Whether the snapshot may share the file of an earlier one.
        then: Called after the publication, while no other process may write.

    Yields:
        The writer's database, and the newest published generation (0 if there is none).

    Raises:
        SyncBusy: Another process is writing the warehouse.
        StorageError: DuckDB cannot open the file, or a statement inside the block failed.
    """
    clear_misplaced(home, full=False)
    with (
        held(home.warehouse / "sync.lock", LOCK_SECONDS, busy),
        _thrifty_arrow(),
        _sound_log(home),
        open_warehouse(home.writer, key, temporary=home.temporary / "writer") as warehouse,
    ):
        newest, published = snapshots.newest(home.snapshots), snapshots.published(home.snapshots)
        # Else no sync would publish what a load commits before it crashes.
        with os_errors(home.warehouse):
            (home.warehouse / NOTE).unlink(missing_ok=True)
        yield warehouse, newest
        generation = warehouse.generation
        if generation not in published:  # new, or a crash came between commit and publication
            warehouse.close()
            read = partial(read_whole, key=key, temporary=home.temporary, where=home.writer.name)
            snapshots.publish(home.writer, home.snapshots, generation, read=read, link=link)
        then()


def discard_writer(home: Home) -> None:
    """Remove the writer's files, which can be made again from the primary database."""
    with (
        held(home.warehouse / "sync.lock", LOCK_SECONDS, busy),
        os_errors(home.warehouse),
    ):
        for path in (home.writer, snapshots.log(home.writer)):
            remove_whole(path)


@contextmanager
def _sound_log(home: Home) -> Iterator[None]:
    if not snapshots.is_log_sound(home.writer, home.snapshots):
        raise CorruptDatabase(
            f"{snapshots.log(home.writer).name} is damaged: run `aico-lab sync --full`."
        )
    yield


@contextmanager
def _thrifty_arrow() -> Iterator[None]:
    """Let Arrow return freed memory to the system: its own allocator keeps 70 MB more."""
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def busy(who: str) -> SyncBusy:
    """Return the error of a warehouse that another process writes."""
    return SyncBusy(f"The warehouse is being written by {who}: try again when it is done.")
