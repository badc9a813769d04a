"""Project the vectors of all memories into ChromaDB, one for each distinct text.

The cursor of the change feed is sealed together with the vectors, so a crash at any time leaves
the state before or after, and replaying the feed changes nothing. Chroma keeps deleted and replaced
texts in its files (chroma #3793, #7659), so after a deletion or replacement the store is rebuilt
from the table: the next sync removes a deleted memory from the disk.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from aico_lab.adapters.chroma import ChromaDBAdapter
from aico_lab.embeddings import texts
from aico_lab.embeddings.encoders import Encoder, open_encoder
from aico_lab.embeddings.index import VectorIndex
from aico_lab.embeddings.texts import COLLECTION, Holder
from aico_lab.errors import CorruptDatabase, NotADatabase
from aico_lab.projections.result import Mode, Projected
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aico_lab.adapters.chroma_store import ChromaConnection
    from aico_lab.adapters.libsql import Connection
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys

CONSUMER = "vectors"
LAYOUT = "memories by text"
"""The key of the cursor in the store's state; a store of another layout is rebuilt."""
BATCH = 2_000

QUIET = 10_000
"""Changes of other tables after which the cursor moves on, so that the feed can be pruned."""

# As bytes: the driver truncates text at a NUL, and panics on bad UTF-8 of another program. Rows
# whose id is a blob are left out, as the warehouse quarantines them.
_COLUMNS = "CAST(m.memory_id AS BLOB), CAST(m.content AS BLOB) AS text, CAST(m.user_id AS BLOB)"
_ALL = (  # equal texts are adjacent
    f"SELECT {_COLUMNS} FROM memories AS m WHERE typeof(m.memory_id) = 'text' ORDER BY text"
)
_NAMED = (
    "SELECT DISTINCT row_key FROM change_log WHERE seq > ? AND seq <= ? "
    "AND table_name = 'memories' AND typeof(row_key) = 'text'"
)
_NAMED_KEYS = f"SELECT CAST(row_key AS BLOB) FROM ({_NAMED})"
_CHANGED = (
    f"SELECT {_COLUMNS} FROM ({_NAMED}) AS k CROSS JOIN memories AS m WHERE m.memory_id = k.row_key"
)


def sync_vectors(primary: Connection, home: Home, keys: Keys, *, full: bool = False) -> Projected:
    """Update the vectors of a home; see `project_memories`."""
    return project_memories(
        primary, ChromaDBAdapter(home.vectors, keys.chroma()), open_encoder(), full=full
    )


def open_index(home: Home, keys: Keys) -> VectorIndex:
    """Return an index that finds memories by meaning in the vectors of a home."""
    return VectorIndex(ChromaDBAdapter(home.vectors, keys.chroma(), read_only=True), open_encoder())


def project_memories(
    primary: Connection, adapter: ChromaDBAdapter, encoder: Encoder, *, full: bool = False
) -> Projected:
    """Update the vectors from the change feed; rebuild them if they are damaged.

    If no memory changed, or there never was any, ChromaDB is not even imported.

    Args:
        primary: The primary database.
        adapter: Opens the vector store.
        encoder: Encodes the texts.
        full: Rebuild the vectors, whatever their state.

    Raises:
        DatabaseLocked: Another process is writing the vectors.
        StorageError: A database failed; an encrypted vector store is unchanged.
    """
    try:
        return _project(primary, adapter, encoder, full=full)
    except (CorruptDatabase, NotADatabase):
        _read_through(primary)  # raises if the primary database is damaged: the vectors stay
        adapter.remove()  # a rebuild would only empty it
        return replace(_project(primary, adapter, encoder, full=full), rebuilt=True)


def _read_through(primary: Connection) -> None:
    """Read everything that the vectors are made from; raise if that is damaged."""
    with primary.snapshot():
        feed.head(primary)
        for _ in primary.fetch_batches(_ALL, size=BATCH):
            pass


def _project(
    primary: Connection, adapter: ChromaDBAdapter, encoder: Encoder, *, full: bool
) -> Projected:
    started = time.perf_counter()
    if _was_never_needed(primary, adapter) or (not full and _is_current(primary, adapter)):
        return Projected("nothing")
    with adapter.connect() as store, primary.snapshot():
        target = feed.head(primary)
        cursor = _cursor(store.state)
        run = _Projecting(primary, store, encoder)
        if full or cursor is None or not feed.continues(primary, cursor):
            run.rebuild()
        else:
            run.catch_up(cursor.seq, target.seq)
        store.state = {LAYOUT: asdict(target)}
    feed.try_to_acknowledge(primary, CONSUMER, target.seq)
    return Projected(run.mode, run.written, run.deleted, run.skipped, time.perf_counter() - started)


def _was_never_needed(primary: Connection, adapter: ChromaDBAdapter) -> bool:
    """Return whether there are no memories, and no vectors either, sound or damaged."""
    return not adapter.exists() and not primary.fetch_all("SELECT 1 FROM memories LIMIT 1")


def _is_current(primary: Connection, adapter: ChromaDBAdapter) -> bool:
    """Return whether the vectors are up to date, without opening them."""
    with primary.snapshot():
        head = feed.head(primary)
        cursor = _cursor(adapter.peek_state())
        return (
            cursor is not None
            and head.seq - cursor.seq < QUIET
            and feed.continues(primary, cursor)
            and not primary.fetch_all(f"{_NAMED_KEYS} LIMIT 1", [cursor.seq, head.seq])
        )


def _cursor(state: dict[str, Any] | None) -> feed.Cursor | None:
    found = (state or {}).get(LAYOUT)
    return feed.Cursor(**found) if found else None


@dataclass(frozen=True, slots=True)
class _Memory:
    memory_id: str
    content: str
    user_id: str

    @property
    def holder(self) -> Holder:
        return self.memory_id, self.user_id


class _Projecting:
    """One projection, from one consistent view of the primary database."""

    def __init__(self, primary: Connection, store: ChromaConnection, encoder: Encoder) -> None:
        self._primary = primary
        self._store = store
        self._encoder = encoder
        self.mode: Mode = "nothing"
        self.written = self.deleted = self.skipped = 0

    def rebuild(self) -> None:
        """Write every memory into an emptied store."""
        self.mode = "full"
        self.written = self.skipped = 0
        self._store.clear()
        rows = itertools.chain.from_iterable(self._primary.fetch_batches(_ALL, size=BATCH))
        groups = itertools.groupby(self._read(rows), lambda memory: memory.content)
        self._write((text, [memory.holder for memory in group]) for text, group in groups)

    def catch_up(self, since: int, until: int) -> None:
        """Write the current state of the memories that the feed names.

        Args:
            since: The last change that the vectors contain.
            until: The last change to apply.
        """
        span = [since, until]
        named = {
            key.decode(errors="replace") for (key,) in self._primary.fetch_all(_NAMED_KEYS, span)
        }
        if not named:
            return  # only the cursor moves
        self.mode = "increment"
        present = {m.memory_id: m for m in self._read(self._primary.fetch_all(_CHANGED, span))}
        stored = {
            key: texts.holders_of(key, metadata)
            for key, metadata in self._store.collection(COLLECTION).metadata().items()
        }
        there = {
            memory_id: (key, user_id)
            for key, holders in stored.items()
            for memory_id, user_id in holders
            if memory_id in named
        }
        now = {id_: (texts.key_of(m.content), m.user_id) for id_, m in present.items()}
        if any(now.get(id_) != was for id_, was in there.items()):
            self.deleted = len(there.keys() - now.keys())
            self.rebuild()
            return
        added: dict[str, list[Holder]] = {}
        for memory in present.values():
            if memory.memory_id not in there:
                added.setdefault(memory.content, []).append(memory.holder)
        before = {text: stored.get(texts.key_of(text), []) for text in added}
        self._write((text, before[text] + new) for text, new in added.items())
        self.written -= sum(map(len, before.values()))

    def _read(self, rows: Iterable[Sequence[Any]]) -> Iterable[_Memory]:
        for row in rows:
            try:
                yield _Memory(*(text.decode() for text in row))
            except UnicodeDecodeError:
                self.skipped += 1

    def _write(self, holders: Iterable[tuple[str, list[Holder]]]) -> None:
        """Write one entry for each text, given with the memories that have it."""
        collection = self._store.collection(COLLECTION)
        remaining = iter(holders)
        while batch := list(itertools.islice(remaining, BATCH)):
            vectors, usable = self._encoder.encode_usable([text for text, _ in batch])
            kept = [entry for entry, use in zip(batch, usable, strict=True) if use]
            written = sum(len(memories) for _, memories in kept)
            self.written += written
            self.skipped += sum(len(memories) for _, memories in batch) - written
            collection.upsert(
                [texts.key_of(text) for text, _ in kept],
                vectors,
                [text for text, _ in kept],
                [texts.to_metadata(memories) for _, memories in kept],
            )
