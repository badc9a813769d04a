"""Repositories that read through the cache, and the context of conversations in it.

A kept value is returned only if it is what reading would return now. It is kept with the position
in the change feed from before it was read, and with the state of the database's files. If the files
are as they were, no program has committed anything since. Otherwise it holds if no row of its
tables changed after the position. Whose row it was cannot be told: a row that OR REPLACE removes is
not in the feed, only the one that takes its place. If there is no cache, or it fails, everything is
read; in a transaction too, since its changes are not committed.
"""
# ruff: noqa: D102 - the interfaces document the methods

from __future__ import annotations

import contextlib
import hashlib
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aico_lab.domain import (
    Conversation,
    Memory,
    PreferencesRepository,
    User,
    UserPreferences,
    UserRepository,
)
from aico_lab.errors import HomeError, InvalidValue, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aico_lab.cache.typed import CacheStore
    from aico_lab.dal import DataAccessLayer

_SETTLED: Final = 0.1
"""Seconds after which the time of a file tells that it was not changed since.

File systems count time in steps of some milliseconds; so two changes within one step look alike.
"""

_MOST_CHANGES: Final = 200
_FAILURES: Final = (StorageError, HomeError, InvalidValue)
_FIELDS: Final = {"position", "files", "value"}


class _Position(NamedTuple):
    """A position in the change feed: the number of the last change, and its content."""

    seq: int
    content: str


class ReadThrough:
    """Returns values from the cache if they are what reading would return, and reads the others."""

    def __init__(self, dal: DataAccessLayer, cache: CacheStore | None) -> None:
        """Use a cache.

        Args:
            dal: The database that the values come from.
            cache: The cache, such as `lab.cache.available`; None reads everything.
        """
        self.dal = dal
        self._cache = cache

    async def get(self, key: str, read: Callable[[], Awaitable[Any]], *tables: str) -> Any:
        """Return the value of a key, which is JSON.

        Args:
            key: The key in the cache.
            read: Reads the value; None is not kept.
            tables: The tables that the value is read from.
        """
        if self._cache is None or self.dal.in_transaction:
            return await read()
        files = self._files()
        kept = self._kept(key)
        if kept is not None:
            if files is not None and kept["files"] == files:
                return kept["value"]
            changed, position = await self._changed_since(_Position(*kept["position"]))
            if position is not None and changed.isdisjoint(tables):
                self._keep(key, kept["value"], position, files)
                return kept["value"]
        position = await self._position()
        value = await read()
        if value is not None and position is not None:
            self._keep(key, value, position, files)
        return value

    def forget(self, key: str) -> None:
        """Remove the value of a key."""
        if self._cache is not None:
            with contextlib.suppress(*_FAILURES):
                self._cache.delete(key)

    def _kept(self, key: str) -> dict[str, Any] | None:
        with contextlib.suppress(*_FAILURES):
            found = self._cache.get(key) if self._cache else None
            if isinstance(found, dict) and found.keys() == _FIELDS:  # else somebody else's
                return found
        return None

    def _keep(self, key: str, value: Any, position: _Position, files: object) -> None:
        # A value that is too large, or a failed cache, only costs reading it again.
        with contextlib.suppress(*_FAILURES):
            if self._cache is not None:
                self._cache.put(key, {"position": list(position), "files": files, "value": value})

    def _files(self) -> list[list[int]] | None:
        """Return the state of the database's files; None if one was changed just now."""
        path, found = self.dal.adapter.path, []
        for file in (path, path.with_name(f"{path.name}-wal")):
            try:
                status = file.stat()
            except OSError:
                found.append([0, 0, 0])
                continue
            if abs(time.time() - status.st_mtime) < _SETTLED or status.st_mtime > time.time():
                return None
            found.append([status.st_mtime_ns, status.st_size, status.st_ino])
        return found

    async def _position(self) -> _Position | None:
        row = await self.dal.fetch_one(
            f"SELECT seq, {_CONTENT} AS content FROM change_log ORDER BY seq DESC LIMIT 1"
        )
        return None if row is None else _Position(row["seq"], row["content"])

    async def _changed_since(self, position: _Position) -> tuple[set[str], _Position | None]:
        """Return the tables that changed after a position, and the position after the changes.

        The position is None if the changes are unknown: pruned, too many, or those of another
        database that was restored.
        """
        rows = await self.dal.fetch_all(
            f"SELECT seq, table_name, {_CONTENT} AS content FROM change_log "
            "WHERE seq >= ? ORDER BY seq LIMIT ?",
            [position.seq, _MOST_CHANGES + 1],
        )
        known = [row["seq"] for row in rows]
        if (
            len(rows) > _MOST_CHANGES
            or known != list(range(position.seq, position.seq + len(rows)))
            or not rows
            or rows[0]["content"] != position.content
        ):
            return set(), None
        changed = {row["table_name"] for row in rows[1:]}
        return changed, _Position(rows[-1]["seq"], rows[-1]["content"])


_CONTENT: Final = "json_array(table_name, hex(row_key), op, at)"


class CachedUserRepository(UserRepository):
    """People, read through the cache."""

    def __init__(
        self, repository: UserRepository, data_access: DataAccessLayer, cache: CacheStore | None
    ) -> None:
        self.repository = repository
        self._through = ReadThrough(data_access, cache)

    async def save(self, user: User) -> None:
        await self.repository.save(user)
        self._through.forget(f"configuration:users:{user.id}")

    async def delete(self, user_id: str) -> None:
        await self.repository.delete(user_id)
        self._through.forget(f"configuration:users:{user_id}")
        self._through.forget(f"configuration:preferences:{user_id}")

    async def get_by_id(self, user_id: str) -> User | None:
        async def read() -> dict[str, Any] | None:
            user = await self.repository.get_by_id(user_id)
            return None if user is None else user.to_dict() | {
                "preferences": user.preferences.to_dict()
            }  # fmt: skip

        found = await self._through.get(
            f"configuration:users:{user_id}", read, "users", "preferences"
        )
        if found is None:
            return None
        return User.from_dict(found | {"preferences": UserPreferences(**found["preferences"])})


class CachedPreferencesRepository(PreferencesRepository):
    """Preferences of people, read through the cache."""

    def __init__(
        self,
        repository: PreferencesRepository,
        data_access: DataAccessLayer,
        cache: CacheStore | None,
    ) -> None:
        self.repository = repository
        self._through = ReadThrough(data_access, cache)

    async def set(self, user_id: str, preference_key: str, value: Any) -> None:
        await self.repository.set(user_id, preference_key, value)
        self._through.forget(f"configuration:preferences:{user_id}")

    async def delete(self, user_id: str, preference_key: str) -> None:
        await self.repository.delete(user_id, preference_key)
        self._through.forget(f"configuration:preferences:{user_id}")

    async def all(self, user_id: str) -> dict[str, Any]:
        async def read() -> dict[str, Any]:
            return await self.repository.all(user_id)

        found: dict[str, Any] = await self._through.get(
            f"configuration:preferences:{user_id}", read, "preferences"
        )
        return found


class CachedSessions:
    """Keeps the context of conversations in the cache; a `SessionCache` of `ConversationService`.

    The service's repositories must be those of the same database.
    """

    def __init__(self, data_access: DataAccessLayer, cache: CacheStore | None) -> None:
        self._through = ReadThrough(data_access, cache)

    async def turns(
        self, user_id: str, read: Callable[[], Awaitable[list[Conversation]]]
    ) -> list[Conversation]:
        async def rows() -> list[dict[str, Any]]:
            return [turn.to_dict() for turn in await read()]

        found = await self._through.get(f"session:turns:{user_id}", rows, "messages")
        return [Conversation.from_dict(row) for row in found]

    async def memories(
        self, turn: Conversation, read: Callable[[], Awaitable[list[Memory]]]
    ) -> list[Memory]:
        async def rows() -> list[dict[str, Any]]:
            return [memory.to_dict() for memory in await read()]

        # By the text, which other programs may edit; its hash, since keys are shown unmasked.
        said = hashlib.blake2b(turn.message.encode(), digest_size=16).hexdigest()
        key = f"session:memories:{turn.user_id}:{said}"
        found = await self._through.get(key, rows, "memories")
        return [Memory.from_dict(row) for row in found]
