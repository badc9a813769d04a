"""A pool that lends connections to tasks and takes every one of them back.

A connection is always clean before it is lent again: open transactions are rolled back in the
connection's own thread, after the statement that may still be running there. A pool may be used
from several event loops in several threads.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Any, cast

from aico_lab.dal.connection import PooledConnection
from aico_lab.dal.session import Session, check_deadline, patience_until, refuse_forked
from aico_lab.dal.turns import FairSemaphore, write_gate
from aico_lab.errors import (
    DatabaseLocked,
    InvalidValue,
    LayerClosed,
    PoolExhausted,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from aico_lab.adapters.libsql import LibSQLAdapter

ACQUIRE_TIMEOUT = 30.0  # seconds
POLL = 0.005  # seconds between two polls while the pool is closing


class Loan:
    """The result of `acquire`: await it for a connection, or enter it to borrow one for a block."""

    def __init__(self, pool: ConnectionPool, *, write: bool, deadline: float | None) -> None:
        self._pool = pool
        self._write = write
        self._deadline = deadline
        self._connection: PooledConnection | None = None

    def __await__(self) -> Generator[Any, None, PooledConnection]:
        return self._pool.lend(write=self._write, deadline=self._deadline).__await__()

    async def __aenter__(self) -> PooledConnection:
        self._connection = await self
        return self._connection

    async def __aexit__(self, *exc_info: object) -> None:
        if self._connection is not None:
            self._pool.take_back(self._connection)


class ConnectionPool:
    """A bounded number of connections to one database, opened on demand and reused."""

    def __init__(
        self,
        adapter: LibSQLAdapter,
        *,
        max_connections: int = 10,
        acquire_timeout: float = ACQUIRE_TIMEOUT,
    ) -> None:
        """Make an empty pool.

        Args:
            adapter: Opens, probes and closes connections.
            max_connections: The maximum number of open connections.
            acquire_timeout: Seconds that a task waits for a connection, and `close` for tasks.

        Raises:
            InvalidValue: The number of connections is below 1, or the timeout is not above zero.
        """
        if max_connections < 1 or not acquire_timeout > 0:
            raise InvalidValue("A pool needs at least one connection and a timeout above zero.")
        self._adapter = adapter
        self._acquire_timeout = acquire_timeout
        self._max_connections = max_connections
        self._permits = FairSemaphore(max_connections)
        self._gate = write_gate(adapter.path)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[Session] = []
        self._lent: set[PooledConnection] = set()
        self._out = 0  # connections that are lent or being cleaned afterwards
        self._closed = False

    def acquire(self, *, write: bool = False, deadline: float | None = None) -> Loan:
        """Borrow a connection: `async with pool.acquire() as connection`, or `await` and `release`.

        Args:
            write: Wait first until no other writer of this process is active. Waiting writers
                hold no connection, so they do not block readers.
            deadline: When to stop waiting for writers, in `time.monotonic()` seconds.

        Raises:
            PoolExhausted: No connection became free within the timeout.
            DatabaseLocked: Other writers were active for longer than the adapter's busy timeout.
            OperationTimedOut: Other writers were active until the deadline.
            LayerClosed: The pool was closed.
            ConnectionIsClosed: This process was forked after the pool was made.
        """
        return Loan(self, write=write, deadline=deadline)

    async def release(self, connection: PooledConnection) -> None:
        """Return a connection and roll back its open transactions; a second call does nothing."""
        self.take_back(connection)

    async def lend(self, *, write: bool, deadline: float | None) -> PooledConnection:
        """Borrow a connection as described in `acquire`."""
        refuse_forked(self._process)
        self._look()
        if not write:
            return await self._lend()
        patience = self._adapter.busy_timeout
        if not await self._gate.acquire(patience_until(deadline, patience), self._look):
            check_deadline(deadline)
            raise DatabaseLocked(
                f"{self._adapter.path.name} was written by other tasks for {patience:g} s: keep "
                "transactions short, and await nothing inside one that writes outside of it."
            )
        try:
            connection = await self._lend()
        except BaseException:
            self._gate.release()
            raise
        connection.on_clean = self._gate.release
        return connection

    def take_back(self, connection: PooledConnection) -> None:
        """Return a connection to the pool as `release` does, from any thread, without waiting."""
        with self._lock:
            if connection not in self._lent:
                return
            self._lent.remove(connection)
        connection.returned = True
        owner = connection.owner()
        if owner is not None and connection.on_owner_end is not None:
            owner.remove_done_callback(connection.on_owner_end)
        if connection.session.clean:
            self._put_by(connection)
        else:
            connection.session.clean_up(lambda _: self._put_by(connection))

    async def close(self) -> None:
        """Refuse new loans, wait for the borrowing tasks, and close every connection.

        After the timeout, the remaining tasks lose their connections and open transactions are
        rolled back; for the calling task this happens at once. A second call does nothing, nor does
        a call in a forked process, because the connections belong to its parent.
        """
        if self._process != os.getpid():
            return
        with self._lock:
            self._closed = True
        deadline = time.monotonic() + self._acquire_timeout
        caller = asyncio.current_task()
        while self._out:
            late = time.monotonic() > deadline
            for connection in list(self._lent):
                if late or connection.abandoned or connection.owner() is caller:
                    self.take_back(connection)
            await asyncio.sleep(POLL)
        with self._lock:
            closing = [session.close() for session in self._idle]
            self._idle.clear()
        for closed in closing:
            await asyncio.shield(asyncio.wrap_future(closed))

    async def _lend(self) -> PooledConnection:
        if not await self._permits.acquire(self._acquire_timeout, self._look):
            raise PoolExhausted(
                f"All {self._max_connections} connections to {self._adapter.path.name} were in use "
                f"for {self._acquire_timeout:g} s: hold them for less time, or allow more of them."
            )
        owner = cast("asyncio.Task[Any]", asyncio.current_task())
        with self._lock:
            if self._closed:
                self._permits.release()
                raise self._is_closed()
            session = self._idle.pop() if self._idle else Session(self._adapter)
            connection = PooledConnection(session, owner)
            self._lent.add(connection)
            self._out += 1
        connection.on_owner_end = lambda _: self.take_back(connection)
        owner.add_done_callback(connection.on_owner_end)
        return connection

    def _put_by(self, connection: PooledConnection) -> None:
        connection.session.lent_again()
        with self._lock:
            self._idle.append(connection.session)
            self._out -= 1
        if connection.on_clean is not None:
            connection.on_clean()
        self._permits.release()

    def _look(self) -> None:
        """During a wait, raise LayerClosed if the pool was closed; take abandoned loans back."""
        if self._closed:
            raise self._is_closed()
        for connection in list(self._lent):
            if connection.abandoned:
                self.take_back(connection)

    def _is_closed(self) -> LayerClosed:
        return LayerClosed(
            f"The data access layer of {self._adapter.path.name} was closed before this use."
        )
