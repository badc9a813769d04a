"""What every adapter does: open, close and probe connections to one database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from aico_lab.errors import AicoLabError


class Closable(Protocol):
    """What a connection is, whatever the driver."""

    def close(self) -> None:
        """Release what it holds; a second call does nothing."""


ConnectionType = TypeVar("ConnectionType", bound=Closable)
Meanings = tuple[tuple[str, type["AicoLabError"], str], ...]
"""Words of a driver, in lower case, with our error for them and how its sentence goes on."""


class DatabaseAdapter(ABC, Generic[ConnectionType]):
    """Opens and closes connections to one database, and translates its driver's errors."""

    @abstractmethod
    def connect(self) -> ConnectionType:
        """Open a connection.

        Raises:
            StorageError: The database cannot be opened.
        """

    def disconnect(self, connection: ConnectionType) -> None:
        """Release what a connection holds; a second call does nothing."""
        connection.close()

    @abstractmethod
    def health(self, connection: ConnectionType) -> None:
        """Do nothing if the connection can be used.

        Raises:
            StorageError: It cannot.
        """


def by_words(text: str, where: str, meanings: Meanings) -> AicoLabError | None:
    """Give our error for the first words that are in a driver's message, or None.

    Args:
        text: What the driver said.
        where: The database, as a person knows it: the beginning of the sentence.
        meanings: The words to look for, in this order.
    """
    lowered = text.lower()
    for words, kind, meaning in meanings:
        if words in lowered:
            return kind(f"{where} {meaning}.")
    return None
