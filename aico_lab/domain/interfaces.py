"""The interfaces that stores, indexes, publishers and responders implement for the domain.

A repository must implement the methods that the data layer's document shows. The other methods
have defaults built on those, or raise `WrongUse` when called.

Reading with an unknown id returns None or an empty list. Writing for a user who does not exist
raises `UnknownUser`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Protocol

from aico_lab.domain import values
from aico_lab.domain.entities import Memory, MemoryType
from aico_lab.domain.personality import active_profile
from aico_lab.errors import WrongUse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from aico_lab.domain.entities import Conversation, Device, Relationship, User
    from aico_lab.domain.personality import PersonalityChange, Profile


EVERYTHING: Final = 2**31 - 1
"""A limit that means "no limit"."""


class ConversationRepository(ABC):
    """Turns of conversations. A turn is added once and never changed."""

    @abstractmethod
    async def save(self, conversation: Conversation) -> None:
        """Add a turn; the first turn of a channel creates the channel.

        Raises:
            DuplicateId: A message with that id exists already.
            UnknownUser: No user has that id.
        """

    @abstractmethod
    async def get_by_user(self, user_id: str, limit: int = 50) -> list[Conversation]:
        """Return the latest turns of a user, newest first; of equal times, last saved first."""

    @abstractmethod
    async def search_by_content(self, query: str, limit: int = 50) -> list[Conversation]:
        """Return the turns that contain every word of a query, by BM25 relevance, then newest.

        Whole words match, regardless of case and accents. The words of one piece without white
        space, such as "don't", must be adjacent. A query without a letter or digit, such as an
        emoji, is searched for literally, newest first.

        Args:
            query: Text as a person types it; it has no operators.
            limit: The maximum number of turns.
        """

    async def get_between(
        self,
        start: datetime,
        end: datetime,
        *,
        user_id: str | None = None,
        channel_id: str | None = None,
    ) -> list[Conversation]:
        """Return the turns from `start` until before `end`, oldest first.

        `user_id` and `channel_id` restrict the turns to one user and one channel. The default
        implementation filters the turns of `get_by_user`.

        Raises:
            WrongUse: The repository has only the default implementation, and `user_id` is None.
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

    async def delete(self, message_id: str) -> None:  # noqa: ARG002 - for implementations
        """Delete a turn; an unknown id is ignored."""
        raise _missing(self, "delete")


class MemoryRepository:
    """The companion's memories.

    The data layer's document has two names for two methods: `get_memories_by_context` is
    `get_by_context`, and `save_memory` is `save`. Implement one of each pair; the other calls it.
    As in the document, the implementation need not be `async`, nor take a `user_id`.
    """

    async def save(self, memory: Memory) -> None:
        """Add a memory, or update the memory with that id.

        Raises:
            DuplicateId: Another user's memory has that id.
            UnknownUser: No user has that id.
        """
        if type(self).save_memory is MemoryRepository.save_memory:
            raise _missing(self, "save")
        await _awaited(self.save_memory(memory))

    async def get_by_id(self, memory_id: str) -> Memory | None:  # noqa: ARG002 - for implementations
        """Return the memory with that id, or None."""
        raise _missing(self, "get_by_id")

    async def get_by_context(
        self, text: str, limit: int = 5, *, user_id: str | None = None
    ) -> list[Memory]:
        """Return the memories that are nearest in meaning to a text, nearest first.

        Args:
            text: The text to compare with, such as the person's message.
            limit: The maximum number of memories.
            user_id: The owner of the memories; None for those of all users.
        """
        if type(self).get_memories_by_context is MemoryRepository.get_memories_by_context:
            raise _missing(self, "get_by_context")
        return await memories_of(self.get_memories_by_context, text, limit, user_id)

    async def delete(self, memory_id: str) -> None:  # noqa: ARG002 - for implementations
        """Delete a memory; an unknown id is ignored."""
        raise _missing(self, "delete")

    async def create(
        self,
        content: str,
        user_id: str,
        *,
        memory_type: MemoryType = MemoryType.EPISODIC,
        importance: float = 0.5,
    ) -> Memory:
        """Make a memory, save and return it.

        Raises:
            UnknownUser: No user has that id.
        """
        memory = Memory(user_id, content, memory_type=memory_type, importance=importance)
        await _awaited(self.save(memory))
        return memory

    async def get_memories_by_context(
        self, context: str, limit: int = 10, *, user_id: str | None = None
    ) -> list[Memory]:
        """Call `get_by_context`."""
        return await memories_of(self.get_by_context, context, limit, user_id)

    async def save_memory(self, memory: Memory) -> None:
        """Call `save`."""
        await _awaited(self.save(memory))


class UserRepository(ABC):
    """People."""

    @abstractmethod
    async def save(self, user: User) -> None:
        """Add a person, or update the person with that id, together with `user.preferences`."""

    @abstractmethod
    async def get_by_id(self, user_id: str) -> User | None:
        """Return the person with that id, or None."""

    async def delete(self, user_id: str) -> None:  # noqa: ARG002 - for implementations
        """Delete a person with all rows of theirs; an unknown id is ignored.

        Other stores keep what they have until `lab.privacy.forget` erases it there.
        """
        raise _missing(self, "delete")


class PreferencesRepository(ABC):
    """Preferences of people: any JSON value under any key."""

    async def get(self, user_id: str, preference_key: str) -> Any:
        """Return one preference, or None if it was never set."""
        return (await self.all(user_id)).get(preference_key)

    @abstractmethod
    async def set(self, user_id: str, preference_key: str, value: Any) -> None:
        """Set one preference.

        Raises:
            UnknownUser: No user has that id.
            InvalidEntity: The value is not a JSON value, or the key is a field of
                `UserPreferences` and the value is not text.
        """

    async def all(self, user_id: str) -> dict[str, Any]:  # noqa: ARG002 - for implementations
        """Return all preferences of a person as a dictionary by key."""
        raise _missing(self, "all")

    async def delete(
        self,
        user_id: str,  # noqa: ARG002 - for implementations
        preference_key: str,  # noqa: ARG002
    ) -> None:
        """Delete one preference; one that was never set is ignored."""
        raise _missing(self, "delete")


class RelationshipRepository(ABC):
    """Relationships of people."""

    @abstractmethod
    async def save(self, relationship: Relationship) -> None:
        """Add a relationship, or update the relationship with that id.

        Raises:
            DuplicateId: Another user's relationship has that id.
            UnknownUser: No user has that id.
        """

    @abstractmethod
    async def get_by_user(self, user_id: str) -> list[Relationship]:
        """Return the relationships of a person, ordered by the other person's name."""

    async def delete(self, relationship_id: str) -> None:  # noqa: ARG002 - for implementations
        """Delete a relationship; an unknown id is ignored."""
        raise _missing(self, "delete")


class DeviceRepository(ABC):
    """The registry of devices, trusted or not."""

    @abstractmethod
    async def save(self, device: Device) -> None:
        """Add a device, or update the device with that id.

        Raises:
            DuplicateId: A device with another public key has that id.
        """

    @abstractmethod
    async def get_by_id(self, device_id: str) -> Device | None:
        """Return the device with that id, or None."""

    @abstractmethod
    async def get_trusted(self) -> list[Device]:
        """Return the trusted devices in the order in which they were added."""

    async def delete(self, device_id: str) -> None:  # noqa: ARG002 - for implementations
        """Delete a device; an unknown id is ignored."""
        raise _missing(self, "delete")


class SystemStateRepository(ABC):
    """Facts about this installation: texts by key."""

    @abstractmethod
    async def get(self, key: str) -> str | None:
        """Return the fact under a key, or None."""

    @abstractmethod
    async def set(self, key: str, value: str) -> None:
        """Set a fact.

        Raises:
            InvalidEntity: The key is empty or reserved, or the key or value is not storable text.
        """

    async def delete(self, key: str) -> None:  # noqa: ARG002 - for implementations
        """Delete a fact; an unknown key is ignored."""
        raise _missing(self, "delete")


class ProfileRepository(ABC):
    """Versions of the companion's personality. A version is added once, and only ended later."""

    @abstractmethod
    async def save(self, profile: Profile) -> None:
        """Add a version.

        Raises:
            DuplicateId: A version with that id exists already.
            UnknownUser: No user has that id.
        """

    @abstractmethod
    async def end(self, profile_id: str, at: datetime) -> None:
        """End a version; one that is unknown, or ended before that time, stays as it is."""

    @abstractmethod
    async def get_by_id(self, profile_id: str) -> Profile | None:
        """Return the version with that id, or None."""

    @abstractmethod
    async def get_by_user(self, user_id: str | None) -> list[Profile]:
        """Return the versions for a person, or for everybody, in order of activation.

        Raises:
            InvalidEntity: Another program stored traits that this one does not know.
        """

    @abstractmethod
    async def get_periods(self, user_id: str | None) -> list[Profile]:
        """Return the same versions without their traits, which may be another program's."""

    async def get_active(
        self, user_id: str | None, context: str | None = None, at: datetime | None = None
    ) -> Profile | None:
        """Return the version that applies to a person in a context, or None.

        Args:
            user_id: The person; None for somebody without versions of their own.
            context: The context bucket; None for an unknown one.
            at: The time; None for now.

        Raises:
            InvalidEntity: Another program stored traits that this one does not know.
        """
        known = await self.get_periods(None)
        if user_id is not None:
            known += await self.get_periods(user_id)
        moment = values.now() if at is None else values.moment("at", at)
        found = active_profile(known, user_id, context, moment)
        return None if found is None else await self.get_by_id(found.id)


class PersonalityChangeRepository(ABC):
    """Proposed changes of profiles, and what became of them."""

    @abstractmethod
    async def save(self, change: PersonalityChange) -> None:
        """Add a change, or update the change with that id.

        Raises:
            UnknownUser: No user has that id.
        """

    @abstractmethod
    async def get_by_id(self, change_id: str) -> PersonalityChange | None:
        """Return the change with that id, or None."""

    @abstractmethod
    async def all(self) -> list[PersonalityChange]:
        """Return all changes, the latest proposal first."""


class MemoryIndex(Protocol):
    """Finds memories by meaning; it may lag behind the primary database."""

    def query(
        self, text: str, limit: int, user_id: str | None = None
    ) -> Sequence[tuple[str, float]]:
        """Return the ids of the nearest memories with their scores, nearest first.

        It is called outside the event loop's thread.
        """


class SessionCache(Protocol):
    """Keeps the context of conversations, so that it need not be read for every message."""

    async def turns(
        self, user_id: str, read: Callable[[], Awaitable[list[Conversation]]]
    ) -> list[Conversation]:
        """Return the last turns of a person; `read` reads them."""

    async def memories(
        self, turn: Conversation, read: Callable[[], Awaitable[list[Memory]]]
    ) -> list[Memory]:
        """Return the memories that belong to a turn; `read` retrieves them."""


class Publisher(Protocol):
    """Publishes events: the message bus, or a unit of work, which publishes on commit."""

    async def publish(self, topic: str, payload: dict[str, Any], /) -> object:
        """Publish an event."""


class Responder(Protocol):
    """Produces the companion's answers."""

    async def __call__(self, message: str, memories: Sequence[Memory], /) -> str:
        """Answer a message.

        Args:
            message: What the person said.
            memories: The related memories, most relevant first.
        """


async def memories_of(
    find: Callable[..., Any], text: str, limit: int, user_id: str | None
) -> list[Memory]:
    """Return the memories that are nearest to a text, of one person or of all.

    Args:
        find: `get_by_context` of a repository. If it takes no `user_id`, as in the document, the
            memories of other users are removed from its result.
        text: The text to compare with.
        limit: The maximum number of memories.
        user_id: The owner of the memories; None for those of all users.
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
