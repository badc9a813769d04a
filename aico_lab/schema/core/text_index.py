"""The texts that are searched by meaning; see embeddings/text_index.py."""

from __future__ import annotations

from aico_lab.schema.versions import SchemaVersion

TEXT_INDEX = {
    1: SchemaVersion(
        version=1,
        name="Texts searched by meaning",
        description="Which text each segment, memory and chunk of a document has in the index.",
        sql_statements=(
            # A hash, not the text: a deleted text leaves nothing that can be read.
            """CREATE TABLE text_index (
                collection TEXT NOT NULL,
                item_id TEXT NOT NULL,
                text_sha256 BLOB NOT NULL,
                PRIMARY KEY (collection, item_id)
            ) WITHOUT ROWID""",
            "CREATE INDEX text_index_by_text ON text_index (text_sha256)",
            # One row: the change of the feed up to which `text_index` goes. `model` is NULL before
            # the first update.
            """CREATE TABLE text_index_state (
                only_row INTEGER PRIMARY KEY NOT NULL CHECK (only_row = 1),
                model TEXT,
                seq INTEGER NOT NULL,
                anchor TEXT NOT NULL
            )""",
            "INSERT INTO text_index_state VALUES (1, NULL, 0, '')",
        ),
        rollback_statements=(
            "DROP TABLE text_index_state",
            "DROP TABLE text_index",
        ),
    ),
}
