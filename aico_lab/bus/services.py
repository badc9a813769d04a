"""The domain's services on the bus: rows and the events about them commit together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aico_lab.domain.services import MemoryService, PreferenceService
from aico_lab.repositories.unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from aico_lab.bus.messages import BusMessage, HandlerRegistry
    from aico_lab.dal import DataAccessLayer


def store_memories(registry: HandlerRegistry, dal: DataAccessLayer) -> None:
    """Subscribe a handler to `memory.store.request`, whose payload is a memory.

    The memory and the event `memory.store.complete` (`memory_id`, `status`) commit together; a
    refused request stores neither.

    Args:
        registry: The registry that the handler is added to.
        dal: The primary database.
    """

    @registry.subscribe("memory.store.request", consumer="aico_lab.store_memories")
    async def handle_memory_storage(message: BusMessage) -> None:
        async with UnitOfWork(dal) as uow:
            await MemoryService(uow.memories, uow).store(message.payload)
            await uow.commit()


async def save_user_preference(
    dal: DataAccessLayer, user_id: str, preference_key: str, value: Any
) -> None:
    """Set a preference of a user.

    The preference and the event `user.preferences.changed` (`user_id`, `preference_key`,
    `new_value`) commit together.

    Args:
        dal: The primary database.
        user_id: The user.
        preference_key: The name of the preference.
        value: A JSON value.

    Raises:
        UnknownUser: No user has that id.
        InvalidEntity: The value is not a JSON value, or the key is a field of `UserPreferences` and
            the value is not text.
    """
    async with UnitOfWork(dal) as uow:
        await PreferenceService(uow.preferences, uow).set(user_id, preference_key, value)
        await uow.commit()
