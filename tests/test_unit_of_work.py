"""Units of work are atomic, on libSQL and in memory."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from aico_lab.dal import DataAccessLayer, access
from aico_lab.domain import Conversation, User
from aico_lab.errors import DuplicateId, InvalidEntity, InvalidTopic, UnknownUser, WrongUse
from aico_lab.repositories import UnitOfWork
from tests.databases import with_core_schemas
from tests.worlds import InMemoryWorld, LibSQLWorld

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.worlds import World

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
TOPIC = "memory.store.complete"


@pytest.fixture(params=["libsql", "in memory"])
async def world(request, tmp_path) -> AsyncIterator[World]:
    made = LibSQLWorld(tmp_path) if request.param == "libsql" else InMemoryWorld()
    await made.users.save(User("Ada", id="ada"))
    yield made
    await made.close()


@pytest.fixture
async def libsql(tmp_path) -> AsyncIterator[LibSQLWorld]:
    made = LibSQLWorld(tmp_path)
    await made.users.save(User("Ada", id="ada"))
    yield made
    await made.close()


async def test_the_document_s_example_runs(world):
    """As printed; the form without arguments is tested below."""
    UnitOfWork = world.unit_of_work  # noqa: N806
    user_id, content = "ada", "likes tea"

    async with UnitOfWork() as uow:
        user = await uow.users.get_by_id(user_id)
        memory = await uow.memories.create(content, user_id)
        await uow.commit()

    assert user.name == "Ada"
    assert await world.memories.get_by_id(memory.id) == memory


@pytest.mark.slow
async def test_without_arguments_it_uses_the_layer_that_is_open(tmp_path):
    """As printed; it raises if no layer is open, or more than one."""
    gc.collect()  # layers that other tests left open
    for left in list(access._open):
        await left.close()
    with pytest.raises(WrongUse, match=r"lab.data_access\(\)"):
        UnitOfWork()
    adapter = with_core_schemas(tmp_path / "a.db")
    async with DataAccessLayer(adapter):
        async with UnitOfWork() as uow:
            await uow.users.save(User("Ada", id="ada"))
            await uow.commit()
        async with DataAccessLayer(adapter) as second:
            with pytest.raises(WrongUse, match="2 data access layers"):
                UnitOfWork()
            async with UnitOfWork(second) as uow:
                assert await uow.users.get_by_id("ada")
        assert UnitOfWork()
    with pytest.raises(WrongUse, match="is open"):
        UnitOfWork()


async def test_what_was_committed_is_seen_from_outside_and_nothing_before(world):
    """For rows and events alike."""
    async with world.unit_of_work() as uow:
        await uow.memories.create("likes tea", "ada")
        await uow.publish(TOPIC, {"n": 2**63 - 1})
        assert (await world.count("memories"), await world.outbox()) == (0, [])
        await uow.commit()
        assert (await world.count("memories"), await world.outbox()) == (
            1,
            [(TOPIC, {"n": 2**63 - 1})],
        )


async def test_left_without_a_commit_it_is_undone(world):
    """Rows, counts and events are rolled back."""
    async with world.unit_of_work() as uow:
        await uow.users.save(User("Bo", id="bo"))
        await uow.conversations.save(Conversation("bo", "hello", NOON))
        await uow.preferences.set("ada", "theme", "dark")
        await uow.system_state.set("mood", "calm")
        await uow.publish(TOPIC, {})
    assert (await world.count("users"), await world.count("messages")) == (1, 0)
    assert await world.preferences.get("ada", "theme") is None
    assert await world.system_state.get("mood") is None
    assert await world.outbox() == []


async def test_an_error_undoes_it_and_passes_on(world):
    """The caller's own exception is raised."""
    with pytest.raises(ZeroDivisionError):
        async with world.unit_of_work() as uow:
            await uow.memories.create("likes tea", "ada")
            1 / 0  # noqa: B018
    assert await world.count("memories") == 0


async def test_an_error_after_the_commit_undoes_nothing(world):
    """Committed changes stay."""
    with pytest.raises(ZeroDivisionError):
        async with world.unit_of_work() as uow:
            await uow.memories.create("likes tea", "ada")
            await uow.commit()
            1 / 0  # noqa: B018
    assert await world.count("memories") == 1


async def test_a_cancelled_task_leaves_nothing_behind(world):
    """The next unit of work can be opened."""
    started = asyncio.Event()

    async def work() -> None:
        async with world.unit_of_work() as uow:
            await uow.memories.create("likes tea", "ada")
            started.set()
            await asyncio.sleep(60)
            await uow.commit()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.memories.create("likes coffee", "ada")
    assert await world.count("memories") == 1


async def test_a_refused_row_can_be_survived(world):
    """Changes before and after the refused row are committed, and none of the row."""
    async with world.unit_of_work() as uow:
        await uow.conversations.save(Conversation("ada", "first", NOON, id="m"))
        with pytest.raises(DuplicateId):
            await uow.conversations.save(Conversation("ada", "second", NOON, id="m"))
        with pytest.raises(UnknownUser):
            await uow.memories.create("likes tea", "nobody")
        await uow.conversations.save(Conversation("ada", "third", NOON))
        await uow.commit()
    found = await world.conversations.get_by_user("ada")
    assert [turn.message for turn in found] == ["third", "first"]
    if isinstance(world, LibSQLWorld):
        assert await world.outside("SELECT message_count FROM channels") == [(2,)]


async def test_an_inner_one_is_undone_with_the_outer_one(world):
    """Its commit applies to the outer one only; without a commit it rolls back only itself."""
    async with world.unit_of_work() as outer:
        await outer.memories.create("outer", "ada")
        async with world.unit_of_work() as inner:
            await inner.memories.create("kept", "ada")
            await inner.commit()
        async with world.unit_of_work() as inner:
            await inner.memories.create("undone", "ada")
        assert await world.count("memories") == 0
        await outer.commit()
    assert await world.count("memories") == 2
    async with world.unit_of_work(), world.unit_of_work() as inner:
        await inner.memories.create("never", "ada")
        await inner.commit()
    assert await world.count("memories") == 2


async def test_other_repositories_of_the_same_task_take_part(world):
    """They need not know of the unit of work."""
    async with world.unit_of_work():
        memory = await world.memories.create("likes tea", "ada")
        assert await world.memories.get_by_id(memory.id) == memory
    assert await world.memories.get_by_id(memory.id) is None


async def test_other_tasks_wait_and_then_see_everything(world):
    """Twenty units of work that read, wait and write lose no update."""

    async def increment() -> None:
        async with world.unit_of_work() as uow:
            value = await uow.preferences.get("ada", "count") or 0
            await asyncio.sleep(0)
            await uow.preferences.set("ada", "count", value + 1)
            await uow.commit()

    await asyncio.gather(*(increment() for _ in range(20)))
    assert await world.preferences.get("ada", "count") == 20


async def test_it_is_used_inside_and_before_its_commit_only(world):
    """Otherwise each statement would be committed by itself."""
    uow = world.unit_of_work()
    with pytest.raises(WrongUse):
        _ = uow.users
    with pytest.raises(WrongUse):
        await uow.commit()
    async with uow:
        with pytest.raises(WrongUse):
            await uow.__aenter__()
        await uow.commit()
        for use in (lambda: uow.memories, lambda: uow.conversations):
            with pytest.raises(WrongUse):
                use()
        with pytest.raises(WrongUse):
            await uow.publish(TOPIC, {})
        with pytest.raises(WrongUse):
            await uow.commit()
    with pytest.raises(AttributeError):
        _ = uow.nonsense
    async with uow:  # it can be used again
        await uow.memories.create("likes tea", "ada")
        await uow.commit()
    assert await world.count("memories") == 1


async def test_events_that_cannot_be_sent_are_refused(world):
    """A malformed topic would have no subscriber."""
    async with world.unit_of_work() as uow:
        for topic in ("", "Memory.Stored", "memory..store", "memory.*", "a b", None):
            with pytest.raises(InvalidTopic):
                await uow.publish(topic, {})
        for payload in (None, [], {"a": float("nan")}, {"a": NOON}):
            with pytest.raises(InvalidEntity):
                await uow.publish(TOPIC, payload)
        await uow.commit()
    assert await world.outbox() == []


async def test_rows_changes_and_events_commit_together(libsql):
    """After a rollback the change feed has no changes."""
    before = await libsql.outside("SELECT max(seq) FROM change_log")
    async with UnitOfWork(libsql.dal) as uow:
        await uow.memories.create("likes tea", "ada")
    assert await libsql.outside("SELECT max(seq) FROM change_log") == before
    async with UnitOfWork(libsql.dal) as uow:
        memory = await uow.memories.create("likes tea", "ada")
        await uow.publish(TOPIC, {"memory_id": memory.id})
        await uow.commit()
    assert await libsql.outside(
        f"SELECT table_name, row_key, op FROM change_log WHERE seq > {before[0][0]}"
    ) == [("memories", memory.id, "insert")]
    assert await libsql.outside(
        "SELECT topic, json_extract(payload, '$.memory_id'), length(created_at) FROM outbox"
    ) == [(TOPIC, memory.id, 27)]
