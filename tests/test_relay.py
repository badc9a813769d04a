"""The outbox and the change feed: delivery at least once, in order, with one effect."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.bus import BusMessage, HandlerRegistry, MessageBus, Relay, dead_letters, forget
from aico_lab.bus.changes import RESYNC
from aico_lab.bus.relay import LONGEST_BACKOFF, pause_before
from aico_lab.dal import DataAccessLayer
from aico_lab.errors import (
    HandlerFailed,
    InvalidEntity,
    InvalidTopic,
    LayerClosed,
    UnknownName,
)
from aico_lab.repositories.outbox import enqueue
from aico_lab.schema import feed
from tests.costs import takes_about
from tests.databases import with_core_schemas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection

KEY = "k" * 32
EFFECTS = "CREATE TABLE effects (id INTEGER PRIMARY KEY AUTOINCREMENT, consumer TEXT, n INTEGER)"


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the core schemas and a table for the effects of handlers."""
    path = tmp_path_factory.mktemp("relay") / "empty.db"
    with with_core_schemas(path, KEY).connect() as connection:
        connection.execute(EFFECTS)
        connection.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def path(tmp_path: Path, empty: Path) -> Path:
    return shutil.copy(empty, tmp_path / "a.db")


@pytest.fixture
async def dal(path: Path) -> AsyncIterator[DataAccessLayer]:
    async with DataAccessLayer(LibSQLAdapter(path, KEY)) as opened:
        yield opened


@pytest.fixture
def outside(path: Path) -> Iterator[Connection]:
    """A connection outside the data access layer."""
    with LibSQLAdapter(path, KEY).connect() as opened:
        yield opened


@pytest.fixture
def registry() -> HandlerRegistry:
    return HandlerRegistry()


def worker(
    registry: HandlerRegistry, dal: DataAccessLayer, pattern: str = "x.#", name: str = "worker"
) -> list[Exception | None]:
    """Subscribe a handler that stores `n`; return the list of exceptions that it then raises."""
    raises: list[Exception | None] = []

    async def handle(message: BusMessage) -> None:
        await dal.execute(
            "INSERT INTO effects (consumer, n) VALUES (?, ?)", [name, message.payload["n"]]
        )
        if raises and (error := raises.pop(0)):
            raise error

    registry.subscribe(pattern, consumer=name)(handle)
    return raises


def listen(registry: HandlerRegistry, pattern: str, name: str = "listener") -> list[BusMessage]:
    """Subscribe to a pattern and return the list that is filled with the messages."""
    heard: list[BusMessage] = []

    async def handle(message: BusMessage) -> None:
        heard.append(message)

    registry.subscribe(pattern, consumer=name)(handle)
    return heard


def effects(connection: Connection, consumer: str = "worker") -> list[int]:
    rows = connection.fetch_all("SELECT n FROM effects WHERE consumer = ? ORDER BY id", [consumer])
    return [n for (n,) in rows]


async def drain(relay: Relay) -> None:
    while await relay.run_once():
        pass


async def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def waiting(connection: Connection) -> int:
    return connection.fetch_all("SELECT count(*) FROM outbox")[0][0]


async def test_an_event_commits_with_its_cause_or_not_at_all(dal, registry, outside):
    """An event that was enqueued in a rolled-back transaction does not exist."""
    worker(registry, dal)
    with pytest.raises(RuntimeError):
        async with dal.transaction():
            await enqueue(dal, "x", {"n": 1})
            raise RuntimeError
    async with dal.transaction():
        await enqueue(dal, "x", {"n": 2})
        assert waiting(outside) == 0
    assert waiting(outside) == 1
    await drain(Relay(dal, registry))
    assert effects(outside) == [2]
    assert waiting(outside) == 0


@pytest.mark.parametrize("payload", [{"n": object()}, {"n": float("nan")}, {("a", "b"): 1}])
async def test_a_payload_that_json_cannot_say_is_refused(dal, outside, payload):
    """The error is raised when the event is written, not when it is delivered."""
    with pytest.raises(InvalidEntity):
        await enqueue(dal, "x", payload)
    with pytest.raises(InvalidTopic):
        await enqueue(dal, "x.*", {})
    assert waiting(outside) == 0


# What the database cannot hold is refused where it is written.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
        | TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    )
)  # fmt: skip
def test_a_payload_arrives_as_it_was_sent(path, value):
    """Any JSON value arrives unchanged: NUL, lone surrogates and large integers too."""

    async def send() -> Any:
        registry = HandlerRegistry()
        heard = listen(registry, "#")
        async with DataAccessLayer(LibSQLAdapter(path, KEY)) as dal:
            await enqueue(dal, "x", {"value": value})
            await drain(Relay(dal, registry))
        return heard[-1].payload["value"]

    assert asyncio.run(send()) == value


async def test_the_unit_of_works_own_insert_is_delivered(dal, registry, outside):
    """A row with topic, payload and time is all that the relay needs."""
    heard = listen(registry, "x.y")
    outside.execute(
        "INSERT INTO outbox (topic, payload, created_at) "
        "VALUES ('x.y', '{\"n\": 1}', '2024-03-01T12:00:00.500000Z')"
    )
    await drain(Relay(dal, registry))
    assert heard[0].payload == {"n": 1}
    assert heard[0].created_at.isoformat() == "2024-03-01T12:00:00.500000+00:00"


async def test_a_consumer_waits_for_the_message_that_fails(dal, registry, outside):
    """Later messages of the same consumer wait and keep their order; other consumers go on."""
    raises = worker(registry, dal)
    worker(registry, dal, name="other")
    raises += [None, ValueError(), ValueError()]
    for n in range(4):
        await enqueue(dal, "x", {"n": n})
    relay = Relay(dal, registry, backoff=0)
    await relay.run_once()
    assert (effects(outside), effects(outside, "other")) == ([0], [0, 1, 2, 3])
    assert outside.fetch_all("SELECT attempts FROM bus_consumers ORDER BY consumer") == [(0,), (1,)]
    await drain(relay)
    assert (effects(outside), effects(outside, "other")) == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert await dead_letters(dal) == []


async def test_a_poisoned_message_becomes_a_dead_letter_and_the_rest_goes_on(
    dal, registry, outside
):
    """The error's class and first line are kept, with anything like a key masked."""
    raises = worker(registry, dal)
    raises += [LookupError(f"no such thing, key {KEY}\nsecond line")] * 3
    for n in range(3):
        await enqueue(dal, "x.y", {"n": n})
    await drain(Relay(dal, registry, attempts=3, backoff=0))
    assert effects(outside) == [1, 2]
    (letter,) = await dead_letters(dal)
    assert (letter.consumer, letter.topic, letter.attempts) == ("worker", "x.y", 3)
    assert (letter.error, letter.reason) == ("LookupError", "no such thing, key •••")
    assert waiting(outside) == 0


async def test_a_dead_letter_can_be_delivered_once_more(dal, registry, outside):
    """It is delivered to its own consumer only, and stays a dead letter if it fails again."""
    raises = worker(registry, dal)
    worker(registry, dal, name="other")
    raises += [ValueError(), None, ValueError()]
    for n in range(2):
        await enqueue(dal, "x", {"n": n})
    relay = Relay(dal, registry, attempts=1)
    await drain(relay)
    (letter,) = await dead_letters(dal)
    with pytest.raises(HandlerFailed, match="ValueError"):
        await relay.redeliver("worker", letter.seq)
    assert await dead_letters(dal) == [letter]
    await relay.redeliver("worker", letter.seq)
    assert (effects(outside), effects(outside, "other")) == ([1, 0], [0, 1])
    with pytest.raises(UnknownName):
        await relay.redeliver("worker", letter.seq)


async def test_a_payload_that_is_no_json_does_not_stop_the_relay(dal, registry, outside):
    """A malformed row of another program becomes a dead letter."""
    worker(registry, dal)
    outside.execute("INSERT INTO outbox (topic, payload, created_at) VALUES ('x', '{', 'soon')")
    await enqueue(dal, "x", {"n": 1})
    await drain(Relay(dal, registry, attempts=2, backoff=0))
    assert effects(outside) == [1]
    assert [letter.error for letter in await dead_letters(dal)] == ["JSONDecodeError"]


async def test_a_failed_message_is_tried_again_after_a_pause(dal, registry, outside):
    """The handler is not called before the pause is over."""
    raises = worker(registry, dal)
    raises.append(ValueError())
    await enqueue(dal, "x", {"n": 1})
    relay = Relay(dal, registry, backoff=0.4)
    started = time.monotonic()
    await drain(relay)
    assert effects(outside) == []
    while not effects(outside):
        await drain(relay)
        await asyncio.sleep(0.01)
    assert time.monotonic() - started > 0.19


@given(failures=st.integers(1, 50), backoff=st.floats(0, 10))
def test_the_pause_doubles_within_bounds(failures, backoff):
    """The pause is at least half of the doubled one, and never above the longest."""
    full = min(LONGEST_BACKOFF, backoff * 2 ** (failures - 1))
    assert full / 2 <= pause_before(failures, backoff) <= full <= LONGEST_BACKOFF


async def test_the_attempts_of_a_message_that_is_not_wanted_any_more_are_not_the_next_ones(
    path, outside
):
    """A consumer with new patterns starts with all attempts for every message."""
    for pattern, topic in (("x", "x"), ("y", "y")):
        async with DataAccessLayer(LibSQLAdapter(path, KEY)) as dal:
            registry = HandlerRegistry()

            @registry.subscribe(pattern, consumer="worker")
            async def handle(_: BusMessage) -> None:
                raise ValueError

            await enqueue(dal, topic, {})
            relay = Relay(dal, registry, attempts=3, backoff=0)
            for _ in range(2):
                await relay.run_once()
    assert outside.fetch_all("SELECT attempts FROM bus_consumers") == [(2,)]
    assert outside.fetch_all("SELECT seq FROM dead_letters") == []


async def test_the_attempts_of_a_message_that_another_relay_passed_over_are_gone(dal, outside):
    """A relay with fewer patterns for the same consumer skips the failed message."""

    async def handle(_: BusMessage) -> None:
        raise ValueError

    relays = []
    for pattern in ("y", "x"):
        registry = HandlerRegistry()
        registry.subscribe(pattern, consumer="worker")(handle)
        relays.append(Relay(dal, registry, attempts=3, backoff=0))
        await relays[-1].run_once()
    less, more = relays
    attempts = []
    for _ in range(2):
        await enqueue(dal, "x", {})
        await more.run_once()
        attempts += outside.fetch_all("SELECT attempts FROM bus_consumers")
        await less.run_once()
    assert attempts == [(1,), (1,)]


async def test_queue_and_attempts_survive_a_restart(path, outside):
    """A new process continues at the stored position and count of attempts."""
    for attempt in range(4):
        registry = HandlerRegistry()
        async with DataAccessLayer(LibSQLAdapter(path, KEY)) as dal:
            if attempt == 0:
                for n in range(2):
                    await enqueue(dal, "x", {"n": n})
            raises = worker(registry, dal)
            raises += [ValueError()] if attempt < 3 else []
            await Relay(dal, registry, attempts=3, backoff=0).run_once()
    assert effects(outside) == [1]
    assert outside.fetch_all("SELECT seq, attempts FROM dead_letters") == [(1, 3)]


async def test_a_slow_handler_is_stopped(dal, registry, outside):
    """It counts as failed, its writes are rolled back, and others can write again."""

    @registry.subscribe("x")
    async def dawdle(_: BusMessage) -> None:
        await dal.execute("INSERT INTO effects (consumer, n) VALUES ('worker', 1)")
        await asyncio.sleep(60)

    await enqueue(dal, "x", {"n": 1})
    await drain(Relay(dal, registry, attempts=1, handler_timeout=0.05))
    assert [letter.error for letter in await dead_letters(dal)] == ["TimeoutError"]
    assert effects(outside) == []


async def test_a_handler_whose_helper_was_cancelled_has_failed(dal, registry):
    """The relay continues, because it was not cancelled itself."""

    @registry.subscribe("x")
    async def handle(_: BusMessage) -> None:
        helper = asyncio.create_task(asyncio.sleep(60))
        helper.cancel()
        await helper

    await enqueue(dal, "x", {"n": 1})
    await drain(Relay(dal, registry, attempts=1))
    assert [letter.error for letter in await dead_letters(dal)] == ["CancelledError"]


async def test_a_cancelled_relay_leaves_its_message_for_the_next(dal, registry, outside):
    """Its writes are rolled back, no attempt is counted, and the message is handled once."""
    begun = asyncio.Event()

    @registry.subscribe("x")
    async def handle(_: BusMessage) -> None:
        await dal.execute("INSERT INTO effects (consumer, n) VALUES ('worker', 1)")
        if not begun.is_set():
            begun.set()
            await asyncio.sleep(60)

    await enqueue(dal, "x", {"n": 1})
    relay = Relay(dal, registry, attempts=1)
    task = asyncio.create_task(relay.run(asyncio.Event()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert effects(outside) == []
    await drain(relay)
    assert effects(outside) == [1]
    assert await dead_letters(dal) == []


async def test_run_finishes_the_message_in_hand(dal, registry, outside):
    """After `stop` is set the current message is handled, and the next one is left."""
    stop = asyncio.Event()

    @registry.subscribe("x")
    async def handle(message: BusMessage) -> None:
        stop.set()
        await asyncio.sleep(0.02)
        await dal.execute(
            "INSERT INTO effects (consumer, n) VALUES ('worker', ?)", [message.payload["n"]]
        )

    for n in range(3):
        await enqueue(dal, "x", {"n": n})
    await asyncio.wait_for(Relay(dal, registry).run(stop), 60)
    assert effects(outside) == [0]
    assert waiting(outside) == 3 - 1


@pytest.mark.slow
async def test_run_delivers_what_comes_later_and_is_cheap_when_idle(dal, registry, outside):
    """An idle second costs a few queries; a new message is handled soon after it is enqueued."""
    stop = asyncio.Event()
    worker(registry, dal)
    task = asyncio.create_task(Relay(dal, registry).run(stop))
    await asyncio.sleep(0.3)
    with takes_about(0.05):
        await asyncio.sleep(1)
    await enqueue(dal, "x", {"n": 1})
    await until(lambda: effects(outside) == [1])
    stop.set()
    await asyncio.wait_for(task, 60)


@pytest.mark.slow
async def test_run_waits_for_a_locked_database_and_stops_for_a_closed_one(path, registry, outside):
    """A transient error is waited out; any other is raised."""
    async with DataAccessLayer(LibSQLAdapter(path, KEY, busy_timeout=0.05)) as dal:
        worker(registry, dal)
        await enqueue(dal, "x", {"n": 1})
        with outside.transaction():
            task = asyncio.create_task(Relay(dal, registry).run(asyncio.Event()))
            await asyncio.sleep(0.3)
            assert not task.done()
        await until(lambda: effects(outside) == [1])
    with pytest.raises(LayerClosed):
        await asyncio.wait_for(task, 60)


async def test_a_message_waits_for_consumers_of_other_processes(dal, registry, outside):
    """A relay without a consumer keeps the consumer's messages until it is forgotten."""
    worker(registry, dal, name="here")
    elsewhere = HandlerRegistry()
    worker(elsewhere, dal, name="elsewhere")
    await drain(Relay(dal, elsewhere))
    await enqueue(dal, "x", {"n": 1})
    await drain(Relay(dal, registry))
    assert effects(outside, "here") == [1]
    assert waiting(outside) == 1
    await drain(Relay(dal, elsewhere))
    assert effects(outside, "elsewhere") == [1]
    await forget(dal, "elsewhere")
    await enqueue(dal, "x", {"n": 2})
    await drain(Relay(dal, registry))
    assert waiting(outside) == 0


async def test_messages_that_nobody_wants_do_not_pile_up(dal, registry, outside):
    """They are deleted from the outbox like others; without any consumer all are kept."""
    for _ in range(250):
        await enqueue(dal, "y", {})
    await drain(Relay(dal, registry))
    assert waiting(outside) == 250
    worker(registry, dal)
    await enqueue(dal, "x", {"n": 1})
    await drain(Relay(dal, registry))
    assert effects(outside) == [1]
    assert waiting(outside) == 0


async def test_a_handler_may_publish_and_enqueue(dal, registry, outside):
    """Events of a handler commit with its effects; a failed handler publishes none."""
    raises = worker(registry, dal, "y", "second")
    raises.append(ValueError())

    @registry.subscribe("x")
    async def first(message: BusMessage) -> None:
        await enqueue(dal, "y", message.payload)
        await MessageBus(registry).publish("z", message.payload)

    heard = listen(registry, "z")
    await enqueue(dal, "x", {"n": 1})
    await drain(Relay(dal, registry, backoff=0))
    assert effects(outside, "second") == [1]
    assert len(heard) == 1


async def test_two_relays_at_once_handle_each_message_once(path, outside):
    """Each message has one effect, in order, whichever relay handles it."""
    calls: Counter[int] = Counter()

    def listening(dal: DataAccessLayer) -> HandlerRegistry:
        registry = HandlerRegistry()

        @registry.subscribe("x", consumer="worker")
        async def handle(message: BusMessage) -> None:
            calls[message.payload["n"]] += 1
            await asyncio.sleep(0.001)
            await dal.execute(
                "INSERT INTO effects (consumer, n) VALUES ('worker', ?)", [message.payload["n"]]
            )

        return registry

    async with (
        DataAccessLayer(LibSQLAdapter(path, KEY)) as one,
        DataAccessLayer(LibSQLAdapter(path, KEY)) as other,
    ):
        for n in range(20):
            await enqueue(one, "x", {"n": n})
        await asyncio.gather(*(drain(Relay(dal, listening(dal))) for dal in (one, other)))
        await drain(Relay(one, listening(one)))
    assert effects(outside) == list(range(20))
    assert set(calls.values()) == {1}


class Interrupted(DataAccessLayer):
    """Runs a callback at the worst moment."""

    def __init__(self, path: Path) -> None:
        super().__init__(LibSQLAdapter(path, KEY))
        self.before: dict[str, Callable[[], Awaitable[Any]]] = {}

    async def _interrupt(self, moment: str) -> None:
        for start in list(self.before):
            if moment.startswith(start):
                await self.before.pop(start)()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[DataAccessLayer]:
        await self._interrupt("transaction")
        async with super().transaction() as opened:
            yield opened

    async def execute(self, query: str, params: Any = ()) -> None:
        await self._interrupt(query)
        await super().execute(query, params)


async def test_a_relay_that_fails_late_does_not_undo_what_another_did(path, dal):
    """Between a failure and its record, another relay may have handled the message."""
    done: list[int] = []
    calls: list[BusMessage] = []
    other = Relay(dal, registry := HandlerRegistry(), attempts=1)

    async with Interrupted(path) as interrupted:

        @registry.subscribe("x", consumer="worker")
        async def handle(message: BusMessage) -> None:
            if not calls:
                calls.append(message)
                interrupted.before["transaction"] = other.run_once
                raise ValueError
            done.append(message.payload["n"])

        keeps = HandlerRegistry()  # so that nothing leaves the outbox
        listen(keeps, "x", "elsewhere")
        await Relay(dal, keeps).run_once()
        for n in range(3):
            await enqueue(dal, "x", {"n": n})
        await drain(Relay(interrupted, registry, attempts=1))
    await drain(other)
    assert done == [0, 1, 2]
    assert await dead_letters(dal) == []


async def test_a_relay_that_skips_late_does_not_undo_what_another_did(path, dal):
    """Between reading unwanted messages and moving on, another relay may move the consumer."""
    done: list[int] = []
    other = Relay(dal, registry := HandlerRegistry())

    @registry.subscribe("x", consumer="worker")
    async def handle(message: BusMessage) -> None:
        done.append(message.payload["n"])

    async def go_on() -> None:
        await enqueue(dal, "x", {"n": 1})
        await other.run_once()

    keeps = HandlerRegistry()
    listen(keeps, "x", "elsewhere")
    await Relay(dal, keeps).run_once()
    async with Interrupted(path) as interrupted:
        interrupted.before["UPDATE bus_consumers SET position"] = go_on
        await enqueue(dal, "y", {})
        await drain(Relay(interrupted, registry))
        assert interrupted.before == {}
    assert done == [1]


def add_users(connection: Connection, *names: str) -> None:
    for name in names:
        connection.execute(
            "INSERT INTO users (user_id, name, created_at) VALUES (?, 'Ada Lovelace', ?)",
            [name, "2024-03-01T12:00:00.000000Z"],
        )


async def test_changes_are_published_in_order_without_values(dal, registry, outside):
    """Every change with a subscriber becomes one message that names the row."""
    heard = listen(registry, "data.users.*")
    relay = Relay(dal, registry)
    add_users(outside, "a", "b")
    outside.execute("UPDATE users SET name = 'Grace Hopper' WHERE user_id = 'a'")
    outside.execute("INSERT INTO channels (channel_id, created_at) VALUES ('c', 'x')")
    outside.execute("DELETE FROM users WHERE user_id = 'b'")
    await drain(relay)
    assert [(m.topic, m.payload["key"], m.payload["seq"]) for m in heard] == [
        ("data.users.insert", "a", 1),
        ("data.users.insert", "b", 2),
        ("data.users.update", "a", 3),
        ("data.users.delete", "b", 5),
    ]
    assert all(set(m.payload) == {"table", "key", "seq", "at"} for m in heard)
    assert abs(heard[0].payload["at"] / 1000 - time.time()) < 60
    await drain(relay)
    assert len(heard) == 4
    assert outside.fetch_all("SELECT seq FROM change_log") == [(5,)]


async def test_the_log_is_held_back_only_while_somebody_listens(dal, registry, outside):
    """Without subscribers the bus is not, or no longer, a consumer of the feed."""
    await drain(Relay(dal, registry))
    worker(registry, dal)
    await drain(Relay(dal, registry))
    assert outside.fetch_all("SELECT * FROM feed_consumers") == []
    add_users(outside, "a")
    listen(registry, "#", "all")
    await drain(Relay(dal, registry))
    assert outside.fetch_all("SELECT * FROM feed_consumers") == [("bus", 1)]
    await forget(dal, "all")
    await drain(Relay(dal, HandlerRegistry()))
    assert outside.fetch_all("SELECT * FROM feed_consumers") == []


@pytest.mark.slow
async def test_changes_are_moved_in_batches(dal, registry, outside):
    """More changes than one batch holds all arrive, once and in order."""
    heard = listen(registry, "data.users.update")
    add_users(outside, "a")
    with outside.transaction():
        for _ in range(1500):
            outside.execute("UPDATE users SET metadata = NULL")
    relay = Relay(dal, registry)
    await relay.run_once()
    assert outside.fetch_all("SELECT acknowledged FROM feed_consumers") == [(1000,)]
    registry._subscriptions.clear()
    while await relay.run_once():
        pass
    assert outside.fetch_all("SELECT acknowledged FROM feed_consumers") == [(1501,)]
    seqs = [json.loads(p)["seq"] for (p,) in outside.fetch_all("SELECT payload FROM outbox")]
    assert [m.payload["seq"] for m in heard] + seqs == list(range(2, 1502))


@pytest.mark.parametrize("how", ["pruned before the first start", "pruned behind its back"])
async def test_a_pruned_log_makes_subscribers_rebuild(dal, registry, outside, how):
    """If changes are missing, one message names all tables, and then the feed continues."""
    heard = listen(registry, "data.#")
    relay = Relay(dal, registry)
    add_users(outside, "a")
    if how == "pruned behind its back":
        await drain(relay)
        heard.clear()
        outside.execute("DELETE FROM feed_consumers")
        outside.execute("INSERT INTO feed_consumers VALUES ('bus', 1)")
    add_users(outside, "b", "c", "d")
    outside.execute("DELETE FROM change_log WHERE seq < 4")
    await drain(relay)
    assert [message.topic for message in heard] == [RESYNC]
    assert heard[0].payload == {"tables": sorted(feed.tracked_tables(outside))}
    add_users(outside, "e")
    await drain(relay)
    assert [message.topic for message in heard] == [RESYNC, "data.users.insert"]


async def test_the_feeds_own_marks_are_no_changes_of_rows(dal, registry, outside):
    """Removing or rebuilding a tracked table is not published as a change of a row."""
    heard = listen(registry, "data.#")
    relay = Relay(dal, registry)
    add_users(outside, "a")
    outside.execute("CREATE TABLE plugin_notes (id TEXT PRIMARY KEY NOT NULL)")
    feed.track(outside, "plugin_notes", ("id",))
    outside.execute("INSERT INTO plugin_notes VALUES ('n')")
    feed.untrack(outside, "plugin_notes")
    add_users(outside, "b")
    await drain(relay)
    assert [(m.topic, m.payload["key"]) for m in heard] == [
        ("data.users.insert", "a"),
        ("data.users.insert", "b"),
    ]


async def test_an_emptied_log_makes_subscribers_rebuild(dal, registry, outside):
    """An empty log means "no changes" only if no change was missed."""
    heard = listen(registry, RESYNC)
    relay = Relay(dal, registry)
    await drain(relay)
    assert heard == []
    add_users(outside, "a")
    outside.execute("DELETE FROM change_log")
    await drain(relay)
    assert len(heard) == 1
    outside.execute("DELETE FROM sqlite_sequence WHERE name = 'change_log'")
    await drain(relay)
    assert len(heard) == 2
    await drain(relay)
    assert len(heard) == 2


TOPICS = {"a": "x.a", "b": "x.b", "c": "y"}
CONSUMERS = {"all": ("#",), "xs": ("x.*",), "some": ("x.b", "y.#")}
ATTEMPTS = 3


class Deliveries(RuleBasedStateMachine):
    """Events, failures, crashes and restarts in any order, with two relays at once."""

    template: Path
    folder: Path
    count = 0
    handled = 0

    @initialize()
    def start(self) -> None:
        type(self).count += 1
        self.path = shutil.copy(self.template, self.folder / f"{self.count}.db")
        self.runner = asyncio.Runner()
        self.outside = LibSQLAdapter(self.path, KEY).connect()
        self.sent: list[tuple[int, str]] = []
        self.failing: dict[tuple[str, int], int] = {}  # how often it still fails
        self.poisoned: set[tuple[str, int]] = set()
        self.layers: list[DataAccessLayer] = []
        self.relays: list[Relay] = []
        self.restart()

    @rule()
    def restart(self) -> None:
        """Make every connection and every object again."""
        for dal in self.layers:
            self.runner.run(dal.close())
        self.layers = [DataAccessLayer(LibSQLAdapter(self.path, KEY)) for _ in range(2)]
        self.relays = [
            Relay(dal, self.handlers(dal), attempts=ATTEMPTS, backoff=0) for dal in self.layers
        ]

    def handlers(self, dal: DataAccessLayer) -> HandlerRegistry:
        registry = HandlerRegistry()
        for name, patterns in CONSUMERS.items():

            async def handle(message: BusMessage, name: str = name) -> None:
                number = message.payload["n"]
                await dal.execute("INSERT INTO effects (consumer, n) VALUES (?, ?)", [name, number])
                await asyncio.sleep(0)
                if self.failing.get((name, number), 0):
                    self.failing[name, number] -= 1
                    raise ValueError(number)

            for pattern in patterns:
                registry.subscribe(pattern, consumer=name)(handle)
        return registry

    @rule(
        kind=st.sampled_from(sorted(TOPICS)),
        failures=st.dictionaries(st.sampled_from(sorted(CONSUMERS)), st.sampled_from([1, 2, 99])),
        undone=st.booleans(),
    )
    def enqueue(self, kind: str, failures: dict[str, int], *, undone: bool) -> None:
        number = len(self.sent)

        async def send() -> None:
            dal = self.layers[0]
            with contextlib.suppress(ZeroDivisionError):
                async with dal.transaction():
                    await enqueue(dal, TOPICS[kind], {"n": number})
                    if undone:
                        raise ZeroDivisionError

        self.runner.run(send())
        if not undone:
            self.sent.append((number, TOPICS[kind]))
            for name, times in failures.items():
                self.failing[name, number] = times
                if times > ATTEMPTS:
                    self.poisoned.add((name, number))

    @rule(which=st.integers(0, 1))
    def relay(self, which: int) -> None:
        self.runner.run(self.relays[which].run_once())

    @rule()
    def relay_both(self) -> None:
        async def both() -> None:
            await asyncio.gather(*(relay.run_once() for relay in self.relays))

        self.runner.run(both())

    @rule(which=st.integers(0, 1), steps=st.integers(0, 400))
    def crash(self, which: int, steps: int) -> None:
        """Cancel a relay at any point; the handler cannot react."""

        async def crash() -> None:
            task = asyncio.create_task(self.relays[which].run_once())
            for _ in range(steps):
                await asyncio.sleep(0.0001)
                if task.done():
                    break
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.runner.run(crash())

    @invariant()
    def order_is_kept(self) -> None:
        for name in CONSUMERS:
            done = effects(self.outside, name)
            assert done == sorted(set(done))

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        self.runner.run(drain(self.relays[0]))
        dead = self.outside.fetch_all("SELECT consumer, payload FROM dead_letters")
        letters = {(consumer, json.loads(payload)["n"]) for consumer, payload in dead}
        registry = self.handlers(self.layers[0])
        wanted = {
            (one.consumer, number)
            for one in registry
            for number, topic in self.sent
            if one.wants(topic)
        }
        assert letters == self.poisoned & wanted
        assert len(dead) == len(letters)
        for name in CONSUMERS:
            expected = [n for n, _ in self.sent if (name, n) in wanted - self.poisoned]
            assert effects(self.outside, name) == expected
            type(self).handled += len(expected)
        assert waiting(self.outside) == 0
        for dal in self.layers:
            self.runner.run(dal.close())
        self.outside.close()
        self.runner.close()


def assert_machine_holds(folder: Path, template: Path, examples: int, steps: int) -> None:
    """Run the state machine, and check that it handled messages at all."""
    machine = type("Here", (Deliveries,), {"folder": folder, "template": template})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert machine.count >= examples
    assert machine.handled > 0


@pytest.mark.slow
def test_any_interleaving_handles_every_message_once(tmp_path, empty):
    """Every consumer handles each of its messages once, in order, or has it as a dead letter."""
    assert_machine_holds(tmp_path, empty, 12, 15)


@pytest.mark.slow
def test_many_interleavings_handle_every_message_once(tmp_path, empty):
    """The same with more and longer runs."""
    assert_machine_holds(tmp_path, empty, 40, 40)


PROCESS = """
import asyncio, random, sys
from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.bus import HandlerRegistry, Relay
from aico_lab.dal import DataAccessLayer

path, seed = sys.argv[1], int(sys.argv[2])
chance = random.Random(seed)

async def main():
    registry = HandlerRegistry()
    async with DataAccessLayer(LibSQLAdapter(path, "k" * 32)) as dal:
        for name in ("one", "two"):
            async def handle(message, name=name):
                await dal.execute(
                    "INSERT INTO effects (consumer, n) VALUES (?, ?)", [name, message.payload["n"]]
                )
                await asyncio.sleep(chance.random() / 200)
                if chance.random() < 0.1:
                    raise ValueError("by chance")
            registry.subscribe("x.#", consumer=name)(handle)
        print("ready", flush=True)
        await Relay(dal, registry, attempts=100, backoff=0.001).run(asyncio.Event())

asyncio.run(main())
"""


@pytest.mark.slow
def test_two_processes_that_are_killed_at_any_moment_handle_every_message_once(path, outside):
    """SIGKILL at any time neither loses a message nor doubles an effect."""
    total, chance = 300, random.Random(7)

    def begin(seed: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(path), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
        )

    outside.execute_many(
        "INSERT INTO outbox (topic, payload, created_at) "
        "VALUES ('x', ?, '2024-03-01T12:00:00.000000Z')",
        [[json.dumps({"n": n})] for n in range(total)],
    )
    relays = [begin(seed) for seed in range(2)]
    kills, deadline = 0, time.monotonic() + 200
    try:
        while time.monotonic() < deadline:
            victim = chance.randrange(2)
            if relays[victim].stdout.readline():  # it has begun
                time.sleep(chance.uniform(0, 0.5))
                if {tuple(effects(outside, name)) for name in ("one", "two")} == {
                    tuple(range(total))
                }:
                    break
            relays[victim].kill()
            relays[victim].communicate()
            kills += 1
            relays[victim] = begin(100 + kills)
    finally:
        for relay in relays:
            relay.kill()
            relay.communicate()
    assert effects(outside, "one") == effects(outside, "two") == list(range(total))
    assert outside.fetch_all("SELECT * FROM dead_letters") == []
    assert kills >= 3
