"""The distinct texts of a collection in memory, with the items that have them and their vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray

    from aico_lab.embeddings.encoders.base import Vectors
    from aico_lab.schema import feed

    Keep = Callable[[Sequence[str]], Collection[str]]
    Rows = NDArray[np.intp]

FEWEST = 16
"""The minimum number of texts whose items are examined at a time."""

GROWTH = 4
"""The items that are examined next are at most this many times those before."""


class Found(NamedTuple):
    """An item that a search found.

    Attributes:
        item_id: The id of the segment, memory or chunk.
        score: The higher, the better: of a search by meaning the cosine similarity (-1 to 1), by
            words BM25, by both the sum of reciprocal ranks.
    """

    item_id: str
    score: float


class KnownTexts:
    """The distinct texts of a collection, each with a row of its own.

    Attributes:
        collection: The collection.
        cursor: The position in the change feed up to which the texts are current.
        version: A number that grows with each change.
        keys: The hash of the text of each row.
        row_of: The row of each hash.
        holders: The items that have the text of each row; empty if none has it any more.
        key_of: The hash of the text of each item.
        matrix: The vectors of the first `filled` rows, and room for more, of shape (rows,
            dimensions); None if not read yet.
        filled: The number of rows whose vectors were read.
        learnt: Vectors of rows that the matrix lacks, by hash.
        blank: The hashes of texts that have no vector, as they have no words.
        unindexed: The items that the table `text_index` should have, and has not.
        unstored: The hashes of texts whose vector is not stored, or was damaged.
        unknown: The hashes of those that were not encoded anew either, as they are too many.
    """

    def __init__(self, collection: str, cursor: feed.Cursor) -> None:
        self.collection = collection
        self.cursor = cursor
        self.version = 0
        self._rows: tuple[int, Rows] = (-1, np.empty(0, int))
        self.keys: list[bytes] = []
        self.row_of: dict[bytes, int] = {}
        self.holders: list[set[str]] = []
        self.key_of: dict[str, bytes] = {}
        self.matrix: Vectors | None = None
        self.filled = 0
        self.blank: set[bytes] = set()
        self.unindexed: set[str] = set()
        self.unstored: set[bytes] = set()
        self.unknown: set[bytes] = set()
        self.learnt: dict[bytes, Vectors] = {}

    def put(self, item_id: str, key: bytes) -> None:
        """Add an item whose text has a hash."""
        row = self.row_of.get(key)
        if row is None:
            row = self.row_of[key] = len(self.keys)
            self.keys.append(key)
            self.holders.append(set())
        self.holders[row].add(item_id)
        self.key_of[item_id] = key
        self.version += 1

    def drop(self, item_id: str) -> None:
        """Remove an item, if it exists; its text keeps its row."""
        key = self.key_of.pop(item_id, None)
        if key is not None:
            self.holders[self.row_of[key]].discard(item_id)
            self.version += 1

    def learn(self, key: bytes, vector: Vectors) -> None:
        """Keep the vector of a text until the matrix has it."""
        self.learnt[key] = vector

    def holders_of(self, key: bytes) -> set[str]:
        """Return the items that have a text."""
        row = self.row_of.get(key)
        return set() if row is None else self.holders[row]

    def rows_of(self, among: AbstractSet[str] | None) -> Rows:
        """Return the rows of the texts of some items, or of all, in order."""
        if among is None:
            if self._rows[0] != self.version:
                rows = np.array([row for row, ids in enumerate(self.holders) if ids], int)
                self._rows = self.version, rows
            return self._rows[1]
        return np.array(
            sorted({self.row_of[self.key_of[id_]] for id_ in among if id_ in self.key_of}), int
        )

    def best(
        self,
        rows: Rows,
        scores: Vectors,
        limit: int,
        among: AbstractSet[str] | None,
        keep: Keep | None,
    ) -> list[Found]:
        """Return the items with the highest scores, equally good ones ordered by id.

        Args:
            rows: Rows of texts.
            scores: The score of each of these rows; NaN for none.
            limit: The maximum number of items.
            among: Only these items; None for all.
            keep: Returns those of the given items that may be found; None for all.
        """
        found: list[Found] = []
        usable = np.flatnonzero(~np.isnan(scores))
        done, size = 0, max(limit, FEWEST)
        while done < len(usable):
            places = _ranked(scores, usable, done, done + size)
            if len(found) >= limit and scores[places[0]] < found[limit - 1].score:
                break
            items = [
                Found(item_id, float(scores[place]))
                for place in places
                for item_id in self.holders[rows[place]]
                if among is None or item_id in among
            ]
            if keep is not None:
                kept = set(keep([item.item_id for item in items]))
                items = [item for item in items if item.item_id in kept]
            found = sorted((*found, *items), key=lambda one: (-one.score, one.item_id))
            done += len(places)
            size = max(FEWEST, next_part(limit, len(found), done))
        return found[:limit]


def next_part(wanted: int, found: int, examined: int) -> int:
    """Return the number of items to examine next if as many of them pass as before.

    Args:
        wanted: The number of items that are wanted.
        found: The number of those that were found.
        examined: The number of items that were examined.
    """
    return min((wanted - found) * (examined + 1) // (found + 1) + 1, GROWTH * examined)


def _ranked(scores: Vectors, usable: Rows, start: int, end: int) -> Rows:
    """Return the positions of the scores with some ranks, the highest first.

    Args:
        scores: The scores.
        usable: The positions of those that are a number.
        start: The first rank, from 0.
        end: The rank after the last one.
    """
    if end < len(usable):
        order = np.argpartition(-scores[usable], end)[:end]
    else:
        order = np.arange(len(usable))
    order = order[np.argsort(-scores[usable][order], kind="stable")]
    return usable[order[start:end]]
