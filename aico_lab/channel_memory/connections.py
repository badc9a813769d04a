"""One connection for each thread, for as long as the thread lives."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from aico_lab.errors import ConnectionIsClosed

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection, LibSQLAdapter


class ThreadConnections:
    """Connections to one database, by the identity of the thread that each belongs to."""

    def __init__(self, adapter: LibSQLAdapter) -> None:
        self._adapter = adapter
        self._lock = threading.RLock()
        self._by_thread: dict[int, tuple[threading.Thread, Connection]] = {}
        self._closed = False

    def mine(self) -> Connection:
        """Give this thread's connection; open it the first time, and close those left over.

        Raises:
            ConnectionIsClosed: They were all closed for good.
        """
        ident, thread = threading.get_ident(), threading.current_thread()
        with self._lock:
            self._refuse_if_closed()
            owner, connection = self._by_thread.get(ident, (None, None))
            # An id is given to another thread when its first one has ended.
            if connection is not None and owner is thread:
                return connection
            self._close_left_over(ident)
        opened = self._adapter.connect()  # unlocked: who has a connection need not wait for this
        with self._lock:
            try:
                self._refuse_if_closed()
            except ConnectionIsClosed:
                opened.close()
                raise
            self._by_thread[ident] = thread, opened
        return opened

    def close(self) -> None:
        """Close the connections of all threads, for good, undoing what they have not committed."""
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
