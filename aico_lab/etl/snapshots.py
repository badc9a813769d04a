"""Immutable copies of the warehouse for readers, one file per generation.

DuckDB lets one process write a file and nobody else open it meanwhile, so readers never open the
writer's file. A snapshot is written beside and renamed, never changed, and removed when newer ones
have come; a reader that has it open keeps what it sees.
"""

from __future__ import annotations

import os
import re
import shutil
import weakref
from typing import TYPE_CHECKING

from aico_lab.adapters.duckdb import DuckDBAdapter, translated
from aico_lab.errors import NeverSynced, UnknownName
from aico_lab.home import os_errors, sync_folder

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

    from aico_lab.home import Home

KEPT = 3
"""How many generations stay."""


def published(folder: Path) -> dict[int, Path]:
    """Give the snapshots that are there, by generation, oldest first."""
    found = {
        int(match[1]): path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := re.fullmatch(r"(\d{8,})\.duckdb", path.name))
    }
    return dict(sorted(found.items()))


def find(folder: Path, generation: int | None = None) -> tuple[int, Path]:
    """Give one generation and its file, the newest by default.

    Raises:
        NeverSynced: There is none at all.
        UnknownName: That generation is not kept.
    """
    snapshots = published(folder)
    if not snapshots:
        raise NeverSynced("There is no snapshot to read yet: run `aico-lab sync` first.")
    if generation is None:
        generation = max(snapshots)
    if generation not in snapshots:
        kept = ", ".join(map(str, snapshots))
        raise UnknownName(f"Snapshot {generation} is not kept; these are: {kept}.")
    return generation, snapshots[generation]


def publish(writer: Path, folder: Path, generation: int) -> Path:
    """Copy the writer's closed file as a new generation, and remove what is too old.

    Args:
        writer: The writer's file, with nothing left in its write-ahead log.
        folder: Where snapshots lie.
        generation: The number of the new one.
    """
    target = folder / f"{generation:08d}.duckdb"
    with os_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        for leftover in folder.glob(".*.partial"):
            leftover.unlink(missing_ok=True)
        partial = folder / f".{generation:08d}.partial"
        try:
            shutil.copyfile(writer, partial)
            partial.chmod(0o600)
            descriptor = os.open(partial, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(folder)
        for old in list(published(folder).values())[:-KEPT]:
            try:
                old.unlink(missing_ok=True)
            except PermissionError:  # Windows keeps a file that is open; next time
                continue
    return target


class Reader:
    """Asks the newest snapshot, or one and the same; for one thread.

    Answers are read lazily, so a snapshot stays open for as long as somebody holds an answer of it.
    """

    def __init__(
        self, home: Home, key: str | None, *, timezone: str, pinned: int | None = None
    ) -> None:
        """Open nothing yet.

        Args:
            home: The lab's folder.
            key: DuckDB's key.
            timezone: In which days and hours of timestamps are counted.
            pinned: Read this generation rather than the newest.
        """
        self._home = home
        self._key = key
        self._timezone = timezone
        self._pinned = pinned
        self._open: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
        self._newest: duckdb.DuckDBPyConnection | None = None
        self._generation = 0

    @property
    def generation(self) -> int:
        """The snapshot that is read now."""
        return find(self._home.snapshots, self._pinned)[0]

    def sql(self, query: str) -> duckdb.DuckDBPyRelation | None:
        """Give the answer, or None for a statement that has none.

        Raises:
            NeverSynced: There is no snapshot yet.
            InvalidStatement: DuckDB cannot run the query.
        """
        connection = self.connection()
        with translated("The snapshot"):
            return connection.sql(query)

    def connection(self) -> duckdb.DuckDBPyConnection:
        """Give a connection to the snapshot to be read; an older one lives on in its answers."""
        generation, path = find(self._home.snapshots, self._pinned)
        if self._newest is None or generation != self._generation:
            adapter = DuckDBAdapter(
                path,
                self._key,
                read_only=True,
                temporary=self._home.temporary,
                timezone=self._timezone,
            )
            self._newest, self._generation = adapter.connect(), generation
            self._open.add(self._newest)
        return self._newest

    def close(self) -> None:
        """Release every snapshot; answers that were not read yet can not be read any more."""
        self._newest = None
        for connection in list(self._open):
            connection.close()
