"""The memories of a lab, `lab.memories`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from aico_lab.home.files import private_files

if TYPE_CHECKING:
    from aico_lab.embeddings.index import VectorIndex
    from aico_lab.storage import Storage


class Memories:
    """Opens the vector index of memories on first use; the lab closes it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @cached_property
    @private_files()
    def index(self) -> VectorIndex:
        """The vector index, which finds memories by meaning as of the last sync."""
        from aico_lab.projections.vectors import open_index

        self._storage.check_open()
        return self._storage.keep_open(open_index(self._storage.home, self._storage.keys))

    def __repr__(self) -> str:
        return "<Memories: .index finds them by meaning>"
