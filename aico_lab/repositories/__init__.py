"""Repositories of the domain's entities: on libSQL with a vector index, or in memory."""

from aico_lab.repositories.cached import (
    CachedPreferencesRepository,
    CachedSessions,
    CachedUserRepository,
)
from aico_lab.repositories.full_text import empty_index
from aico_lab.repositories.in_memory import (
    InMemoryConversationRepository,
    InMemoryDatabase,
    InMemoryDeviceRepository,
    InMemoryMemoryRepository,
    InMemoryPersonalityChangeRepository,
    InMemoryPreferencesRepository,
    InMemoryProfileRepository,
    InMemoryRelationshipRepository,
    InMemorySystemStateRepository,
    InMemoryUserRepository,
)
from aico_lab.repositories.libsql import (
    LibSQLConversationRepository,
    LibSQLDeviceRepository,
    LibSQLPersonalityChangeRepository,
    LibSQLPreferencesRepository,
    LibSQLProfileRepository,
    LibSQLRelationshipRepository,
    LibSQLSystemStateRepository,
    LibSQLUserRepository,
)
from aico_lab.repositories.memories import ChromaDBMemoryRepository, LibSQLMemoryRepository
from aico_lab.repositories.unit_of_work import InMemoryUnitOfWork, UnitOfWork

__all__ = [
    "CachedPreferencesRepository",
    "CachedSessions",
    "CachedUserRepository",
    "ChromaDBMemoryRepository",
    "InMemoryConversationRepository",
    "InMemoryDatabase",
    "InMemoryDeviceRepository",
    "InMemoryMemoryRepository",
    "InMemoryPersonalityChangeRepository",
    "InMemoryPreferencesRepository",
    "InMemoryProfileRepository",
    "InMemoryRelationshipRepository",
    "InMemorySystemStateRepository",
    "InMemoryUnitOfWork",
    "InMemoryUserRepository",
    "LibSQLConversationRepository",
    "LibSQLDeviceRepository",
    "LibSQLMemoryRepository",
    "LibSQLPersonalityChangeRepository",
    "LibSQLPreferencesRepository",
    "LibSQLProfileRepository",
    "LibSQLRelationshipRepository",
    "LibSQLSystemStateRepository",
    "LibSQLUserRepository",
    "UnitOfWork",
    "empty_index",
]
