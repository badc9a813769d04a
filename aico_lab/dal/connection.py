"""One connection, on loan to the task that acquired it."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from aico_lab.dal.operations import Operations, check
from aico_lab.errors import ConnectionIsClosed, InvalidStatement, OperationTimedOut

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Future

    from aico_lab.adapters.libsql import Connection
    from aico_lab.dal.session import Session

Result = TypeVar("Result")


class PooledConnection(Operations):
    """A connection on loan to the task that acquired it.

    When that task ends, the pool takes the connection back and rolls back open transactions.
    """

    def __init__(self, session: Session, owner: asyncio.Task[Any]) -> None:
        self.session = session
        self.owner = weakref.ref(owner)
        self._broken: list[bool] = []  # for each open transaction: was an operation interrupted
        self.returned = False
        # Callbacks of the pool for when the connection is clean again, and when its owner ends.
        self.on_clean: Callable[[], None] | None = None
        self.on_owner_end: Callable[[object], None] | None = None

    async def begin(self, *, deadline: float | None = None) -> None:
        """Open a transaction, or a savepoint in the one that is open.

        Args:
            deadline: When to stop waiting for another writer, in `time.monotonic()` seconds.

        Raises:
            DatabaseLocked: Another connection held the write lock longer than the busy timeout.
            OperationTimedOut: Another connection held the write lock until the deadline.
        """
        try:
            await self.run(self.session.begin, deadline=deadline)
        except (asyncio.CancelledError, OperationTimedOut):
            if self.session.depth > len(self._broken):  # the transaction began nevertheless
                await self._finish(keep=False)
            raise
        self._broken.append(False)

    async def commit(self) -> None:
        """Commit everything since the last `begin`.

        Raises:
            OperationTimedOut: An operation since the last `begin` was interrupted; everything
                since then is rolled back.
        """
        if self._broken and self._broken[-1]:
            await self.rollback()
            raise _interrupted()
        await self._end(keep=True)

    async def rollback(self) -> None:
        """Roll back everything since the last `begin`."""
        await self._end(keep=False)

    @contextlib.asynccontextmanager
    async def level(self, *, deadline: float | None = None) -> AsyncIterator[None]:
        """Begin a transaction, and commit it at the end, or roll back on an exception."""
        await self.begin(deadline=deadline)
        try:
            yield
        except GeneratorExit:  # the task vanished and cannot await: the pool rolls back
            raise
        except BaseException:
            if not self.returned:
                await self.rollback()
            raise
        await self.commit()

    async def run(
        self,
        job: Callable[[Connection], Result],
        *,
        atomic: bool = False,
        deadline: float | None = None,
    ) -> Result:
        """Run a job on the connection, in its thread, and return its result.

        A task that is cancelled meanwhile stops waiting for locks, waits until the driver returns,
        and cannot commit its open transaction.

        Args:
            job: A function of the connection.
            atomic: Roll back the whole job if it fails.
            deadline: In `time.monotonic()` seconds; a job that ends later fails.

        Raises:
            OperationTimedOut: The deadline passed, or an earlier operation was interrupted.
        """
        self._refuse_returned()
        if any(self._broken):
            raise _interrupted()
        future = self.session.submit(job, atomic=atomic, deadline=deadline)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self.session.hurry()
            await _settle(future)
            self.session.resume()
            self._break()
            raise
        except OperationTimedOut:
            self._break()
            raise

    @property
    def abandoned(self) -> bool:
        """Whether the borrowing task has ended or was garbage-collected."""
        owner = self.owner()
        return owner is None or owner.done()

    async def _operate(
        self, query: str, job: Callable[[Connection], Result], *, many: bool = False
    ) -> Result:
        check(query)
        return await self.run(job, atomic=many)

    async def _end(self, *, keep: bool) -> None:
        self._refuse_returned()
        if not self._broken:
            raise InvalidStatement("No transaction is open on this connection: begin one first.")
        self._broken.pop()
        await self._finish(keep=keep)

    async def _finish(self, *, keep: bool) -> None:
        """Commit or roll back a transaction to the end, even if the task is cancelled."""
        future = self.session.end(keep=keep)
        try:
            await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            await _settle(future)
            raise

    def _break(self) -> None:
        if self._broken:
            self._broken[-1] = True

    def _refuse_returned(self) -> None:
        if self.returned:
            raise ConnectionIsClosed(
                "The connection was returned to its pool before: acquire another one."
            )


async def _settle(future: Future[Any]) -> None:
    """Wait until a future is done, despite cancellations, and ignore its result or exception."""
    waiting = asyncio.ensure_future(asyncio.wrap_future(future))
    while not waiting.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([waiting])
    if not waiting.cancelled():
        waiting.exception()  # marks the exception as retrieved, so that asyncio logs nothing


def _interrupted() -> OperationTimedOut:
    return OperationTimedOut(
        "An operation of this transaction was interrupted and all of it rolled back: start again."
    )
