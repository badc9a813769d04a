"""Readers that use the cache are right with it, without it, and while others write."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from aico_lab.cache import lab_cache
from aico_lab.cache.namespaces import NAMESPACES
from aico_lab.cache.store import MemoryStore, past_damage
from aico_lab.cache.typed import CacheStore
from aico_lab.domain import Conversation, ConversationService, Memory, User, UserPreferences
from aico_lab.errors import ConnectionIsClosed, DiskFull, HomeNotWritable, NotPermitted
from aico_lab.lab import Lab
from aico_lab.repositories import (
    CachedPreferencesRepository,
    CachedSessions,
    CachedUserRepository,
    LibSQLConversationRepository,
    LibSQLMemoryRepository,
    LibSQLPreferencesRepository,
    LibSQLUserRepository,
)
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aico_lab.dal import DataAccessLayer

STATES = ["in memory", "on disk", "full", "damaged", "absent", "locked", "other key"]


class Recalling(LibSQLMemoryRepository):
    """Finds all memories of a person, newest first, and counts how often."""

    asked = 0

    async def get_by_context(self, text, limit=5, *, user_id=None):  # noqa: ARG002
        self.asked += 1
        rows = await self.dal.fetch_all(
            "SELECT memory_id FROM memories WHERE user_id = ? ORDER BY memory_id LIMIT ?",
            [user_id, limit],
        )
        return [await self.get_by_id(row["memory_id"]) for row in rows]


class World:
    """The same repositories with and without the cache."""

    def __init__(self, dal: DataAccessLayer, cache: CacheStore | None) -> None:
        self.dal, self.cache = dal, cache
        self.plain_users = LibSQLUserRepository(dal)
        self.plain_preferences = LibSQLPreferencesRepository(dal)
        self.users = CachedUserRepository(self.plain_users, dal, cache)
        self.preferences = CachedPreferencesRepository(self.plain_preferences, dal, cache)
        turns = LibSQLConversationRepository(dal)
        self.memories = Recalling(dal)
        self.plain_service = ConversationService(turns, Recalling(dal))
        self.service = ConversationService(
            turns, self.memories, sessions=CachedSessions(dal, cache)
        )

    async def agree(self) -> None:
        """All readers give what the database has, twice in a row."""
        for _ in range(2):
            for user in ("ada", "bo", "nobody"):
                assert await self.users.get_by_id(user) == await self.plain_users.get_by_id(user)
                assert await self.preferences.all(user) == await self.plain_preferences.all(user)
                plain = await self.plain_service.context(user)
                assert await self.service.context(user) == plain

    def settle(self) -> None:
        """Let the files of the database be older than the steps of their times."""
        past = time.time() - 60
        for file in self.dal.adapter.path.parent.glob("aico.db*"):
            os.utime(file, (past, past - len(file.name)))


@pytest.fixture(params=STATES)
async def world(request: pytest.FixtureRequest, lab: Lab, home: Path) -> AsyncIterator[World]:
    if request.param not in ("in memory", "absent"):
        pytest.importorskip("rocksdict")
    with contextlib.ExitStack() as opened:
        cache: CacheStore | None = None
        if request.param == "in memory":
            cache = CacheStore(MemoryStore())
        elif request.param == "full":
            tiny = {name: replace(one, max_entries=2) for name, one in NAMESPACES.items()}
            cache = CacheStore(MemoryStore(), namespaces=tiny)
        elif request.param == "locked":
            other = opened.enter_context(Lab.open(home))
            other.cache.store.put("session:turns:ada", {"value": "of another process"})
            cache = lab.cache.available
            assert cache is None
        elif request.param == "other key":
            from aico_lab.adapters.rocksdb import RocksDBAdapter

            RocksDBAdapter(home / "cache", b"x" * 32).connect().close()
            cache = lab.cache.available
            assert cache is None
        elif request.param != "absent":
            cache = lab.cache.store
        async with lab.data_access() as dal:
            made = World(dal, cache)
            await made.plain_users.save(User("Ada", id="ada"))
            await made.plain_users.save(User("Bo", id="bo"))
            if request.param == "damaged":
                await damage(made, lab, home)
            yield made
    if request.param == "damaged":
        assert past_damage(lab.home) is not None


async def damage(world: World, lab: Lab, home: Path) -> None:
    """Fill the cache, and damage its table under the open store."""
    await world.agree()
    assert world.cache is not None
    for name in ("session", "configuration"):
        world.cache.put_many({f"{name}:{number}": os.urandom(1_000) for number in range(60)})
    store = world.cache._store
    store._driver.flush()
    for table in (home / "cache").glob("*.sst"):
        content = table.read_bytes()
        entries = len(content) - 4_096  # the index follows
        table.write_bytes(bytes(entries) + content[entries:])
    store.close()  # RocksDB has its blocks in memory: open it again
    world.cache._store = _reopened(lab)


def _reopened(lab: Lab):
    import rocksdict

    from aico_lab.adapters.rocksdb import RocksDBConnection

    options = rocksdict.Options(raw_mode=True)
    driver = rocksdict.Rdict(str(lab.home.cache), options)
    return RocksDBConnection(lab.home.cache, driver, options, lab.storage.keys.rocksdb(), None)


async def test_readers_agree_after_every_change(world: World, lab: Lab) -> None:
    """Of this program or another, of this person or another; also after the feed was pruned."""
    await world.agree()
    await world.service.process_user_message("ada", "hello")
    await world.agree()
    await world.users.save(User("Ada L.", UserPreferences(language="de"), id="ada"))
    await world.preferences.set("bo", "theme", {"dark": True})
    await world.agree()
    await world.memories.save(Memory("ada", "likes tea", id="a"))
    await world.memories.save(Memory("bo", "likes coffee", id="b"))
    await world.agree()
    world.settle()
    await world.agree()
    for statement in (
        "UPDATE messages SET content = 'edited' WHERE role = 'user'",
        "UPDATE memories SET content = 'likes water' WHERE memory_id = 'a'",
        "DELETE FROM preferences WHERE user_id = 'ada'",
        "UPDATE users SET name = NULL WHERE user_id = 'bo'",
        "DELETE FROM messages WHERE role = 'assistant'",
        "UPDATE messages SET user_id = 'bo' WHERE role = 'user' AND user_id = 'ada'",
        "DELETE FROM memories",
    ):
        lab.primary.execute(statement)
        await world.agree()
    await world.service.process_user_message("bo", "and me?")
    feed.acknowledge(lab.primary, "warehouse", feed.head(lab.primary).seq)
    await world.agree()
    lab.primary.execute("DELETE FROM users WHERE user_id = 'ada'")
    await world.agree()
    if world.cache is not None:  # and the agreement was not that of an unused cache
        assert sum(one.hits for one in world.cache.counters().values()) > 5


async def test_a_transaction_sees_its_own_changes_and_keeps_none(world: World) -> None:
    """What is rolled back was never there."""
    await world.agree()
    with pytest.raises(ZeroDivisionError):
        async with world.dal.transaction():
            await world.preferences.set("ada", "theme", "dark")
            assert (await world.preferences.all("ada"))["theme"] == "dark"
            await world.agree()
            raise ZeroDivisionError
    assert "theme" not in await world.preferences.all("ada")
    await world.agree()


async def test_what_did_not_change_is_not_read_again(lab: Lab) -> None:
    """Changes of other tables, and a pause, leave it valid."""
    async with lab.data_access() as dal:
        world = World(dal, CacheStore(MemoryStore()))
        await world.plain_users.save(User("Ada", id="ada"))
        await world.plain_users.save(User("Bo", id="bo"))
        await world.memories.save(Memory("ada", "likes tea", id="a"))
        await world.service.process_user_message("ada", "hello")
        asked = world.memories.asked
        await world.service.context("ada")
        await world.preferences.all("ada")
        await world.service.process_user_message("bo", "hello")
        assert await world.preferences.all("ada")
        await world.service.context("ada")
        assert world.memories.asked == asked + 1  # Bo's own
        await world.plain_preferences.set("bo", "theme", "dark")
        await world.memories.save(Memory("bo", "likes tea", id="b"))
        read: list[str] = []
        world.service.conversation_repo.get_by_user = read.append
        assert len((await world.service.context("ada")).turns) == 2
        assert read == []
        world.settle()
        await world.service.context("ada")
        fetched: list[str] = []
        world.dal.fetch_all = world.dal.fetch_one = fetched.append
        await world.service.context("ada")
        await world.service.context("ada")
        assert fetched == []


def test_a_cache_that_cannot_be_used_is_none(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason; but a closed lab is an error."""
    for error in (NotPermitted("x"), HomeNotWritable("x"), DiskFull("x")):
        monkeypatch.setattr(lab_cache, "open_cache", Mock(side_effect=error))
        assert lab.cache.available is None
    cache = lab.cache
    lab.close()
    with pytest.raises(ConnectionIsClosed):
        _ = cache.available


async def test_a_value_of_somebody_else_is_not_taken(lab: Lab) -> None:
    """Under the same key, as a program may put what it knows of a person there."""
    async with lab.data_access() as dal:
        cache = CacheStore(MemoryStore())
        world = World(dal, cache)
        await world.plain_users.save(User("Ada", id="ada"))
        await world.service.process_user_message("ada", "hello")
        for value in ({"name": "Ada"}, ["hello"], "hello", None, b"x", {"files": None}):
            for key in ("configuration:users", "configuration:preferences", "session:turns"):
                cache.put(f"{key}:ada", value)
            await world.agree()


async def test_a_cache_that_fails_costs_reading_only(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if a damaged one cannot be replaced, since its folder may not be changed."""
    async with lab.data_access() as dal:
        cache = CacheStore(MemoryStore())
        world = World(dal, cache)
        await world.plain_users.save(User("Ada", id="ada"))
        for call in ("get", "put", "delete"):
            monkeypatch.setattr(cache, call, Mock(side_effect=HomeNotWritable("x")))
            await world.agree()
            await world.users.save(User("Ada Byron", id="ada"))


@pytest.mark.parametrize("removed", ["'m-1', NULL", "'m-2', 1"])
async def test_a_row_that_another_persons_row_replaced_is_gone(lab: Lab, removed: str) -> None:
    """The feed does not name a removed row if another program replaced it by its `id`."""
    async with lab.data_access() as dal:
        world = World(dal, CacheStore(MemoryStore()))
        for user in ("ada", "bo"):
            await world.plain_users.save(User(user, id=user))
        turn = Conversation("ada", "secret", datetime.now(UTC), id="m-1")
        await world.service.conversation_repo.save(turn)
        assert len((await world.service.context("ada")).turns) == 1
        lab.primary.execute("PRAGMA recursive_triggers = OFF")
        lab.primary.execute(
            "REPLACE INTO messages "
            "(message_id, id, channel_id, conversation_id, user_id, role, content, timestamp) "
            f"SELECT {removed}, channel_id, 'c', 'bo', 'user', 'hello', timestamp FROM messages"
        )
        assert (await world.service.context("ada")).turns == ()
        await world.agree()


async def test_a_restored_database_is_another_one(lab: Lab) -> None:
    """Its change with the same number is another change."""
    async with lab.data_access() as dal:
        world = World(dal, CacheStore(MemoryStore()))
        await world.plain_users.save(User("Ada", id="ada"))
        await world.agree()
        lab.primary.execute("DROP TRIGGER feed_preferences_delete")
        lab.primary.execute("DELETE FROM preferences")
        lab.primary.execute("UPDATE change_log SET at = at + 1")
        await world.agree()


async def test_ids_that_are_no_keys_are_read_each_time(lab: Lab) -> None:
    """Such as those that are too long; and values that are too large."""
    long = "x" * 2_000
    async with lab.data_access() as dal:
        world = World(dal, CacheStore(MemoryStore()))
        await world.plain_users.save(User("Ada", id=long))
        await world.preferences.set(long, "note", "y" * 500_000)
        assert (await world.preferences.all(long))["note"] == "y" * 500_000
        assert (await world.users.get_by_id(long)).name == "Ada"
