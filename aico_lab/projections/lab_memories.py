"""The memories of a lab, `lab.memories`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from aico_lab.home.files import private_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.cache.typed import CacheStore
    from aico_lab.embeddings.index import VectorIndex
    from aico_lab.storage import Storage


class Memories:
    """Opens the vector index of memories on first use; the lab closes it."""

    def __init__(self, storage: Storage, held: Callable[[], CacheStore | None]) -> None:
        """Use a home.

        Args:
            storage: The opened databases.
            held: Returns the cache if this process has it open, else None.
        """
        self._storage = storage
        self._held = held

    @cached_property
    @private_files()
    def index(self) -> VectorIndex:
        """The vector index, which finds by meaning whatever is committed."""
        from aico_lab.embeddings.home_model import open_home_encoder
        from aico_lab.embeddings.index import open_index
        from aico_lab.projections.query_vectors import QueryEncoder

        storage = self._storage
        encoder = QueryEncoder(open_home_encoder(storage.primary), self._held)
        return storage.keep_open(
            open_index(storage.open_primary, storage.home, storage.keys, encoder)
        )

    def __repr__(self) -> str:
        return "<Memories: .index finds them by meaning>"
