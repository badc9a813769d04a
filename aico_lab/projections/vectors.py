"""Project the vectors of segments, memories and documents into ChromaDB.

An entry is a distinct text: its id is the hash of the text, and it has a vector, but neither text
nor metadata, which are read from the primary database. So the store holds nothing readable, is
written in half the time, and one vector per text keeps the graph of the index (HNSW) sound: with
6,000 copies of one vector, 200 queries for the exact text of another entry all failed.

`text_index` says which texts there are; the store is brought to its state by comparing ids, so that
replaying changes nothing. Deleted vectors stay in the graph's file, so a small collection is
rebuilt after a deletion, and a large one as soon as many of its vectors are deleted ones.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from aico_lab.adapters.chroma import ChromaDBAdapter
from aico_lab.embeddings import text_index, texts
from aico_lab.embeddings.home_model import open_home_encoder
from aico_lab.embeddings.opened_store import LAYOUT
from aico_lab.embeddings.stored_vectors import read_vectors
from aico_lab.errors import CorruptDatabase, NotADatabase
from aico_lab.projections.result import Projected
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from aico_lab.adapters.chroma_store import ChromaConnection
    from aico_lab.adapters.libsql import Connection
    from aico_lab.embeddings.encoders import Encoder
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys

CONSUMER = "vectors"
BATCH = 5_000

QUIET = 10_000
"""Changes of other tables after which the cursor moves on, so that the feed can be pruned."""

SMALL = 2_000
"""A collection of at most this many texts is rebuilt after a deletion, which takes a second."""

DEAD = 0.05
"""The share of deleted vectors above which a larger collection is rebuilt."""

_ANY = (
    "SELECT EXISTS (SELECT 1 FROM memories) OR EXISTS (SELECT 1 FROM knowledge_chunks) "
    "OR EXISTS (SELECT 1 FROM conversation_segments)"
)
_TABLES = ", ".join(f"'{table}'" for table in texts.TABLES)
_NAMED = f"SELECT 1 FROM change_log WHERE seq > ? AND seq <= ? AND table_name IN ({_TABLES})"
# Messages that are in no segment have no text in the index.
_RELEVANT = (
    f"{_NAMED} AND (table_name <> 'messages' OR EXISTS "
    "(SELECT 1 FROM segment_messages WHERE message_id = row_key)) LIMIT 1"
)


def sync_vectors(
    primary: Connection,
    home: Home,
    keys: Keys,
    *,
    encoder: Encoder | None = None,
    full: bool = False,
    examine: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Projected:
    """Update the vectors of a home; see `project_texts`."""
    adapter = ChromaDBAdapter(home.vectors, keys.chroma())
    encoder = encoder or open_home_encoder(primary)
    return project_texts(primary, adapter, encoder, full=full, examine=examine, progress=progress)


def project_texts(
    primary: Connection,
    adapter: ChromaDBAdapter,
    encoder: Encoder,
    *,
    full: bool = False,
    examine: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Projected:
    """Update `text_index` and the vector store; rebuild the store if it is damaged or foreign.

    If no text changed, or there never was any, ChromaDB is not even imported.

    Args:
        primary: The primary database.
        adapter: Opens the vector store.
        encoder: Encodes the texts.
        full: Read all texts and rebuild the store, whatever its state and its model.
        examine: Read every stored vector, and mend those that are missing or damaged.
        progress: Called with the number of encoded texts and their total.

    Raises:
        DatabaseLocked: Another process is writing the vectors.
        OtherModel: The vectors are of another model, and `full` is False.
        StorageError: A database failed; an encrypted vector store is unchanged.
    """
    try:
        return _project(primary, adapter, encoder, full=full, examine=examine, progress=progress)
    except (CorruptDatabase, NotADatabase):
        _read_through(primary)  # raises if the primary database is damaged: the vectors stay
        adapter.remove()  # a rebuild would only empty it
        again = _project(primary, adapter, encoder, full=full, examine=examine, progress=progress)
        return replace(again, mode="full", rebuilt=True)


def is_behind(primary: Connection, home: Home, keys: Keys) -> bool:
    """Return whether texts have changed since the vectors were made, without opening them.

    Raises:
        StorageError: The store is damaged, or another program's.
    """
    state = (ChromaDBAdapter(home.vectors, keys.chroma()).peek_state() or {}).get(LAYOUT)
    with primary.snapshot():
        if state is None:
            return bool(primary.fetch_all(_ANY)[0][0])
        return _lacks_changes(primary, feed.Cursor(**state["cursor"]))


def _lacks_changes(primary: Connection, at: feed.Cursor) -> bool:
    """Return whether texts have changed since a position in the feed, or nobody knows."""
    return not feed.continues(primary, at) or bool(
        primary.fetch_all(_RELEVANT, [at.seq, feed.head(primary).seq])
    )


def _read_through(primary: Connection) -> None:
    """Read everything that the vectors are made from; raise if that is damaged."""
    with primary.snapshot():
        feed.head(primary)
        for collection in texts.COLLECTIONS:
            for _ in texts.read_all(primary, collection):
                pass


def _project(
    primary: Connection,
    adapter: ChromaDBAdapter,
    encoder: Encoder,
    *,
    full: bool,
    examine: bool,
    progress: Callable[[int, int], None] | None,
) -> Projected:
    started = time.perf_counter()
    if not full:
        text_index.check_model(primary, encoder)
    if not adapter.exists() and not primary.fetch_all(_ANY)[0][0]:
        return Projected("nothing")
    current = not full and _is_current(primary, adapter, encoder)
    if current and not (examine and not text_index.is_complete(primary, encoder)):
        return Projected("nothing")
    refreshed = text_index.refresh(primary, encoder, full=full, progress=progress)
    # Another program may have deleted or damaged some.
    if text_index.lacks_vectors(primary, encoder) or (
        examine and not full and not text_index.is_complete(primary, encoder)
    ):
        refreshed = text_index.refresh(primary, encoder, full=True, progress=progress)
    with adapter.connect() as store:
        state = (store.state or {}).get(LAYOUT)
        anew = full or state is None or state["model"] != encoder.model
        if anew:
            store.clear()  # unread: its files may be another program's
        deleted = {} if state is None or anew else state["deleted"]
        moved = False
        for collection in texts.COLLECTIONS:
            follower = _Follower(primary, store, encoder, collection)
            deleted[collection] = follower.follow(deleted.get(collection, 0))
            moved = moved or follower.moved
        store.state = {
            LAYOUT: {"cursor": asdict(refreshed.cursor), "model": encoder.model, "deleted": deleted}
        }
    feed.try_to_acknowledge(primary, CONSUMER, refreshed.cursor.seq)
    mode = "increment" if moved and refreshed.mode == "nothing" else refreshed.mode
    return Projected(
        "full" if anew else mode,
        refreshed.written,
        refreshed.deleted,
        refreshed.skipped,
        time.perf_counter() - started,
    )


def _is_current(primary: Connection, adapter: ChromaDBAdapter, encoder: Encoder) -> bool:
    """Return whether the vectors are up to date, without opening them."""
    state = (adapter.peek_state() or {}).get(LAYOUT)
    with primary.snapshot():
        head = feed.head(primary)
        indexed = text_index.cursor(primary)
        if state is None or indexed is None or state["model"] != encoder.model:
            return False
        at = feed.Cursor(**state["cursor"])
        return at == indexed and head.seq - at.seq < QUIET and not _lacks_changes(primary, at)


class _Follower:
    """Brings a collection of the store to the state of `text_index`."""

    def __init__(
        self, primary: Connection, store: ChromaConnection, encoder: Encoder, name: str
    ) -> None:
        self._primary = primary
        self._store = store
        self._name = name
        self._model = encoder.model
        self._dimensions = encoder.dimensions
        self.moved = False  # whether an entry was added or deleted

    def follow(self, deleted: int) -> int:
        """Add and delete entries.

        Args:
            deleted: The number of deleted vectors that are still in the files of the collection.

        Returns:
            The same number afterwards.
        """
        wanted = self._wanted()
        exists = self._name in self._store.names()
        if not exists and not wanted:
            return 0
        collection = self._collection()
        there = set(collection.ids()) if exists else set()
        gone = there - wanted
        self.moved = there != wanted
        if gone and (len(wanted) <= SMALL or deleted + len(gone) > DEAD * len(wanted)):
            self._store.drop(self._name)
            collection, there, deleted = self._collection(), set(), 0
        elif gone:
            collection.delete(sorted(gone))
            deleted += len(gone)
        for ids, vectors in self._vectors(wanted - there):
            collection.add(ids, vectors)
        return deleted

    def _collection(self) -> Any:
        facts: dict[str, str | int | float | bool] = {
            "model": self._model,
            "dimensions": self._dimensions,
        }
        return self._store.collection(self._name, facts)

    def _wanted(self) -> set[str]:
        """Return the ids of the entries that the collection should have."""
        rows = self._primary.fetch_all(
            "SELECT DISTINCT hex(text_sha256) FROM text_index WHERE collection = ?", [self._name]
        )
        return {key.lower() for (key,) in rows}

    def _vectors(self, ids: Collection[str]) -> Iterator[tuple[list[str], Any]]:
        """Yield the ids and stored vectors of some entries in batches."""
        ordered = sorted(ids)
        for start in range(0, len(ordered), BATCH):
            part = [bytes.fromhex(id_) for id_ in ordered[start : start + BATCH]]
            found = read_vectors(self._primary, self._model, self._dimensions, part)
            if found:
                yield [key.hex() for key in found], np.stack(list(found.values()))
