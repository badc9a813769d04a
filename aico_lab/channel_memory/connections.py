"""One connection per thread, for the lifetime of the thread, and one writer at a time."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from aico_lab.adapters.libsql import BUSY_TIMEOUT
from aico_lab.errors import ConnectionIsClosed, DatabaseLocked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aico_lab.adapters.libsql import Connection, LibSQLAdapter, Row


class ThreadConnections:
    """Connections to one database, by the id of the owning thread."""

    def __init__(self, adapter: LibSQLAdapter) -> None:
        self._adapter = adapter
        self._writing = threading.RLock()
        self._lock = threading.RLock()
        self._by_thread: dict[int, tuple[threading.Thread, Connection]] = {}
        self._closed = False

    def mine(self) -> Connection:
        """Return this thread's connection; on first use open it, and close those of ended threads.

        Raises:
            ConnectionIsClosed: `close` was called.
        """
        ident, thread = threading.get_ident(), threading.current_thread()
        with self._lock:
            self._refuse_if_closed()
            owner, connection = self._by_thread.get(ident, (None, None))
            # The id of a thread that has ended is reused for another thread.
            if connection is not None and owner is thread:
                return connection
            self._close_left_over(ident)
        opened = self._adapter.connect()  # unlocked, so that other threads need not wait for it
        with self._lock:
            try:
                self._refuse_if_closed()
            except ConnectionIsClosed:
                opened.close()
                raise
            self._by_thread[ident] = thread, opened
        return opened

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield this thread's connection within a transaction; nests.

        Raises:
            ConnectionIsClosed: `close` was called.
            DatabaseLocked: Another thread or process kept its transaction open for too long.
        """
        connection = self.mine()
        # The threads of this process queue here. If they retried the file's lock instead, as other
        # processes do, sixteen threads stored a quarter as much and waited up to 2 s.
        if not self._writing.acquire(timeout=BUSY_TIMEOUT):
            raise DatabaseLocked(
                "Another thread keeps its transaction open: try again when it is done."
            )
        try:
            with connection.transaction():
                yield connection
        finally:
            self._writing.release()

    def read(self, query: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one query on this thread's connection, without waiting for writers.

        Raises:
            ConnectionIsClosed: `close` was called.
        """
        return self.mine().fetch_all(query, parameters)

    def close(self) -> None:
        """Close the connections of all threads for good, and roll back their transactions."""
        with self._lock:
            self._closed = True
            for _, connection in self._by_thread.values():
                connection.close()
            self._by_thread.clear()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ConnectionIsClosed("This DatabaseManager was closed: open another.")

    def _close_left_over(self, ident: int) -> None:
        for other, (owner, connection) in list(self._by_thread.items()):
            if other == ident or not owner.is_alive():
                del self._by_thread[other]
                connection.close()
