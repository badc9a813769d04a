"""Units of work: rows, change feed and events that commit in one transaction, or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Self

from aico_lab.dal.access import open_layer
from aico_lab.errors import WrongUse
from aico_lab.repositories import in_memory, libsql, outbox
from aico_lab.repositories.memories import LibSQLMemoryRepository

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from aico_lab.dal import DataAccessLayer
    from aico_lab.domain import (
        ConversationRepository,
        DeviceRepository,
        MemoryIndex,
        MemoryRepository,
        PersonalityChangeRepository,
        PreferencesRepository,
        ProfileRepository,
        RelationshipRepository,
        SystemStateRepository,
        UserRepository,
    )
    from aico_lab.repositories.in_memory import InMemoryDatabase


class AbstractUnitOfWork(ABC):
    """A transaction over all repositories; only `commit()` keeps its changes.

    ::

        async with UnitOfWork() as uow:
            user = await uow.users.get_by_id(user_id)
            memory = await uow.memories.create(content, user_id)
            await uow.commit()

    Without a commit, or after an exception, the block is rolled back. After the commit the unit of
    work is closed; make another one for more work. A unit of work inside another one of the same
    task is rolled back with the outer one. Other repositories on the same data access layer take
    part, too, when the same task uses them.
    """

    users: UserRepository
    preferences: PreferencesRepository
    relationships: RelationshipRepository
    conversations: ConversationRepository
    memories: MemoryRepository
    devices: DeviceRepository
    system_state: SystemStateRepository
    profiles: ProfileRepository
    personality_changes: PersonalityChangeRepository

    def __init__(self) -> None:
        self._transaction: AbstractAsyncContextManager[object] | None = None

    async def __aenter__(self) -> Self:
        if self._transaction is not None:
            raise WrongUse("This unit of work is open already: make another.")
        transaction = self._begin()
        await transaction.__aenter__()
        self._transaction = transaction
        vars(self).update(self._repositories())
        return self

    async def commit(self) -> None:
        """Commit all changes and close the unit of work.

        Raises:
            WrongUse: The unit of work is not open.
            StorageError: The commit failed; all changes are rolled back.
        """
        await self._close().__aexit__(None, None, None)

    async def publish(self, topic: str, payload: dict[str, Any]) -> None:
        """Add an event that is delivered if, and only if, this unit of work commits.

        Args:
            topic: The topic of the event.
            payload: The data of the event, a JSON object.

        Raises:
            InvalidTopic: The topic is malformed.
            InvalidEntity: The payload is not a JSON object.
            WrongUse: The unit of work is not open.
        """
        if self._transaction is None:
            raise WrongUse(_OVER)
        await self._enqueue(topic, payload)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._transaction is None:
            return  # it was committed
        transaction = self._close()
        if error is not None:
            await transaction.__aexit__(kind, error, traceback)
            return
        undone = _LeftWithoutCommitError()
        try:
            await transaction.__aexit__(type(undone), undone, None)
        except _LeftWithoutCommitError:
            return

    def __getattr__(self, name: str) -> Any:
        # Repositories are attributes only while the unit of work is open.
        raise WrongUse(_OVER) if name in REPOSITORIES else AttributeError(name)

    def _close(self) -> AbstractAsyncContextManager[object]:
        transaction = self._transaction
        if transaction is None:
            raise WrongUse(_OVER)
        self._transaction = None
        for name in REPOSITORIES:
            delattr(self, name)
        return transaction

    @abstractmethod
    def _begin(self) -> AbstractAsyncContextManager[object]:
        """Return a transaction that is not entered yet."""

    @abstractmethod
    def _repositories(self) -> dict[str, object]:
        """Return the repositories that take part, by attribute name."""

    @abstractmethod
    async def _enqueue(self, topic: str, payload: dict[str, Any]) -> None:
        """Add an event to the outbox."""


REPOSITORIES: Final = tuple(AbstractUnitOfWork.__annotations__)


class UnitOfWork(AbstractUnitOfWork):
    """A unit of work on libSQL."""

    def __init__(
        self, dal: DataAccessLayer | None = None, index: MemoryIndex | None = None
    ) -> None:
        """Make a unit of work; `async with` opens it.

        Args:
            dal: The primary database; None for the only open data access layer.
            index: Finds memories by meaning, such as `lab.memories.index`; needed by
                `memories.get_by_context` only.

        Raises:
            WrongUse: `dal` is None, and no or several data access layers are open.
        """
        super().__init__()
        self._dal = open_layer() if dal is None else dal
        self._index = index

    def _begin(self) -> AbstractAsyncContextManager[object]:
        return self._dal.transaction()

    def _repositories(self) -> dict[str, object]:
        return {
            "users": libsql.LibSQLUserRepository(self._dal),
            "preferences": libsql.LibSQLPreferencesRepository(self._dal),
            "relationships": libsql.LibSQLRelationshipRepository(self._dal),
            "conversations": libsql.LibSQLConversationRepository(self._dal),
            "memories": LibSQLMemoryRepository(self._dal, self._index),
            "devices": libsql.LibSQLDeviceRepository(self._dal),
            "system_state": libsql.LibSQLSystemStateRepository(self._dal),
            "profiles": libsql.LibSQLProfileRepository(self._dal),
            "personality_changes": libsql.LibSQLPersonalityChangeRepository(self._dal),
        }

    async def _enqueue(self, topic: str, payload: dict[str, Any]) -> None:
        await outbox.enqueue(self._dal, topic, payload)


class InMemoryUnitOfWork(AbstractUnitOfWork):
    """A unit of work in memory, for tests."""

    def __init__(self, database: InMemoryDatabase) -> None:
        super().__init__()
        self._database = database

    def _begin(self) -> AbstractAsyncContextManager[object]:
        return self._database.transaction()

    def _repositories(self) -> dict[str, object]:
        return {
            "users": in_memory.InMemoryUserRepository(self._database),
            "preferences": in_memory.InMemoryPreferencesRepository(self._database),
            "relationships": in_memory.InMemoryRelationshipRepository(self._database),
            "conversations": in_memory.InMemoryConversationRepository(self._database),
            "memories": in_memory.InMemoryMemoryRepository(self._database),
            "devices": in_memory.InMemoryDeviceRepository(self._database),
            "system_state": in_memory.InMemorySystemStateRepository(self._database),
            "profiles": in_memory.InMemoryProfileRepository(self._database),
            "personality_changes": in_memory.InMemoryPersonalityChangeRepository(self._database),
        }

    async def _enqueue(self, topic: str, payload: dict[str, Any]) -> None:
        self._database.tables.outbox.append(outbox.event(topic, payload))


class _LeftWithoutCommitError(Exception):
    """Makes a transaction roll back."""


_OVER: Final = "This unit of work is not open: use it inside `async with`, before its commit."
