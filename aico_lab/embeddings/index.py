"""Find segments, memories and chunks of documents by meaning.

An index finds all texts that are committed: it reads the table `text_index`, and follows the change
feed from there, so texts that are not indexed yet are encoded and compared as well.

With up to `COMPARED` texts, and under filters, a query compares every vector, which is exact and
takes about 4 ms for 45,000. With more texts it asks Chroma's approximate index, and compares only
the vectors that Chroma does not have. Texts whose vectors another program damaged or deleted are
encoded anew, in memory.
"""

from __future__ import annotations

import contextlib
import math
import threading
from typing import TYPE_CHECKING, Self

import numpy as np

from aico_lab.adapters.chroma import ChromaDBAdapter
from aico_lab.embeddings import segment_words, text_index, texts
from aico_lab.embeddings.known_texts import Found, KnownTexts
from aico_lab.embeddings.opened_store import OpenedStore
from aico_lab.embeddings.stored_vectors import read_vectors, text_sha256
from aico_lab.errors import HomeError, StorageError
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractContextManager

    from aico_lab.adapters.libsql import Connection
    from aico_lab.embeddings.encoders import Encoder
    from aico_lab.embeddings.encoders.base import Vectors
    from aico_lab.embeddings.known_texts import Keep, Rows
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys

COMPARED = 100_000
"""The number of texts up to which a query compares every vector."""

HELD = 200_000
"""The number of texts up to which all vectors of a collection are kept in memory: 200 MB of 256
dimensions."""

LACKED = 5_000
"""Chroma is not asked if it lacks more texts than this."""

ENCODED = 5_000
"""The number of texts in no segment yet whose vectors are kept in memory, and the maximum number of
texts without a readable vector that are encoded anew."""

READ = 20_000
"""The number of vectors that are read at a time where not all are kept in memory."""

RELOADED = 20_000
"""The number of changed items above which a collection is read again as a whole."""


class VectorIndex:
    """Searches texts by meaning; several threads may use it at the same time.

    If Chroma's files are needed, an opened copy of them is in the private folder of
    `aico_lab.adapters.sealed` until `close`.
    """

    def __init__(
        self,
        open_primary: Callable[[], AbstractContextManager[Connection]],
        store: ChromaDBAdapter,
        encoder: Encoder,
        *,
        compared: int | None = None,
    ) -> None:
        """Keep the arguments; the first query opens the databases.

        Args:
            open_primary: Opens a connection to the primary database.
            store: A read-only adapter of the vector store.
            encoder: The encoder of the index's model.
            compared: The number of texts up to which every vector is compared; by default
                `COMPARED`.
        """
        self._open_primary = open_primary
        self._store = store
        self._encoder = encoder
        self._compared = compared
        self._lock = threading.RLock()
        self._opened = contextlib.ExitStack()
        self._primary: Connection | None = None
        self._known: dict[str, KnownTexts] = {}
        self._chroma: OpenedStore | None = None
        self._encoded: dict[str, Vectors | None] = {}  # by text, of messages in no segment yet

    def __repr__(self) -> str:
        return "<VectorIndex: .query(TEXT, LIMIT) returns ids of the nearest memories, and scores>"

    def query(self, text: str, limit: int, user_id: str | None = None) -> list[tuple[str, float]]:
        """Return the ids of the nearest memories with their cosine similarity, nearest first.

        Args:
            text: The text to compare with; nothing is found for a blank text.
            limit: The maximum number of memories.
            user_id: Only memories of this person; None for those of all.
        """
        among = None
        if user_id is not None:
            with self._lock:
                rows = self._connection().fetch_all(
                    "SELECT CAST(memory_id AS BLOB) FROM memories WHERE user_id = ?", [user_id]
                )
            among = {key.decode(errors="replace") for (key,) in rows}
        found = self.nearest(text, limit, texts.MEMORIES, among=among)
        return [(item_id, score) for item_id, score in found]

    def nearest(
        self,
        text: str,
        limit: int,
        collection: str,
        *,
        among: AbstractSet[str] | None = None,
        keep: Keep | None = None,
    ) -> list[Found]:
        """Return the items nearest to a text, nearest first, equally near ones ordered by id.

        Args:
            text: The text to compare with; nothing is found for a blank text.
            limit: The maximum number of items.
            collection: One of `aico_lab.embeddings.texts.COLLECTIONS`.
            among: Only these items; None for all.
            keep: Returns those of the given items that may be found; None for all.

        Raises:
            OtherModel: The index has vectors of another model.
        """
        vectors, _ = self._encoder.encode_usable([text])
        if not len(vectors) or limit < 1:
            return []
        return self.nearest_to(vectors[0], limit, collection, among=among, keep=keep)

    def nearest_to(
        self,
        vector: Vectors,
        limit: int,
        collection: str,
        *,
        among: AbstractSet[str] | None = None,
        keep: Keep | None = None,
        approximate: bool | None = None,
    ) -> list[Found]:
        """Return the items nearest to a vector; see `nearest`.

        Args:
            vector: A vector of length 1.
            limit: The maximum number of items.
            collection: One of `aico_lab.embeddings.texts.COLLECTIONS`.
            among: Only these items; None for all.
            keep: Returns those of the given items that may be found; None for all.
            approximate: Whether to ask Chroma, if there is no filter; by default for collections
                of more than `COMPARED` texts.
        """
        with self._lock:
            known = self._current(collection)
            if approximate is None:
                limit_ = COMPARED if self._compared is None else self._compared
                approximate = len(known.keys) > limit_
            if approximate and among is None and keep is None:
                with contextlib.suppress(
                    StorageError, HomeError
                ):  # `sync` and `doctor` report the damage
                    return self._approximate(known, vector, limit, collection)
            rows = known.rows_of(among)
            return known.best(rows, self._scores(known, rows, vector), limit, among, keep)

    def similarities(self, text: str, others: Sequence[str]) -> list[float]:
        """Return the cosine similarity of a text with each of others; NaN if either is blank."""
        vectors, _ = self._encoder.encode_usable([text])
        if not len(vectors):
            return [math.nan] * len(others)
        with self._lock:
            new = [other for other in dict.fromkeys(others) if other not in self._encoded]
            found, usable = self._encoder.encode_usable(new)
            rows = iter(found)
            if len(self._encoded) > ENCODED:
                self._encoded.clear()
                return self.similarities(text, others)
            for other, use in zip(new, usable, strict=True):
                self._encoded[other] = next(rows) if use else None
            held = [self._encoded[other] for other in others]
        return [math.nan if one is None else float(one @ vectors[0]) for one in held]

    def vectors(self, collection: str) -> tuple[list[list[str]], Vectors]:
        """Return the items of each distinct text of a collection, and the texts' vectors.

        The vectors have shape (texts, dimensions).
        """
        with self._lock:
            known = self._current(collection)
            rows = known.rows_of(None)
            held = self._held(known)
            usable = rows[np.einsum("ij,ij->i", held[rows], held[rows]) > 0]
            return [sorted(known.holders[row]) for row in usable], held[usable]

    def sample(self, collection: str, item_ids: Sequence[str]) -> list[str]:
        """Return the texts of some items, without those that no longer exist."""
        with self._lock:
            items = texts.read_some(self._connection(), collection, item_ids)
            return [one.text for one in items]

    def encode(self, texts_: Sequence[str]) -> Vectors:
        """Return the vectors of texts, without blank ones, of shape (texts, dimensions)."""
        vectors, _ = self._encoder.encode_usable(texts_)
        return vectors

    def damaged(self, collection: str) -> int:
        """Return the number of texts that are not indexed, or have no readable vector."""
        with self._lock:
            known = self._current(collection)
            self._held(known)
            return len(known.unindexed) + sum(bool(known.holders_of(key)) for key in known.unstored)

    def lacking(self, collection: str) -> int:
        """Return the number of texts that cannot be found, as nobody knows their vectors."""
        with self._lock:
            known = self._current(collection)
            return sum(bool(known.holders_of(key)) for key in known.unknown)

    def are_words_damaged(self) -> bool:
        """Return whether another program changed the full-text index of segments."""
        with self._lock:
            return segment_words.is_damaged(self._connection())

    @property
    def model(self) -> str:
        """The model of the vectors."""
        return self._encoder.model

    def is_approximate(self, collection: str) -> bool:
        """Return whether a search of a collection without filters asks Chroma."""
        with self._lock:
            limit = COMPARED if self._compared is None else self._compared
            return len(self._current(collection).keys) > limit

    def exists(self) -> bool:
        """Return whether there is a vector store, sound or damaged."""
        return self._store.exists()

    def size_on_disk(self) -> int:
        """Return the size of the vector store's files in bytes."""
        return self._store.size()

    def open_store(self) -> None:
        """Open the vector store if it exists.

        Raises:
            StorageError: The store is damaged, or of another program, layout or model.
        """
        with self._lock:
            if self._store.exists():
                self._opened_store()

    def entries(self, collection: str) -> tuple[int, int, int, int]:
        """Compare the entries of a collection of the store with the texts that exist.

        Returns:
            The numbers of entries whose text exists, of texts that have no entry, of entries whose
            text no longer exists, and of deleted vectors that are still in the store's files.
        """
        with self._lock:
            known = self._current(collection)
            if not self._store.exists():
                return 0, 0, 0, 0
            chroma = self._opened_store()
            keys = chroma.entries(collection).keys if chroma.has(collection) else set()
            texts_ = {
                key
                for key, ids in zip(known.keys, known.holders, strict=True)
                if ids and key not in known.blank
            }
            there = len(keys & texts_)
            return there, len(texts_) - there, len(keys) - there, chroma.deleted(collection)

    def readable(self, collection: str) -> int:
        """Return the number of entries of the store that hold a text; 0 is expected."""
        with self._lock:
            if not self._store.exists() or not (chroma := self._opened_store()).has(collection):
                return 0
            return sum(map(bool, chroma.entries(collection).collection.documents()))

    def count(self, collection: str = texts.MEMORIES) -> int:
        """Return the number of items that can be found."""
        with self._lock:
            return sum(map(len, self._current(collection).holders))

    def close(self) -> None:
        """Close the databases, and drop the vectors; the next query opens the databases again."""
        with self._lock:
            chroma, self._chroma, self._primary = self._chroma, None, None
            self._known.clear()
            self._encoded.clear()
            if chroma is not None:
                chroma.close()
            self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _connection(self) -> Connection:
        if self._primary is None or not self._primary.is_open:
            self._opened.close()
            self._primary = self._opened.enter_context(self._open_primary())
        return self._primary

    def _current(self, collection: str) -> KnownTexts:
        """Return the texts of a collection as they are committed now."""
        primary, known = self._connection(), self._known.get(collection)
        if known is not None:
            seq = primary.fetch_all("SELECT coalesce(max(seq), 0) FROM change_log")[0][0]
            if seq == known.cursor.seq:  # a restored database is noticed at its next change
                return known
        with primary.snapshot():
            target = feed.head(primary)
            if known is None or not self._follow(known, collection, target):
                text_index.check_model(primary, self._encoder)
                known = self._read(collection, target)
                self._known[collection] = known
            known.cursor = target
        return known

    def _read(self, collection: str, target: feed.Cursor) -> KnownTexts:
        """Return all texts of a collection, read from `text_index` and the changes since then."""
        primary, indexed = self._connection(), text_index.cursor(self._connection())
        if indexed is not None and feed.continues(primary, indexed):
            known = KnownTexts(collection, indexed)
            for item_id, key in primary.fetch_all(
                "SELECT item_id, text_sha256 FROM text_index WHERE collection = ?", [collection]
            ):
                known.put(item_id, key)
            if self._follow(known, collection, target):
                ids = texts.read_ids(primary, collection)
                for item_id in known.key_of.keys() - ids:
                    known.drop(item_id)
                absent = texts.read_some(primary, collection, ids - known.key_of.keys())
                known.unindexed = self._add(known, absent)
                return known
        known = KnownTexts(collection, target)
        self._add(known, texts.read_all(primary, collection))
        return known

    def _follow(self, known: KnownTexts, collection: str, target: feed.Cursor) -> bool:
        """Apply the changes since the cursor; return False if all texts have to be read again."""
        primary = self._connection()
        if not feed.continues(primary, known.cursor):
            return False
        ids = texts.changed(primary, collection, known.cursor.seq, target.seq)
        if len(ids) > RELOADED:
            return False
        for item_id in ids:
            known.drop(item_id)
        self._add(known, texts.read_some(primary, collection, ids))
        return True

    def _add(self, known: KnownTexts, items: Iterable[texts.Item]) -> set[str]:
        """Add items, and the vectors of texts that are new; return the items that have a vector."""
        new: dict[bytes, str] = {}
        added: dict[str, bytes] = {}
        for item_id, text in items:
            if text.strip():
                key = text_sha256(text)
                if key not in known.row_of:
                    new[key] = text
                known.put(item_id, key)
                added[item_id] = key
        stored = self._stored(list(new))
        missing = [key for key in new if key not in stored]
        vectors, usable = self._encoder.encode_usable([new[key] for key in missing])
        encoded = [key for key, use in zip(missing, usable, strict=True) if use]
        for key, vector in (*stored.items(), *zip(encoded, vectors, strict=True)):
            known.learn(key, vector)
        blank = set(missing) - set(encoded)
        known.blank |= blank
        return {item_id for item_id, key in added.items() if key not in blank}

    def _stored(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        model, dimensions = self._encoder.model, self._encoder.dimensions
        return read_vectors(self._connection(), model, dimensions, keys)

    def _held(self, known: KnownTexts) -> Vectors:
        """Return the vectors of all rows; a row without a vector is zero."""
        rows = len(known.keys)
        if known.matrix is None or known.filled < rows:
            if known.matrix is None or len(known.matrix) < rows:  # with room for an eighth more
                room = rows if known.matrix is None else rows + rows // 8
                grown = np.zeros((room, self._encoder.dimensions), np.float32)
                if known.matrix is not None:
                    grown[: known.filled] = known.matrix[: known.filled]
                known.matrix = grown
            new = known.keys[known.filled :]
            found = self._stored([key for key in new if key not in known.learnt])
            found |= {key: known.learnt.pop(key) for key in new if key in known.learnt}
            found |= self._encoded_anew(known, [key for key in new if key not in found])
            for row, key in enumerate(new, known.filled):
                if key in found:
                    known.matrix[row] = found[key]
            known.filled = rows
        return known.matrix[:rows]

    def _encoded_anew(self, known: KnownTexts, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """Return the vectors of texts that have no readable one, unless they are too many."""
        item_of = {
            next(iter(ids)): key
            for key in keys
            if key not in known.blank and (ids := known.holders_of(key))
        }
        known.unstored |= set(item_of.values())
        if len(item_of) > ENCODED:
            known.unknown |= set(item_of.values())
            return {}
        items = list(texts.read_some(self._connection(), known.collection, item_of.keys()))
        vectors, usable = self._encoder.encode_usable([one.text for one in items])
        encoded = [item_of[one.item_id] for one, use in zip(items, usable, strict=True) if use]
        return dict(zip(encoded, vectors, strict=True))

    def _scores(self, known: KnownTexts, rows: Rows, vector: Vectors) -> Vectors:
        """Return the cosine similarity of some rows with a vector; NaN for rows without one."""
        if len(known.keys) <= HELD:
            held = self._held(known)
            # In this thread alone: synchronising the threads of a matrix product on a busy machine
            # takes longer than this does.
            scores: Vectors = np.einsum(
                "ij,j->i", held if len(rows) == len(held) else held[rows], vector
            )
            scores[scores == 0] = np.nan
            return scores
        parts = [np.empty(0, np.float32)]
        for start in range(0, len(rows), READ):
            keys = [known.keys[row] for row in rows[start : start + READ]]
            stored = self._stored([key for key in keys if key not in known.learnt])
            found = {**stored, **{key: known.learnt[key] for key in keys if key in known.learnt}}
            nothing = np.full(self._encoder.dimensions, np.nan, np.float32)
            part = np.stack([found.get(key, nothing) for key in keys])
            parts.append(np.einsum("ij,j->i", part, vector))
        return np.concatenate(parts)

    def _opened_store(self) -> OpenedStore:
        """Return the opened store, anew if it changed; raise StorageError if it is unusable."""
        if self._chroma is None or self._chroma.version != self._store.version():
            chroma, self._chroma = self._chroma, None
            if chroma is not None:
                chroma.close()
            self._chroma = OpenedStore(self._store, self._encoder.model)
        return self._chroma

    def _approximate(
        self, known: KnownTexts, vector: Vectors, limit: int, collection: str
    ) -> list[Found]:
        """Ask Chroma's index, and compare the texts that it does not have.

        Raises:
            StorageError: Chroma cannot be asked.
        """
        entries = self._opened_store().entries(collection)
        if entries.compared_at != (known, known.version):
            lacked = [row for row in known.rows_of(None) if known.keys[row] not in entries.keys]
            entries.lacked = np.array(lacked, int)
            entries.compared_at = known, known.version
        rows = entries.lacked
        if len(rows) > LACKED:
            raise StorageError("Chroma lacks too many texts.")
        scores = self._scores(known, rows, vector) if len(rows) else np.empty(0, np.float32)
        best = dict(known.best(rows, scores, limit, None, None))
        asked = limit
        while entries.keys:
            matches = entries.collection.query(vector, min(asked, len(entries.keys)))
            there = [
                (item_id, match.score)
                for match in matches
                for item_id in known.holders_of(bytes.fromhex(match.id))
            ]
            if len(there) >= limit or asked >= len(entries.keys):
                best.update(there)
                break
            asked *= 4  # Chroma still has deleted texts: ask for more
        ordered = sorted(best.items(), key=lambda one: (-one[1], one[0]))
        return [Found(*one) for one in ordered[:limit]]


def open_index(
    open_primary: Callable[[], AbstractContextManager[Connection]],
    home: Home,
    keys: Keys,
    encoder: Encoder,
) -> VectorIndex:
    """Return an index that searches the texts of a home by meaning.

    Args:
        open_primary: Opens a connection to the primary database.
        home: The lab's folder.
        keys: The home's opened keys.
        encoder: The encoder of the home's model.
    """
    store = ChromaDBAdapter(home.vectors, keys.chroma(), read_only=True)
    return VectorIndex(open_primary, store, encoder)
