"""Channels, messages, segments and vectors, and the writable view `conversations`."""

from __future__ import annotations

from aico_lab.schema.core import segments
from aico_lab.schema.versions import SchemaVersion

_CHANNEL = "coalesce(NEW.channel_id, 'direct:' || coalesce(NEW.user_id, ''))"
_CONTENT = "coalesce(NEW.content, NEW.message)"
_ROLE = "coalesce(NEW.role, iif(NEW.is_ai_response, 'assistant', 'user'))"
_SCORE = """coalesce(NEW.sentiment_score,
    iif(typeof(NEW.sentiment) IN ('real', 'integer'), NEW.sentiment, NULL))"""
_DIGITS = "[0-9][0-9]"
_MINUTE = f"{_DIGITS * 2}-{_DIGITS}-{_DIGITS}[T ]{_DIGITS}:{_DIGITS}"
_MOMENT = f"{_DIGITS * 2}-{_DIGITS}-{_DIGITS}T{_DIGITS}:{_DIGITS}:{_DIGITS}.{_DIGITS * 3}Z"

# A trigger has no variables, so these expressions are repeated in it. SQLite rounds fractions of
# seconds to milliseconds, so they are cut off before a time is converted to UTC, and then appended.
_POINT = "instr(NEW.timestamp, '.')"
_BEHIND = f"iif({_POINT}, substr(NEW.timestamp, {_POINT} + 1), '')"
_ZONE = f"ltrim({_BEHIND}, '0123456789')"
_FRACTION = f"substr({_BEHIND}, 1, length({_BEHIND}) - length({_ZONE}))"
_SECONDS = f"iif({_POINT}, substr(NEW.timestamp, 1, {_POINT} - 1) || {_ZONE}, NEW.timestamp)"
_TIMESTAMP = (
    f"strftime('%Y-%m-%dT%H:%M:%S', {_SECONDS}) || '.' || substr({_FRACTION} || '000000', 1, 6) "
    "|| 'Z'"
)
"""An ISO 8601 time in UTC in the format of the table; NULL if SQLite cannot parse the time."""


def _beyond(value: str, low: str, high: str) -> str:
    return f"""{value} IS NOT NULL AND (
        typeof({value}) NOT IN ('real', 'integer') OR {value} NOT BETWEEN {low} AND {high})"""


_NO_MOMENT = (
    # SQLite accepts 30 February as 1 March, and the year 0.
    f"""typeof(NEW.timestamp) <> 'text' OR NEW.timestamp NOT GLOB '{_MOMENT}'
            OR NEW.timestamp < '0001' OR substr(NEW.timestamp, 1, 19) IS NOT
                strftime('%Y-%m-%dT%H:%M:%S', substr(NEW.timestamp, 1, 19), '+0 days')""",
    "give the timestamp in UTC, as 2024-05-01T12:30:00.000000Z",
)
_NO_ISO_TIME = (
    f"""typeof(NEW.timestamp) <> 'text' OR NEW.timestamp NOT GLOB '{_MINUTE}*'
            OR substr(NEW.timestamp, 1, 10) IS NOT
                strftime('%Y-%m-%d', substr(NEW.timestamp, 1, 10), '+0 days')
            OR substr(NEW.timestamp, 12, 2) > '23' OR instr({_ZONE}, '.')
            OR ({_POINT} AND ({_POINT} <> 20 OR {_FRACTION} = ''))
            OR {_TIMESTAMP} IS NULL OR {_TIMESTAMP} NOT GLOB '{_MOMENT}'
            OR {_TIMESTAMP} < '0001'""",
    "give the timestamp in ISO 8601, as 2024-05-01T12:30:00Z",
)
_REFUSALS = (
    (
        f"typeof({_CONTENT}) <> 'text' OR length({_CONTENT}) > 1000000",
        "give the message as text of at most 1,000,000 characters",
    ),
    (
        """'' IN (ifnull(NEW.message_id, 0), ifnull(NEW.conversation_id, 0),
            ifnull(NEW.channel_id, 0), ifnull(NEW.user_id, 0))""",
        "an id is empty",
    ),
    (
        f"{_ROLE} NOT IN ('user', 'assistant', 'system')",
        "the role is user, assistant or system",
    ),
    (_beyond(_SCORE, "-1", "1"), "the sentiment is a number from -1 to 1"),
    (
        _beyond("NEW.response_time", "0", "1e308"),
        "the response time is a number of seconds, 0 or more",
    ),
)


# This trigger makes the source document's INSERT work as printed: missing columns get the values of
# a turn in a direct conversation, and a number as sentiment is the score.
#
# OR IGNORE or OR REPLACE of the statement also applies to the statements in the trigger, and to
# every constraint of the tables. So the values are checked first.
def _insert_trigger(
    refusals: tuple[tuple[str, str], ...], timestamp: str, before: str = "", after: str = ""
) -> str:
    """Return the definition of the trigger.

    Args:
        refusals: Conditions of values that are refused, each with a sentence.
        timestamp: SQL for the time of the message.
        before: Statements to run before the message is inserted.
        after: Statements to run after it is inserted.
    """
    cases = "".join(
        f"WHEN {refused} THEN RAISE(ABORT, 'CHECK constraint failed: {sentence}') "
        for refused, sentence in refusals
    )
    return f"""CREATE TRIGGER conversations_insert INSTEAD OF INSERT ON conversations BEGIN
    SELECT CASE
        {cases}
    END;
    INSERT INTO channels (channel_id, created_at) VALUES ({_CHANNEL}, {timestamp})
        ON CONFLICT (channel_id) DO NOTHING;
    {before}
    INSERT INTO messages (
        message_id, channel_id, conversation_id, user_id, role, content, timestamp,
        sentiment_score, sentiment_source, response_time
    ) VALUES (
        coalesce(NEW.message_id, lower(hex(randomblob(16)))), {_CHANNEL},
        coalesce(NEW.conversation_id, {_CHANNEL}), NEW.user_id, {_ROLE}, {_CONTENT}, {timestamp},
        {_SCORE}, iif({_SCORE} IS NULL, NULL, 'given'), NEW.response_time
    );
    {after}
END"""


def _counting_insert_trigger(refusals: tuple[tuple[str, str], ...], timestamp: str) -> str:
    """Return the trigger's earlier definition.

    A message with a known id is subtracted from its channel's count before, and added after,
    whichever row the statement left.
    """
    return _insert_trigger(
        refusals,
        timestamp,
        before="""UPDATE channels SET message_count = message_count - 1
        WHERE channel_id = (SELECT channel_id FROM messages WHERE message_id = NEW.message_id);""",
        after=f"""UPDATE channels SET
        message_count = message_count + 1,
        last_active = max(coalesce(last_active, ''), coalesce(
            (SELECT timestamp FROM messages WHERE message_id = NEW.message_id), {timestamp}))
        WHERE channel_id = coalesce(
            (SELECT channel_id FROM messages WHERE message_id = NEW.message_id), {_CHANNEL});""",
    )


_FIRST_INSERT_TRIGGER = _counting_insert_trigger((_NO_MOMENT, *_REFUSALS), "NEW.timestamp")
_SECOND_INSERT_TRIGGER = _counting_insert_trigger((_NO_ISO_TIME, *_REFUSALS), _TIMESTAMP)


# Triggers keep `channels.message_count` and `channels.last_active` right, whoever writes.
def _add(row: str, last_active: str) -> str:
    return f"""UPDATE channels SET message_count = message_count + 1, last_active = {last_active}
        WHERE channel_id = {row}.channel_id;"""


def _subtract(row: str) -> str:
    return f"""UPDATE channels SET message_count = message_count - 1, last_active = {_last(row)}
        WHERE channel_id = {row}.channel_id;"""


def _last(row: str) -> str:
    return f"(SELECT max(timestamp) FROM messages WHERE channel_id = {row}.channel_id)"


_RECOUNT = f"""UPDATE channels SET
        message_count = (SELECT count(*) FROM messages WHERE channel_id = channels.channel_id),
        last_active = {_last("channels")}"""

_FORGET_REPLACED = """UPDATE messages_replaced SET by_message_id = NULL;
    DELETE FROM messages_replaced;"""

_COUNTERS = (
    # SQLite fires no trigger for a message that OR REPLACE removes, unless the writing program has
    # turned on `recursive_triggers`. So the message that may be removed is noted before, and
    # subtracted when the insertion has succeeded. OR IGNORE leaves a note, which the next one
    # replaces.
    "CREATE TABLE messages_replaced (by_message_id TEXT, channel_id TEXT NOT NULL)",
    f"""CREATE TRIGGER messages_replaced_subtract AFTER DELETE ON messages_replaced
    WHEN OLD.by_message_id IS NOT NULL BEGIN
    {_subtract("OLD")}
END""",
    f"""CREATE TRIGGER messages_replaced_note BEFORE INSERT ON messages
    WHEN EXISTS (SELECT 1 FROM messages WHERE message_id = NEW.message_id)
BEGIN
    {_FORGET_REPLACED}
    INSERT INTO messages_replaced SELECT NEW.message_id, channel_id FROM messages
        WHERE message_id = NEW.message_id OR id = NEW.id;
END""",
    f"""CREATE TRIGGER messages_count_insert AFTER INSERT ON messages BEGIN
    {_add("NEW", "iif(last_active >= NEW.timestamp, last_active, NEW.timestamp)")}
    DELETE FROM messages_replaced WHERE by_message_id = NEW.message_id;
END""",
    f"""CREATE TRIGGER messages_count_delete AFTER DELETE ON messages BEGIN
    {_subtract("OLD")}
    {_FORGET_REPLACED}
END""",
    f"""CREATE TRIGGER messages_count_update
    AFTER UPDATE OF message_id, channel_id, timestamp ON messages
    WHEN (OLD.message_id, OLD.channel_id, OLD.timestamp)
        IS NOT (NEW.message_id, NEW.channel_id, NEW.timestamp)
BEGIN
    {_subtract("OLD")}
    {_add("NEW", _last("NEW"))}
    {_FORGET_REPLACED}
END""",
    # Another program may replace a row of `channels`, which resets its columns.
    f"""CREATE TRIGGER messages_count_channel AFTER INSERT ON channels
    WHEN NEW.message_count <> 0 OR NEW.last_active IS NOT NULL
        OR EXISTS (SELECT 1 FROM messages WHERE channel_id = NEW.channel_id)
BEGIN
    {_RECOUNT} WHERE channel_id = NEW.channel_id;
END""",
)

CONVERSATIONS = {
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
            # `id` is the order of arrival, the tie-breaker between messages of equal times. It
            # is never reused, so the full-text index is complete up to an id.
            # `user_id` may be NULL: a system message has no author.
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
            _FIRST_INSERT_TRIGGER,
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
    ),
    2: SchemaVersion(
        version=2,
        name="ISO 8601",
        description="The view accepts every ISO 8601 time; the table keeps its fixed format.",
        sql_statements=[
            "DROP TRIGGER conversations_insert",
            _SECOND_INSERT_TRIGGER,
        ],
        rollback_statements=["DROP TRIGGER conversations_insert", _FIRST_INSERT_TRIGGER],
    ),
    3: SchemaVersion(
        version=3,
        name="Counts of channels",
        description="Triggers count the messages of channels, whichever program writes them.",
        sql_statements=[
            "DROP TRIGGER conversations_insert",
            _insert_trigger((_NO_ISO_TIME, *_REFUSALS), _TIMESTAMP),
            _RECOUNT,
            *_COUNTERS,
        ],
        rollback_statements=[
            "DROP TRIGGER conversations_insert",
            _SECOND_INSERT_TRIGGER,
            "DROP TRIGGER messages_count_channel",
            "DROP TRIGGER messages_count_update",
            "DROP TRIGGER messages_count_delete",
            "DROP TRIGGER messages_count_insert",
            "DROP TRIGGER messages_replaced_note",
            "DROP TABLE messages_replaced",
        ],
        computed={"channels": ("last_active", "message_count")},
        derived=True,
    ),
    4: SchemaVersion(
        version=4,
        name="Segments by a segmenter",
        description="What a segment is like; a segment of a changed message is stale.",
        sql_statements=segments.APPLY,
        rollback_statements=segments.ROLLBACK,
    ),
}
