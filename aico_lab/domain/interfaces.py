"""What the domain asks of whoever stores and publishes for it.

A name of somebody that does not exist is no error when reading: there is nothing, None or an empty
list. Writing for a user who does not exist raises `UnknownUser`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

from aico_lab.domain.entities import Memory, MemoryType

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from aico_lab.domain.entities import Conversation, Device, Relationship, User


class ConversationRepository(ABC):
    """Turns of conversations. A turn was said: it is added once, and not changed."""

    @abstractmethod
    async def save(self, conversation: Conversation) -> None:
        """Add a turn; its channel comes into being with its first one.

        Raises:
            DuplicateId: A message with that id is there already.
            UnknownUser: Nobody has that user id.
        """

    @abstractmethod
    async def get_by_user(self, user_id: str, limit: int = 50) -> list[Conversation]:
        """Give the latest turns with a user, newest first; of equal times the later saved first."""

    @abstractmethod
    async def search_by_content(self, query: str, limit: int = 50) -> list[Conversation]:
        """Find turns that hold every word of a query, most relevant (BM25) first, then newest.

        Whole words count, whatever their case and accents; those of one unbroken piece, such as
        "don't", have to follow each other. A query with no letter or digit, such as an emoji, is
        looked for as it stands, newest first.

        Args:
            query: Whatever a person types; nothing in it is an operator.
            limit: The most turns to give.
        """

    @abstractmethod
    async def get_between(
        self,
        start: datetime,
        end: datetime,
        *,
        user_id: str | None = None,
        channel_id: str | None = None,
    ) -> list[Conversation]:
        """Give the turns from `start` until before `end`, oldest first, of all or of one."""


class MemoryRepository(ABC):
    """What the companion remembers.

    The data layer's document names the same thing twice: `get_memories_by_context` is
    `get_by_context`, and `save_memory` is `save`. There is one implementation of each.
    """

    @abstractmethod
    async def save(self, memory: Memory) -> None:
        """Add a memory, or change the one with that id.

        Raises:
            DuplicateId: Somebody else's memory has that id.
            UnknownUser: Nobody has that user id.
        """

    @abstractmethod
    async def get_by_id(self, memory_id: str) -> Memory | None:
        """Give a memory."""

    @abstractmethod
    async def get_by_context(
        self, text: str, limit: int = 5, *, user_id: str | None = None
    ) -> list[Memory]:
        """Give the memories that are nearest in meaning to a text, nearest first.

        Args:
            text: What is being talked about.
            limit: The most memories to give.
            user_id: Whose memories; everybody's, unless given.
        """

    @abstractmethod
    async def delete(self, memory_id: str) -> None:
        """Forget a memory; where there is none, nothing happens."""

    async def create(
        self,
        content: str,
        user_id: str,
        *,
        memory_type: MemoryType = MemoryType.EPISODIC,
        importance: float = 0.5,
    ) -> Memory:
        """Make a memory and save it.

        Raises:
            UnknownUser: Nobody has that user id.
        """
        memory = Memory(user_id, content, memory_type=memory_type, importance=importance)
        await self.save(memory)
        return memory

    async def get_memories_by_context(
        self, context: str, limit: int = 10, *, user_id: str | None = None
    ) -> list[Memory]:
        """Do what `get_by_context` does."""
        return await self.get_by_context(context, limit, user_id=user_id)

    async def save_memory(self, memory: Memory) -> None:
        """Do what `save` does."""
        await self.save(memory)


class UserRepository(ABC):
    """People."""

    @abstractmethod
    async def save(self, user: User) -> None:
        """Add a person, or change the one with that id, together with `user.preferences`."""

    @abstractmethod
    async def get_by_id(self, user_id: str) -> User | None:
        """Give a person."""


class PreferencesRepository(ABC):
    """What people prefer: any JSON value under any key."""

    @abstractmethod
    async def get(self, user_id: str, preference_key: str) -> Any:
        """Give one preference, or None where it was never set."""

    @abstractmethod
    async def set(self, user_id: str, preference_key: str, value: Any) -> None:
        """Set one preference.

        Raises:
            UnknownUser: Nobody has that user id.
            InvalidEntity: The value is none that JSON knows, or one of `UserPreferences` and no
                text.
        """

    @abstractmethod
    async def all(self, user_id: str) -> dict[str, Any]:
        """Give all preferences of a person, by key."""


class RelationshipRepository(ABC):
    """Whom people know."""

    @abstractmethod
    async def save(self, relationship: Relationship) -> None:
        """Add a relationship, or change the one with that id.

        Raises:
            DuplicateId: Somebody else's relationship has that id.
            UnknownUser: Nobody has that user id.
        """

    @abstractmethod
    async def get_by_user(self, user_id: str) -> list[Relationship]:
        """Give whom a person knows, in the order of the others' names."""


class DeviceRepository(ABC):
    """The registry of devices, and which of them are trusted."""

    @abstractmethod
    async def save(self, device: Device) -> None:
        """Add a device, or change the one with that id.

        Raises:
            DuplicateId: A device with another public key has that id.
        """

    @abstractmethod
    async def get_by_id(self, device_id: str) -> Device | None:
        """Give a device."""

    @abstractmethod
    async def get_trusted(self) -> list[Device]:
        """Give the trusted devices, in the order in which they were added."""


class SystemStateRepository(ABC):
    """Facts about this installation, each a text under a key."""

    @abstractmethod
    async def get(self, key: str) -> str | None:
        """Give a fact, or None where there is none."""

    @abstractmethod
    async def set(self, key: str, value: str) -> None:
        """Set a fact."""


class MemoryIndex(Protocol):
    """Finds memories by meaning; may be behind the primary database."""

    def query(
        self, text: str, limit: int, user_id: str | None = None
    ) -> Sequence[tuple[str, float]]:
        """Give the ids of the nearest memories with their scores, nearest first.

        Called outside of the event loop's thread.
        """


class Publisher(Protocol):
    """Takes events: the message bus, or a unit of work, which sends them on with its commit."""

    async def publish(self, topic: str, payload: dict[str, Any], /) -> object:
        """Take an event."""


class Responder(Protocol):
    """Finds the companion's answers."""

    async def __call__(self, message: str, memories: Sequence[Memory], /) -> str:
        """Answer a message.

        Args:
            message: What the person said.
            memories: What is known of it, most relevant first.
        """
