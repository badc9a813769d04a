"""The rows that each import wrote, by which it is undone, and erasures with their receipts."""

from __future__ import annotations

from aico_lab.schema.versions import SchemaVersion

IMPORTS = {
    1: SchemaVersion(
        version=1,
        name="Imports",
        description="The imports, the rows that each added, and what it replaced.",
        sql_statements=(
            # `number` is the order of the imports; the name of the file is not kept.
            """CREATE TABLE imports (
                number INTEGER PRIMARY KEY AUTOINCREMENT,
                import_id TEXT NOT NULL UNIQUE,
                source TEXT NOT NULL,
                started_at TIMESTAMP TEXT NOT NULL,
                finished_at TIMESTAMP TEXT,
                read INTEGER NOT NULL DEFAULT 0,
                added INTEGER NOT NULL DEFAULT 0,
                updated INTEGER NOT NULL DEFAULT 0
            )""",
            # Messages of one transaction have successive ids, so few rows name many messages.
            """CREATE TABLE import_ranges (
                number INTEGER NOT NULL REFERENCES imports ON DELETE CASCADE,
                first_id INTEGER NOT NULL,
                last_id INTEGER NOT NULL,
                PRIMARY KEY (number, first_id)
            )""",
            # The key of a message is its `id`. `former` is NULL for a row that the import added,
            # else the values that a message had before.
            """CREATE TABLE import_rows (
                number INTEGER NOT NULL REFERENCES imports ON DELETE CASCADE,
                table_name TEXT NOT NULL,
                row_key TEXT NOT NULL,
                former JSON TEXT,
                PRIMARY KEY (number, table_name, row_key)
            )""",
            "CREATE INDEX import_rows_by_key ON import_rows (table_name, row_key)",
        ),
        rollback_statements=(
            "DROP TABLE import_rows",
            "DROP TABLE import_ranges",
            "DROP TABLE imports",
        ),
    ),
}

ERASURES = {
    1: SchemaVersion(
        version=1,
        name="Erasures",
        description="Erasures that are not finished, and the receipts of those that are.",
        sql_statements=(
            # `since_seq` and `until_seq` enclose its changes in the feed. The sealed file of
            # erasures has what the other stores are searched for. The receipt of an erasure that
            # is not finished has only its scope.
            """CREATE TABLE erasures (
                erasure_id TEXT PRIMARY KEY NOT NULL,
                begun_at TIMESTAMP TEXT NOT NULL,
                finished_at TIMESTAMP TEXT,
                since_seq INTEGER NOT NULL,
                until_seq INTEGER NOT NULL,
                receipt JSON TEXT
            )""",
        ),
        rollback_statements=("DROP TABLE erasures",),
    ),
}
