"""The state of the federation of devices; see `aico_lab.federation`."""

from __future__ import annotations

from typing import Final

from aico_lab.schema.versions import SchemaVersion

_TABLES: Final = {
    # The device's own id and keys, its streams, and its position in the change feed.
    "sync_state": """(
        key TEXT PRIMARY KEY NOT NULL,
        value TEXT NOT NULL
    ) WITHOUT ROWID""",
    "sync_streams": """(
        stream_id INTEGER PRIMARY KEY,
        stream TEXT NOT NULL UNIQUE
    )""",
    # The version of every row that was sent or received, also of deleted ones; `twins` are versions
    # of other devices with the same content, as [stream, n, stamp].
    "sync_rows": """(
        table_name TEXT NOT NULL,
        row_key TEXT NOT NULL,
        cl INTEGER NOT NULL,
        stamp INTEGER NOT NULL,
        stream_id INTEGER NOT NULL,
        n INTEGER NOT NULL,
        digest TEXT NOT NULL,
        twins JSON TEXT,
        PRIMARY KEY (table_name, row_key)
    ) WITHOUT ROWID""",
    # Rows to be compared with their versions: what differs is sent, in the order of `place`.
    "sync_dirty": """(
        table_name TEXT NOT NULL,
        row_key NOT NULL,
        at INTEGER NOT NULL,
        is_deleted INTEGER NOT NULL,
        is_forced INTEGER NOT NULL DEFAULT 0,
        place INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (table_name, place, row_key)
    ) WITHOUT ROWID""",
    # Rows that cannot be sent, such as one with a NUL in its text.
    "sync_unsendable": """(
        table_name TEXT NOT NULL,
        row_key NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (table_name, row_key)
    ) WITHOUT ROWID""",
    # The bundles that were written or taken in; `ctx` is what their author had taken in.
    "sync_chain": """(
        stream TEXT NOT NULL,
        n INTEGER NOT NULL,
        hash TEXT NOT NULL,
        prev TEXT NOT NULL,
        class TEXT NOT NULL,
        ctx JSON TEXT NOT NULL,
        PRIMARY KEY (stream, n, hash)
    ) WITHOUT ROWID""",
    # Bundles that a trusted device had taken in.
    "sync_seen": "(hash TEXT PRIMARY KEY NOT NULL) WITHOUT ROWID",
    # The last bundle of each state, and the bundles that the state replaces, as JSON;
    # it is complete when it was taken in.
    "sync_states": """(
        file TEXT PRIMARY KEY NOT NULL,
        class TEXT NOT NULL,
        bundles JSON TEXT NOT NULL,
        is_complete INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # Files that will never be taken in.
    "sync_refused": """(
        file TEXT PRIMARY KEY NOT NULL,
        reason TEXT NOT NULL
    ) WITHOUT ROWID""",
    # Rows that wait for a row that they refer to, their parent, or that a constraint refused.
    "sync_parked": """(
        parked_id INTEGER PRIMARY KEY,
        table_name TEXT NOT NULL,
        row_key TEXT NOT NULL,
        version JSON TEXT NOT NULL,
        ctx JSON TEXT NOT NULL,
        reason TEXT NOT NULL,
        parent_table TEXT,
        parent_key TEXT
    )""",
    # The losing version of a row that two devices changed without knowing of each other; or a
    # version of a personality beside one of another device that has its number, or is also active;
    # or a row that a device deleted, or one that it refers to, without knowing this version.
    "sync_conflicts": """(
        conflict_id INTEGER PRIMARY KEY AUTOINCREMENT,
        table_name TEXT NOT NULL,
        row_key TEXT NOT NULL,
        loser TEXT NOT NULL,
        content JSON TEXT NOT NULL,
        kind TEXT NOT NULL DEFAULT 'row' CHECK (kind IN ('row', 'personality', 'deleted')),
        state TEXT NOT NULL CHECK (state IN ('open', 'decided')),
        found_at TIMESTAMP TEXT NOT NULL,
        decided_at TIMESTAMP TEXT,
        UNIQUE (table_name, row_key, loser)
    )""",
    "sync_audit": """(
        audit_id INTEGER PRIMARY KEY AUTOINCREMENT,
        at TIMESTAMP TEXT NOT NULL,
        event TEXT NOT NULL,
        device_id TEXT,
        detail TEXT NOT NULL
    )""",
    # A key that bundles of one class are encrypted for, and the devices that it was sealed for;
    # the identity is NULL if it was not sealed for this device.
    "sync_epochs": """(
        epoch TEXT PRIMARY KEY NOT NULL,
        class TEXT NOT NULL,
        recipient TEXT NOT NULL,
        identity TEXT,
        device_ids JSON TEXT NOT NULL
    ) WITHOUT ROWID""",
    # What was taken in of a device when it was revoked.
    "sync_revocations": """(
        device_id TEXT NOT NULL,
        heads JSON TEXT NOT NULL,
        PRIMARY KEY (device_id, heads)
    ) WITHOUT ROWID""",
    # The newest name and policy of a device.
    "sync_settings": """(
        device_id TEXT NOT NULL,
        field TEXT NOT NULL,
        stamp INTEGER NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (device_id, field)
    ) WITHOUT ROWID""",
}

# `ctx` is what the device that asks had taken in, if it is known; `unsent` are the conflicts that
# the erasure decides here, until they are sent with the statement.
_ERASURES = """CREATE TABLE sync_erasures (
                erasure_id TEXT PRIMARY KEY NOT NULL,
                statement JSON TEXT NOT NULL,
                ctx JSON TEXT,
                state TEXT NOT NULL CHECK (state IN ('waiting', 'erasing', 'done')),
                unsent JSON TEXT
            ) WITHOUT ROWID"""

FEDERATION = {
    1: SchemaVersion(
        version=1,
        name="Federation",
        description="Versions of rows, bundles, epochs and conflicts of the federation of devices.",
        sql_statements=[
            *(f"CREATE TABLE {name} {columns}" for name, columns in _TABLES.items()),
            "CREATE INDEX sync_conflicts_by_row ON sync_conflicts (table_name, row_key)",
            "CREATE UNIQUE INDEX sync_dirty_by_row ON sync_dirty (table_name, row_key)",
        ],
        rollback_statements=[f"DROP TABLE {name}" for name in reversed(_TABLES)],
    ),
    2: SchemaVersion(
        version=2,
        name="Erasures for other devices",
        description="The erasures that devices ask each other for.",
        sql_statements=[
            _ERASURES,
        ],
        rollback_statements=["DROP TABLE sync_erasures"],
    ),
    3: SchemaVersion(
        version=3,
        name="Marks of erased rows",
        description="Deletions of an erasure, which also end conflicts, instead of its context.",
        sql_statements=[
            "ALTER TABLE sync_erasures DROP COLUMN ctx",
            "ALTER TABLE sync_dirty ADD COLUMN erased_by TEXT",
            # Whether an erased row is kept only for others which refer to it.
            "ALTER TABLE sync_conflicts ADD COLUMN is_parent INTEGER NOT NULL DEFAULT 0",
        ],
        rollback_statements=[
            "ALTER TABLE sync_conflicts DROP COLUMN is_parent",
            "ALTER TABLE sync_dirty DROP COLUMN erased_by",
            "ALTER TABLE sync_erasures RENAME TO sync_erasures_3",
            _ERASURES,
            """INSERT INTO sync_erasures (erasure_id, statement, state, unsent)
            SELECT erasure_id, statement, state, unsent FROM sync_erasures_3""",
            "DROP TABLE sync_erasures_3",
        ],
    ),
    4: SchemaVersion(
        version=4,
        name="Winners of conflicts",
        description="The version that the losing one of a conflict lost to.",
        sql_statements=["ALTER TABLE sync_conflicts ADD COLUMN winner TEXT"],
        rollback_statements=["ALTER TABLE sync_conflicts DROP COLUMN winner"],
    ),
}
