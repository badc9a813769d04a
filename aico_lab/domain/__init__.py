"""The companion's domain: entities, the interfaces of their repositories, and services.

It uses the standard library only; import all of its public names from here.
"""

from aico_lab.domain.entities import (
    Conversation,
    Device,
    Memory,
    MemoryType,
    Relationship,
    SessionContext,
    User,
    UserPreferences,
)
from aico_lab.domain.interfaces import (
    ConversationRepository,
    DeviceRepository,
    MemoryIndex,
    MemoryRepository,
    PersonalityChangeRepository,
    PreferencesRepository,
    ProfileRepository,
    Publisher,
    RelationshipRepository,
    Responder,
    SessionCache,
    SystemStateRepository,
    UserRepository,
)
from aico_lab.domain.personality import PersonalityChange, Profile
from aico_lab.domain.services import (
    ConversationService,
    MemoryService,
    PreferenceService,
    UserOnboardingService,
    reflect,
)

__all__ = [
    "Conversation",
    "ConversationRepository",
    "ConversationService",
    "Device",
    "DeviceRepository",
    "Memory",
    "MemoryIndex",
    "MemoryRepository",
    "MemoryService",
    "MemoryType",
    "PersonalityChange",
    "PersonalityChangeRepository",
    "PreferenceService",
    "PreferencesRepository",
    "Profile",
    "ProfileRepository",
    "Publisher",
    "Relationship",
    "RelationshipRepository",
    "Responder",
    "SessionCache",
    "SessionContext",
    "SystemStateRepository",
    "User",
    "UserOnboardingService",
    "UserPreferences",
    "UserRepository",
    "reflect",
]
