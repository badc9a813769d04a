"""The companion's services, written against repositories and independent of any database.

With the repositories of a unit of work, everything that a service does is one transaction. Other
repositories commit each step, and an error leaves the steps before it committed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aico_lab.domain import values
from aico_lab.domain.entities import (
    Conversation,
    Memory,
    MemoryType,
    SessionContext,
    User,
    UserPreferences,
)
from aico_lab.domain.interfaces import memories_of
from aico_lab.errors import InvalidEntity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aico_lab.domain.interfaces import (
        ConversationRepository,
        MemoryRepository,
        PreferencesRepository,
        Publisher,
        Responder,
        SessionCache,
        UserRepository,
    )

CONTEXT_MEMORIES = 5
"""The maximum number of memories for one answer."""

CONTEXT_TURNS = 10
"""The maximum number of turns in the context of a conversation."""


async def reflect(message: str, memories: Sequence[Memory]) -> str:  # noqa: ARG001 - a Responder
    """Answer without a language model: say so, and quote the memories."""
    if not memories:
        return "I have no language model to answer with, and remember nothing about this."
    remembered = "; ".join(memory.content for memory in memories)
    answer = f"I have no language model to answer with, but I remember: {remembered}"
    return answer if len(answer) <= values.MAX_TEXT else answer[: values.MAX_TEXT - 1] + "…"


class ConversationService:
    """Answers a person's messages, and stores both sides of the conversation."""

    def __init__(
        self,
        conversation_repo: ConversationRepository,
        memory_repo: MemoryRepository,
        *,
        responder: Responder = reflect,
        sessions: SessionCache | None = None,
    ) -> None:
        """Use repositories.

        Args:
            conversation_repo: The turns.
            memory_repo: The memories.
            responder: Produces the answers.
            sessions: Keeps the context of conversations; None reads it each time.
        """
        self.conversation_repo = conversation_repo
        self.memory_repo = memory_repo
        self.responder = responder
        self.sessions = sessions

    async def process_user_message(self, user_id: str, message: str) -> str:
        """Store a person's message, answer it from the person's memories, store the answer.

        If the responder fails, the person's message stays stored, except inside a unit of work,
        which rolls it back. A unit of work also blocks every other writer while the responder
        runs, so use a slow responder outside one.

        Returns:
            The answer; the seconds that it took are stored with it.

        Raises:
            UnknownUser: No user has that id.
            InvalidEntity: The message or the answer cannot be stored.
            TextTooLong: The message or the answer has more than 1,000,000 characters.
        """
        started = time.monotonic()
        turn = Conversation(user_id, message, values.now())
        await self.conversation_repo.save(turn)
        memories = await self._memories(turn)
        response = await self.responder(message, memories)
        answer = Conversation(
            user_id,
            response,
            values.now(),
            is_ai_response=True,
            response_time=time.monotonic() - started,
        )
        await self.conversation_repo.save(answer)
        return response

    async def context(self, user_id: str) -> SessionContext:
        """Return the last turns of a person, and the memories for the last message of theirs."""

        async def read() -> list[Conversation]:
            return await self.conversation_repo.get_by_user(user_id, CONTEXT_TURNS)

        turns = await (self.sessions.turns(user_id, read) if self.sessions else read())
        last = next((turn for turn in turns if not turn.is_ai_response), None)
        memories = await self._memories(last) if last else []
        return SessionContext(user_id, tuple(reversed(turns)), tuple(memories))

    async def _memories(self, turn: Conversation) -> list[Memory]:
        async def read() -> list[Memory]:
            return await memories_of(
                self.memory_repo.get_by_context, turn.message, CONTEXT_MEMORIES, turn.user_id
            )

        return await (self.sessions.memories(turn, read) if self.sessions else read())


class UserOnboardingService:
    """Creates new users."""

    def __init__(
        self,
        user_repo: UserRepository,
        memory_repo: MemoryRepository,
        conversation_repo: ConversationRepository,
    ) -> None:
        self.user_repo = user_repo
        self.memory_repo = memory_repo
        self.conversation_repo = conversation_repo

    async def onboard_new_user(self, user_data: Mapping[str, Any]) -> User:
        """Store and return a new user, with a first memory and a welcome message.

        Args:
            user_data: `name`, and optionally `language`, `style` and `privacy`.

        Raises:
            InvalidEntity: The name is missing, or a value is not text.
        """
        name = user_data.get("name")
        if name is None:
            raise InvalidEntity("A new user needs a name: add it.")
        user = User(name=name, preferences=self._initialize_preferences(user_data))
        initial_memory = Memory(
            user_id=user.id,
            content=f"User {user.name} joined AICO",
            memory_type=MemoryType.SYSTEM,
            importance=0.8,
        )
        welcome = Conversation(
            user_id=user.id,
            message=self._generate_welcome_message(user),
            is_ai_response=True,
            timestamp=values.now(),
        )
        # Save only after all three are valid, so that an invalid one leaves nothing stored.
        await self.user_repo.save(user)
        await self.memory_repo.save(initial_memory)
        await self.conversation_repo.save(welcome)
        return user

    def _initialize_preferences(self, user_data: Mapping[str, Any]) -> UserPreferences:
        return UserPreferences(
            language=user_data.get("language", "en"),
            personality_style=user_data.get("style", "friendly"),
            privacy_level=user_data.get("privacy", "standard"),
        )

    def _generate_welcome_message(self, user: User) -> str:
        return f"Welcome, {user.name}! What you tell me stays on this device."


class MemoryService:
    """Stores memories on request, and publishes an event for each."""

    def __init__(self, memory_repo: MemoryRepository, publisher: Publisher) -> None:
        self.memory_repo = memory_repo
        self.publisher = publisher

    async def store(self, payload: Mapping[str, Any]) -> Memory:
        """Store the memory of a `memory.store.request`; publish `memory.store.complete`.

        Raises:
            InvalidEntity: The payload is not a valid memory.
            TextTooLong: The content has more than 1,000,000 characters.
            UnknownUser: No user has the memory's user id.
            DuplicateId: Another user's memory has the same id.
        """
        memory = Memory.from_dict(payload)
        await self.memory_repo.save(memory)
        await self.publisher.publish(
            "memory.store.complete", {"memory_id": memory.id, "status": "success"}
        )
        return memory


class PreferenceService:
    """Sets preferences, and publishes an event for each."""

    def __init__(self, preferences_repo: PreferencesRepository, publisher: Publisher) -> None:
        self.preferences_repo = preferences_repo
        self.publisher = publisher

    async def set(self, user_id: str, preference_key: str, value: Any) -> None:
        """Set a preference; publish `user.preferences.changed`.

        Raises:
            UnknownUser: No user has that id.
            InvalidEntity: The value is not a JSON value, or the key is a field of
                `UserPreferences` and the value is not text.
        """
        await self.preferences_repo.set(user_id, preference_key, value)
        await self.publisher.publish(
            "user.preferences.changed",
            {"user_id": user_id, "preference_key": preference_key, "new_value": value},
        )
