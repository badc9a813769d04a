"""Measure the recall of searches, and check the files of the vector store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.embeddings import texts
from aico_lab.embeddings.segment_words import REMEDY
from aico_lab.embeddings.text_index import REPAIR
from aico_lab.errors import AicoLabError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from aico_lab.embeddings.encoders.base import Vectors
    from aico_lab.embeddings.index import VectorIndex

NEAREST: Final = 10
"""The number of nearest texts that a search should find."""

SAMPLE: Final = 50
"""The maximum number of texts whose sentences are searched for."""

SHORTEST: Final = 20
"""The minimum number of characters of these sentences."""

_SENTENCE_ENDS: Final = re.compile(r"(?<=[.!?…\u3002\uff01\uff1f])\s+|\n+")

FILTERED: Final = 7
"""The search under filters may find only one item of this many."""

EQUAL: Final = 1e-5
"""Scores that differ by less than this are equal up to rounding."""

RECALL: Final = 0.95
"""The recall below which a search is a fault."""


@dataclass(frozen=True, slots=True)
class CollectionAudit:
    """The state of a collection.

    Attributes:
        collection: Its name.
        items: The number of segments, memories or chunks that can be found.
        texts: The number of their distinct texts.
        damaged: The number of texts that are not indexed, or have no readable vector.
        lacking: The number of those that a search does not even encode anew, so that it does not
            find them.
        approximate: Whether a search without filters asks Chroma instead of comparing all vectors.
        recall: The share of the 10 nearest texts that a search for a sentence finds, 0 to 1; None
            without texts.
        recall_filtered: The same for a search that may find every seventh item only.
        recall_of_chroma: The same for Chroma's index alone; None if it has none of the texts.
        missing: The number of texts that Chroma lacks.
        orphans: The number of entries of Chroma whose text no longer exists.
        deleted: The number of deleted vectors that are still in Chroma's files.
    """

    collection: str
    items: int
    texts: int
    damaged: int
    lacking: int
    approximate: bool
    recall: float | None
    recall_filtered: float | None
    recall_of_chroma: float | None
    missing: int
    orphans: int
    deleted: int

    def faults(self) -> list[str]:
        """Return a sentence about damaged texts, and for each kind of search of too low recall."""
        found = []
        if self.damaged:
            effect = (
                f"a search by meaning does not find {self.lacking:,} of them"
                if self.lacking
                else "a search encodes them anew, which takes time"
            )
            found.append(
                f"{self.damaged:,} texts of {self.collection} are not indexed, or their vectors "
                f"are missing or damaged, as another program changed them; {effect}: {REPAIR}."
            )
        searches = (
            (self.recall, "Search by meaning"),
            (self.recall_filtered, "Search under filters"),
            (self.recall_of_chroma, "Chroma's index"),
        )
        return found + [
            f"{where} finds only {recall:.0%} of the nearest in {self.collection}: {REMEDY}."
            for recall, where in searches
            if recall is not None and recall < RECALL
        ]

    def remarks(self) -> list[str]:
        """Return a sentence for each flaw of Chroma's files that does not affect searches."""
        name, said = self.collection, []
        if self.missing or self.orphans:
            said.append(
                f"Chroma lacks {self.missing:,} texts of {name} and has {self.orphans:,} that no "
                f"longer exist; search reads them from the primary database: {REPAIR}."
            )
        if self.deleted:
            said.append(
                f"Chroma's files still hold {self.deleted:,} deleted vectors of {name}: {REMEDY} "
                "to remove them now."
            )
        return said


@dataclass(frozen=True, slots=True)
class IndexAudit:
    """The state of the index.

    Attributes:
        model: The model of the vectors.
        collections: The state of each collection that has texts.
        damage: Why Chroma cannot be opened, with the remedy; None if it can, or does not exist.
        readable: The number of Chroma's entries that hold a text; 0 is expected.
        bytes: The size of Chroma's files on the disk, in bytes.
        are_words_damaged: Whether another program changed the full-text index of segments.
    """

    model: str
    collections: tuple[CollectionAudit, ...]
    damage: str | None
    readable: int
    bytes: int
    are_words_damaged: bool

    @property
    def faults(self) -> list[str]:
        """Sentences about damage, and about searches whose recall is too low."""
        found = [self.damage] if self.damage else []
        if self.readable:
            found.append(f"{self.readable:,} entries of Chroma hold texts: {REMEDY}.")
        if self.are_words_damaged:
            found.append(
                "Search by words does not find all segments, as another program changed their "
                f"full-text index: {REMEDY}."
            )
        return found + [said for one in self.collections for said in one.faults()]

    @property
    def advice(self) -> list[str]:
        """All faults and remarks, each with its remedy; empty if there is nothing to do."""
        return self.faults + [said for one in self.collections for said in one.remarks()]

    def __repr__(self) -> str:
        lines = [self._title(), _in_columns(tuple(_COLUMNS))]
        lines += [_in_columns(_cells(one)) for one in self.collections]
        return "\n".join([*lines, *self.advice])

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(one))}</tr>"
            for one in self.collections
        )
        advice = "".join(f"<p>{escape(said)}</p>" for said in self.advice)
        return (
            f"<p>{escape(self._title())}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{advice}"
        )

    def _title(self) -> str:
        return f"Index of {self.model}, {self.bytes / 1e6:,.1f} MB on disk"


_COLUMNS: Final = {
    "collection": 24, "items": 10, "texts": 10, "recall": 8, "filtered": 10, "Chroma": 8,
    "missing": 9, "orphans": 9, "deleted": 9,
}  # fmt: skip
"""The columns of the table of collections, with their widths in characters."""


def _cells(one: CollectionAudit) -> tuple[str, ...]:
    """Return the values of `_COLUMNS` as text."""
    return (
        one.collection, f"{one.items:,}", f"{one.texts:,}", _share(one.recall),
        _share(one.recall_filtered), _share(one.recall_of_chroma), f"{one.missing:,}",
        f"{one.orphans:,}", f"{one.deleted:,}",
    )  # fmt: skip


def _in_columns(cells: tuple[str, ...]) -> str:
    padded = zip(cells[1:], list(_COLUMNS.values())[1:], strict=True)
    return f"{cells[0]:<{_COLUMNS['collection']}}" + "".join(f"{c:>{w}}" for c, w in padded)


def audit(index: VectorIndex) -> IndexAudit:
    """Return the recall of searches for sentences of a sample, and the state of Chroma's files.

    A sentence is encoded anew, as what people search for is no text of the index: an approximate
    index finds the texts that it has itself much more often than others that are near.

    Raises:
        OtherModel: The index has vectors of another model.
    """
    damage: str | None = None
    try:
        index.open_store()
    except AicoLabError as error:
        damage = str(error)
    collections = [_audit(index, name, opened=damage is None) for name in texts.COLLECTIONS]
    readable = 0
    if damage is None:
        readable = sum(index.readable(name) for name in texts.COLLECTIONS)
    return IndexAudit(
        index.model,
        tuple(one for one in collections if one.texts or one.lacking or one.orphans),
        damage,
        readable,
        index.size_on_disk(),
        index.are_words_damaged(),
    )


def _audit(index: VectorIndex, collection: str, *, opened: bool) -> CollectionAudit:
    holders, vectors = index.vectors(collection)
    damaged, lacking = index.damaged(collection), index.lacking(collection)
    items = sorted(item for group in holders for item in group)
    some = set(items[::FILTERED])
    there, missing, orphans, deleted = index.entries(collection) if opened else (0, 0, 0, 0)
    asks = {"recall": None, "recall_filtered": some, "recall_of_chroma": None}
    recalls: dict[str, float | None] = dict.fromkeys(asks)
    queries = index.encode(
        [
            _sentence(text)
            for text in index.sample(collection, items[:: -(-len(items) // SAMPLE) or 1])
        ]
    )
    for name, among in asks.items():
        if len(queries) and (name != "recall_of_chroma" or there):
            approximate = True if name == "recall_of_chroma" else None
            recalls[name] = _recall(
                index, collection, holders, vectors, queries, among=among, approximate=approximate
            )
    return CollectionAudit(
        collection,
        len(items),
        len(holders),
        damaged,
        lacking,
        index.is_approximate(collection),
        recalls["recall"],
        recalls["recall_filtered"],
        recalls["recall_of_chroma"],
        missing if opened and index.exists() else 0,
        orphans,
        deleted,
    )


def _sentence(text: str) -> str:
    """Return the first sentence of a text that is not very short, or else the text."""
    return next((one for one in _SENTENCE_ENDS.split(text) if len(one) >= SHORTEST), text)


def _recall(
    index: VectorIndex,
    collection: str,
    holders: list[list[str]],
    vectors: Vectors,
    queries: Vectors,
    *,
    among: AbstractSet[str] | None,
    approximate: bool | None,
) -> float:
    """Return the share of the nearest items that a search finds, 0 to 1.

    Args:
        index: The index.
        collection: The collection.
        holders: The items of each text.
        vectors: The vectors of the texts, of shape (texts, dimensions).
        queries: The vectors to search for, of shape (queries, dimensions).
        among: The items that may be found; None for all.
        approximate: See `VectorIndex.nearest_to`.
    """
    counts = np.array(
        [len(ids if among is None else [one for one in ids if one in among]) for ids in holders]
    )
    found = wanted = 0
    for vector in queries:
        scores = np.repeat(vectors @ vector, counts)
        best = -np.sort(-scores)[:NEAREST]
        answers = index.nearest_to(
            vector, len(best), collection, among=among, approximate=approximate
        )
        found += sum(answer.score >= best[-1] - EQUAL for answer in answers)
        wanted += len(best)
    return found / wanted if wanted else 1.0


def _share(recall: float | None) -> str:
    return "-" if recall is None else f"{recall:.1%}"
