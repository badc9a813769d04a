"""Find memories by meaning in the vectors of the last projection.

Up to `COMPARED` texts a query compares all vectors, which is exact: 10,000 take about 2 ms. With
more texts it uses Chroma's approximate index, but still compares all vectors of a person who has at
most `COMPARED` texts.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from aico_lab.embeddings import texts
from aico_lab.embeddings.texts import COLLECTION, Holder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from aico_lab.adapters.chroma import ChromaDBAdapter
    from aico_lab.adapters.chroma_collection import Collection
    from aico_lab.adapters.chroma_store import ChromaConnection
    from aico_lab.embeddings.encoders import Encoder

    Vectors = NDArray[np.float32]

COMPARED = 50_000
"""The maximum number of vectors compared one by one: 50 MB, read once after each change."""

NEAREST, SAMPLE = 5, 50
"""The number of neighbours per text, and of texts, in an audit."""

EQUAL = 1e-5
"""Scores that differ by less than this are equal up to rounding."""


@dataclass(frozen=True, slots=True)
class Audit:
    """The recall of the search for nearest texts.

    Attributes:
        texts: The number of distinct texts of all memories.
        queries: The number of texts whose neighbours were searched.
        recall: The share of their true nearest texts that was found, 0 to 1; 1 without texts.
        exact: Whether queries compare every vector.
    """

    texts: int
    queries: int
    recall: float
    exact: bool


class VectorIndex:
    """Searches the vectors beside a writer; it may be used by several threads at the same time.

    Each query sees the vectors that were sealed last. Until `close`, an opened copy of the vectors
    is in the private folder of `aico_lab.adapters.sealed`.
    """

    def __init__(self, adapter: ChromaDBAdapter, encoder: Encoder) -> None:
        """Make an index; the first query opens the vectors.

        Args:
            adapter: A read-only adapter.
            encoder: The encoder that the projection used.
        """
        self._adapter = adapter
        self._encoder = encoder
        self._lock = threading.Lock()
        self._connection: ChromaConnection | None = None
        self._texts: _Texts | None = None
        self._version: tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        return "<VectorIndex: .query(TEXT, LIMIT) returns ids of the nearest memories, and scores>"

    def query(self, text: str, limit: int, user_id: str | None = None) -> list[tuple[str, float]]:
        """Return the ids of the nearest memories with their cosine similarity, nearest first.

        Equally near memories are ordered by id.

        Args:
            text: The text to compare with; nothing is found for a blank text.
            limit: The maximum number of memories.
            user_id: Only memories of this person; None for those of all.
        """
        with self._lock:
            known = self._current()
            vectors, _ = self._encoder.encode_usable([text])
            if known is None or not len(vectors) or limit < 1:
                return []
            found = [
                (memory_id, score)
                for row, score in known.nearest(vectors[0], limit, user_id)
                for memory_id, owner in known.holders[row]
                if user_id in (None, owner)
            ]
            return sorted(found, key=lambda one: (-one[1], one[0]))[:limit]

    def count(self) -> int:
        """Return the number of memories that can be found."""
        with self._lock:
            known = self._current()
            return 0 if known is None else sum(map(len, known.holders))

    def audit(self) -> Audit:
        """Search the neighbours of a sample of the texts, and compare with an exact search."""
        with self._lock:
            known = self._current()
            if known is None or not known.ids:
                return Audit(0, 0, 1.0, exact=True)
            step = -(-len(known.ids) // SAMPLE)
            _, sample = known.collection.vectors(known.ids[::step])
            best = known.best_scores(sample, NEAREST)
            found = 0
            for vector, scores in zip(sample, best, strict=True):
                given = [score for _, score in known.nearest(vector, len(scores), None)]
                found += sum(score >= scores[-1] - EQUAL for score in given)
            exact = len(known.ids) <= COMPARED
            return Audit(len(known.ids), len(sample), found / best.size, exact)

    def close(self) -> None:
        """Remove the opened copy; another query would open it again."""
        with self._lock:
            self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _current(self) -> _Texts | None:
        version = self._adapter.version()
        if version != self._version:
            self._forget()
            if version is not None:
                self._connection = self._adapter.connect()
                self._texts = _Texts(self._connection.collection(COLLECTION))
            self._version = version
        return self._texts

    def _forget(self) -> None:
        connection, self._connection = self._connection, None
        self._texts, self._version = None, None
        if connection is not None:
            connection.close()


class _Texts:
    """The texts of a store, by row: the memories that have each, and its vector on demand."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        metadata = collection.metadata()
        self.ids = list(metadata)
        self.holders: list[list[Holder]] = [
            texts.holders_of(id_, found) for id_, found in metadata.items()
        ]
        self._row_of = {id_: row for row, id_ in enumerate(self.ids)}
        self._rows_of: dict[str, list[int]] = {}  # by person
        for row, holders in enumerate(self.holders):
            for user_id in {user_id for _, user_id in holders}:
                self._rows_of.setdefault(user_id, []).append(row)
        self._vectors: dict[str | None, Vectors] = {}  # by person; None for those of all

    def nearest(self, vector: Vectors, limit: int, user_id: str | None) -> list[tuple[int, float]]:
        """Return the rows of the nearest texts, of one person or of all, with their scores."""
        rows: Sequence[int] = range(len(self.ids))
        if user_id is not None:
            rows = self._rows_of.get(user_id, [])
        if not rows:
            return []
        if len(self.ids) <= COMPARED:  # all are in memory, including those of the person
            scores = _compare(self._read(None, range(len(self.ids))), vector)
            return _largest(rows, scores if user_id is None else scores[rows], limit)
        if len(rows) <= COMPARED:
            return _largest(rows, _compare(self._read(user_id, rows), vector), limit)
        return self._approximate(vector, limit, user_id)

    def best_scores(self, vectors: Vectors, k: int) -> Vectors:
        """Return the highest scores of each vector among all texts, highest first.

        The array has shape (vectors, `k`), or fewer columns if there are fewer texts. The vectors
        of the texts are read in parts and not kept.
        """
        best = np.empty((len(vectors), 0), np.float32)
        for start in range(0, len(self.ids), COMPARED):
            _, part = self.collection.vectors(self.ids[start : start + COMPARED])
            best = -np.sort(-np.hstack([best, vectors @ part.T]), axis=1)[:, :k]
        return best

    def _approximate(
        self, vector: Vectors, limit: int, user_id: str | None
    ) -> list[tuple[int, float]]:
        """Query Chroma's index for ever more texts, until enough of them are the person's."""
        asked = limit
        while True:
            matches = self.collection.query(vector, asked)
            found = [(self._row_of[match.id], match.score) for match in matches]
            if user_id is not None:
                found = [
                    (row, score)
                    for row, score in found
                    if any(owner == user_id for _, owner in self.holders[row])
                ]
            if len(found) >= limit or len(matches) < asked or asked >= len(self.ids):
                return found[:limit]
            asked *= 4

    def _read(self, user_id: str | None, rows: Sequence[int]) -> Vectors:
        if user_id not in self._vectors:
            if sum(map(len, self._vectors.values())) + len(rows) > COMPARED:
                self._vectors.clear()
            ids, vectors = self.collection.vectors([self.ids[row] for row in rows])
            at = {id_: place for place, id_ in enumerate(ids)}
            order = [at[self.ids[row]] for row in rows]
            self._vectors[user_id] = vectors[order]
        return self._vectors[user_id]


def _compare(vectors: Vectors, vector: Vectors) -> Vectors:
    """Return the dot product of each of the vectors with one vector, in this thread alone.

    Synchronising the threads of a matrix product on a busy machine takes longer than this does.
    """
    scores: Vectors = np.einsum("ij,j->i", vectors, vector)
    return scores


def _largest(rows: Sequence[int], scores: Vectors, limit: int) -> list[tuple[int, float]]:
    if limit < len(scores):
        places = np.argpartition(-scores, limit - 1)[:limit]
    else:
        places = np.arange(len(scores))
    return [(rows[place], float(scores[place])) for place in places[np.argsort(-scores[places])]]
