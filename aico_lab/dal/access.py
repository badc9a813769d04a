"""The data access layer: SQL from async code, on pooled connections, in transactions.

**Transactions** belong to the task that opened them: everything that the task does with the layer
inside one is part of it, so repositories join a unit of work implicitly. A task that is started
inside (`gather`, `create_task`, and `wait_for` before Python 3.12; not `asyncio.timeout`) is not
part of it: it reads committed data and writes after the transaction. Awaiting such a writer inside
the transaction is a deadlock, which ends with `DatabaseLocked`.

**Time.** Waiting for a connection ends after `acquire_timeout`, waiting for other writers after the
adapter's busy timeout, and either wait can be cancelled. The driver cannot be interrupted and
stalls the whole process during a statement. An operation that ends after `operation_timeout` is
rolled back, and `OperationTimedOut` is raised when the driver returns (only `PRAGMA` and `VACUUM`
cannot be rolled back). After an interrupted operation, its transaction can only be rolled back. As
with every database, a task that is cancelled during the commit itself may have committed.

A layer may be used from several event loops in several threads. In a process forked after the
layer was made, it raises `ConnectionIsClosed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aico_lab.adapters.libsql_statements import kind_of
from aico_lab.dal.operations import Operations, check
from aico_lab.dal.pool import ACQUIRE_TIMEOUT, ConnectionPool
from aico_lab.errors import InvalidValue, WrongUse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aico_lab.adapters.libsql import Connection, LibSQLAdapter
    from aico_lab.dal.connection import PooledConnection

Result = TypeVar("Result")


_open: weakref.WeakSet[DataAccessLayer] = weakref.WeakSet()


def open_layer() -> DataAccessLayer:
    """Return the only open data access layer of this process.

    Raises:
        WrongUse: No data access layer is open, or more than one.
    """
    layers = list(_open)
    if not layers:
        raise WrongUse(
            "No data access layer is open: use `async with lab.data_access():` around this."
        )
    if len(layers) > 1:
        raise WrongUse(
            f"{len(layers)} data access layers are open: say which one, as in `UnitOfWork(dal)`."
        )
    return layers[0]


class DataAccessLayer(Operations):
    """Runs SQL on one database."""

    def __init__(
        self,
        adapter: LibSQLAdapter,
        *,
        max_connections: int = 10,
        acquire_timeout: float = ACQUIRE_TIMEOUT,
        operation_timeout: float | None = None,
    ) -> None:
        """Make a layer; connections are opened on first use.

        Args:
            adapter: Opens connections to a migrated database.
            max_connections: The maximum number of open connections.
            acquire_timeout: Seconds that an operation waits for a connection.
            operation_timeout: Seconds that an operation may take, including the wait for other
                writers, but not the wait for a connection; None for no limit.

        Raises:
            InvalidValue: The number of connections is below 1, or a timeout is not above zero.
        """
        if operation_timeout is not None and not operation_timeout > 0:
            raise InvalidValue("The operation timeout must be above zero, or None for no limit.")
        self.adapter = adapter
        self.connection_pool = ConnectionPool(
            adapter, max_connections=max_connections, acquire_timeout=acquire_timeout
        )
        self._operation_timeout = operation_timeout
        _open.add(self)
        self._transactions: weakref.WeakKeyDictionary[Any, PooledConnection] = (
            weakref.WeakKeyDictionary()  # by task
        )

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        """Commit the work of this task in the block, or roll it back on an exception; nests.

        The outermost transaction takes the write lock at once, so that no other writer can make it
        fail later. An inner one that fails rolls back only itself, if its exception is caught.

        Raises:
            DatabaseLocked: Other writers held the write lock for longer than the busy timeout.
            PoolExhausted: No connection became free within the acquire timeout.
            LayerClosed: The layer was closed.
            OperationTimedOut: An operation was interrupted; the whole transaction is rolled back.
        """
        deadline = self._deadline()
        outer = self._joined()
        if outer is not None:
            async with outer.level(deadline=deadline):
                yield self
            return
        task = asyncio.current_task()
        loan = self.connection_pool.acquire(write=True, deadline=deadline)
        async with loan as connection, connection.level(deadline=deadline):
            self._transactions[task] = connection
            try:
                yield self
            finally:
                self._transactions.pop(task, None)

    @property
    def in_transaction(self) -> bool:
        """Whether the calling task is in a transaction, and sees what is not committed."""
        return self._joined() is not None

    async def close(self) -> None:
        """Refuse new operations, wait for running ones, and close; a second call does nothing."""
        _open.discard(self)
        await self.connection_pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _operate(
        self, query: str, job: Callable[[Connection], Result], *, many: bool = False
    ) -> Result:
        check(query)
        deadline = self._deadline()
        joined = self._joined()
        if joined is not None:
            return await joined.run(job, atomic=many, deadline=deadline)
        write = many or kind_of(query) == "write"
        async with self.connection_pool.acquire(write=write, deadline=deadline) as connection:
            return await connection.run(job, atomic=write, deadline=deadline)

    def _joined(self) -> PooledConnection | None:
        """Return the connection of this task's open transaction, or None."""
        return self._transactions.get(asyncio.current_task())

    def _deadline(self) -> float | None:
        limit = self._operation_timeout
        return None if limit is None else time.monotonic() + limit
