"""The entities of the domain, named as in the data layer's document.

Every entity is frozen and validates its fields on construction, so every existing entity can be
stored. Times are kept in UTC; a `datetime` without a time zone is taken as local time, as
`datetime.now()` returns it.

Constructing an entity raises `InvalidEntity` for a field of the wrong type or out of range, and
`TextTooLong` for a text of more than 1,000,000 characters.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self
from uuid import uuid4

from aico_lab.domain import values
from aico_lab.errors import InvalidEntity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def new_id() -> str:
    """Return a new id, which no other entity has."""
    return uuid4().hex


class Entity:
    """Converts to a plain dictionary and back; subclasses are frozen dataclasses."""

    __slots__ = ()

    _aliases: ClassVar[Mapping[str, str]] = {}
    """Other accepted names, such as column names, mapped to the names of the fields."""
    _ignored: ClassVar[frozenset[str]] = frozenset()
    """Columns that duplicate a field."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make an entity from a row of its table, or from the payload of a message.

        Times may be ISO 8601 text with a time zone, booleans 0 or 1, objects JSON text.

        Raises:
            InvalidEntity: A name is unknown, a required field is missing, or a value is invalid.
            TextTooLong: A text has more than 1,000,000 characters.
        """
        types = {f.name: str(f.type) for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        found: dict[str, Any] = {}
        for key, value in data.items():
            name = cls._aliases.get(key, key)
            if name not in types:
                if key in cls._ignored:
                    continue
                raise InvalidEntity(f"A {cls.__name__} has no field {key!r}: remove it.")
            load = _LOADERS.get(types[name].removesuffix(" | None"))
            found[name] = value if load is None or value is None else load(name, value)
        if found.get("metadata", ...) is None:
            del found["metadata"]  # an empty object is stored as NULL
        for f in dataclasses.fields(cls):  # type: ignore[arg-type]
            needed = f.default is f.default_factory is dataclasses.MISSING
            if needed and f.name not in found:
                raise InvalidEntity(f"A {cls.__name__} needs {f.name}: add it.")
        return cls(**found)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; `from_dict` is the inverse."""
        return {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
        }

    def _settle(self, **checked: object) -> None:
        for name, value in checked.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class Conversation(Entity):
    """One turn of a conversation: a message of a person or of the companion.

    Attributes:
        user_id: The person who talks with the companion; also set on the companion's own turns.
        message: The text.
        timestamp: When it was said, UTC.
        is_ai_response: Whether the companion said it.
        sentiment_score: From -1 (negative) to 1 (positive), where known.
        response_time: Seconds that the answer took, where known.
        id: Unique among all messages.
        conversation_id: The conversation that the turn belongs to; by default the channel.
        channel_id: The channel; by default the conversation, else `direct:<user_id>`.
        metadata: A JSON object.
    """

    user_id: str
    message: str
    timestamp: datetime
    is_ai_response: bool = False
    sentiment_score: float | None = None
    response_time: float | None = None
    id: str = field(default_factory=new_id)
    conversation_id: str = ""
    channel_id: str = ""
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)

    _aliases: ClassVar[Mapping[str, str]] = {"message_id": "id"}
    _ignored: ClassVar[frozenset[str]] = frozenset({"content", "sentiment", "role"})

    def __post_init__(self) -> None:
        user_id = values.identifier("user_id", self.user_id)
        channel_id = self.channel_id or self.conversation_id or f"direct:{user_id}"
        self._settle(
            user_id=user_id,
            message=values.text("message", self.message),
            timestamp=values.moment("timestamp", self.timestamp),
            is_ai_response=values.boolean("is_ai_response", self.is_ai_response),
            sentiment_score=values.optional(
                values.number, "sentiment_score", self.sentiment_score, -1, 1
            ),
            response_time=values.optional(values.number, "response_time", self.response_time, 0),
            id=values.identifier("id", self.id),
            channel_id=values.identifier("channel_id", channel_id),
            conversation_id=values.identifier(
                "conversation_id", self.conversation_id or channel_id
            ),
            metadata=values.json_object("metadata", self.metadata),
        )


@dataclass(frozen=True, slots=True)
class UserPreferences(Entity):
    """The preferences set at onboarding; stored among all preferences of the person."""

    language: str = "en"
    personality_style: str = "friendly"
    privacy_level: str = "standard"

    def __post_init__(self) -> None:
        self._settle(**{f.name: values.text(f.name, getattr(self, f.name)) for f in PREFERENCES})

    @classmethod
    def of(cls, preferences: Mapping[str, Any]) -> Self:
        """Pick these preferences from all preferences of a person."""
        return cls(**{f.name: preferences[f.name] for f in PREFERENCES if f.name in preferences})


PREFERENCES = dataclasses.fields(UserPreferences)


@dataclass(frozen=True, slots=True)
class User(Entity):
    """A person. `name` is None where an import gave none."""

    name: str | None
    preferences: UserPreferences = field(default_factory=UserPreferences)
    created_at: datetime = field(default_factory=values.now)
    id: str = field(default_factory=new_id)

    _aliases: ClassVar[Mapping[str, str]] = {"user_id": "id"}

    def __post_init__(self) -> None:
        if not isinstance(self.preferences, UserPreferences):
            raise InvalidEntity("preferences must be UserPreferences.")
        self._settle(
            name=values.optional(values.text, "name", self.name),
            created_at=values.moment("created_at", self.created_at),
            id=values.identifier("id", self.id),
        )


class MemoryType(StrEnum):
    """The kinds of memory."""

    EPISODIC = "episodic"
    """An event."""
    SEMANTIC = "semantic"
    """A fact."""
    RELATIONSHIP = "relationship"
    """Another person and their relation to the user."""
    SYSTEM = "system"
    """A note about the companion itself."""


@dataclass(frozen=True, slots=True)
class Memory(Entity):
    """A memory that the companion keeps about a person.

    Attributes:
        user_id: The person it belongs to; this never changes.
        content: The text.
        memory_type: A `MemoryType`, or its value.
        importance: From 0 to 1.
        id: Unique among all memories.
        created_at: When the memory was made, UTC.
        metadata: A JSON object.
    """

    user_id: str
    content: str
    memory_type: MemoryType = MemoryType.EPISODIC
    importance: float = 0.5
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=values.now)
    metadata: dict[str, Any] = field(default_factory=dict, hash=False)

    _aliases: ClassVar[Mapping[str, str]] = {"memory_id": "id"}

    def __post_init__(self) -> None:
        try:
            memory_type = MemoryType(self.memory_type)
        except ValueError as error:
            known = ", ".join(MemoryType)
            raise InvalidEntity(f"memory_type must be one of {known}.") from error
        self._settle(
            user_id=values.identifier("user_id", self.user_id),
            content=values.text("content", self.content),
            memory_type=memory_type,
            importance=values.number("importance", self.importance, 0, 1),
            id=values.identifier("id", self.id),
            created_at=values.moment("created_at", self.created_at),
            metadata=values.json_object("metadata", self.metadata),
        )


@dataclass(frozen=True, slots=True)
class SessionContext:
    """The last turns of a conversation, and the memories that belong to them.

    Attributes:
        user_id: The person.
        turns: The last turns, oldest first.
        memories: The memories that are nearest in meaning to the person's last message.
    """

    user_id: str
    turns: tuple[Conversation, ...]
    memories: tuple[Memory, ...]


@dataclass(frozen=True, slots=True)
class Relationship(Entity):
    """A relationship between a person and somebody they know.

    Attributes:
        user_id: The person.
        other: The name of the other person.
        kind: The role of the other person: friend, sister, employer …
        strength: From 0 to 1, where known.
        notes: Free text.
        id: Unique among all relationships.
        updated_at: When the relationship was last updated, UTC.
    """

    user_id: str
    other: str
    kind: str
    strength: float | None = None
    notes: str | None = None
    id: str = field(default_factory=new_id)
    updated_at: datetime = field(default_factory=values.now)

    _aliases: ClassVar[Mapping[str, str]] = {"relationship_id": "id"}

    def __post_init__(self) -> None:
        self._settle(
            user_id=values.identifier("user_id", self.user_id),
            other=values.text("other", self.other),
            kind=values.text("kind", self.kind),
            strength=values.optional(values.number, "strength", self.strength, 0, 1),
            notes=values.optional(values.text, "notes", self.notes),
            id=values.identifier("id", self.id),
            updated_at=values.moment("updated_at", self.updated_at),
        )


@dataclass(frozen=True, slots=True)
class Device(Entity):
    """A device of the same person; only a trusted device may exchange data.

    The public key identifies the device: another key is another device.
    """

    name: str
    public_key: str
    trusted: bool = False
    id: str = field(default_factory=new_id)
    added_at: datetime = field(default_factory=values.now)
    last_seen_at: datetime | None = None

    _aliases: ClassVar[Mapping[str, str]] = {"device_id": "id"}
    # What signed statements of the person's devices say; see `aico_lab.federation.control`.
    _ignored: ClassVar[frozenset[str]] = frozenset(
        {"recipient", "kind", "trust_level", "sync_policy", "approved_by", "revoked_at"}
    )

    def __post_init__(self) -> None:
        self._settle(
            name=values.text("name", self.name),
            public_key=values.identifier("public_key", self.public_key),
            trusted=values.boolean("trusted", self.trusted),
            id=values.identifier("id", self.id),
            added_at=values.moment("added_at", self.added_at),
            last_seen_at=values.optional(values.moment, "last_seen_at", self.last_seen_at),
        )


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return values.to_timestamp(value)
    if isinstance(value, Entity):
        return value.to_dict()
    if isinstance(value, StrEnum):
        return str(value)
    return values.json_object("metadata", value) if isinstance(value, dict) else value


def _load_moment(name: str, value: object) -> object:
    return values.from_timestamp(name, value) if isinstance(value, str) else value


def _load_bool(_: str, value: object) -> object:
    return bool(value) if value in (0, 1) else value


def _load_object(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidEntity(f"{name} is not JSON.") from error


def _load_preferences(_: str, value: object) -> object:
    return UserPreferences.from_dict(value) if isinstance(value, dict) else value


_LOADERS: Mapping[str, Callable[[str, Any], object]] = {
    "datetime": _load_moment,
    "bool": _load_bool,
    "dict[str, Any]": _load_object,
    "dict[str, float]": _load_object,
    "UserPreferences": _load_preferences,
}
"""For each field type, the function that converts the form stored in a database or in JSON."""
