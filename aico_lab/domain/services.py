"""What the companion does, in terms of repositories; nothing here knows a database.

Each service works on the repositories that it is given. Those of one unit of work make everything
that a service does one transaction; others commit step by step, and what was committed before an
error stays.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aico_lab.domain import values
from aico_lab.domain.entities import Conversation, Memory, MemoryType, User, UserPreferences
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
        UserRepository,
    )

CONTEXT_MEMORIES = 5
"""How many memories an answer may draw on."""


async def reflect(message: str, memories: Sequence[Memory]) -> str:  # noqa: ARG001 - a Responder
    """Answer without a language model: say so, and give back what is remembered."""
    if not memories:
        return "I have no language model to answer with, and remember nothing about this."
    remembered = "; ".join(memory.content for memory in memories)
    answer = f"I have no language model to answer with, but I remember: {remembered}"
    return answer if len(answer) <= values.MAX_TEXT else answer[: values.MAX_TEXT - 1] + "…"


class ConversationService:
    """Keeps a conversation between a person and the companion going."""

    def __init__(
        self,
        conversation_repo: ConversationRepository,
        memory_repo: MemoryRepository,
        *,
        responder: Responder = reflect,
    ) -> None:
        self.conversation_repo = conversation_repo
        self.memory_repo = memory_repo
        self.responder = responder

    async def process_user_message(self, user_id: str, message: str) -> str:
        """Store what a person said, answer it from the person's memories, store the answer.

        Where the responder fails, the person's message is stored all the same, unless this happens
        inside a unit of work: that undoes both, and keeps every other writer waiting while the
        responder thinks. So a slow responder belongs outside of one.

        Returns:
            The answer; the time that it took is stored with it.

        Raises:
            UnknownUser: Nobody has that user id.
            InvalidEntity: The message, or the answer, cannot be stored.
            TextTooLong: One of them is longer than can be kept.
        """
        started = time.monotonic()
        await self.conversation_repo.save(Conversation(user_id, message, values.now()))
        memories = await memories_of(
            self.memory_repo.get_by_context, message, CONTEXT_MEMORIES, user_id
        )
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


class UserOnboardingService:
    """Welcomes people."""

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
        """Create a person, a first memory of them, and a welcome.

        Args:
            user_data: `name`, and optionally `language`, `style` and `privacy`.

        Raises:
            InvalidEntity: There is no name, or a value is no text.
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
        # Only now, so that nothing is stored where any of the three is refused.
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
    """Stores memories on request, and says so."""

    def __init__(self, memory_repo: MemoryRepository, publisher: Publisher) -> None:
        self.memory_repo = memory_repo
        self.publisher = publisher

    async def store(self, payload: Mapping[str, Any]) -> Memory:
        """Store the memory of a `memory.store.request`; publish `memory.store.complete`.

        Raises:
            InvalidEntity: The payload is no memory.
            TextTooLong: Its content is longer than can be kept.
            UnknownUser: Nobody has its user id.
            DuplicateId: Somebody else's memory has its id.
        """
        memory = Memory.from_dict(payload)
        await self.memory_repo.save(memory)
        await self.publisher.publish(
            "memory.store.complete", {"memory_id": memory.id, "status": "success"}
        )
        return memory


class PreferenceService:
    """Sets preferences, and says so."""

    def __init__(self, preferences_repo: PreferencesRepository, publisher: Publisher) -> None:
        self.preferences_repo = preferences_repo
        self.publisher = publisher

    async def set(self, user_id: str, preference_key: str, value: Any) -> None:
        """Set a preference; publish `user.preferences.changed`.

        Raises:
            UnknownUser: Nobody has that user id.
            InvalidEntity: The value is none that JSON knows, or one of `UserPreferences` and no
                text.
        """
        await self.preferences_repo.set(user_id, preference_key, value)
        await self.publisher.publish(
            "user.preferences.changed",
            {"user_id": user_id, "preference_key": preference_key, "new_value": value},
        )
