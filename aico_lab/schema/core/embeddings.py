"""Vectors of texts, people's own documents, stored explorations, and the segmenter's position."""

from __future__ import annotations

from typing import Final

from aico_lab.schema.core.segments import CHANGEABLE, CHANGED
from aico_lab.schema.versions import SchemaVersion

_TABLES: Final = {
    # One row: messages up to this id were read. Later ones are read by the next update; changes of
    # earlier ones are noted in `segmenting_changes` or mark their segment as stale.
    "segmenting_state": """(
        only_row INTEGER PRIMARY KEY NOT NULL CHECK (only_row = 1),
        segmented_through INTEGER NOT NULL,
        segmenter TEXT,
        parameters JSON TEXT
    )""",
    "segmenting_changes": "(id INTEGER PRIMARY KEY NOT NULL)",
    # A vector of `dimensions` numbers of 32 bits, little-endian, by the SHA-256 of its text.
    "text_vectors": """(
        model TEXT NOT NULL,
        text_sha256 BLOB NOT NULL,
        dimensions INTEGER NOT NULL,
        vector F32_BLOB NOT NULL,
        PRIMARY KEY (model, text_sha256)
    )""",
    "knowledge_documents": """(
        document_id TEXT PRIMARY KEY NOT NULL,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        added_at TIMESTAMP TEXT NOT NULL,
        metadata JSON TEXT
    )""",
    "knowledge_chunks": """(
        chunk_id TEXT PRIMARY KEY NOT NULL,
        document_id TEXT NOT NULL REFERENCES knowledge_documents ON DELETE CASCADE,
        position INTEGER NOT NULL,
        place TEXT,
        content TEXT NOT NULL
    )""",
    "explorations": """(
        exploration_id TEXT PRIMARY KEY NOT NULL,
        created_at TIMESTAMP TEXT NOT NULL,
        model TEXT NOT NULL,
        parameters JSON TEXT NOT NULL,
        seed INTEGER NOT NULL,
        generation INTEGER,
        passages INTEGER NOT NULL,
        stability REAL,
        notes JSON TEXT,
        space BLOB
    )""",
    "themes": """(
        exploration_id TEXT NOT NULL REFERENCES explorations ON DELETE CASCADE,
        theme INTEGER NOT NULL,
        name TEXT NOT NULL,
        words JSON TEXT NOT NULL,
        passages INTEGER NOT NULL,
        centre BLOB NOT NULL,
        PRIMARY KEY (exploration_id, theme)
    )""",
    "passage_themes": """(
        exploration_id TEXT NOT NULL REFERENCES explorations ON DELETE CASCADE,
        segment_id TEXT NOT NULL REFERENCES conversation_segments ON DELETE CASCADE,
        theme INTEGER NOT NULL,
        distance REAL NOT NULL,
        is_outlier BOOLEAN INTEGER NOT NULL,
        x REAL,
        y REAL,
        PRIMARY KEY (exploration_id, segment_id)
    )""",
}
_NOTES: Final = {
    "segmenting_message_update": f"""AFTER UPDATE OF {CHANGEABLE} ON messages
    WHEN NEW.id <= (SELECT segmented_through FROM segmenting_state) AND {CHANGED} BEGIN
        INSERT OR IGNORE INTO segmenting_changes VALUES (NEW.id);
    END""",
    # `NEW.id` is -1 where the statement leaves it to the database, which then takes a new one.
    "segmenting_message_insert": """BEFORE INSERT ON messages
    WHEN NEW.id <> -1 AND NEW.id <= (SELECT segmented_through FROM segmenting_state) BEGIN
        INSERT OR IGNORE INTO segmenting_changes VALUES (NEW.id);
    END""",
}
# Messages that lose their segment without changing themselves. Deleting a segment deletes the
# membership of its messages: by a cascade, or where foreign keys are off, by the second trigger.
_LOST_SEGMENTS: Final = {
    "segmenting_lost_membership": """AFTER DELETE ON segment_messages
    WHEN (SELECT segmented_through FROM segmenting_state) > 0 BEGIN
        INSERT OR IGNORE INTO segmenting_changes
        SELECT id FROM messages WHERE message_id = OLD.message_id
            AND id <= (SELECT segmented_through FROM segmenting_state);
    END""",
    "segmenting_lost_segment": """AFTER DELETE ON conversation_segments BEGIN
        DELETE FROM segment_messages WHERE segment_id = OLD.segment_id;
    END""",
}
# Those that lost it before there were these triggers.
_NOTE_LOST: Final = """INSERT OR IGNORE INTO segmenting_changes
    SELECT id FROM messages AS m WHERE id <= (SELECT segmented_through FROM segmenting_state)
        AND NOT EXISTS (SELECT 1 FROM segment_messages AS sm WHERE sm.message_id = m.message_id)"""

EMBEDDINGS = {
    1: SchemaVersion(
        version=1,
        name="Embeddings",
        description="Vectors of texts, documents, explorations, and the segmenter's position.",
        sql_statements=(
            *(f"CREATE TABLE {name} {columns}" for name, columns in _TABLES.items()),
            "INSERT INTO segmenting_state VALUES (1, 0, NULL, NULL)",
            "CREATE INDEX knowledge_chunks_by_document ON knowledge_chunks (document_id)",
            "CREATE INDEX passage_themes_by_segment ON passage_themes (segment_id)",
            *(f"CREATE TRIGGER {name} {body}" for name, body in _NOTES.items()),
        ),
        rollback_statements=(
            *(f"DROP TRIGGER {name}" for name in reversed(_NOTES)),
            *(f"DROP TABLE {name}" for name in reversed(_TABLES)),
        ),
        tracked={
            "knowledge_documents": ("document_id",),
            "knowledge_chunks": ("chunk_id",),
            "explorations": ("exploration_id",),
            "themes": ("exploration_id", "theme"),
            "passage_themes": ("exploration_id", "segment_id"),
        },
    ),
    2: SchemaVersion(
        version=2,
        name="Current exploration",
        description="When an exploration was asked for last: the newest is the current one.",
        sql_statements=["ALTER TABLE explorations ADD COLUMN chosen_at TIMESTAMP TEXT"],
        rollback_statements=["ALTER TABLE explorations DROP COLUMN chosen_at"],
    ),
    3: SchemaVersion(
        version=3,
        name="Lost segments",
        description="Messages whose segment is deleted are put into segments again.",
        sql_statements=(
            _NOTE_LOST,
            *(f"CREATE TRIGGER {name} {body}" for name, body in _LOST_SEGMENTS.items()),
        ),
        rollback_statements=tuple(f"DROP TRIGGER {name}" for name in reversed(_LOST_SEGMENTS)),
        derived=True,
    ),
    4: SchemaVersion(
        version=4,
        name="Numbers of themes",
        description="Themes without words are named by their numbers, which begin with 0.",
        sql_statements=[
            "UPDATE themes SET name = 'Theme ' || theme WHERE name = 'Theme ' || (theme + 1)"
        ],
        rollback_statements=[
            "UPDATE themes SET name = 'Theme ' || (theme + 1) WHERE name = 'Theme ' || theme"
        ],
        derived=True,
    ),
}
