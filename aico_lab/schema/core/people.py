"""The state of the installation; people and their memories."""

from __future__ import annotations

from aico_lab.schema.versions import SchemaVersion

_HAPPENED = "INSERT INTO preference_changes (user_id, preference_key, old_value, value, changed_at)"
# As in the applied versions, whatever `aico_lab.adapters.libsql.NOW` becomes.
_NOW = "strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'"

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
            f"""CREATE TRIGGER preferences_insert AFTER INSERT ON preferences BEGIN
                {_HAPPENED} VALUES
                    (NEW.user_id, NEW.preference_key, NULL, NEW.value, NEW.updated_at);
            END""",
            # If a program changes the value but not `updated_at`, the change is dated now.
            f"""CREATE TRIGGER preferences_update AFTER UPDATE OF value ON preferences
                WHEN OLD.value IS NOT NEW.value BEGIN
                {_HAPPENED} VALUES (NEW.user_id, NEW.preference_key, OLD.value, NEW.value,
                    iif(NEW.updated_at IS OLD.updated_at, {_NOW}, NEW.updated_at));
            END""",
            # The deletion of a person deletes their history, so nothing is added to it.
            f"""CREATE TRIGGER preferences_delete AFTER DELETE ON preferences
                WHEN EXISTS (SELECT 1 FROM users WHERE user_id = OLD.user_id) BEGIN
                {_HAPPENED} VALUES (OLD.user_id, OLD.preference_key, OLD.value, NULL, {_NOW});
            END""",
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
    )
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
