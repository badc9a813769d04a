"""The core tables of a lab: the data model of both source documents in one set of tables.

Declared types are the contract of the ETL and keep SQLite's affinity: `TIMESTAMP TEXT` is UTC,
ISO 8601 with microseconds and `Z` (fixed width, so that text order is time order), `JSON TEXT` is
JSON, `BOOLEAN INTEGER` is 0 or 1.
"""

from __future__ import annotations

from aico_lab.schema.registry import SchemaRegistry, SchemaVersion

CORE = SchemaRegistry()
"""The registry of this package's own schemas."""

CORE.register(
    "system",
    "core",
    {
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
    },
    priority=0,
)

CORE.register(
    "users",
    "core",
    {
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
    },
    priority=1,
)

CORE.register(
    "conversations",
    "core",
    {
        1: SchemaVersion(
            version=1,
            name="Conversations",
            description="Channels, their messages, segments of them, and vectors of either.",
            sql_statements=[
                """CREATE TABLE channels (
                    channel_id TEXT PRIMARY KEY NOT NULL,
                    name TEXT,
                    kind TEXT NOT NULL DEFAULT 'direct',
                    created_at TIMESTAMP TEXT NOT NULL,
                    last_active TIMESTAMP TEXT,
                    message_count INTEGER NOT NULL DEFAULT 0,
                    metadata JSON TEXT
                )""",
                # `id` is the order of arrival: the tie-breaker between messages of one second. It
                # is never used twice, so what was indexed up to an id stays so.
                # No foreign key to users: a system message has no author.
                """CREATE TABLE messages (
                    id INTEGER PRIMARY KEY AUTOINCREMENT,
                    message_id TEXT NOT NULL UNIQUE,
                    channel_id TEXT NOT NULL REFERENCES channels ON DELETE CASCADE,
                    conversation_id TEXT NOT NULL,
                    user_id TEXT REFERENCES users ON DELETE CASCADE,
                    role TEXT NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
                    content TEXT NOT NULL,
                    timestamp TIMESTAMP TEXT NOT NULL,
                    sentiment_score REAL,
                    sentiment_source TEXT,
                    response_time REAL,
                    reply_to TEXT,
                    metadata JSON TEXT
                )""",
                "CREATE INDEX messages_by_channel ON messages (channel_id, timestamp)",
                "CREATE INDEX messages_by_user ON messages (user_id, timestamp)",
                """CREATE VIEW conversations AS
                    SELECT
                        user_id, content AS message, content, timestamp,
                        role = 'assistant' AS is_ai_response,
                        CASE WHEN sentiment_score >= 0.05 THEN 'positive'
                             WHEN sentiment_score <= -0.05 THEN 'negative'
                             WHEN sentiment_score IS NOT NULL THEN 'neutral' END AS sentiment,
                        sentiment_score, response_time,
                        message_id, conversation_id, channel_id, role
                    FROM messages""",
                # So that the source document's INSERT works as printed: what it leaves out is what
                # a turn of a direct conversation is, and a number as sentiment is its score.
                """CREATE TRIGGER conversations_insert INSTEAD OF INSERT ON conversations BEGIN
                    INSERT INTO channels (channel_id, created_at, last_active, message_count)
                    VALUES (
                        coalesce(NEW.channel_id, 'direct:' || coalesce(NEW.user_id, '')),
                        NEW.timestamp, NEW.timestamp, 1
                    ) ON CONFLICT (channel_id) DO UPDATE SET
                        message_count = message_count + 1,
                        last_active = max(coalesce(last_active, ''), excluded.last_active);
                    INSERT INTO messages (
                        message_id, channel_id, conversation_id, user_id, role, content, timestamp,
                        sentiment_score, sentiment_source, response_time
                    ) SELECT
                        coalesce(NEW.message_id, lower(hex(randomblob(16)))),
                        place, coalesce(NEW.conversation_id, place), NEW.user_id,
                        coalesce(NEW.role, iif(NEW.is_ai_response, 'assistant', 'user')),
                        coalesce(NEW.content, NEW.message), NEW.timestamp,
                        score, iif(score IS NULL, NULL, 'given'), NEW.response_time
                    FROM (SELECT
                        coalesce(NEW.channel_id, 'direct:' || coalesce(NEW.user_id, '')) AS place,
                        coalesce(
                            NEW.sentiment_score,
                            iif(typeof(NEW.sentiment) IN ('real', 'integer'), NEW.sentiment, NULL)
                        ) AS score);
                END""",
                """CREATE TABLE conversation_segments (
                    segment_id TEXT PRIMARY KEY NOT NULL,
                    channel_id TEXT NOT NULL REFERENCES channels ON DELETE CASCADE,
                    started_at TIMESTAMP TEXT NOT NULL,
                    ended_at TIMESTAMP TEXT NOT NULL,
                    summary TEXT,
                    metadata JSON TEXT
                )""",
                "CREATE INDEX segments_by_channel ON conversation_segments (channel_id)",
                """CREATE TABLE segment_messages (
                    segment_id TEXT NOT NULL
                        REFERENCES conversation_segments ON DELETE CASCADE,
                    message_id TEXT NOT NULL REFERENCES messages (message_id) ON DELETE CASCADE,
                    position INTEGER NOT NULL,
                    PRIMARY KEY (segment_id, message_id)
                )""",
                "CREATE INDEX segment_messages_by_message ON segment_messages (message_id)",
                """CREATE TABLE embeddings (
                    embedding_id TEXT PRIMARY KEY NOT NULL,
                    message_id TEXT REFERENCES messages (message_id) ON DELETE CASCADE,
                    segment_id TEXT REFERENCES conversation_segments ON DELETE CASCADE,
                    model TEXT NOT NULL,
                    vector F32_BLOB(256) NOT NULL,
                    created_at TIMESTAMP TEXT NOT NULL
                )""",
                "CREATE INDEX embeddings_by_message ON embeddings (message_id)",
                "CREATE INDEX embeddings_by_segment ON embeddings (segment_id)",
            ],
            rollback_statements=[
                "DROP TABLE embeddings",
                "DROP TABLE segment_messages",
                "DROP TABLE conversation_segments",
                "DROP VIEW conversations",
                "DROP TABLE messages",
                "DROP TABLE channels",
            ],
            tracked={
                "channels": ("channel_id",),
                "messages": ("message_id",),
                "conversation_segments": ("segment_id",),
                "segment_messages": ("segment_id", "message_id"),
                "embeddings": ("embedding_id",),
            },
        )
    },
    priority=2,
)

CORE.register(
    "memories",
    "core",
    {
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
    },
    priority=3,
)

CORE.register(
    "personality",
    "core",
    {
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
    },
    priority=4,
)

CORE.register(
    "operations",
    "core",
    {
        1: SchemaVersion(
            version=1,
            name="Operations",
            description="Trusted devices, events waiting for the message bus, reports that ran.",
            sql_statements=[
                """CREATE TABLE devices (
                    device_id TEXT PRIMARY KEY NOT NULL,
                    name TEXT NOT NULL,
                    public_key TEXT NOT NULL,
                    trusted BOOLEAN INTEGER NOT NULL DEFAULT 0,
                    added_at TIMESTAMP TEXT NOT NULL,
                    last_seen_at TIMESTAMP TEXT
                )""",
                """CREATE TABLE outbox (
                    seq INTEGER PRIMARY KEY AUTOINCREMENT,
                    topic TEXT NOT NULL,
                    payload JSON TEXT NOT NULL,
                    created_at TIMESTAMP TEXT NOT NULL,
                    attempts INTEGER NOT NULL DEFAULT 0
                )""",
                """CREATE TABLE report_runs (
                    run_id TEXT PRIMARY KEY NOT NULL,
                    report TEXT NOT NULL,
                    parameters JSON TEXT NOT NULL,
                    generation INTEGER NOT NULL,
                    notebook_sha256 TEXT NOT NULL,
                    status TEXT NOT NULL CHECK (status IN ('running', 'succeeded', 'failed')),
                    started_at TIMESTAMP TEXT NOT NULL,
                    finished_at TIMESTAMP TEXT,
                    error TEXT
                )""",
                "CREATE INDEX report_runs_by_report ON report_runs (report, started_at)",
            ],
            rollback_statements=[
                "DROP TABLE report_runs",
                "DROP TABLE outbox",
                "DROP TABLE devices",
            ],
            tracked={"devices": ("device_id",)},
        )
    },
    priority=5,
)

CORE.register(
    "bus",
    "core",
    {
        1: SchemaVersion(
            version=1,
            name="Message bus",
            description="How far every consumer has come in the outbox, and what it gave up.",
            sql_statements=[
                # `position` is the last outbox.seq that the consumer handled, gave up or did not
                # want: numbers are given in commit order, so one number tells all that is done.
                # `attempts` and `due_at` belong to the message after it that failed last.
                """CREATE TABLE bus_consumers (
                    consumer TEXT PRIMARY KEY NOT NULL,
                    patterns JSON TEXT NOT NULL,
                    position INTEGER NOT NULL DEFAULT 0,
                    attempts INTEGER NOT NULL DEFAULT 0,
                    due_at TIMESTAMP TEXT
                )""",
                """CREATE TABLE dead_letters (
                    consumer TEXT NOT NULL,
                    seq INTEGER NOT NULL,
                    topic TEXT NOT NULL,
                    payload JSON TEXT NOT NULL,
                    created_at TIMESTAMP TEXT NOT NULL,
                    attempts INTEGER NOT NULL,
                    error TEXT NOT NULL,
                    reason TEXT NOT NULL,
                    died_at TIMESTAMP TEXT NOT NULL,
                    PRIMARY KEY (consumer, seq)
                )""",
            ],
            rollback_statements=["DROP TABLE dead_letters", "DROP TABLE bus_consumers"],
        )
    },
    priority=6,
)

CORE.register(
    "search",
    "core",
    {
        1: SchemaVersion(
            version=1,
            name="Full-text search",
            description="An index of the words of messages; see repositories/full_text.py.",
            sql_statements=[
                # It holds words and where they are, and no second copy of any message.
                """CREATE VIRTUAL TABLE messages_search USING fts5 (
                    content, content = '', contentless_delete = 1,
                    tokenize = 'unicode61 remove_diacritics 2'
                )""",
                # One row: messages up to this id are in the index. No trigger adds new ones, since
                # that would make writing them five times slower.
                """CREATE TABLE search_state (
                    only_row INTEGER PRIMARY KEY NOT NULL CHECK (only_row = 1),
                    indexed_through INTEGER NOT NULL
                )""",
                "INSERT INTO search_state VALUES (1, 0)",
                """CREATE TRIGGER search_messages_delete AFTER DELETE ON messages
                    WHEN OLD.id <= (SELECT indexed_through FROM search_state) BEGIN
                        DELETE FROM messages_search WHERE rowid = OLD.id;
                    END""",
                """CREATE TRIGGER search_messages_update AFTER UPDATE OF content ON messages
                    WHEN OLD.content IS NOT NEW.content
                        AND OLD.id <= (SELECT indexed_through FROM search_state) BEGIN
                        UPDATE messages_search SET content = NEW.content WHERE rowid = OLD.id;
                    END""",
            ],
            rollback_statements=[
                "DROP TRIGGER search_messages_update",
                "DROP TRIGGER search_messages_delete",
                "DROP TABLE search_state",
                "DROP TABLE messages_search",
            ],
        )
    },
    priority=7,
)
