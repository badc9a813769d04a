"""The state of the installation; people and their memories."""

from __future__ import annotations

from aico_lab.schema.versions import SchemaVersion

_HAPPENED = "INSERT INTO preference_changes (user_id, preference_key, old_value, value, changed_at)"
# As in the applied versions, whatever `aico_lab.adapters.libsql.NOW` becomes.
_NOW = "strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'"


def _history_triggers(condition: str = "") -> list[str]:
    """Return the triggers that write the history of preferences.

    Args:
        condition: SQL for whether they run, or nothing if they always do.
    """
    when, and_ = (f"WHEN {condition}", f"AND {condition}") if condition else ("", "")
    return [
        f"""CREATE TRIGGER preferences_insert AFTER INSERT ON preferences {when} BEGIN
            {_HAPPENED} VALUES
                (NEW.user_id, NEW.preference_key, NULL, NEW.value, NEW.updated_at);
        END""",
        # If a program changes the value but not `updated_at`, the change is dated now.
        f"""CREATE TRIGGER preferences_update AFTER UPDATE OF value ON preferences
            WHEN OLD.value IS NOT NEW.value {and_} BEGIN
            {_HAPPENED} VALUES (NEW.user_id, NEW.preference_key, OLD.value, NEW.value,
                iif(NEW.updated_at IS OLD.updated_at, {_NOW}, NEW.updated_at));
        END""",
        # The deletion of a person deletes their history, so nothing is added to it.
        f"""CREATE TRIGGER preferences_delete AFTER DELETE ON preferences
            WHEN EXISTS (SELECT 1 FROM users WHERE user_id = OLD.user_id) {and_} BEGIN
            {_HAPPENED} VALUES (OLD.user_id, OLD.preference_key, OLD.value, NULL, {_NOW});
        END""",
    ]


_HISTORY_TRIGGERS_DROPPED = [
    f"DROP TRIGGER preferences_{event}" for event in ("delete", "update", "insert")
]


def _rebuilt_history(column: str, value: str) -> list[str]:
    """Return statements that rebuild `preference_changes`, with or without a global key.

    Args:
        column: The definition of the global key's column, or nothing.
        value: SQL for the key of an existing row, or nothing.
    """
    return [
        "DROP INDEX preference_changes_by_user",
        "ALTER TABLE preference_changes RENAME TO preference_changes_before",
        f"""CREATE TABLE preference_changes (
            change_id INTEGER PRIMARY KEY AUTOINCREMENT,
            {column}
            user_id TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
            preference_key TEXT NOT NULL,
            old_value JSON TEXT,
            value JSON TEXT,
            changed_at TIMESTAMP TEXT NOT NULL
        )""",
        f"""INSERT INTO preference_changes SELECT change_id, {value} user_id, preference_key,
            old_value, value, changed_at FROM preference_changes_before""",
        "DROP TABLE preference_changes_before",
        "CREATE INDEX preference_changes_by_user ON preference_changes (user_id)",
    ]


SYSTEM = {
    1: SchemaVersion(
        version=1,
        name="System state",
        description="Facts about this installation, such as the identity of the database.",
        sql_statements=[
            """CREATE TABLE system_state (
                key TEXT PRIMARY KEY NOT NULL,
                value TEXT,
                updated_at TIMESTAMP TEXT NOT NULL
            )""",
            # 16 random bytes, by which a projection detects that its source was replaced.
            f"INSERT INTO system_state VALUES ('database_id', lower(hex(randomblob(16))), {_NOW})",
        ],
        rollback_statements=["DROP TABLE system_state"],
    ),
    2: SchemaVersion(
        version=2,
        name="Keys of every type",
        description="New triggers of the change feed: see `aico_lab.schema.feed_keys`.",
        sql_statements=[],
        rollback_statements=[],
    ),
    3: SchemaVersion(
        version=3,
        name="Numbers as keys",
        description="The change feed tells a key that is a number from the text of its digits.",
        sql_statements=[],
        rollback_statements=[],
    ),
}

USERS = {
    1: SchemaVersion(
        version=1,
        name="People",
        description="People who talk with the companion, their preferences and relationships.",
        sql_statements=[
            """CREATE TABLE users (
                user_id TEXT PRIMARY KEY NOT NULL,
                name TEXT,
                created_at TIMESTAMP TEXT NOT NULL,
                metadata JSON TEXT
            )""",
            """CREATE TABLE user_profiles (
                user_id TEXT PRIMARY KEY NOT NULL REFERENCES users ON DELETE CASCADE,
                profile JSON TEXT NOT NULL,
                updated_at TIMESTAMP TEXT NOT NULL
            )""",
            """CREATE TABLE preferences (
                user_id TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
                preference_key TEXT NOT NULL,
                value JSON TEXT NOT NULL,
                updated_at TIMESTAMP TEXT NOT NULL,
                PRIMARY KEY (user_id, preference_key)
            )""",
            # The history of `preferences`: `old_value` is NULL for a first value, `value` for a
            # removal.
            """CREATE TABLE preference_changes (
                change_id INTEGER PRIMARY KEY AUTOINCREMENT,
                user_id TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
                preference_key TEXT NOT NULL,
                old_value JSON TEXT,
                value JSON TEXT,
                changed_at TIMESTAMP TEXT NOT NULL
            )""",
            "CREATE INDEX preference_changes_by_user ON preference_changes (user_id)",
            *_history_triggers(),
            """CREATE TABLE relationships (
                relationship_id TEXT PRIMARY KEY NOT NULL,
                user_id TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
                other TEXT NOT NULL,
                kind TEXT NOT NULL,
                strength REAL,
                notes TEXT,
                updated_at TIMESTAMP TEXT NOT NULL
            )""",
            "CREATE INDEX relationships_by_user ON relationships (user_id)",
        ],
        rollback_statements=[
            "DROP TABLE relationships",
            "DROP TABLE preferences",
            "DROP TABLE preference_changes",
            "DROP TABLE user_profiles",
            "DROP TABLE users",
        ],
        tracked={
            "users": ("user_id",),
            "user_profiles": ("user_id",),
            "preferences": ("user_id", "preference_key"),
            "preference_changes": ("change_id",),
            "relationships": ("relationship_id",),
        },
    ),
    2: SchemaVersion(
        version=2,
        name="Changes of preferences by a global key",
        description="A change of a preference has a key that is the same on every device.",
        sql_statements=[
            *_HISTORY_TRIGGERS_DROPPED,
            *_rebuilt_history(
                """change_key TEXT NOT NULL UNIQUE DEFAULT (lower(hex(randomblob(16)))),""",
                "'old:' || change_id || ':' || changed_at,",
            ),
            # While it has a row, changes of other devices are being applied, with their history.
            "CREATE TABLE sync_applying (is_applying INTEGER PRIMARY KEY)",
            *_history_triggers("NOT EXISTS (SELECT 1 FROM sync_applying)"),
        ],
        rollback_statements=[
            *_HISTORY_TRIGGERS_DROPPED,
            "DROP TABLE sync_applying",
            *_rebuilt_history("", ""),
            *_history_triggers(),
        ],
        tracked={"preference_changes": ("change_key",)},
    ),
}

MEMORIES = {
    1: SchemaVersion(
        version=1,
        name="Memories",
        description="The companion's memories; their vectors are in the vector database.",
        sql_statements=[
            """CREATE TABLE memories (
                memory_id TEXT PRIMARY KEY NOT NULL,
                user_id TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
                content TEXT NOT NULL,
                memory_type TEXT NOT NULL,
                importance REAL NOT NULL,
                created_at TIMESTAMP TEXT NOT NULL,
                metadata JSON TEXT
            )""",
            "CREATE INDEX memories_by_user ON memories (user_id, created_at)",
        ],
        rollback_statements=["DROP TABLE memories"],
        tracked={"memories": ("memory_id",)},
    )
}
