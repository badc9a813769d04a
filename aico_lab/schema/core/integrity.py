"""The record of events of the seal of the primary database; see integrity/guard.py."""

from __future__ import annotations

from aico_lab.schema.versions import SchemaVersion

INTEGRITY = {
    1: SchemaVersion(
        version=1,
        name="Record of the seal",
        description="When the database was sealed as it was, and why.",
        sql_statements=(
            # `event` is 'sealed' (every page as it was) or 'reviewed' (pages that another program
            # had written, or what a deep check told of such ones). `pages` is their number.
            """CREATE TABLE integrity_log (
                at TIMESTAMP TEXT NOT NULL,
                event TEXT NOT NULL CHECK (event IN ('sealed', 'reviewed')),
                reason TEXT NOT NULL,
                pages INTEGER NOT NULL
            )""",
        ),
        rollback_statements=("DROP TABLE integrity_log",),
    ),
}
"""The versions of the schema."""
