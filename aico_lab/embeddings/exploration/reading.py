"""Read the passages, vectors and explorations of a home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aico_lab.embeddings.exploration import stored, tables
from aico_lab.embeddings.exploration.passages import ExploredPassages, read_passages
from aico_lab.embeddings.exploration.selection import Selection, select
from aico_lab.errors import NeverExplored

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from aico_lab.embeddings.encoders import Encoder
    from aico_lab.embeddings.exploration.clusters import Vectors
    from aico_lab.embeddings.exploration.stored import Exploration
    from aico_lab.storage import Storage

    Progress = Callable[[str, int, int | None], None]

LEFT: Final = 0.5
"""An exploration of whose passages a smaller share is left unchanged is not shown any more."""

GONE: Final = (
    "Most of the explored passages are gone or have changed: call "
    "lab.embeddings.explore(renew=True) to find the themes of the present ones."
)


class PassageReader:
    """Reads what the methods of `lab.embeddings` explore and show."""

    _storage: Storage

    def _exploration(self, exploration_id: str | None) -> Exploration:
        """Return a stored exploration, by default the current one."""
        primary = self._storage.primary
        return stored.read(primary, exploration_id or stored.find(primary))

    def _encoder(self, model: str | None) -> Encoder:
        """Return the encoder of a model; by default that of the home's model."""
        from aico_lab.embeddings.home_model import open_home_encoder

        return open_home_encoder(self._storage.primary, model)

    def _encoder_of(self, found: Exploration) -> Encoder:
        """Return the encoder with which an exploration was made."""
        from aico_lab.embeddings.home_model import reopen_encoder

        return reopen_encoder(self._storage.primary, found.model)

    def _passages(
        self, encoder: Encoder, progress: Progress | None = None
    ) -> tuple[ExploredPassages, Vectors]:
        """Return the passages that have a vector, and their vectors.

        Raises:
            NeverExplored: There are no passages.
        """
        from aico_lab.embeddings.stored_vectors import StoredVectors

        primary = self._storage.primary
        passages = read_passages(primary)
        told = None if progress is None else lambda done, total: progress("texts", done, total)
        vectors, usable = StoredVectors(primary, encoder).of(passages.texts, told)
        if not all(usable):
            passages = passages.only([at for at, use in enumerate(usable) if use])
        if not len(passages):
            raise NeverExplored(
                "There are no passages: import messages, and call lab.embeddings.update() first."
            )
        return passages, vectors

    def _select(self, passages: ExploredPassages, **filters: Any) -> Selection:
        """Return the passages that filters choose; see `selection.select`."""
        return select(self._storage.primary, self._storage.timezone, passages, **filters)

    def _explored(
        self, exploration_id: str | None, **filters: Any
    ) -> tuple[Exploration, pl.DataFrame, Selection]:
        """Return a stored exploration, its passages that filters choose, and the selection."""
        found = self._exploration(exploration_id)
        return found, *self._rows(found, **filters)

    def _rows(
        self, found: Exploration, passages: ExploredPassages | None = None, **filters: Any
    ) -> tuple[pl.DataFrame, Selection]:
        """Return the explored passages that filters choose, and the selection.

        Raises:
            NeverExplored: Most of the explored passages are gone.
        """
        if passages is None:
            passages = read_passages(self._storage.primary)
        if found.places["segment_id"].is_in(passages.ids).sum() < LEFT * found.explored:
            raise NeverExplored(GONE)
        chosen = self._select(passages, **filters)
        return tables.of_passages(found, chosen.passages, self._storage.timezone), chosen
