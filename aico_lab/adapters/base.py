"""The interface of all adapters: open, close and probe connections to one database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from aico_lab.errors import AicoLabError


class Closable(Protocol):
    """A connection of any driver."""

    def close(self) -> None:
        """Release the connection's resources; a second call does nothing."""


ConnectionType = TypeVar("ConnectionType", bound=Closable)
Meanings = tuple[tuple[str, type["AicoLabError"], str], ...]
"""Parts of driver messages in lower case, each with an error class and the end of its sentence."""


class DatabaseAdapter(ABC, Generic[ConnectionType]):
    """Opens and closes connections to one database, and translates its driver's errors."""

    @abstractmethod
    def connect(self) -> ConnectionType:
        """Open a connection.

        Raises:
            StorageError: The database cannot be opened.
        """

    def disconnect(self, connection: ConnectionType) -> None:
        """Release a connection's resources; a second call does nothing."""
        connection.close()

    @abstractmethod
    def health(self, connection: ConnectionType) -> None:
        """Raise StorageError if the connection is closed, broken, or cannot answer."""


def by_words(text: str, where: str, meanings: Meanings) -> AicoLabError | None:
    """Return the error for the first entry that a driver's message contains, or None.

    Args:
        text: The driver's message.
        where: The name of the database for people, with which the sentence begins.
        meanings: The entries to look for, in this order.
    """
    lowered = text.lower()
    for words, kind, meaning in meanings:
        if words in lowered:
            return kind(f"{where} {meaning}.")
    return None
