"""Memories: stored in libSQL, found by meaning through a vector index."""
# ruff: noqa: D102 - the interface documents the methods

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from aico_lab.domain import Memory, MemoryRepository, values
from aico_lab.errors import ConstraintViolated, DuplicateId, WrongUse
from aico_lab.repositories.libsql import metadata_column, require_user

if TYPE_CHECKING:
    from aico_lab.dal import DataAccessLayer
    from aico_lab.domain import MemoryIndex


class LibSQLMemoryRepository(MemoryRepository):
    """Memories: rows of `memories`, found through ChromaDB or another index.

    The index of a lab finds whatever is committed. Its hits are looked up in libSQL all the same,
    since another index may be older: memories that were deleted, or belong to another user, are
    left out, and changed ones are returned as they are now.
    """

    def __init__(self, data_access: DataAccessLayer, index: MemoryIndex | None = None) -> None:
        """Make a repository.

        Args:
            data_access: The primary database.
            index: Finds memories by meaning, such as `lab.memories.index`; needed by
                `get_by_context` only.
        """
        self.dal = data_access
        self._index = index

    async def save(self, memory: Memory) -> None:
        try:
            saved = await self.dal.fetch_one(
                "INSERT INTO memories (memory_id, user_id, content, memory_type, importance, "
                "created_at, metadata) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (memory_id) DO UPDATE SET content = excluded.content, "
                "memory_type = excluded.memory_type, importance = excluded.importance, "
                "created_at = excluded.created_at, metadata = excluded.metadata "
                "WHERE user_id = excluded.user_id RETURNING memory_id",
                [
                    memory.id,
                    memory.user_id,
                    memory.content,
                    memory.memory_type,
                    memory.importance,
                    memory.created_at,
                    metadata_column(memory.metadata),
                ],
            )
        except ConstraintViolated:
            await require_user(self.dal, memory.user_id)
            raise
        if saved is None:
            raise DuplicateId("Another user's memory has that id: use another id.")

    async def get_by_id(self, memory_id: str) -> Memory | None:
        row = await self.dal.fetch_one("SELECT * FROM memories WHERE memory_id = ?", [memory_id])
        return None if row is None else Memory.from_dict(row)

    async def get_by_context(
        self, text: str, limit: int = 5, *, user_id: str | None = None
    ) -> list[Memory]:
        wanted = asked = values.limit(limit)
        index = self._required()
        while wanted:
            hits = await asyncio.to_thread(index.query, text, asked, user_id)
            found = await self._present([memory_id for memory_id, _ in hits], user_id)
            if len(found) >= wanted or len(hits) < asked:
                return found[:wanted]
            asked *= 2  # the index still holds deleted memories: ask for more hits
        return []

    async def delete(self, memory_id: str) -> None:
        await self.dal.execute("DELETE FROM memories WHERE memory_id = ?", [memory_id])

    def _required(self) -> MemoryIndex:
        if self._index is None:
            raise WrongUse("Finding memories by meaning needs a vector index: pass `index`.")
        return self._index

    async def _present(self, ids: list[str], user_id: str | None) -> list[Memory]:
        """Return the existing memories with these ids, of this user if given, in this order."""
        rows = await self.dal.fetch_all(
            "SELECT memories.* FROM json_each(?1) AS hit "
            "JOIN memories ON memories.memory_id = hit.value "
            "WHERE ?2 IS NULL OR user_id = ?2 ORDER BY hit.key",
            [json.dumps(ids), user_id],
        )
        return [Memory.from_dict(row) for row in rows]


class ChromaDBMemoryRepository(LibSQLMemoryRepository):
    """`LibSQLMemoryRepository` under its name in the data layer's document.

    The document passes it a ChromaDB client. Here memories are stored in libSQL, where they commit
    with everything else, and ChromaDB is a projection of it; so this class takes the data access
    layer, and the index instead of the client.
    """

    def __init__(self, data_access: DataAccessLayer, index: MemoryIndex | None = None) -> None:
        """Make a repository.

        Args:
            data_access: The primary database.
            index: Finds memories by meaning, such as `lab.memories.index`.

        Raises:
            WrongUse: One of the arguments is a ChromaDB client.
        """
        if any(hasattr(given, "get_or_create_collection") for given in (data_access, index)):
            raise WrongUse(
                "Memories are stored in libSQL, and `lab.sync()` updates ChromaDB from it, so a "
                "client of ChromaDB cannot be used: "
                "write `ChromaDBMemoryRepository(dal, lab.memories.index)`."
            )
        super().__init__(data_access, index)
