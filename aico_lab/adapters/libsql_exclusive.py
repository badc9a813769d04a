"""A connection to a libSQL file that nothing else has open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aico_lab.adapters.libsql import Connection

if TYPE_CHECKING:
    from pathlib import Path


class ExclusiveConnection(Connection):
    """A connection that keeps all others out until it is closed.

    SQLite needs no shared memory then, and locks the file itself, on which every other connection
    has a lock for as long as it is open, even an idle one. The mode of the write-ahead log stays.

    Raises:
        DatabaseLocked: Another connection has the file open.
    """

    def __init__(self, path: Path, key: str | None, *, busy_timeout: float) -> None:
        super().__init__(path, key, busy_timeout=busy_timeout)
        try:
            self.fetch_all("SELECT count(*) FROM sqlite_master")
        except BaseException:
            self.close()
            raise

    def _hold(self, cache_kib: int, checkpoint_pages: int) -> None:
        # Before anything is read: afterwards it would change nothing for readers.
        self.fetch_all("PRAGMA locking_mode = EXCLUSIVE")
        super()._hold(cache_kib, checkpoint_pages)
