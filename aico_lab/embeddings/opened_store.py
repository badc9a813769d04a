"""An opened copy of the vector store, which searches ask if a collection has many texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.embeddings.segment_words import REMEDY
from aico_lab.errors import NotADatabase, StorageError

if TYPE_CHECKING:
    from aico_lab.adapters.chroma import ChromaDBAdapter
    from aico_lab.adapters.chroma_collection import Collection
    from aico_lab.adapters.chroma_store import ChromaConnection
    from aico_lab.embeddings.known_texts import KnownTexts, Rows

LAYOUT: Final = "vectors by text"
"""The key, in the store's state, of its model, cursor and numbers of deleted vectors.

A store without this key has another layout, and is rebuilt.
"""


class StoreEntries:
    """The texts that a collection of Chroma has, and those that it lacks.

    Attributes:
        collection: The collection.
        keys: The hashes of the texts that it has.
        compared_at: The texts, and their version, for which `lacked` was computed; None before.
        lacked: The rows of those texts that the collection does not have.
    """

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.keys = {bytes.fromhex(id_) for id_ in collection.ids()}
        self.compared_at: tuple[KnownTexts, int] | None = None
        self.lacked: Rows = np.empty(0, int)


class OpenedStore:
    """An opened copy of the vector store.

    Raises:
        StorageError: The store cannot be opened, or has another layout or model.
    """

    def __init__(self, adapter: ChromaDBAdapter, model: str) -> None:
        self.version = adapter.version()
        self._connection: ChromaConnection = adapter.connect()
        self._entries: dict[str, StoreEntries] = {}
        try:
            state = (self._connection.state or {}).get(LAYOUT)
            if state is None or state["model"] != model:
                raise NotADatabase(f"The vector store has no vectors of {model}: {REMEDY}.")
            self._deleted: dict[str, int] = state["deleted"]
            self._names = set(self._connection.names())
            self._connection.widen()
        except BaseException:
            self.close()
            raise

    def has(self, collection: str) -> bool:
        """Return whether there is a collection of that name."""
        return collection in self._names

    def deleted(self, collection: str) -> int:
        """Return the number of deleted vectors that are still in the files of a collection."""
        return self._deleted.get(collection, 0)

    def entries(self, collection: str) -> StoreEntries:
        """Return the entries of a collection; raise StorageError if the store does not have it."""
        if not self.has(collection):
            raise StorageError(f"The vector store has no {collection}: {REMEDY}.")
        if collection not in self._entries:
            self._entries[collection] = StoreEntries(self._connection.collection(collection))
        return self._entries[collection]

    def close(self) -> None:
        """Remove the opened copy."""
        self._connection.close()
