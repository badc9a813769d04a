"""Finding memories by meaning, in what was projected last."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from aico_lab.adapters.chroma import ChromaDBAdapter
    from aico_lab.adapters.chroma_store import Connection
    from aico_lab.embeddings.encoder import Encoder

MEMORIES = "memories"
"""The collection of the memories."""

MARGIN = 4
"""How many times as many memories of everybody are looked at to find enough of one person."""


class VectorIndex:
    """Reads the vectors beside whoever writes them; it may be shared between threads.

    What is sealed later is seen by the next query. Until `close`, an opened copy of the vectors
    lies in the private folder of `aico_lab.adapters.sealed`.
    """

    def __init__(self, adapter: ChromaDBAdapter, encoder: Encoder) -> None:
        """Remember where to look.

        Args:
            adapter: Read-only.
            encoder: The one that the projection used.
        """
        self._adapter = adapter
        self._encoder = encoder
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._version: tuple[int, int, int] | None = None

    def query(self, text: str, limit: int, user_id: str | None = None) -> list[tuple[str, float]]:
        """Give the ids of the nearest memories with their cosine similarity, nearest first.

        Args:
            text: What they should be about; a blank one is about nothing.
            limit: How many, at most.
            user_id: Only this person's.
        """
        with self._lock:
            connection = self._current()
            vectors, _ = self._encoder.encode_usable([text])
            if connection is None or not len(vectors):
                return []
            memories = connection.collection(MEMORIES)
            matches = memories.query(vectors[0], limit if user_id is None else limit * MARGIN)
            if user_id is not None:
                # Chroma takes ten times as long with a condition that most entries fulfil, as in a
                # home of one person: look among everybody's first.
                matches = [one for one in matches if one.metadata["user_id"] == user_id][:limit]
                if len(matches) < limit:
                    matches = memories.query(vectors[0], limit, {"user_id": user_id})
            return [(match.id, match.score) for match in matches]

    def count(self) -> int:
        """Give the number of memories that can be found."""
        with self._lock:
            connection = self._current()
            return 0 if connection is None else connection.collection(MEMORIES).count()

    def close(self) -> None:
        """Remove the opened copy; the next query would open it again."""
        with self._lock:
            self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _current(self) -> Connection | None:
        version = self._adapter.version()
        if version != self._version:
            self._forget()
            if version is not None:
                self._connection = self._adapter.connect()
            self._version = version
        return self._connection

    def _forget(self) -> None:
        connection, self._connection, self._version = self._connection, None, None
        if connection is not None:
            connection.close()
