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

    When that task ends, the connection goes back by itself and what was open is undone.
    """

    def __init__(self, session: Session, owner: asyncio.Task[Any]) -> None:
        self.session = session
        self.owner = weakref.ref(owner)
        self._broken: list[bool] = []  # for each open transaction: was something interrupted in it
        self.returned = False
        # What the pool has to do when the connection is clean again, and when its owner ends.
        self.on_clean: Callable[[], None] | None = None
        self.on_owner_end: Callable[[object], None] | None = None

    async def begin(self, *, deadline: float | None = None) -> None:
        """Open a transaction, or a savepoint in the one that is open.

        Args:
            deadline: When to stop waiting for another writer, in `time.monotonic()` seconds.

        Raises:
            DatabaseLocked: Another connection kept on writing for longer than the busy timeout.
            OperationTimedOut: It did so until the deadline.
        """
        try:
            await self.run(self.session.begin, deadline=deadline)
        except (asyncio.CancelledError, OperationTimedOut):
            if self.session.depth > len(self._broken):  # it began all the same
                await self._finish(keep=False)
            raise
        self._broken.append(False)

    async def commit(self) -> None:
        """Keep what was done since the last `begin`.

        Raises:
            OperationTimedOut: An operation was interrupted since then, and everything is undone.
        """
        if self._broken and self._broken[-1]:
            await self.rollback()
            raise _interrupted()
        await self._end(keep=True)

    async def rollback(self) -> None:
        """Undo what was done since the last `begin`."""
        await self._end(keep=False)

    @contextlib.asynccontextmanager
    async def level(self, *, deadline: float | None = None) -> AsyncIterator[None]:
        """Begin, and commit in the end, or roll back when an exception leaves."""
        await self.begin(deadline=deadline)
        try:
            yield
        except GeneratorExit:  # the task vanished: nothing can wait any more; the pool undoes it
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
        """Do something with the connection, in its thread.

        A task that is cancelled meanwhile stops waiting for locks, waits until the driver is done,
        and can not commit the transaction that it was in.

        Args:
            job: What to do.
            atomic: Undo all of it if it fails.
            deadline: In `time.monotonic()` seconds; what ends later is undone.

        Raises:
            OperationTimedOut: The deadline passed, or an operation before this one was interrupted.
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
        """Whether the task that borrowed it has ended or vanished."""
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
        """End a transaction, which a task that is cancelled now must not leave half done."""
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
                "The connection was given back to its pool before: acquire another one."
            )


async def _settle(future: Future[Any]) -> None:
    """Wait until something is over, however often the task is cancelled, whatever came of it."""
    waiting = asyncio.ensure_future(asyncio.wrap_future(future))
    while not waiting.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([waiting])
    if not waiting.cancelled():
        waiting.exception()  # looked at, so that asyncio does not complain


def _interrupted() -> OperationTimedOut:
    return OperationTimedOut(
        "An operation of this transaction was interrupted, so all of it is undone: start it again."
    )
