"""Topics, subscriptions, and delivery within one process."""

from __future__ import annotations

import dataclasses
import functools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aico_lab.bus import BusMessage, HandlerRegistry, MessageBus, Relay
from aico_lab.bus import services as bus_services
from aico_lab.bus.messages import HANDLERS
from aico_lab.bus.messages import subscribe as default_subscribe
from aico_lab.bus.topics import check_pattern, matches
from aico_lab.dal import DataAccessLayer
from aico_lab.domain import values
from aico_lab.domain.entities import Memory
from aico_lab.errors import HandlerFailed, InvalidTopic, InvalidValue
from aico_lab.repositories.libsql import LibSQLPreferencesRepository
from aico_lab.repositories.memories import LibSQLMemoryRepository
from aico_lab.repositories.outbox import enqueue
from tests.databases import with_core_schemas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = "k" * 32
WORDS = st.lists(st.text("ab_-9", min_size=1, max_size=3), min_size=1, max_size=4)


@pytest.fixture
def registry() -> HandlerRegistry:
    return HandlerRegistry()


@pytest.fixture
async def dal(tmp_path: Path) -> AsyncIterator[DataAccessLayer]:
    """The data access layer of a database with one user, u."""
    adapter = with_core_schemas(tmp_path / "a.db", KEY)
    with adapter.connect() as connection:
        connection.execute(
            "INSERT INTO users (user_id, created_at) VALUES ('u', '2024-03-01T12:00:00.000000Z')"
        )
    async with DataAccessLayer(adapter) as opened:
        yield opened


def listen(registry: HandlerRegistry, pattern: str, name: str = "listener") -> list[BusMessage]:
    """Subscribe to a pattern and return the list that is filled with the messages."""
    heard: list[BusMessage] = []

    async def handle(message: BusMessage) -> None:
        heard.append(message)

    registry.subscribe(pattern, consumer=name)(handle)
    return heard


@pytest.mark.parametrize(
    "topic",
    ["", ".", "a..b", "a.", ".a", "A", "memory.Store", "a b", "a.*", "#", "é", "a\n", None, 3],
)
def test_a_topic_that_is_none_is_refused(topic):
    """Anything but lower-case words separated by dots raises InvalidTopic."""
    with pytest.raises(InvalidTopic, match="lower-case words"):
        values.topic(topic)


@pytest.mark.parametrize(
    "pattern", ["", "#.a", "a.#.b", "a.**.b", "a*", "a.b#", "***", "A.*", "a..#", "a.# ", None]
)
def test_a_pattern_that_is_none_is_refused(pattern):
    """A wildcard stands for whole words, and `#` may only be at the end."""
    with pytest.raises(InvalidTopic, match="pattern"):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "hit", "miss"),
    [
        (
            "memory.store.request",
            ["memory.store.request"],
            ["memory.store", "memory.store.requests"],
        ),
        ("memory.*.request", ["memory.store.request"], ["memory.request", "memory.a.b.request"]),
        ("*", ["memory"], ["memory.store"]),
        ("memory.#", ["memory", "memory.store", "memory.store.request"], ["memories.store"]),
        ("memory.**", ["memory", "memory.store.request"], ["memories"]),
        ("*.store.#", ["memory.store", "memory.store.request"], ["store", "memory.request"]),
        ("#", ["memory", "memory.store"], []),
        ("**", ["memory", "memory.store"], []),
        ("data.*.*", ["data.users.insert"], ["data.resync"]),
    ],
)
def test_what_patterns_cover(pattern, hit, miss):
    """`*` is one word; `#` and `**` at the end are zero or more words."""
    checked = check_pattern(pattern)
    assert [topic for topic in (*hit, *miss) if matches(checked, topic)] == hit


@given(words=WORDS, stars=st.sets(st.integers(0, 3)), cut=st.integers(0, 4))
def test_a_pattern_made_from_a_topic_covers_it(words, stars, cut):
    """With words replaced by `*` and a tail by `#`, the pattern still matches the topic."""
    topic = values.topic(".".join(words))
    starred = ["*" if i in stars else word for i, word in enumerate(words)]
    assert matches(check_pattern(".".join(starred)), topic)
    assert matches(check_pattern(".".join([*starred[:cut], "#"])), topic)
    assert not matches(check_pattern(".".join([*starred, "*"])), topic)


async def test_handlers_run_in_order_of_registration(registry):
    """Every handler subscribed to the topic gets the message; the others do not."""
    order = []
    for name, pattern in [("b", "x.#"), ("a", "x.y"), ("c", "z"), ("d", "*.y")]:

        async def handle(message: BusMessage, name: str = name) -> None:
            order.append((name, message.payload))

        registry.subscribe(pattern, consumer=name)(handle)
    await MessageBus(registry).publish("x.y", {"n": 1})
    assert order == [("b", {"n": 1}), ("a", {"n": 1}), ("d", {"n": 1})]


async def test_all_handlers_run_whatever_one_raises(registry):
    """An error of one handler reaches the publisher after the other handlers have run."""
    before = listen(registry, "x", "before")

    @registry.subscribe("x")
    async def spoil(message: BusMessage) -> None:
        raise KeyError(message.payload["secret"])

    after = listen(registry, "x", "after")
    with pytest.raises(HandlerFailed, match=r"spoil \(KeyError\)") as failed:
        await MessageBus(registry).publish("x", {"secret": "hunter2"})
    assert len(before) == len(after) == 1
    assert isinstance(failed.value.__cause__, ExceptionGroup)
    assert [type(error) for error in failed.value.__cause__.exceptions] == [KeyError]
    assert "hunter2" not in str(failed.value)


async def test_a_handler_cannot_change_what_others_get(registry):
    """Messages are frozen, and each handler has a copy of the payload."""

    @registry.subscribe("x")
    async def spoil(message: BusMessage) -> None:
        message.payload["list"].append("spoiled")
        with pytest.raises(dataclasses.FrozenInstanceError):
            message.topic = "y"

    heard = listen(registry, "x")
    payload = {"list": []}
    await MessageBus(registry).publish("x", payload)
    assert heard[0].payload == payload == {"list": []}


async def test_a_message_says_what_when_and_which(registry):
    """All handlers see the same id and time; the repr does not contain the payload."""
    one, other = listen(registry, "x", "one"), listen(registry, "#", "other")
    await MessageBus(registry).publish("x", {"text": "the time I felt homesick"})
    assert one == other
    assert abs((datetime.now(UTC) - one[0].created_at).total_seconds()) < 60
    assert "homesick" not in repr(one[0])
    await MessageBus(registry).publish("x", {})
    assert one[0].id != one[1].id


async def test_an_invalid_topic_reaches_nobody(registry):
    """Publishing to a pattern is refused."""
    heard = listen(registry, "#")
    with pytest.raises(InvalidTopic):
        await MessageBus(registry).publish("x.*", {})
    assert heard == []


async def test_a_message_that_two_patterns_cover_comes_once(registry):
    """A handler may have several patterns and is one consumer."""
    heard = []

    @registry.subscribe("x.#")
    @registry.subscribe("x.y")
    async def handle(message: BusMessage) -> None:
        heard.append(message.topic)

    for topic in ("x.y", "x.z", "y"):
        await MessageBus(registry).publish(topic, {})
    assert heard == ["x.y", "x.z"]


def test_a_registration_that_cannot_be_meant_is_refused(registry):
    """A repetition, another handler's name, a sync function and a nameless one all raise."""

    async def handle(message: BusMessage) -> None: ...
    async def other(message: BusMessage) -> None: ...

    registry.subscribe("x.#")(handle)
    with pytest.raises(InvalidValue, match="already"):
        registry.subscribe("x.**")(handle)
    with pytest.raises(InvalidValue, match="Another handler"):
        registry.subscribe("y", consumer=next(iter(registry)).consumer)(other)
    with pytest.raises(InvalidValue, match="async def"):
        registry.subscribe("x")(print)
    with pytest.raises(InvalidValue, match="no name"):
        registry.subscribe("x")(functools.partial(handle))
    with pytest.raises(InvalidTopic):
        registry.subscribe("x.#.y")
    assert [one.patterns for one in registry] == [("x.#",)]


def test_the_default_registry_is_the_one_that_subscribe_fills():
    """`subscribe` uses the default registry; a bus still takes it explicitly."""

    @default_subscribe("test.bus.default")
    async def handle(message: BusMessage) -> None: ...

    assert [one.handler for one in HANDLERS if one.wants("test.bus.default")] == [handle]


async def test_the_documents_subscriber_runs_as_printed(registry, dal):
    """A request to store a memory stores it, and its completion is published."""
    memory_repository, message_bus, subscribe = (
        LibSQLMemoryRepository(dal),
        MessageBus(registry),
        registry.subscribe,
    )
    heard = listen(registry, "memory.store.complete")

    @subscribe("memory.store.request")
    async def handle_memory_storage(message):
        memory = Memory.from_dict(message.payload)
        await memory_repository.save(memory)
        await message_bus.publish(
            "memory.store.complete", {"memory_id": memory.id, "status": "success"}
        )

    await message_bus.publish(
        "memory.store.request", {"memory_id": "m", "user_id": "u", "content": "likes tea"}
    )
    assert [message.payload for message in heard] == [{"memory_id": "m", "status": "success"}]
    assert await dal.fetch_all("SELECT content FROM memories") == [{"content": "likes tea"}]
    assert [one.handler for one in registry][1] is handle_memory_storage


async def test_the_documents_publisher_runs_as_printed(registry, dal):
    """Setting a preference notifies its subscribers."""
    preferences_repository, message_bus = LibSQLPreferencesRepository(dal), MessageBus(registry)
    heard = listen(registry, "user.preferences.*")

    async def save_user_preference(user_id, preference_key, value):
        await preferences_repository.set(user_id, preference_key, value)
        await message_bus.publish(
            "user.preferences.changed",
            {"user_id": user_id, "preference_key": preference_key, "new_value": value},
        )

    await save_user_preference("u", "language", "de")
    assert [message.payload for message in heard] == [
        {"user_id": "u", "preference_key": "language", "new_value": "de"}
    ]


async def test_a_stored_memory_and_its_event_commit_together(registry, dal):
    """Through the outbox, a request leads to both a memory and a completion, or to neither."""
    bus_services.store_memories(registry, dal)
    heard = listen(registry, "memory.store.complete")
    relay = Relay(dal, registry, attempts=1)
    for memory_id, user in (("m1", "u"), ("m2", "nobody"), ("m3", "u")):
        payload = {"memory_id": memory_id, "user_id": user, "content": "likes tea"}
        await enqueue(dal, "memory.store.request", payload)
    while await relay.run_once():
        pass
    assert [message.payload["memory_id"] for message in heard] == ["m1", "m3"]
    rows = await dal.fetch_all("SELECT memory_id FROM memories ORDER BY 1")
    assert [row["memory_id"] for row in rows] == ["m1", "m3"]


async def test_a_set_preference_and_its_event_commit_together(registry, dal):
    """The event is in the outbox as soon as the preference is set."""
    heard = listen(registry, "user.preferences.changed")
    await bus_services.save_user_preference(dal, "u", "style", ["calm"])
    with pytest.raises(RuntimeError):
        async with dal.transaction():
            await bus_services.save_user_preference(dal, "u", "style", ["loud"])
            raise RuntimeError
    await Relay(dal, registry).run_once()
    assert [message.payload for message in heard] == [
        {"user_id": "u", "preference_key": "style", "new_value": ["calm"]}
    ]
    assert await LibSQLPreferencesRepository(dal).get("u", "style") == ["calm"]
