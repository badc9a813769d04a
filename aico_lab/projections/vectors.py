"""Keep the vectors of all memories in ChromaDB, exactly once.

The cursor of the change feed is sealed together with the vectors, so a crash at any instant leaves
the state before or after, and replaying changes nothing. Chroma keeps the text of what was deleted
or replaced in its files (chroma #3793, #7659), so then everything is written anew from the table:
what a person had forgotten is gone from the disk with the next sync.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from aico_lab.adapters.chroma import ChromaDBAdapter
from aico_lab.embeddings.encoder import Encoder
from aico_lab.embeddings.index import MEMORIES, VectorIndex
from aico_lab.errors import CorruptDatabase, NotADatabase
from aico_lab.projections.result import Mode, Projected
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.adapters.chroma_collection import Metadata
    from aico_lab.adapters.chroma_store import Connection as Store
    from aico_lab.adapters.libsql import Connection
    from aico_lab.home import Home
    from aico_lab.keys import Keys

CONSUMER = "vectors"
BATCH = 2_000

QUIET = 10_000
"""After so many changes of other tables the cursor moves on, so that the feed can be pruned."""

# As bytes: the driver cuts text at a NUL, and panics on bad UTF-8 of a foreign program.
_COLUMNS = (
    "CAST(m.memory_id AS BLOB), CAST(m.content AS BLOB), CAST(m.user_id AS BLOB), "
    "CAST(m.memory_type AS BLOB), CAST(m.created_at AS BLOB), CAST(m.importance AS REAL)"
)
_ALL = f"SELECT {_COLUMNS} FROM memories AS m"
_NAMED = (
    "SELECT DISTINCT row_key FROM change_log WHERE seq > ? AND seq <= ? AND table_name = 'memories'"
)
_NAMED_KEYS = f"SELECT CAST(row_key AS BLOB) FROM ({_NAMED})"
_CHANGED = (
    f"SELECT {_COLUMNS} FROM ({_NAMED}) AS k CROSS JOIN memories AS m WHERE m.memory_id = k.row_key"
)


def sync_vectors(primary: Connection, home: Home, keys: Keys, *, full: bool = False) -> Projected:
    """Bring the vectors of a home up to date; see `project_memories`."""
    return project_memories(
        primary, ChromaDBAdapter(home.vectors, keys.chroma()), Encoder(), full=full
    )


def open_index(home: Home, keys: Keys) -> VectorIndex:
    """Give what finds memories by meaning in the vectors of a home, as of the last sync."""
    return VectorIndex(ChromaDBAdapter(home.vectors, keys.chroma(), read_only=True), Encoder())


def project_memories(
    primary: Connection, adapter: ChromaDBAdapter, encoder: Encoder, *, full: bool = False
) -> Projected:
    """Bring the vectors up to date.

    Where no memory changed, ChromaDB is not even imported.

    Args:
        primary: The primary database.
        adapter: Where the vectors lie.
        encoder: What makes them.
        full: Write everything anew, whatever state the vectors are in.

    Raises:
        DatabaseLocked: Another process is writing the vectors.
        StorageError: A database refused; an encrypted store is as it was.
    """
    try:
        return _project(primary, adapter, encoder, full=full)
    except (CorruptDatabase, NotADatabase):
        if not full:
            raise
        adapter.remove()  # it would only be opened to be emptied
        return _project(primary, adapter, encoder, full=full)


def _project(
    primary: Connection, adapter: ChromaDBAdapter, encoder: Encoder, *, full: bool
) -> Projected:
    started = time.perf_counter()
    if not full and _is_current(primary, adapter):
        return Projected("nothing")
    with adapter.connect() as store, primary.snapshot():
        target = feed.head(primary)
        cursor = _cursor(store.state)
        run = _Run(primary, store, encoder)
        if full or cursor is None or not feed.continues(primary, cursor):
            run.rebuild()
        else:
            run.catch_up(cursor.seq, target.seq)
        store.state = {CONSUMER: asdict(target)}
    feed.try_to_acknowledge(primary, CONSUMER, target.seq)
    return Projected(run.mode, run.written, run.deleted, run.skipped, time.perf_counter() - started)


def _is_current(primary: Connection, adapter: ChromaDBAdapter) -> bool:
    """Say whether there is nothing to do, without opening the vectors."""
    with primary.snapshot():
        head = feed.head(primary)
        cursor = _cursor(adapter.peek_state())
        if cursor is None:
            nothing = adapter.version() is None and not primary.fetch_all(
                "SELECT 1 FROM memories LIMIT 1"
            )
        else:
            nothing = (
                head.seq - cursor.seq < QUIET
                and feed.continues(primary, cursor)
                and not primary.fetch_all(f"{_NAMED_KEYS} LIMIT 1", [cursor.seq, head.seq])
            )
    return nothing


def _cursor(state: dict[str, Any] | None) -> feed.Cursor | None:
    found = (state or {}).get(CONSUMER)
    return feed.Cursor(**found) if found else None


@dataclass(frozen=True, slots=True)
class _Memory:
    memory_id: str
    content: str
    metadata: Metadata


class _Run:
    """One projection, from one consistent view of the primary database."""

    def __init__(self, primary: Connection, store: Store, encoder: Encoder) -> None:
        self._primary = primary
        self._store = store
        self._encoder = encoder
        self.mode: Mode = "nothing"
        self.written = self.deleted = self.skipped = 0

    def rebuild(self) -> None:
        """Write every memory anew, into an empty store."""
        self.mode = "full"
        self.written = self.skipped = 0
        self._store.clear()
        for rows in self._primary.fetch_batches(_ALL, size=BATCH):
            self._write(self._read(rows))

    def catch_up(self, since: int, until: int) -> None:
        """Write the memories that the feed names, as they are now."""
        span = [since, until]
        named = [
            key.decode(errors="replace") for (key,) in self._primary.fetch_all(_NAMED_KEYS, span)
        ]
        if not named:
            return  # only the cursor moves on
        self.mode = "increment"
        present = self._read(self._primary.fetch_all(_CHANGED, span))
        texts = {memory.memory_id: memory.content for memory in present}
        stored = self._store.collection(MEMORIES).get(named)
        if any(texts.get(id_) != entry.text for id_, entry in stored.items()):
            self.deleted = len(stored.keys() - texts.keys())
            self.rebuild()
        else:
            self._write(present)

    def _read(self, rows: Sequence[Sequence[Any]]) -> list[_Memory]:
        memories = []
        for *texts, importance in rows:
            try:
                memory_id, content, user_id, kind, created_at = (text.decode() for text in texts)
            except UnicodeDecodeError:
                self.skipped += 1
                continue
            metadata: Metadata = {
                "user_id": user_id,
                "memory_type": kind,
                "created_at": created_at,
                "importance": importance,
            }
            memories.append(_Memory(memory_id, content, metadata))
        return memories

    def _write(self, memories: Sequence[_Memory]) -> None:
        collection = self._store.collection(MEMORIES)
        for start in range(0, len(memories), BATCH):
            batch = memories[start : start + BATCH]
            vectors, usable = self._encoder.encode_usable([memory.content for memory in batch])
            kept = [memory for memory, use in zip(batch, usable, strict=True) if use]
            self.skipped += len(batch) - len(kept)
            self.written += len(kept)
            collection.upsert(
                [memory.memory_id for memory in kept],
                vectors,
                [memory.content for memory in kept],
                [memory.metadata for memory in kept],
            )
