"""In-memory repositories, for tests of code that uses repositories.

They follow the same contract as the repositories on libSQL: the same order, the same errors,
transactions that are invisible to others until committed, and one writer at a time.
"""
# ruff: noqa: D102 - the interfaces document the methods

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from aico_lab.domain import (
    Conversation,
    ConversationRepository,
    Device,
    DeviceRepository,
    Memory,
    MemoryRepository,
    PersonalityChange,
    PersonalityChangeRepository,
    PreferencesRepository,
    Profile,
    ProfileRepository,
    Relationship,
    RelationshipRepository,
    SystemStateRepository,
    User,
    UserPreferences,
    UserRepository,
    values,
)
from aico_lab.errors import DuplicateId, UnknownUser
from aico_lab.repositories.words import bm25, has_words, literal, words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from datetime import datetime

Kept = TypeVar("Kept")


@dataclass
class Tables:
    """The contents of an in-memory database; dictionaries are in insertion order."""

    users: dict[str, User] = field(default_factory=dict)
    preferences: dict[tuple[str, str], str] = field(default_factory=dict)
    conversations: dict[str, Conversation] = field(default_factory=dict)
    memories: dict[str, Memory] = field(default_factory=dict)
    relationships: dict[str, Relationship] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    system_state: dict[str, str] = field(default_factory=dict)
    personality_profiles: dict[str, Profile] = field(default_factory=dict)
    personality_changes: dict[str, PersonalityChange] = field(default_factory=dict)
    outbox: list[tuple[str, str]] = field(default_factory=list)

    def copied(self) -> Tables:
        """Return tables that can be changed independently; they share the immutable entities."""
        return Tables(**{f.name: copy.copy(getattr(self, f.name)) for f in fields(self)})


class InMemoryDatabase:
    """The data and transactions that in-memory repositories share, like a data access layer."""

    def __init__(self) -> None:
        self._committed = Tables()
        self._working = self._committed
        self._writer: asyncio.Task[Any] | None = None
        self._lock = asyncio.Lock()

    @property
    def tables(self) -> Tables:
        """The tables that the current task sees: those of its open transaction, or committed."""
        return self._working if self._is_mine() else self._committed

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit the work of this task in the block, or roll it back on an exception; nests."""
        if self._is_mine():
            before = self._working.copied()
            try:
                yield
            except BaseException:
                self._working = before
                raise
            return
        async with self._lock:
            self._working, self._writer = self._committed.copied(), asyncio.current_task()
            try:
                yield
                self._committed = self._working
            finally:
                self._writer = None

    def _is_mine(self) -> bool:
        return self._writer is not None and self._writer is asyncio.current_task()


class InMemoryConversationRepository(ConversationRepository):
    """Turns of conversations, in memory."""

    def __init__(self, database: InMemoryDatabase) -> None:
        self._database = database

    async def save(self, conversation: Conversation) -> None:
        async with self._database.transaction():
            tables = self._database.tables
            _require_user(tables, conversation.user_id)
            if conversation.id in tables.conversations:
                raise DuplicateId("A message with that id exists already: save it once.")
            tables.conversations[conversation.id] = copy.deepcopy(conversation)

    async def get_by_user(self, user_id: str, limit: int = 50) -> list[Conversation]:
        theirs = [turn for turn in self._turns() if turn.user_id == user_id]
        return _given(_newest_first(theirs), limit)

    async def search_by_content(self, query: str, limit: int = 50) -> list[Conversation]:
        newest = _newest_first(self._turns())
        if has_words(query):
            scores = bm25(query, [turn.message for turn in newest])
            best = sorted(scores, key=lambda position: -scores[position])  # stable: newest first
            return _given([newest[position] for position in best], limit)
        text = literal(query)
        return _given([turn for turn in newest if text and text in turn.message], limit)

    async def get_between(
        self,
        start: datetime,
        end: datetime,
        *,
        user_id: str | None = None,
        channel_id: str | None = None,
    ) -> list[Conversation]:
        first, last = values.moment("start", start), values.moment("end", end)
        found = [
            turn
            for turn in self._turns()
            if first <= turn.timestamp < last
            and user_id in (None, turn.user_id)
            and channel_id in (None, turn.channel_id)
        ]
        return _given(sorted(found, key=lambda turn: turn.timestamp), len(found))

    async def delete(self, message_id: str) -> None:
        async with self._database.transaction():
            self._database.tables.conversations.pop(message_id, None)

    def _turns(self) -> list[Conversation]:
        return list(self._database.tables.conversations.values())


class InMemoryMemoryRepository(MemoryRepository):
    """Memories, in memory; the nearest share the most words with a text."""

    def __init__(self, database: InMemoryDatabase) -> None:
        self._database = database

    async def save(self, memory: Memory) -> None:
        async with self._database.transaction():
            tables = self._database.tables
            there = tables.memories.get(memory.id)
            if there is not None and there.user_id != memory.user_id:
                raise DuplicateId("Another user's memory has that id: use another id.")
            _require_user(tables, memory.user_id)
            tables.memories[memory.id] = copy.deepcopy(memory)

    async def get_by_id(self, memory_id: str) -> Memory | None:
        return copy.deepcopy(self._database.tables.memories.get(memory_id))

    async def get_by_context(
        self, text: str, limit: int = 5, *, user_id: str | None = None
    ) -> list[Memory]:
        memories = self._database.tables.memories.values()
        theirs = [memory for memory in memories if user_id in (None, memory.user_id)]
        return _given(sorted(theirs, key=lambda memory: -overlap(text, memory.content)), limit)

    async def delete(self, memory_id: str) -> None:
        async with self._database.transaction():
            self._database.tables.memories.pop(memory_id, None)


class InMemoryUserRepository(UserRepository):
    """People, in memory."""

    def __init__(self, database: InMemoryDatabase) -> None:
        self._database = database

    async def save(self, user: User) -> None:
        async with self._database.transaction():
            tables = self._database.tables
            tables.users[user.id] = user
            for key, value in user.preferences.to_dict().items():
                tables.preferences[user.id, key] = values.to_json(key, value)

    async def get_by_id(self, user_id: str) -> User | None:
        user = self._database.tables.users.get(user_id)
        if user is None:
            return None
        return replace(user, preferences=UserPreferences.of(_preferences(self._database, user_id)))

    async def delete(self, user_id: str) -> None:
        async with self._database.transaction():
            tables = self._database.tables
            tables.users.pop(user_id, None)
            for name in ("conversations", "memories", "relationships"):
                theirs = getattr(tables, name)
                for key in [key for key, one in theirs.items() if one.user_id == user_id]:
                    del theirs[key]
            for owner, key in [pair for pair in tables.preferences if pair[0] == user_id]:
                del tables.preferences[owner, key]


class InMemoryPreferencesRepository(PreferencesRepository):
    """Preferences, in memory."""

    def __init__(self, database: InMemoryDatabase) -> None:
        self._database = database

    async def get(self, user_id: str, preference_key: str) -> Any:
        return _preferences(self._database, user_id).get(preference_key)

    async def set(self, user_id: str, preference_key: str, value: Any) -> None:
        values.identifier("preference_key", preference_key)
        UserPreferences.of({preference_key: value})
        written = values.to_json("value", value)
        async with self._database.transaction():
            tables = self._database.tables
            _require_user(tables, user_id)
            tables.preferences[user_id, preference_key] = written

    async def all(self, user_id: str) -> dict[str, Any]:
        return dict(sorted(_preferences(self._database, user_id).items()))

    async def delete(self, user_id: str, preference_key: str) -> None:
        async with self._database.transaction():
            self._database.tables.preferences.pop((user_id, preference_key), None)


class InMemoryRelationshipRepository(RelationshipRepository):
    """Relationships of people, in memory."""

    def __init__(self, database: InMemoryDatabase) -> None:
        self._database = database

    async def save(self, relationship: Relationship) -> None:
        async with self._database.transaction():
            tables = self._database.tables
            there = tables.relationships.get(relationship.id)
            if there is not None and there.user_id != relationship.user_id:
                raise DuplicateId("Another user's relationship has that id: use another id.")
            _require_user(tables, relationship.user_id)
            tables.relationships[relationship.id] = relationship

    async def get_by_user(self, user_id: str) -> list[Relationship]:
        known = self._database.tables.relationships.values()
        theirs = [relationship for relationship in known if relationship.user_id == user_id]
        return sorted(theirs, key=lambda relationship: (relationship.other, relationship.id))

    async def delete(self, relationship_id: str) -> None:
        async with self._database.transaction():
            self._database.tables.relationships.pop(relationship_id, None)


class InMemoryDeviceRepository(DeviceRepository):
    """Devices, in memory."""

    def __init__(self, database: InMemoryDatabase) -> None:
        self._database = database

    async def save(self, device: Device) -> None:
        async with self._database.transaction():
            devices = self._database.tables.devices
            there = devices.get(device.id)
            if there is not None and there.public_key != device.public_key:
                raise DuplicateId("A device with another public key has that id: use another id.")
            devices[device.id] = device

    async def get_by_id(self, device_id: str) -> Device | None:
        return self._database.tables.devices.get(device_id)

    async def get_trusted(self) -> list[Device]:
        trusted = [device for device in self._database.tables.devices.values() if device.trusted]
        return sorted(trusted, key=lambda device: (device.added_at, device.id))

    async def delete(self, device_id: str) -> None:
        async with self._database.transaction():
            self._database.tables.devices.pop(device_id, None)


class InMemorySystemStateRepository(SystemStateRepository):
    """Facts about this installation, in memory."""

    def __init__(self, database: InMemoryDatabase) -> None:
        self._database = database

    async def get(self, key: str) -> str | None:
        return self._database.tables.system_state.get(key)

    async def set(self, key: str, value: str) -> None:
        values.state_key(key)
        values.text("value", value)
        async with self._database.transaction():
            self._database.tables.system_state[key] = value

    async def delete(self, key: str) -> None:
        async with self._database.transaction():
            self._database.tables.system_state.pop(values.state_key(key), None)


class InMemoryProfileRepository(ProfileRepository):
    """Versions of the personality, in memory."""

    def __init__(self, database: InMemoryDatabase) -> None:
        self._database = database

    async def save(self, profile: Profile) -> None:
        async with self._database.transaction():
            tables = self._database.tables
            if profile.user_id is not None:
                _require_user(tables, profile.user_id)
            if profile.id in tables.personality_profiles:
                raise DuplicateId("A version with that id exists already: use another id.")
            tables.personality_profiles[profile.id] = copy.deepcopy(profile)

    async def end(self, profile_id: str, at: datetime) -> None:
        moment = values.moment("at", at)
        async with self._database.transaction():
            profiles = self._database.tables.personality_profiles
            known = profiles.get(profile_id)
            if known is not None and (known.active_until is None or moment < known.active_until):
                profiles[profile_id] = replace(known, active_until=moment)

    async def get_by_id(self, profile_id: str) -> Profile | None:
        return copy.deepcopy(self._database.tables.personality_profiles.get(profile_id))

    async def get_by_user(self, user_id: str | None) -> list[Profile]:
        known = self._database.tables.personality_profiles.values()
        theirs = [copy.deepcopy(one) for one in known if one.user_id == user_id]
        return sorted(theirs, key=lambda one: (one.active_from, one.version, one.id))

    async def get_periods(self, user_id: str | None) -> list[Profile]:
        return [replace(one, traits={}) for one in await self.get_by_user(user_id)]


class InMemoryPersonalityChangeRepository(PersonalityChangeRepository):
    """Proposed changes of the personality, in memory."""

    def __init__(self, database: InMemoryDatabase) -> None:
        self._database = database

    async def save(self, change: PersonalityChange) -> None:
        async with self._database.transaction():
            tables = self._database.tables
            if change.user_id is not None:
                _require_user(tables, change.user_id)
            tables.personality_changes[change.id] = copy.deepcopy(change)

    async def get_by_id(self, change_id: str) -> PersonalityChange | None:
        return copy.deepcopy(self._database.tables.personality_changes.get(change_id))

    async def all(self) -> list[PersonalityChange]:
        known = sorted(self._database.tables.personality_changes.values(), key=lambda one: one.id)
        return copy.deepcopy(sorted(known, key=lambda one: one.proposed_at, reverse=True))


def overlap(one: str, other: str) -> float:
    """Return the similarity of two texts: the cosine of their word counts, from 0 to 1."""
    left, right = Counter(words(one)), Counter(words(other))
    norm = sum(n * n for n in left.values()) * sum(n * n for n in right.values())
    return sum(left[word] * right[word] for word in left) / norm**0.5 if norm else 0.0


def _require_user(tables: Tables, user_id: str) -> None:
    if user_id not in tables.users:
        raise UnknownUser("No user has that id: save the user first.")


def _preferences(database: InMemoryDatabase, user_id: str) -> dict[str, Any]:
    return {
        key: json.loads(value)
        for (owner, key), value in database.tables.preferences.items()
        if owner == user_id
    }


def _newest_first(turns: list[Conversation]) -> list[Conversation]:
    return sorted(turns, key=lambda turn: turn.timestamp)[::-1]


def _given(found: Iterable[Kept], limit: int) -> list[Kept]:
    return copy.deepcopy(list(found)[: values.limit(limit)])
