"""A connection and the thread in which all of its work happens, in order.

The driver blocks, so it may not run in an event loop's thread. It also holds Python's interpreter
lock during a statement and cannot be interrupted: a long statement stalls the whole process, and a
time limit can be checked only after the statement. Waiting for another connection's lock, on the
other hand, happens in Python and can be stopped.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from aico_lab.errors import ConnectionIsClosed, DatabaseLocked, OperationTimedOut, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from aico_lab.adapters.libsql import Connection, LibSQLAdapter

Result = TypeVar("Result")

FRESH = 1.0  # seconds after its last use during which a connection is assumed to work


class Session:
    """A connection that opens on first use; to be lent to one task at a time."""

    def __init__(self, adapter: LibSQLAdapter) -> None:
        self._adapter = adapter
        self._process = os.getpid()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aico-lab-dal")
        self._last: Future[Any] | None = None
        self._connection: Connection | None = None
        self._checked = False
        self._used = -math.inf  # time of the last successful job, in `time.monotonic()` seconds
        self._hurried = False
        self._levels: list[AbstractContextManager[None]] = []

    def submit(
        self, job: Callable[[Connection], Result], *, atomic: bool, deadline: float | None
    ) -> Future[Result]:
        """Queue a job for the connection's thread, and return its future.

        Args:
            job: A function of the connection. The future fails with `OperationTimedOut` if the job
                ends after the deadline.
            atomic: Roll back the whole job if it fails.
            deadline: In `time.monotonic()` seconds.

        Raises:
            ConnectionIsClosed: This process was forked after the session was made, and does not
                have its thread.
        """
        refuse_forked(self._process)
        future = self._thread.submit(self._perform, job, atomic=atomic, deadline=deadline)
        self._last = future
        return future

    def hurry(self) -> None:
        """Stop waiting for other connections' locks, until the session is cleaned or resumed."""
        self._hurried = True
        if self._connection is not None:
            self._connection.busy_timeout = 0.0

    def resume(self) -> None:
        """Wait for locks again; call it only while no job is running."""
        self._hurried = False

    @property
    def depth(self) -> int:
        """The number of open nested transactions; valid only while no job is running."""
        return len(self._levels)

    @property
    def clean(self) -> bool:
        """Whether no job is running and no transaction is open."""
        return (self._last is None or self._last.done()) and not self._levels

    def begin(self, connection: Connection) -> None:
        """Open a transaction, or a savepoint in the open one; pass this to `submit` as a job."""
        level = connection.transaction()
        level.__enter__()
        self._levels.append(level)

    def end(self, *, keep: bool) -> Future[None]:
        """Commit or roll back the innermost transaction, in the thread, whatever the deadline."""
        self._last = self._thread.submit(self._end, keep=keep)
        return self._last

    def clean_up(self, then: Callable[[Future[None]], None]) -> None:
        """Roll back all open transactions after the running job, then call `then`."""
        self.hurry()
        self._thread.submit(self._undo_all).add_done_callback(then)

    def lent_again(self) -> None:
        """Make the next job check first that the connection still works."""
        self._checked = False

    def close(self) -> Future[None]:
        """Close the connection and, after that, let the thread end."""
        closed = self._thread.submit(self._disconnect)
        self._thread.shutdown(wait=False)
        return closed

    def _perform(
        self, job: Callable[[Connection], Result], *, atomic: bool, deadline: float | None
    ) -> Result:
        self._check(deadline)
        connection = self._ready(patience_until(deadline, self._adapter.busy_timeout))
        self._used = -math.inf  # until the job succeeds
        try:
            with connection.transaction() if atomic else contextlib.nullcontext():
                result = job(connection)
                self._check(deadline)  # before the commit: a late job is rolled back
            self._used = time.monotonic()
        except DatabaseLocked:
            self._check(deadline)  # raises if it was the deadline that ended the waiting
            raise
        return result

    def _check(self, deadline: float | None) -> None:
        check_deadline(-math.inf if self._hurried else deadline)

    def _ready(self, patience: float) -> Connection:
        """Return a working connection; open one if there is none or if it does not work."""
        if self._connection is not None and not self._checked:
            self._connection.busy_timeout = patience
            self._check_health(self._connection)
        if self._connection is None:
            self._connection = self._adapter.connect()
        self._checked = True
        self._connection.busy_timeout = patience
        if self._hurried:  # `hurry` may have been called meanwhile
            self._connection.busy_timeout = 0.0
        return self._connection

    def _check_health(self, connection: Connection) -> None:
        """Disconnect if the connection does not work; skip the check if it was just used."""
        fresh = time.monotonic() - self._used < FRESH
        if fresh and connection.is_open and not connection.in_transaction:
            return
        try:
            self._adapter.health(connection)
        except DatabaseLocked:
            raise
        except StorageError:
            self._disconnect()

    def _end(self, *, keep: bool) -> None:
        level = self._levels.pop()
        if keep:
            level.__exit__(None, None, None)
        else:
            level.__exit__(StorageError, StorageError("rolled back"), None)

    def _undo_all(self) -> None:
        while self._levels:
            with contextlib.suppress(StorageError):
                self._end(keep=False)
        self._hurried = False

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(StorageError):
                self._adapter.disconnect(connection)


def refuse_forked(process: int) -> None:
    """Raise ConnectionIsClosed if this is not the process of that id, but forked from it."""
    if process != os.getpid():
        raise ConnectionIsClosed(
            "This data access layer was made before the process was forked: make one after it."
        )


def patience_until(deadline: float | None, most: float) -> float:
    """Return the seconds left until the deadline, at most `most`."""
    return most if deadline is None else min(most, max(deadline - time.monotonic(), 0.0))


def check_deadline(deadline: float | None) -> None:
    """Raise OperationTimedOut if the deadline, in `time.monotonic()` seconds, has passed."""
    if deadline is not None and time.monotonic() >= deadline:
        raise OperationTimedOut(
            "The operation exceeded its time limit and was undone: try again, or raise the limit."
        )
