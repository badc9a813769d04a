"""The full-text indexes of messages and of segments.

See repositories/full_text.py and embeddings/segment_words.py.
"""

from __future__ import annotations

from aico_lab.schema.versions import SchemaVersion

_SYMBOLS = (
    (0x2066, 0x2069),  # marks of direction, which WhatsApp writes
    (0x20BA, 0x20C0),  # currencies
    (0x23F4, 0x23FF),
    (0x1F321, 0x1F6FF),  # emoji
    (0x1F774, 0x1FAFF),
)
"""Blocks with symbols that are newer than FTS5's Unicode 6.1, which takes them as letters."""

TOKENIZE = "tokenize = \"unicode61 remove_diacritics 2 separators '{}'\"".format(
    "".join(chr(code) for first, last in _SYMBOLS for code in range(first, last + 1))
)
"""The option of FTS5 that splits texts into words."""

FORMER_TOKENIZE = "tokenize = 'unicode61 remove_diacritics 2'"
"""The same in former versions of the schemas."""

_SEARCH_STATE = (
    # One row: messages up to this id are in the index. New messages are not added by a trigger,
    # which would make writing them five times slower.
    """CREATE TABLE search_state (
                only_row INTEGER PRIMARY KEY NOT NULL CHECK (only_row = 1),
                indexed_through INTEGER NOT NULL
            )""",
    "INSERT INTO search_state VALUES (1, 0)",
)
_FIRST_INDEX = (
    # The index contains words and their positions, but no copy of the messages.
    """CREATE VIRTUAL TABLE messages_search USING fts5 (
                content, content = '', contentless_delete = 1,
                tokenize = 'unicode61 remove_diacritics 2'
            )""",
    *_SEARCH_STATE,
    """CREATE TRIGGER search_messages_delete AFTER DELETE ON messages
                WHEN OLD.id <= (SELECT indexed_through FROM search_state) BEGIN
                    DELETE FROM messages_search WHERE rowid = OLD.id;
                END""",
    """CREATE TRIGGER search_messages_update AFTER UPDATE OF content ON messages
                WHEN OLD.content IS NOT NEW.content
                    AND OLD.id <= (SELECT indexed_through FROM search_state) BEGIN
                    UPDATE messages_search SET content = NEW.content WHERE rowid = OLD.id;
                END""",
)
_WITHDRAW = """INSERT INTO messages_search (messages_search, rowid, content)
                    VALUES ('delete', OLD.id, OLD.content);"""
_MESSAGES = (
    *_SEARCH_STATE,
    f"""CREATE TRIGGER search_messages_delete AFTER DELETE ON messages
                WHEN OLD.id <= (SELECT indexed_through FROM search_state) BEGIN
                    {_WITHDRAW}
                END""",
    f"""CREATE TRIGGER search_messages_update AFTER UPDATE OF content ON messages
                WHEN OLD.content IS NOT NEW.content
                    AND OLD.id <= (SELECT indexed_through FROM search_state) BEGIN
                    {_WITHDRAW}
                    INSERT INTO messages_search (rowid, content) VALUES (OLD.id, NEW.content);
                END""",
)


def _index(table: str, tokenize: str) -> str:
    """Return the statement that makes an index."""
    return f"""CREATE VIRTUAL TABLE {table} USING fts5 (
                content, content = '', {tokenize}
            )"""


_NO_INDEX = (
    "DROP TRIGGER search_messages_update",
    "DROP TRIGGER search_messages_delete",
    "DROP TABLE search_state",
    "DROP TABLE messages_search",
)

_SEGMENTS = (
    # A changed segment gets a new id. Words of an id that is no longer in `segments_search_ids`
    # count for nothing, and are removed when there are many.
    """CREATE TABLE segments_search_ids (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                segment_id TEXT NOT NULL UNIQUE
            )""",
    # One row: segments up to this id are in the index, which also has this many former ones. The
    # ids follow the change feed up to `seq`; `anchor` is NULL before the first update.
    """CREATE TABLE segments_search_state (
                only_row INTEGER PRIMARY KEY NOT NULL CHECK (only_row = 1),
                indexed_through INTEGER NOT NULL,
                former INTEGER NOT NULL,
                seq INTEGER NOT NULL,
                anchor TEXT
            )""",
    "INSERT INTO segments_search_state VALUES (1, 0, 0, 0, NULL)",
)
_NO_SEGMENTS = (
    "DROP TABLE segments_search_state",
    "DROP TABLE segments_search_ids",
    "DROP TABLE segments_search",
)

_FORMER_INDEX = (_index("messages_search", FORMER_TOKENIZE), *_MESSAGES)
_FORMER_SEGMENTS = (_index("segments_search", FORMER_TOKENIZE), *_SEGMENTS)

SEARCH = {
    1: SchemaVersion(
        version=1,
        name="Full-text search",
        description="A full-text index of messages; see repositories/full_text.py.",
        sql_statements=_FIRST_INDEX,
        rollback_statements=_NO_INDEX,
    ),
    2: SchemaVersion(
        version=2,
        name="Full-text search for every SQLite",
        description="Without features that SQLite before 3.43 in other programs cannot write.",
        sql_statements=(*_NO_INDEX, *_FORMER_INDEX),
        rollback_statements=(*_NO_INDEX, *_FIRST_INDEX),
        derived=True,
    ),
    3: SchemaVersion(
        version=3,
        name="Full-text search of segments",
        description="A full-text index of segments; see embeddings/segment_words.py.",
        sql_statements=_FORMER_SEGMENTS,
        rollback_statements=_NO_SEGMENTS,
        derived=True,
    ),
    4: SchemaVersion(
        version=4,
        name="Words beside newer symbols",
        description="A word that an emoji follows without a blank is found.",
        sql_statements=(
            *_NO_INDEX,
            _index("messages_search", TOKENIZE),
            *_MESSAGES,
            *_NO_SEGMENTS,
            _index("segments_search", TOKENIZE),
            *_SEGMENTS,
        ),
        rollback_statements=(*_NO_INDEX, *_FORMER_INDEX, *_NO_SEGMENTS, *_FORMER_SEGMENTS),
        derived=True,
    ),
}
