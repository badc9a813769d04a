"""The installation itself, the people it knows, and what is remembered of them."""

from __future__ import annotations

from aico_lab.schema.versions import SchemaVersion

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
            # 16 random bytes: a projection knows by it that its source was replaced.
            """INSERT INTO system_state VALUES ('database_id', lower(hex(randomblob(16))),
                strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')""",
        ],
        rollback_statements=["DROP TABLE system_state"],
    )
}

USERS = {
    1: SchemaVersion(
        version=1,
        name="People",
        description="Who talks with the companion, what they prefer, whom they know.",
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
            "DROP TABLE user_profiles",
            "DROP TABLE users",
        ],
        tracked={
            "users": ("user_id",),
            "user_profiles": ("user_id",),
            "preferences": ("user_id", "preference_key"),
            "relationships": ("relationship_id",),
        },
    )
}

MEMORIES = {
    1: SchemaVersion(
        version=1,
        name="Memories",
        description="What the companion remembers; the vectors lie in the vector database.",
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

PERSONALITY = {
    1: SchemaVersion(
        version=1,
        name="Personality",
        description="Versions of the companion's personality and what people said of it.",
        sql_statements=[
            """CREATE TABLE personality_profiles (
                profile_id TEXT PRIMARY KEY NOT NULL,
                user_id TEXT REFERENCES users ON DELETE CASCADE,
                version INTEGER NOT NULL,
                traits JSON TEXT NOT NULL,
                active_from TIMESTAMP TEXT NOT NULL,
                active_until TIMESTAMP TEXT
            )""",
            "CREATE INDEX personality_profiles_by_user ON personality_profiles (user_id)",
            # `name` says what was rated ('witty', 'interesting' …), `value` how much.
            """CREATE TABLE feedback_events (
                event_id TEXT PRIMARY KEY NOT NULL,
                user_id TEXT REFERENCES users ON DELETE CASCADE,
                conversation_id TEXT,
                message_id TEXT REFERENCES messages (message_id) ON DELETE CASCADE,
                kind TEXT NOT NULL,
                name TEXT NOT NULL,
                value REAL,
                timestamp TIMESTAMP TEXT NOT NULL,
                metadata JSON TEXT
            )""",
            "CREATE INDEX feedback_by_conversation ON feedback_events (conversation_id)",
            "CREATE INDEX feedback_by_message ON feedback_events (message_id)",
            "CREATE INDEX feedback_by_user ON feedback_events (user_id)",
        ],
        rollback_statements=["DROP TABLE feedback_events", "DROP TABLE personality_profiles"],
        tracked={
            "personality_profiles": ("profile_id",),
            "feedback_events": ("event_id",),
        },
    )
}
