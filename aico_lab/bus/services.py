"""The domain's services on the bus: what they store commits together with what they tell of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aico_lab.bus.outbox import Outbox
from aico_lab.domain.services import MemoryService, PreferenceService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aico_lab.bus.messages import HandlerRegistry, Message
    from aico_lab.dal import DataAccessLayer
    from aico_lab.domain.interfaces import MemoryRepository, PreferencesRepository


def store_memories(
    registry: HandlerRegistry, memory_repo: MemoryRepository, dal: DataAccessLayer
) -> None:
    """Subscribe to `memory.store.request`, whose payload is a memory.

    The memory and the event `memory.store.complete` (`memory_id`, `status`) commit together. A
    request that is refused leaves neither.

    Args:
        registry: Who subscribes.
        memory_repo: Stores memories through `dal`.
        dal: The primary database.
    """
    service = MemoryService(memory_repo, Outbox(dal))

    @registry.subscribe("memory.store.request", consumer="aico_lab.store_memories")
    async def handle_memory_storage(message: Message) -> None:
        async with dal.transaction():
            await service.store(message.payload)


def preference_setter(
    preferences_repo: PreferencesRepository, dal: DataAccessLayer
) -> Callable[[str, str, Any], Awaitable[None]]:
    """Give the function that sets a preference of a user: user id, key, value.

    The preference and the event `user.preferences.changed` (`user_id`, `preference_key`,
    `new_value`) commit together.

    Args:
        preferences_repo: Stores preferences through `dal`.
        dal: The primary database.
    """
    service = PreferenceService(preferences_repo, Outbox(dal))

    async def save_user_preference(user_id: str, preference_key: str, value: Any) -> None:
        async with dal.transaction():
            await service.set(user_id, preference_key, value)

    return save_user_preference
