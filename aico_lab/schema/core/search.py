"""The full-text indexes of messages and of segments.

See repositories/full_text.py and embeddings/segment_words.py.
"""

from __future__ import annotations

from aico_lab.schema.versions import SchemaVersion

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
_INDEX = (
    """CREATE VIRTUAL TABLE messages_search USING fts5 (
                content, content = '', tokenize = 'unicode61 remove_diacritics 2'
            )""",
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
_NO_INDEX = (
    "DROP TRIGGER search_messages_update",
    "DROP TRIGGER search_messages_delete",
    "DROP TABLE search_state",
    "DROP TABLE messages_search",
)

_SEGMENTS = (
    # A changed segment gets a new id. Words of an id that is no longer in `segments_search_ids`
    # count for nothing, and are removed when there are many.
    """CREATE VIRTUAL TABLE segments_search USING fts5 (
                content, content = '', tokenize = 'unicode61 remove_diacritics 2'
            )""",
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
        sql_statements=(*_NO_INDEX, *_INDEX),
        rollback_statements=(*_NO_INDEX, *_FIRST_INDEX),
        derived=True,
    ),
    3: SchemaVersion(
        version=3,
        name="Full-text search of segments",
        description="A full-text index of segments; see embeddings/segment_words.py.",
        sql_statements=_SEGMENTS,
        rollback_statements=_NO_SEGMENTS,
        derived=True,
    ),
}
