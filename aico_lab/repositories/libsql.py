"""The repositories on libSQL. They take part in the open transaction of the calling task."""
# ruff: noqa: D102 - the interfaces document the methods

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aico_lab.domain import (
    Conversation,
    ConversationRepository,
    Device,
    DeviceRepository,
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
from aico_lab.errors import ConstraintViolated, DuplicateId, UnknownUser
from aico_lab.repositories.full_text import index_new_messages
from aico_lab.repositories.words import has_words, literal, match_expression

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from aico_lab.dal import DataAccessLayer

# A system message, or a message without a user, is not a `Conversation`. The view `conversations`
# includes messages without a user, for analysis.
_TURNS = """
    SELECT
        message_id, user_id, messages.content AS message, timestamp,
        role = 'assistant' AS is_ai_response, sentiment_score, response_time,
        conversation_id, channel_id, metadata
    FROM messages {joined} WHERE role <> 'system' AND user_id IS NOT NULL AND
"""
_ALL_TURNS = _TURNS.format(joined="")
_FOUND_TURNS = _TURNS.format(joined="JOIN messages_search ON messages_search.rowid = messages.id")
_NEWEST_FIRST = "timestamp DESC, id DESC"


class LibSQLConversationRepository(ConversationRepository):
    """Turns of conversations: rows of `messages`, in channels of kind 'direct'."""

    def __init__(self, data_access: DataAccessLayer) -> None:
        self.dal = data_access

    async def save(self, conversation: Conversation) -> None:
        timestamp = values.to_timestamp(conversation.timestamp)  # once, for both statements
        channel = (
            (
                "INSERT INTO channels (channel_id, created_at) VALUES (?, ?) "
                "ON CONFLICT (channel_id) DO NOTHING"
            ),
            [conversation.channel_id, timestamp],
        )
        message = (
            (
                "INSERT INTO messages (message_id, channel_id, conversation_id, user_id, role, "
                "content, timestamp, sentiment_score, sentiment_source, response_time, "
                "metadata) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            ),
            [
                conversation.id,
                conversation.channel_id,
                conversation.conversation_id,
                conversation.user_id,
                "assistant" if conversation.is_ai_response else "user",
                conversation.message,
                timestamp,
                conversation.sentiment_score,
                None if conversation.sentiment_score is None else "given",
                conversation.response_time,
                metadata_column(conversation.metadata),
            ],
        )
        try:
            await self.dal.execute_all([channel, message])
        except ConstraintViolated as refused:
            await require_user(self.dal, conversation.user_id)
            raise DuplicateId("A message with that id exists already: save it once.") from refused

    async def get_by_user(self, user_id: str, limit: int = 50) -> list[Conversation]:
        return await self._turns(
            f"{_ALL_TURNS} user_id = ? ORDER BY {_NEWEST_FIRST} LIMIT ?",
            [user_id, values.limit(limit)],
        )

    async def search_by_content(self, query: str, limit: int = 50) -> list[Conversation]:
        if has_words(query):
            await index_new_messages(self.dal)
            return await self._turns(
                f"{_FOUND_TURNS} messages_search MATCH ? "
                f"ORDER BY bm25(messages_search), {_NEWEST_FIRST} LIMIT ?",
                [match_expression(query), values.limit(limit)],
            )
        return await self._turns(
            f"{_ALL_TURNS} ?1 <> '' AND instr(content, ?1) ORDER BY {_NEWEST_FIRST} LIMIT ?2",
            [literal(query), values.limit(limit)],
        )

    async def get_between(
        self,
        start: datetime,
        end: datetime,
        *,
        user_id: str | None = None,
        channel_id: str | None = None,
    ) -> list[Conversation]:
        asked: dict[str, Any] = {
            "timestamp >= ?": values.moment("start", start),
            "timestamp < ?": values.moment("end", end),
            "user_id = ?": user_id,
            "channel_id = ?": channel_id,
        }
        given = {condition: value for condition, value in asked.items() if value is not None}
        return await self._turns(
            f"{_ALL_TURNS} {' AND '.join(given)} ORDER BY timestamp, id", list(given.values())
        )

    async def delete(self, message_id: str) -> None:
        await self.dal.execute("DELETE FROM messages WHERE message_id = ?", [message_id])

    async def _turns(self, query: str, params: Sequence[Any]) -> list[Conversation]:
        return [Conversation.from_dict(row) for row in await self.dal.fetch_all(query, params)]


class LibSQLUserRepository(UserRepository):
    """People: a row each in `users`, and three in `preferences`."""

    def __init__(self, data_access: DataAccessLayer) -> None:
        self.dal = data_access

    async def save(self, user: User) -> None:
        person = (
            (
                "INSERT INTO users (user_id, name, created_at) VALUES (?, ?, ?) "
                "ON CONFLICT (user_id) DO UPDATE SET "
                "name = excluded.name, created_at = excluded.created_at"
            ),
            [user.id, user.name, user.created_at],
        )
        preferences = [
            (_SET_PREFERENCE, [user.id, key, values.to_json(key, value), values.now()])
            for key, value in user.preferences.to_dict().items()
        ]
        await self.dal.execute_all([person, *preferences])

    async def get_by_id(self, user_id: str) -> User | None:
        row = await self.dal.fetch_one(
            "SELECT user_id, name, created_at, (SELECT json_group_object(preference_key, "
            "json(value)) FROM preferences WHERE preferences.user_id = users.user_id) "
            "AS preferences FROM users WHERE user_id = ?",
            [user_id],
        )
        if row is None:
            return None
        preferences = UserPreferences.of(json.loads(row["preferences"]))
        return User.from_dict(row | {"preferences": preferences})

    async def delete(self, user_id: str) -> None:
        await self.dal.execute("DELETE FROM users WHERE user_id = ?", [user_id])


_SET_PREFERENCE = """
    INSERT INTO preferences (user_id, preference_key, value, updated_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (user_id, preference_key) DO UPDATE
    SET value = excluded.value, updated_at = excluded.updated_at
    WHERE value <> excluded.value
"""


class LibSQLPreferencesRepository(PreferencesRepository):
    """Preferences of people: rows of `preferences`."""

    def __init__(self, data_access: DataAccessLayer) -> None:
        self.dal = data_access

    async def get(self, user_id: str, preference_key: str) -> Any:
        row = await self.dal.fetch_one(
            "SELECT value FROM preferences WHERE user_id = ? AND preference_key = ?",
            [user_id, preference_key],
        )
        return None if row is None else json.loads(row["value"])

    async def set(self, user_id: str, preference_key: str, value: Any) -> None:
        values.identifier("preference_key", preference_key)
        UserPreferences.of({preference_key: value})
        written = values.to_json("value", value)
        row = [user_id, preference_key, written, values.now()]
        try:
            await self.dal.execute(_SET_PREFERENCE, row)
        except ConstraintViolated:
            await require_user(self.dal, user_id)
            raise

    async def all(self, user_id: str) -> dict[str, Any]:
        rows = await self.dal.fetch_all(
            "SELECT preference_key, value FROM preferences WHERE user_id = ? "
            "ORDER BY preference_key",
            [user_id],
        )
        return {row["preference_key"]: json.loads(row["value"]) for row in rows}

    async def delete(self, user_id: str, preference_key: str) -> None:
        await self.dal.execute(
            "DELETE FROM preferences WHERE user_id = ? AND preference_key = ?",
            [user_id, preference_key],
        )


class LibSQLRelationshipRepository(RelationshipRepository):
    """Relationships of people: rows of `relationships`."""

    def __init__(self, data_access: DataAccessLayer) -> None:
        self.dal = data_access

    async def save(self, relationship: Relationship) -> None:
        try:
            saved = await self.dal.fetch_one(
                "INSERT INTO relationships (relationship_id, user_id, other, kind, strength, "
                "notes, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (relationship_id) DO UPDATE SET other = excluded.other, "
                "kind = excluded.kind, strength = excluded.strength, notes = excluded.notes, "
                "updated_at = excluded.updated_at WHERE user_id = excluded.user_id "
                "RETURNING relationship_id",
                [
                    relationship.id,
                    relationship.user_id,
                    relationship.other,
                    relationship.kind,
                    relationship.strength,
                    relationship.notes,
                    relationship.updated_at,
                ],
            )
        except ConstraintViolated:
            await require_user(self.dal, relationship.user_id)
            raise
        if saved is None:
            raise DuplicateId("Another user's relationship has that id: use another id.")

    async def get_by_user(self, user_id: str) -> list[Relationship]:
        rows = await self.dal.fetch_all(
            "SELECT * FROM relationships WHERE user_id = ? ORDER BY other, relationship_id",
            [user_id],
        )
        return [Relationship.from_dict(row) for row in rows]

    async def delete(self, relationship_id: str) -> None:
        await self.dal.execute(
            "DELETE FROM relationships WHERE relationship_id = ?", [relationship_id]
        )


class LibSQLDeviceRepository(DeviceRepository):
    """Devices: rows of `devices`."""

    def __init__(self, data_access: DataAccessLayer) -> None:
        self.dal = data_access

    async def save(self, device: Device) -> None:
        saved = await self.dal.fetch_one(
            "INSERT INTO devices (device_id, name, public_key, trusted, added_at, last_seen_at) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (device_id) DO UPDATE SET "
            "name = excluded.name, trusted = excluded.trusted, added_at = excluded.added_at, "
            "last_seen_at = excluded.last_seen_at WHERE public_key = excluded.public_key "
            "RETURNING device_id",
            [
                device.id,
                device.name,
                device.public_key,
                device.trusted,
                device.added_at,
                device.last_seen_at,
            ],
        )
        if saved is None:
            raise DuplicateId("A device with another public key has that id: use another id.")

    async def get_by_id(self, device_id: str) -> Device | None:
        row = await self.dal.fetch_one("SELECT * FROM devices WHERE device_id = ?", [device_id])
        return None if row is None else Device.from_dict(row)

    async def get_trusted(self) -> list[Device]:
        rows = await self.dal.fetch_all(
            "SELECT * FROM devices WHERE trusted ORDER BY added_at, device_id"
        )
        return [Device.from_dict(row) for row in rows]

    async def delete(self, device_id: str) -> None:
        await self.dal.execute("DELETE FROM devices WHERE device_id = ?", [device_id])


class LibSQLSystemStateRepository(SystemStateRepository):
    """Facts about this installation: rows of `system_state`."""

    def __init__(self, data_access: DataAccessLayer) -> None:
        self.dal = data_access

    async def get(self, key: str) -> str | None:
        row = await self.dal.fetch_one("SELECT value FROM system_state WHERE key = ?", [key])
        return None if row is None else row["value"]

    async def set(self, key: str, value: str) -> None:
        await self.dal.execute(
            "INSERT INTO system_state VALUES (?, ?, ?) ON CONFLICT (key) "
            "DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
            [values.state_key(key), values.text("value", value), values.now()],
        )

    async def delete(self, key: str) -> None:
        await self.dal.execute("DELETE FROM system_state WHERE key = ?", [values.state_key(key)])


class LibSQLProfileRepository(ProfileRepository):
    """Versions of the personality: rows of `personality_profiles`."""

    def __init__(self, data_access: DataAccessLayer) -> None:
        self.dal = data_access

    async def save(self, profile: Profile) -> None:
        row = profile.to_dict()
        row["profile_id"] = row.pop("id")
        row["traits"] = values.to_json("traits", row["traits"])
        try:
            saved = await self.dal.fetch_one(
                f"INSERT INTO personality_profiles ({', '.join(row)}) "
                f"VALUES ({', '.join('?' * len(row))}) ON CONFLICT (profile_id) DO NOTHING "
                "RETURNING profile_id",
                list(row.values()),
            )
        except ConstraintViolated:
            await require_user(self.dal, profile.user_id or "")
            raise
        if saved is None:
            raise DuplicateId("A version with that id exists already: use another id.")

    async def end(self, profile_id: str, at: datetime) -> None:
        await self.dal.execute(
            "UPDATE personality_profiles SET active_until = ? "
            "WHERE profile_id = ? AND (active_until IS NULL OR active_until > ?)",
            [moment := values.moment("at", at), profile_id, moment],
        )

    async def get_by_id(self, profile_id: str) -> Profile | None:
        row = await self.dal.fetch_one(
            "SELECT * FROM personality_profiles WHERE profile_id = ?", [profile_id]
        )
        return None if row is None else Profile.from_row(row)

    async def get_by_user(self, user_id: str | None) -> list[Profile]:
        return [Profile.from_row(row) for row in await self._rows(user_id)]

    async def get_periods(self, user_id: str | None) -> list[Profile]:
        return [Profile.from_row({**row, "traits": {}}) for row in await self._rows(user_id)]

    async def _rows(self, user_id: str | None) -> list[dict[str, Any]]:
        return await self.dal.fetch_all(
            "SELECT * FROM personality_profiles WHERE user_id IS ? "
            "ORDER BY active_from, version, profile_id",
            [user_id],
        )


class LibSQLPersonalityChangeRepository(PersonalityChangeRepository):
    """Proposed changes of the personality: rows of `personality_changes`."""

    def __init__(self, data_access: DataAccessLayer) -> None:
        self.dal = data_access

    async def save(self, change: PersonalityChange) -> None:
        row = change.to_dict()
        row["change_id"] = row.pop("id")
        row["proposal"] = values.to_json("proposal", row["proposal"])
        updates = ", ".join(f"{name} = excluded.{name}" for name in row if name != "change_id")
        try:
            await self.dal.execute(
                f"INSERT INTO personality_changes ({', '.join(row)}) "
                f"VALUES ({', '.join('?' * len(row))}) "
                f"ON CONFLICT (change_id) DO UPDATE SET {updates}",
                list(row.values()),
            )
        except ConstraintViolated:
            await require_user(self.dal, change.user_id or "")
            raise

    async def get_by_id(self, change_id: str) -> PersonalityChange | None:
        row = await self.dal.fetch_one(
            "SELECT * FROM personality_changes WHERE change_id = ?", [change_id]
        )
        return None if row is None else PersonalityChange.from_dict(row)

    async def all(self) -> list[PersonalityChange]:
        rows = await self.dal.fetch_all(
            "SELECT * FROM personality_changes ORDER BY proposed_at DESC, change_id"
        )
        return [PersonalityChange.from_dict(row) for row in rows]


async def require_user(dal: DataAccessLayer, user_id: str) -> None:
    """Raise UnknownUser if no user has that id."""
    if await dal.fetch_one("SELECT 1 FROM users WHERE user_id = ?", [user_id]) is None:
        raise UnknownUser("No user has that id: save the user first.")


def metadata_column(metadata: dict[str, Any]) -> str | None:
    """Return metadata in the form of its column: JSON text, or NULL if it is empty."""
    return values.to_json("metadata", metadata) if metadata else None
