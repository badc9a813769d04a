"""What every adapter does: open, close and probe connections to one database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

ConnectionType = TypeVar("ConnectionType")


class DatabaseAdapter(ABC, Generic[ConnectionType]):
    """Opens and closes connections to one database, and translates its driver's errors."""

    @abstractmethod
    def connect(self) -> ConnectionType:
        """Open a connection.

        Raises:
            StorageError: The database cannot be opened.
        """

    @abstractmethod
    def disconnect(self, connection: ConnectionType) -> None:
        """Release what a connection holds; a second call does nothing."""

    @abstractmethod
    def health(self, connection: ConnectionType) -> None:
        """Do nothing if the connection can be used.

        Raises:
            StorageError: It cannot.
        """
