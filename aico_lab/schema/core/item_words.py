"""The full-text indexes of memories and of chunks of documents; see search/keyword.py."""

from __future__ import annotations

from aico_lab.schema.core.search import FORMER_TOKENIZE, TOKENIZE
from aico_lab.schema.versions import SchemaVersion


def _index(table: str, key: str, tokenize: str) -> tuple[str, ...]:
    """Return the statements that make the index of a table, and keep it current by triggers.

    Unlike messages, these are few and are seldom written, so that the index needs no watermark.

    Args:
        table: The table, which has a column `content`.
        key: Its primary key.
        tokenize: The option of FTS5 that splits texts into words.
    """
    index, ids = f"{table}_search", f"{table}_search_ids"
    withdraw = f"""INSERT INTO {index} ({index}, rowid, content)
            SELECT 'delete', id, OLD.content FROM {ids} WHERE {key} = OLD.{key};
        DELETE FROM {ids} WHERE {key} = OLD.{key};"""
    # What stands in the way was left by a REPLACE, which deletes without a trigger. It is not
    # replaced here, because the statement that fires a trigger decides on conflicts in it.
    add = f"""DELETE FROM {ids} WHERE {key} = NEW.{key};
        INSERT INTO {ids} ({key}) VALUES (NEW.{key});
        INSERT INTO {index} (rowid, content)
            SELECT id, NEW.content FROM {ids} WHERE {key} = NEW.{key};"""
    return (
        # VACUUM may renumber the rows of `table`. An id is never used again.
        f"""CREATE TABLE {ids} (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            {key} TEXT NOT NULL UNIQUE
        )""",
        f"""CREATE VIRTUAL TABLE {index} USING fts5 (
            content, content = '', {tokenize}
        )""",
        f"INSERT INTO {ids} ({key}) SELECT {key} FROM {table}",
        f"""INSERT INTO {index} (rowid, content)
            SELECT i.id, t.content FROM {ids} AS i JOIN {table} AS t USING ({key})""",
        f"CREATE TRIGGER {index}_insert AFTER INSERT ON {table} BEGIN {add} END",
        f"CREATE TRIGGER {index}_delete AFTER DELETE ON {table} BEGIN {withdraw} END",
        f"""CREATE TRIGGER {index}_update AFTER UPDATE OF {key}, content ON {table}
        WHEN (OLD.{key}, OLD.content) IS NOT (NEW.{key}, NEW.content) BEGIN
            {withdraw}
            {add}
        END""",
    )


def _no_index(table: str) -> tuple[str, ...]:
    return (
        *(f"DROP TRIGGER {table}_search_{event}" for event in ("update", "delete", "insert")),
        f"DROP TABLE {table}_search",
        f"DROP TABLE {table}_search_ids",
    )


def _indexes(tokenize: str) -> tuple[str, ...]:
    return (
        *_index("memories", "memory_id", tokenize),
        *_index("knowledge_chunks", "chunk_id", tokenize),
    )


_NO_INDEXES = (*_no_index("knowledge_chunks"), *_no_index("memories"))

ITEM_WORDS = {
    1: SchemaVersion(
        version=1,
        name="Words of memories and documents",
        description="Full-text indexes of memories and of chunks of documents.",
        sql_statements=_indexes(FORMER_TOKENIZE),
        rollback_statements=_NO_INDEXES,
        derived=True,
    ),
    2: SchemaVersion(
        version=2,
        name="Words beside newer symbols",
        description="A word that an emoji follows without a blank is found.",
        sql_statements=(*_NO_INDEXES, *_indexes(TOKENIZE)),
        rollback_statements=(*_NO_INDEXES, *_indexes(FORMER_TOKENIZE)),
        derived=True,
    ),
}
