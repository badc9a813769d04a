"""Both implementations of the repositories, libSQL and memory, with queries from outside."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.dal import DataAccessLayer
from aico_lab.repositories import (
    InMemoryConversationRepository,
    InMemoryDatabase,
    InMemoryDeviceRepository,
    InMemoryMemoryRepository,
    InMemoryPersonalityChangeRepository,
    InMemoryPreferencesRepository,
    InMemoryProfileRepository,
    InMemoryRelationshipRepository,
    InMemorySystemStateRepository,
    InMemoryUnitOfWork,
    InMemoryUserRepository,
    LibSQLConversationRepository,
    LibSQLDeviceRepository,
    LibSQLMemoryRepository,
    LibSQLPersonalityChangeRepository,
    LibSQLPreferencesRepository,
    LibSQLProfileRepository,
    LibSQLRelationshipRepository,
    LibSQLSystemStateRepository,
    LibSQLUserRepository,
    UnitOfWork,
)
from aico_lab.repositories.in_memory import overlap
from tests.databases import with_core_schemas

if TYPE_CHECKING:
    from pathlib import Path

KEY = "k" * 32


class WordIndex:
    """A vector index that compares words, and knows the memories of the last `catch_up`."""

    def __init__(self, adapter: LibSQLAdapter) -> None:
        self._adapter = adapter
        self._rows: list[tuple[str, str, str]] = []

    def query(self, text: str, limit: int, user_id: str | None = None) -> list[tuple[str, float]]:
        scores = [
            (memory_id, overlap(text, content))
            for memory_id, owner, content in self._rows
            if user_id in (None, owner)
        ]
        return sorted(scores, key=lambda score: -score[1])[:limit]

    def catch_up(self) -> None:
        with self._adapter.connect() as connection:
            self._rows = connection.fetch_all(
                "SELECT memory_id, user_id, content FROM memories ORDER BY rowid"
            )


class LibSQLWorld:
    """The repositories on an encrypted libSQL file."""

    def __init__(self, folder: Path) -> None:
        path = folder / "primary.db"
        self.adapter = LibSQLAdapter(path, KEY) if path.exists() else with_core_schemas(path, KEY)
        self.dal = DataAccessLayer(self.adapter)
        self.index = WordIndex(self.adapter)
        self.users = LibSQLUserRepository(self.dal)
        self.preferences = LibSQLPreferencesRepository(self.dal)
        self.relationships = LibSQLRelationshipRepository(self.dal)
        self.conversations = LibSQLConversationRepository(self.dal)
        self.memories = LibSQLMemoryRepository(self.dal, self.index)
        self.devices = LibSQLDeviceRepository(self.dal)
        self.system_state = LibSQLSystemStateRepository(self.dal)
        self.profiles = LibSQLProfileRepository(self.dal)
        self.personality_changes = LibSQLPersonalityChangeRepository(self.dal)

    def unit_of_work(self) -> UnitOfWork:
        return UnitOfWork(self.dal, self.index)

    async def settle(self) -> None:
        self.index.catch_up()

    async def outside(self, sql: str) -> list[tuple[Any, ...]]:
        """Query through a separate connection."""
        with self.adapter.connect() as connection:
            return connection.fetch_all(sql)

    async def count(self, table: str) -> int:
        return (await self.outside(f"SELECT count(*) FROM {table}"))[0][0]

    async def outbox(self) -> list[tuple[str, Any]]:
        rows = await self.outside("SELECT topic, payload FROM outbox ORDER BY seq")
        return [(topic, json.loads(payload)) for topic, payload in rows]

    async def close(self) -> None:
        await self.dal.close()


class InMemoryWorld:
    """The repositories in memory."""

    def __init__(self) -> None:
        self.database = InMemoryDatabase()
        self.users = InMemoryUserRepository(self.database)
        self.preferences = InMemoryPreferencesRepository(self.database)
        self.relationships = InMemoryRelationshipRepository(self.database)
        self.conversations = InMemoryConversationRepository(self.database)
        self.memories = InMemoryMemoryRepository(self.database)
        self.devices = InMemoryDeviceRepository(self.database)
        self.system_state = InMemorySystemStateRepository(self.database)
        self.profiles = InMemoryProfileRepository(self.database)
        self.personality_changes = InMemoryPersonalityChangeRepository(self.database)

    def unit_of_work(self) -> InMemoryUnitOfWork:
        return InMemoryUnitOfWork(self.database)

    async def settle(self) -> None:
        pass

    async def _tables(self) -> Any:
        async def look() -> Any:
            return self.database.tables

        return await asyncio.create_task(look())  # another task sees what was committed only

    async def count(self, table: str) -> int:
        name = "conversations" if table == "messages" else table
        return len(getattr(await self._tables(), name))

    async def outbox(self) -> list[tuple[str, Any]]:
        outbox = (await self._tables()).outbox
        return [(topic, json.loads(payload)) for topic, payload in outbox]

    async def close(self) -> None:
        pass


World = LibSQLWorld | InMemoryWorld
