"""A fair semaphore, first come first served, for tasks of any event loop in any thread.

asyncio's own semaphore belongs to one event loop. SQLite waits for a lock by retrying, which is not
fair: of many writers in one process some would wait very long, and each retry holds Python's
interpreter lock, which the current writer needs to finish.
"""

from __future__ import annotations

import asyncio
import collections
import os
import threading
import time
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOOK = 0.25  # seconds between two calls of `meanwhile`


class FairSemaphore:
    """Admits a fixed number of holders; others wait in a queue."""

    def __init__(self, value: int) -> None:
        self._free = value
        self._lock = threading.Lock()
        self._queue: collections.deque[tuple[Future[None], asyncio.AbstractEventLoop]] = (
            collections.deque()
        )

    async def acquire(self, patience: float, meanwhile: Callable[[], None]) -> bool:
        """Wait for a turn, and return whether it came in time.

        Args:
            patience: The maximum wait in seconds.
            meanwhile: Called every `LOOK` seconds while waiting; an exception ends the wait.
        """
        with self._lock:
            if self._free:  # so the queue is empty
                self._free -= 1
                return True
            turn: Future[None] = Future()
            self._queue.append((turn, asyncio.get_running_loop()))
        deadline = time.monotonic() + patience
        try:
            waiting = asyncio.wrap_future(turn)
            while not waiting.done() and (left := deadline - time.monotonic()) > 0:
                meanwhile()
                await asyncio.wait([waiting], timeout=min(left, LOOK))
        except BaseException:
            if not turn.cancel():  # the turn came at this very moment
                self.release()
            raise
        return not turn.cancel()

    def release(self) -> None:
        """Pass the turn to the first task that still waits."""
        with self._lock:
            while self._queue:
                turn, loop = self._queue.popleft()
                if not loop.is_closed() and turn.set_running_or_notify_cancel():
                    break
            else:
                self._free += 1
                return
        turn.set_result(None)


_gates: weakref.WeakValueDictionary[tuple[int, Path], FairSemaphore] = weakref.WeakValueDictionary()
_gates_lock = threading.Lock()


def write_gate(database: Path) -> FairSemaphore:
    """Return this process's only queue of writers to a database file."""
    key = (os.getpid(), database.resolve())  # a forked process has writers of its own
    with _gates_lock:
        return _gates.setdefault(key, FairSemaphore(1))
