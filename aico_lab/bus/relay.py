"""Deliver the outbox: at least once, in order, and exactly once in effect within libSQL.

For every message and consumer the relay opens a transaction, runs the handler inside, stores the
consumer's new position, and commits. What the handler writes through the same data access layer
therefore commits with the position or not at all. A handler with effects elsewhere (in a file, in
another store) can receive a message again after a crash, with the same `BusMessage.id`.

**Order.** A consumer gets its messages in the order in which they were enqueued. A failed message
is tried again after a pause that doubles each time, and the consumer's later messages wait; other
consumers do not. After the last attempt the message becomes a dead letter of that consumer, which
continues with the next one. So a consumer's order never goes back; dead letters are gaps in it.

**Several relays** on one database, in one process or many, take turns: the write lock of the
transaction is the lease. It ends with its process, however that ends, and cannot expire under a
slow handler. The price is that no other connection writes while a handler runs. So handlers must
be fast: a slow one is stopped and counted as failed before other writers reach their timeout.
A handler must write in its own task; the writes of another task would wait for its transaction.

**Several registries** on one database lose nothing: a consumer is registered in the database when
a relay with it first runs, and messages are kept until every registered consumer has handled them.
A new consumer begins with the oldest message still kept. Remove a consumer that will not come back
with `aico_lab.bus.outbox.forget`.

A crash does not count as an attempt; only an exception does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aico_lab.adapters.libsql import FROM_NOW, NOW
from aico_lab.bus.changes import move_changes
from aico_lab.bus.messages import BusMessage, HandlerRegistry, Subscription
from aico_lab.bus.outbox import reason_of
from aico_lab.errors import AicoLabError, HandlerFailed, UnknownName

if TYPE_CHECKING:
    from aico_lab.dal import DataAccessLayer

ATTEMPTS = 8  # with BACKOFF up to about a minute, for a locked file or a service to recover
BACKOFF = 0.5  # seconds before the second attempt
LONGEST_BACKOFF = 60.0  # seconds
HANDLER_TIMEOUT = 10.0  # seconds; the busy timeout of other writers is 30
POLL = 0.25  # seconds between two polls of an idle outbox
BATCH = 100  # messages for one consumer before the next consumer's turn

_DUE = f"(due_at IS NULL OR due_at <= {NOW})"


class Relay:
    """Delivers the outbox and the change feed to the handlers of a registry."""

    def __init__(
        self,
        dal: DataAccessLayer,
        registry: HandlerRegistry,
        *,
        attempts: int = ATTEMPTS,
        backoff: float = BACKOFF,
        handler_timeout: float = HANDLER_TIMEOUT,
    ) -> None:
        """Make a relay; `run` or `run_once` starts delivery.

        Args:
            dal: The primary database; handlers write through the same layer.
            registry: The consumers.
            attempts: The number of attempts before a message becomes a dead letter.
            backoff: Seconds before the second attempt; doubled for each later attempt.
            handler_timeout: Seconds after which a handler is stopped and counted as failed.
        """
        self._dal = dal
        self._registry = registry
        self._attempts = attempts
        self._backoff = backoff
        self._handler_timeout = handler_timeout
        self._known: dict[str, tuple[str, ...]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver messages until `stop` is set; the current message is finished first.

        Raises:
            StorageError: The database cannot be used, and the error is not transient.
        """
        while not stop.is_set():
            try:
                busy = await self.run_once(stop)
            except AicoLabError as error:
                if not error.transient:
                    raise
                busy = 0
            if not busy:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await stop.wait()

    async def run_once(self, stop: asyncio.Event | None = None) -> int:
        """Move new changes to the outbox, and deliver up to `BATCH` messages to each consumer.

        Args:
            stop: Once it is set, return after the current message.

        Returns:
            The number of changes moved and deliveries tried; 0 when nothing is due.
        """
        await self._register()
        done = await move_changes(self._dal)
        due = await self._dal.fetch_all(
            "SELECT consumer, position FROM bus_consumers "
            f"WHERE position < (SELECT max(seq) FROM outbox) AND {_DUE}"
        )
        positions = {row["consumer"]: row["position"] for row in due}
        for subscription in self._registry:
            if subscription.consumer in positions:
                position = positions[subscription.consumer]
                done += await self._serve(subscription, position, stop or asyncio.Event())
        if positions:
            await self._dal.execute(
                "DELETE FROM outbox WHERE seq <= (SELECT min(position) FROM bus_consumers)"
            )
        return done

    async def redeliver(self, consumer: str, seq: int) -> None:
        """Deliver a dead letter to its consumer again, out of order, and delete it if handled.

        Args:
            consumer: The name of the consumer.
            seq: The message's number in the outbox.

        Raises:
            UnknownName: There is no such dead letter, or no such consumer in the registry.
            HandlerFailed: The handler failed again; the message stays a dead letter.
        """
        handlers = [one for one in self._registry if one.consumer == consumer]
        async with self._dal.transaction():
            row = await self._dal.fetch_one(
                "SELECT seq, topic, payload, created_at FROM dead_letters "
                "WHERE consumer = ? AND seq = ?",
                [consumer, seq],
            )
            if row is None or not handlers:
                raise UnknownName(
                    f"There is no dead letter {seq} of {consumer}: look at dead_letters(dal)."
                )
            try:
                await self._handle(handlers[0], row)
            except Exception as error:
                raise HandlerFailed(
                    f"{row['topic']} was not handled by {consumer} ({type(error).__name__}) and "
                    "stays a dead letter: fix the handler first."
                ) from error
            await self._dal.execute(
                "DELETE FROM dead_letters WHERE consumer = ? AND seq = ?", [consumer, seq]
            )

    async def _register(self) -> None:
        """Store new consumers in the database, which from then on keeps messages for them."""
        for subscription in self._registry:
            if self._known.get(subscription.consumer) == subscription.patterns:
                continue
            await self._dal.execute(
                # Reset the attempts: the new patterns may not match the message that failed last.
                "INSERT INTO bus_consumers (consumer, patterns) VALUES (?, ?) "
                "ON CONFLICT (consumer) DO UPDATE SET patterns = excluded.patterns, "
                "attempts = 0, due_at = NULL WHERE patterns <> excluded.patterns",
                [subscription.consumer, json.dumps(subscription.patterns)],
            )
            self._known[subscription.consumer] = subscription.patterns

    async def _serve(self, subscription: Subscription, position: int, stop: asyncio.Event) -> int:
        """Deliver up to `BATCH` messages after the position; stop at a failure or at `stop`."""
        rows = await self._dal.fetch_all(
            "SELECT seq, topic FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?", [position, BATCH]
        )
        done = 0
        for row in rows:
            if stop.is_set():
                return done
            if subscription.wants(row["topic"]):
                done += 1
                if not await self._deliver(subscription, position, row["seq"]):
                    return done
                position = row["seq"]
        last = rows[-1]["seq"] if rows else position
        if last != position:
            done += 1
            await self._dal.execute(
                # Reset the attempts: a relay with more patterns may have failed a skipped message.
                "UPDATE bus_consumers SET position = ?, attempts = 0, due_at = NULL "
                "WHERE consumer = ? AND position = ?",
                [last, subscription.consumer, position],
            )
        return done

    async def _deliver(self, subscription: Subscription, position: int, seq: int) -> bool:
        """Deliver one message; return False if it failed or another relay delivered it first."""
        row = None
        try:
            async with self._dal.transaction():
                # Only under the write lock is it certain that no other relay is delivering it.
                row = await self._dal.fetch_one(
                    "SELECT seq, topic, payload, created_at FROM outbox, bus_consumers "
                    f"WHERE seq = ? AND consumer = ? AND position = ? AND {_DUE}",
                    [seq, subscription.consumer, position],
                )
                if row is None:
                    return False
                await self._handle(subscription, row)
                await self._dal.execute(
                    "UPDATE bus_consumers SET position = ?, attempts = 0, due_at = NULL "
                    "WHERE consumer = ?",
                    [seq, subscription.consumer],
                )
        except (Exception, asyncio.CancelledError) as error:
            if row is None or _is_being_cancelled():
                raise  # not the handler's fault
            await self._note_failure(subscription.consumer, position, seq, error)
            return False
        return True

    async def _handle(self, subscription: Subscription, row: dict[str, Any]) -> None:
        message = BusMessage(
            topic=row["topic"],
            payload=json.loads(row["payload"]),
            # A database that was restored from a backup assigns the same numbers again.
            id=f"{row['seq']}@{row['created_at']}",
            created_at=datetime.fromisoformat(row["created_at"]),
        )
        async with asyncio.timeout(self._handler_timeout):
            await subscription.handler(message)

    async def _note_failure(
        self, consumer: str, position: int, seq: int, error: BaseException
    ) -> None:
        """Schedule the next attempt, or make the message a dead letter."""
        async with self._dal.transaction():
            state = await self._dal.fetch_one(
                "SELECT attempts + 1 AS attempts FROM bus_consumers "
                "WHERE consumer = ? AND position = ?",
                [consumer, position],
            )
            if state is None:  # another relay has delivered it meanwhile
                return
            attempts = state["attempts"]
            if attempts < self._attempts:
                await self._dal.execute(
                    f"UPDATE bus_consumers SET attempts = ?, due_at = {FROM_NOW} "
                    "WHERE consumer = ?",
                    [attempts, f"{pause_before(attempts, self._backoff):.3f} seconds", consumer],
                )
                return
            await self._dal.execute(
                "INSERT INTO dead_letters SELECT ?, seq, topic, payload, created_at, "
                f"?, ?, ?, {NOW} FROM outbox WHERE seq = ?",
                [consumer, attempts, type(error).__name__, reason_of(error), seq],
            )
            await self._dal.execute(
                "UPDATE bus_consumers SET position = ?, attempts = 0, due_at = NULL "
                "WHERE consumer = ?",
                [seq, consumer],
            )


def pause_before(failures: int, backoff: float) -> float:
    """Return the seconds to wait after a number of failures: doubling, bounded, half of it random.

    The random half keeps consumers that failed together from retrying together.
    """
    full = min(LONGEST_BACKOFF, backoff * 2 ** (failures - 1))
    return random.uniform(full / 2, full)  # noqa: S311 - no secret, only a pause


def _is_being_cancelled() -> bool:
    """Return whether this task itself is cancelled, not only a task that a handler awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
