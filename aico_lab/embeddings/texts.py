"""Read the texts that are searched by meaning from the primary database.

An item is a segment of a conversation, a memory, or a chunk of a document. The text of a segment
has the contents of its messages in order, one per line, without blank ones.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from aico_lab.adapters.libsql import Connection

SEGMENTS: Final = "conversation_segments"
MEMORIES: Final = "memories"
KNOWLEDGE: Final = "knowledge"

COLLECTIONS: Final = (SEGMENTS, MEMORIES, KNOWLEDGE)
"""The collections of the index."""

BATCH = 2_000

# As bytes: the driver truncates text at a NUL, and panics on bad UTF-8 of another program. Items
# whose id is a blob are left out, as the warehouse quarantines them.
_READ: Final = {
    SEGMENTS: """
        SELECT CAST(s.segment_id AS BLOB), CAST(m.content AS BLOB)
        FROM {ids} conversation_segments AS s {matched}
        CROSS JOIN segment_messages AS sm ON sm.segment_id = s.segment_id
        CROSS JOIN messages AS m ON m.message_id = sm.message_id
        WHERE typeof(s.segment_id) = 'text'
        ORDER BY s.segment_id, sm.position, m.timestamp, m.id""",
    MEMORIES: """
        SELECT CAST(s.memory_id AS BLOB), CAST(s.content AS BLOB)
        FROM {ids} memories AS s {matched} WHERE typeof(s.memory_id) = 'text'""",
    KNOWLEDGE: """
        SELECT CAST(s.chunk_id AS BLOB), CAST(s.content AS BLOB)
        FROM {ids} knowledge_chunks AS s {matched} WHERE typeof(s.chunk_id) = 'text'""",
}
_ID: Final = {SEGMENTS: "segment_id", MEMORIES: "memory_id", KNOWLEDGE: "chunk_id"}
_TABLE: Final = {
    SEGMENTS: "conversation_segments", MEMORIES: "memories", KNOWLEDGE: "knowledge_chunks",
}  # fmt: skip

_SPAN: Final = "k.seq > ?1 AND k.seq <= ?2 AND typeof(k.row_key) = 'text'"
_KEYS: Final = (
    f"SELECT CAST(k.row_key AS BLOB) FROM change_log AS k WHERE {_SPAN} AND k.table_name = "
)
_CHANGED: Final = {
    SEGMENTS: f"""
        {_KEYS} 'conversation_segments'
        UNION SELECT CAST(json_extract(k.row_key, '$[0]') AS BLOB) FROM change_log AS k
        WHERE {_SPAN} AND k.table_name = 'segment_messages' AND json_valid(k.row_key)
        UNION SELECT CAST(sm.segment_id AS BLOB)
        FROM change_log AS k CROSS JOIN segment_messages AS sm ON sm.message_id = k.row_key
        WHERE {_SPAN} AND k.table_name = 'messages'""",
    MEMORIES: f"SELECT DISTINCT * FROM ({_KEYS} 'memories')",
    KNOWLEDGE: f"SELECT DISTINCT * FROM ({_KEYS} 'knowledge_chunks')",
}

TABLES: Final = (
    "conversation_segments",
    "segment_messages",
    "messages",
    "memories",
    "knowledge_chunks",
)
"""The tables whose changes can change a text."""


class Item(NamedTuple):
    """An item of a collection; bytes of another program that are not UTF-8 become U+FFFD."""

    item_id: str
    text: str


def read_ids(connection: Connection, collection: str) -> set[str]:
    """Return the ids of all items of a collection."""
    id_, table = _ID[collection], _TABLE[collection]
    rows = connection.fetch_all(
        f"SELECT CAST({id_} AS BLOB) FROM {table} WHERE typeof({id_}) = 'text'"
    )
    return {key.decode(errors="replace") for (key,) in rows}


def read_all(connection: Connection, collection: str) -> Iterator[Item]:
    """Yield every item of a collection with its text, which may be blank."""
    query = _READ[collection].format(ids="", matched="")
    rows = itertools.chain.from_iterable(connection.fetch_batches(query, size=BATCH))
    return _items(rows)


def read_some(connection: Connection, collection: str, ids: Collection[str]) -> Iterator[Item]:
    """Yield the items of a collection that have some ids; ids without an item are ignored."""
    query = _READ[collection].format(
        ids="json_each(?) AS k CROSS JOIN", matched=f"ON s.{_ID[collection]} = k.value"
    )
    remaining = iter(sorted(ids))
    while part := list(itertools.islice(remaining, BATCH)):
        yield from _items(connection.fetch_all(query, [json.dumps(part)]))


def changed(connection: Connection, collection: str, since: int, until: int) -> set[str]:
    """Return the ids of items whose text may have changed, including those of deleted items.

    Args:
        connection: The primary database.
        collection: One of `COLLECTIONS`.
        since: The sequence number of the last change that is known already.
        until: The sequence number of the last change to read.
    """
    rows = connection.fetch_all(_CHANGED[collection], [since, until])
    return {key.decode(errors="replace") for (key,) in rows if key is not None}


def _items(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[Item]:
    """Join the texts of adjacent rows with the same id."""
    for key, group in itertools.groupby(rows, key=lambda row: row[0]):
        said = (content.decode(errors="replace") for _, content in group)
        text = "\n".join(one for one in said if one.strip())
        yield Item(key.decode(errors="replace"), text)
