"""What the domain asks of whoever stores and publishes for it.

What the data layer's document shows of a repository is what one has to have. The rest has defaults,
by what is there, or says that it is missing when it is called.

A name of somebody that does not exist is no error when reading: there is nothing, None or an empty
list. Writing for a user who does not exist raises `UnknownUser`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Protocol

from aico_lab.domain.entities import Memory, MemoryType
from aico_lab.errors import WrongUse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from aico_lab.domain.entities import Conversation, Device, Relationship, User


EVERYTHING: Final = 2**31 - 1
"""As a limit: no limit."""


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

    async def get_between(
        self,
        start: datetime,
        end: datetime,
        *,
        user_id: str | None = None,
        channel_id: str | None = None,
    ) -> list[Conversation]:
        """Give the turns from `start` until before `end`, oldest first, of all or of one.

        By default, those of one person are taken from `get_by_user`.

        Raises:
            WrongUse: It is by default, and no person is named.
        """
        if user_id is None:
            raise _missing(self, "get_between")
        turns = await self.get_by_user(user_id, EVERYTHING)
        first, last = start.astimezone(), end.astimezone()
        return [
            turn
            for turn in reversed(turns)
            if first <= turn.timestamp < last and channel_id in (None, turn.channel_id)
        ]


class MemoryRepository:
    """What the companion remembers.

    The data layer's document names the same thing twice: `get_memories_by_context` is
    `get_by_context`, and `save_memory` is `save`. One of each pair is to be implemented; the other
    calls it. As in the document, it need not be `async`, nor take a `user_id`.
    """

    async def save(self, memory: Memory) -> None:
        """Add a memory, or change the one with that id.

        Raises:
            DuplicateId: Somebody else's memory has that id.
            UnknownUser: Nobody has that user id.
        """
        if type(self).save_memory is MemoryRepository.save_memory:
            raise _missing(self, "save")
        await _awaited(self.save_memory(memory))

    async def get_by_id(self, memory_id: str) -> Memory | None:  # noqa: ARG002 - of those who have it
        """Give a memory."""
        raise _missing(self, "get_by_id")

    async def get_by_context(
        self, text: str, limit: int = 5, *, user_id: str | None = None
    ) -> list[Memory]:
        """Give the memories that are nearest in meaning to a text, nearest first.

        Args:
            text: What is being talked about.
            limit: The most memories to give.
            user_id: Whose memories; everybody's, unless given.
        """
        if type(self).get_memories_by_context is MemoryRepository.get_memories_by_context:
            raise _missing(self, "get_by_context")
        return await memories_of(self.get_memories_by_context, text, limit, user_id)

    async def delete(self, memory_id: str) -> None:  # noqa: ARG002 - of those who have it
        """Forget a memory; where there is none, nothing happens."""
        raise _missing(self, "delete")

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
        await _awaited(self.save(memory))
        return memory

    async def get_memories_by_context(
        self, context: str, limit: int = 10, *, user_id: str | None = None
    ) -> list[Memory]:
        """Do what `get_by_context` does."""
        return await memories_of(self.get_by_context, context, limit, user_id)

    async def save_memory(self, memory: Memory) -> None:
        """Do what `save` does."""
        await _awaited(self.save(memory))


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

    async def get(self, user_id: str, preference_key: str) -> Any:
        """Give one preference, or None where it was never set."""
        return (await self.all(user_id)).get(preference_key)

    @abstractmethod
    async def set(self, user_id: str, preference_key: str, value: Any) -> None:
        """Set one preference.

        Raises:
            UnknownUser: Nobody has that user id.
            InvalidEntity: The value is none that JSON knows, or one of `UserPreferences` and no
                text.
        """

    async def all(self, user_id: str) -> dict[str, Any]:  # noqa: ARG002 - of those who have it
        """Give all preferences of a person, by key."""
        raise _missing(self, "all")


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


async def memories_of(
    find: Callable[..., Any], text: str, limit: int, user_id: str | None
) -> list[Memory]:
    """Ask for the memories of a person that are nearest to a text, or for everybody's.

    Args:
        find: `get_by_context` of a repository. Where it takes no `user_id`, as in the document, the
            memories of others are left out of what it gives.
        text: What is being talked about.
        limit: The most memories to give.
        user_id: Whose memories; everybody's, if None.
    """
    if user_id is None:
        found: list[Memory] = await _awaited(find(text, limit=limit))
        return found
    parameters = inspect.signature(find).parameters.values()
    if any(p.name == "user_id" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        theirs: list[Memory] = await _awaited(find(text, limit=limit, user_id=user_id))
        return theirs
    return [m for m in await _awaited(find(text, limit=limit)) if m.user_id == user_id]


async def _awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _missing(repository: object, method: str) -> WrongUse:
    return WrongUse(f"{type(repository).__name__} has no {method}(): add it to that class.")
