"""A collection of vectors with their texts and metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aico_lab.errors import InvalidValue, UnstorableValue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import ArrayLike, NDArray

    Block = Callable[[], AbstractContextManager[Any]]

Metadata = dict[str, str | int | float | bool]

MAX_BATCH = 5461
"""The maximum number of entries in one call of Chroma."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The data stored with a vector."""

    id: str
    text: str | None
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Match:
    """An entry found by a query; `score` is the cosine similarity, -1 to 1."""

    id: str
    score: float
    text: str | None
    metadata: Metadata


class Collection:
    """A named set of vectors of one dimension, compared by cosine similarity."""

    def __init__(self, name: str, reading: Block, writing: Block) -> None:
        """Make a handle of a collection.

        Args:
            name: The collection's name.
            reading: A context manager that yields Chroma's own collection and maps its errors.
            writing: The same for a block that changes the collection.
        """
        self.name = name
        self._reading = reading
        self._writing = writing

    def upsert(
        self,
        ids: Sequence[str],
        vectors: ArrayLike,
        documents: Sequence[str] | None = None,
        metadatas: Sequence[Mapping[str, str | int | float | bool]] | None = None,
    ) -> None:
        """Add entries, or replace those that have the same id.

        Args:
            ids: Distinct ids.
            vectors: One vector for each id, as an array of shape (ids, dimension).
            documents: The text of each vector.
            metadatas: Values for each vector that `query` can filter by; none may be empty.

        Raises:
            UnstorableValue: A vector is zero or not finite, so it has no direction to compare.
            InvalidValue: The lengths differ, or an id is repeated.
        """
        array = _checked(vectors, len(ids))
        with self._writing() as driver:
            for start in range(0, len(ids), MAX_BATCH):
                part = slice(start, start + MAX_BATCH)
                driver.upsert(
                    ids=list(ids[part]),
                    embeddings=array[part],
                    documents=None if documents is None else list(documents[part]),
                    metadatas=None if metadatas is None else [dict(m) for m in metadatas[part]],
                )

    def add(self, ids: Sequence[str], vectors: ArrayLike) -> None:
        """Add vectors alone, without texts and metadata, which takes half the time of `upsert`.

        Args:
            ids: Distinct ids that are not in the collection.
            vectors: One vector for each id, as an array of shape (ids, dimension).

        Raises:
            UnstorableValue: A vector is zero or not finite, so it has no direction to compare.
            InvalidValue: The lengths differ, or the dimension is not the collection's.
        """
        array = _checked(vectors, len(ids))
        with self._writing() as driver:
            for start in range(0, len(ids), MAX_BATCH):
                part = slice(start, start + MAX_BATCH)
                driver.add(ids=list(ids[part]), embeddings=array[part])

    def ids(self) -> list[str]:
        """Return the ids of all entries."""
        with self._reading() as driver:
            return list(driver.get(include=[])["ids"])

    def documents(self) -> list[str | None]:
        """Return the texts of all entries."""
        with self._reading() as driver:
            return list(driver.get(include=["documents"])["documents"])

    def facts(self) -> Metadata:
        """Return the facts that the collection was made with."""
        with self._reading() as driver:
            return dict(driver.metadata or {})

    def delete(self, ids: Sequence[str]) -> None:
        """Remove entries; unknown ids are ignored.

        Their texts and vectors stay in Chroma's own files (chroma #3793, #7659) until
        `ChromaConnection.drop` or `clear`.
        """
        with self._writing() as driver:
            for start in range(0, len(ids), MAX_BATCH):
                driver.delete(ids=list(ids[start : start + MAX_BATCH]))

    def get(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Return the existing entries among these ids, by id."""
        found: dict[str, Entry] = {}
        with self._reading() as driver:
            for start in range(0, len(ids), MAX_BATCH):
                result = driver.get(
                    ids=list(ids[start : start + MAX_BATCH]), include=["documents", "metadatas"]
                )
                for id_, text, metadata in zip(
                    result["ids"], result["documents"], result["metadatas"], strict=True
                ):
                    found[id_] = Entry(id_, text, dict(metadata or {}))
        return found

    def metadata(self) -> dict[str, Metadata]:
        """Return the metadata of every entry, by id."""
        with self._reading() as driver:
            result = driver.get(include=["metadatas"])
        return {
            id_: dict(metadata or {})
            for id_, metadata in zip(result["ids"], result["metadatas"], strict=True)
        }

    def vectors(self, ids: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
        """Return the existing entries among these ids: their ids and vectors, in the same order.

        The vectors have shape (entries, dimension), or (0, 0) if there are none.
        """
        found: list[str] = []
        parts: list[NDArray[np.float32]] = []
        with self._reading() as driver:
            for start in range(0, len(ids), MAX_BATCH):
                result = driver.get(
                    ids=list(ids[start : start + MAX_BATCH]), include=["embeddings"]
                )
                if result["ids"]:
                    found += result["ids"]
                    parts.append(np.asarray(result["embeddings"], np.float32))
        return found, np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    def count(self) -> int:
        """Return the number of entries."""
        with self._reading() as driver:
            return int(driver.count())

    def query(
        self, vector: ArrayLike, k: int, where: Mapping[str, Any] | None = None
    ) -> list[Match]:
        """Return the nearest entries, nearest first, equal ones ordered by id.

        Args:
            vector: The vector to compare with, of the collection's dimension.
            k: The maximum number of entries.
            where: A condition on the metadata in Chroma's form, such as `{"user_id": "u"}`.

        Raises:
            InvalidValue: `k` is below 1, the vector has another dimension, or the condition is
                malformed.
            UnstorableValue: The vector is zero or not finite.
        """
        array = _checked(np.asarray(vector)[np.newaxis], 1)
        with self._reading() as driver:
            result = driver.query(
                query_embeddings=array,
                n_results=k,
                where=None if where is None else dict(where),
                include=["documents", "metadatas", "distances"],
            )
        columns = (result[column][0] for column in ("ids", "distances", "documents", "metadatas"))
        matches = [
            Match(id_, 1.0 - float(distance), text, dict(metadata or {}))
            for id_, distance, text, metadata in zip(*columns, strict=True)
        ]
        return sorted(matches, key=lambda match: (-match.score, match.id))


def _checked(vectors: ArrayLike, expected: int) -> NDArray[np.float32]:
    try:
        array = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidValue("Vectors must be numbers, all of one length.") from error
    if expected == 0 and array.size == 0:
        return array
    if array.ndim != 2 or len(array) != expected:  # noqa: PLR2004 - rows and columns
        raise InvalidValue(f"{expected} entries need as many vectors, not {len(array)}.")
    lengths = np.linalg.norm(array, axis=1)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise UnstorableValue("A vector is zero or not finite: leave out texts without words.")
    return array
