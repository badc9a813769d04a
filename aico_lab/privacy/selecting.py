"""Select the rows of the primary database that belong to a scope, into temporary tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from aico_lab.privacy.kept_rows import kept_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.privacy.patterns import Patterns
    from aico_lab.privacy.scope import Scope

TEMPORARY: Final = {
    "gone_messages": (
        "(id INTEGER PRIMARY KEY, message_id TEXT UNIQUE, channel_id, conversation_id)"
    ),
    "gone_users": "(user_id PRIMARY KEY)",
    "gone_channels": "(channel_id PRIMARY KEY)",
    "gone_conversations": "(conversation_id PRIMARY KEY)",
    "answers": "(reply_to, id, message_id, PRIMARY KEY (reply_to, id)) WITHOUT ROWID",
    "gone_texts": "(content PRIMARY KEY)",
    "gone_turns": (
        "(channel_id, conversation_id, timestamp, last_id, "
        "PRIMARY KEY (channel_id, conversation_id, timestamp)) WITHOUT ROWID"
    ),
    "former_channels": "(channel_id PRIMARY KEY)",
    "former_conversations": (
        "(channel_id, conversation_id, PRIMARY KEY (channel_id, conversation_id)) WITHOUT ROWID"
    ),
    "former_messages": "(message_id PRIMARY KEY)",
    "former_last": "(last_id)",
    "still_named": (
        "(id INTEGER, table_name, row_key, PRIMARY KEY (id, table_name, row_key)) WITHOUT ROWID"
    ),
    "gone_items": "(table_name, row_key, PRIMARY KEY (table_name, row_key))",
    "kept": (
        "(id INTEGER PRIMARY KEY, source, number, table_name, content JSON TEXT, imports JSON TEXT)"
    ),
    "gone_kept": "(id INTEGER PRIMARY KEY)",
}
"""The temporary tables; `answers` are the companion's to somebody, `gone_items` has rows of
`memories`, `feedback_events`, `personality_policies` and `dead_letters`; `former_messages` were
deleted before, and `former_channels` and `former_conversations` were emptied, when `former_last`
was the highest `id`; `still_named` has the messages that name people and channels of an undone
import; and `kept` is what is kept beside the tables of rows of other devices."""


def _not_in(row: str, others: str) -> str:
    """Return SQL which is true for a row that is not one of others.

    `(a, b) NOT IN` would read all others for each row, in search of NULL.
    """
    return f"iif({row} IN ({others}), 0, 1)"


# The companion answered what was erased before, and nobody wrote in between. Times that are equal
# are one step of the window.
LATE_ANSWERS: Final = """SELECT id FROM (
        SELECT id, role, user_id, reply_to,
            max(erased) OVER earlier AS erased, max(asked) OVER earlier AS asked
        FROM (
            SELECT id, channel_id, conversation_id, timestamp, role, user_id, reply_to,
                NULL AS erased, iif(role = 'user', timestamp, NULL) AS asked FROM messages
            WHERE (+channel_id, +conversation_id) IN
                (SELECT channel_id, conversation_id FROM temp.gone_turns)
            UNION ALL
            SELECT NULL, channel_id, conversation_id, timestamp, NULL, NULL, NULL, timestamp, NULL
            FROM temp.gone_turns
        )
        WINDOW earlier AS (PARTITION BY channel_id, conversation_id ORDER BY timestamp)
    ) AS m
    WHERE id > (SELECT min(last_id) FROM temp.gone_turns)
        AND role = 'assistant' AND user_id IS NULL AND erased > coalesce(asked, '')
        AND NOT EXISTS (SELECT 1 FROM messages AS r WHERE r.message_id = m.reply_to)"""

_TAKE: Final = (
    "INSERT OR IGNORE INTO temp.gone_messages "
    "SELECT m.id, m.message_id, m.channel_id, m.conversation_id FROM messages AS m "
)
_THEIRS: Final = "SELECT DISTINCT channel_id, conversation_id FROM messages WHERE user_id = ?1"
_PROMPTS: Final = (
    "SELECT channel_id, content FROM messages WHERE role = 'system' "
    f"AND (+channel_id, +conversation_id) IN ({_THEIRS})"
)
_SPOKEN: Final = "SELECT channel_id, conversation_id FROM messages WHERE role <> 'system'"
_OF_OTHERS: Final = (
    "SELECT channel_id, conversation_id FROM messages "
    "WHERE NOT coalesce(user_id = ?1, role <> 'user')"
)
_ANSWERS: Final = f"""{_TAKE} WHERE m.id IN (
        WITH RECURSIVE gone (id, message_id) AS (
            SELECT id, message_id FROM temp.gone_messages UNION
            SELECT a.id, a.message_id FROM gone JOIN temp.answers AS a
                ON a.reply_to = gone.message_id
        )
        SELECT id FROM gone
    )"""
_USER: Final = (
    f"{_TAKE} WHERE m.user_id = ?1",
    # Channels of the person and the companion only: also conversations in which nobody answered.
    # People without an id are others. Where others give feedback, or conversations are nothing but
    # rules, the companion speaks to them, too, unless the channel is named by the person's id. The
    # prompt of a conversation with the person there is no such rule, also where nobody wrote after
    # it. Only what does not depend on the message, or has an index, may be looked up for each one.
    f"""INSERT OR IGNORE INTO temp.gone_channels SELECT channel_id FROM channels AS c
    WHERE (channel_id = 'direct:' || ?1
            OR channel_id IN (SELECT channel_id FROM messages WHERE user_id = ?1 AND role = 'user')
            OR channel_id IN (SELECT channel_id FROM temp.former_channels))
        AND NOT EXISTS (SELECT 1 FROM messages AS r WHERE r.channel_id = c.channel_id
            AND (NOT coalesce(r.user_id = ?1, r.role <> 'user')
                OR (c.channel_id NOT IN (?1, 'direct:' || ?1)
                    AND ((r.role = 'system' AND r.user_id IS NULL
                            AND c.channel_id NOT IN (SELECT channel_id FROM temp.former_channels)
                            AND {_not_in("(r.channel_id, r.content)", _PROMPTS)}
                            AND {_not_in("(r.channel_id, r.conversation_id)", _SPOKEN)})
                        OR r.message_id IN (SELECT message_id FROM feedback_events
                            WHERE user_id <> ?1)
                        OR r.conversation_id IN (SELECT conversation_id FROM feedback_events
                            WHERE user_id <> ?1 AND message_id IS NULL)))))""",
    f"{_TAKE} WHERE m.channel_id IN (SELECT channel_id FROM temp.gone_channels)",
    # In other channels, conversations in which nobody else wrote. With the index of channels, each
    # conversation would read its whole channel.
    (
        f"{_TAKE} WHERE (+m.channel_id, +m.conversation_id) IN ("
        "SELECT channel_id, conversation_id FROM messages "
        f"WHERE (+channel_id, +conversation_id) IN ({_THEIRS}) EXCEPT {_OF_OTHERS})"
    ),
    # In conversations with others, answers that name nobody as their person: without a stored
    # message as `reply_to`, the companion answers whoever wrote last. A turn begins with a message
    # of somebody.
    f"""INSERT OR IGNORE INTO temp.gone_messages
    SELECT id, message_id, channel_id, conversation_id FROM (
        SELECT *, max(iif(role = 'user', id, NULL))
            OVER (PARTITION BY channel_id, conversation_id, turn) AS asked
        FROM (
            SELECT m.id, m.message_id, channel_id, conversation_id, m.user_id, m.role, m.reply_to,
                sum(m.role = 'user') OVER (PARTITION BY channel_id, conversation_id
                    ORDER BY m.timestamp, m.id ROWS UNBOUNDED PRECEDING) AS turn
            FROM messages AS m WHERE (+m.channel_id, +m.conversation_id) IN ({_THEIRS})
        )
    ) AS a
    WHERE role = 'assistant' AND user_id IS NULL
        AND NOT EXISTS (SELECT 1 FROM messages AS r WHERE r.message_id = a.reply_to)
        AND asked IN (SELECT id FROM temp.gone_messages)""",
    # What the companion wrote to the person since rows were deleted: nobody finds it by these.
    f"""{_TAKE} WHERE (+m.channel_id, +m.conversation_id) IN
            (SELECT channel_id, conversation_id FROM temp.former_conversations)
        AND {_not_in("(m.channel_id, m.conversation_id)", _OF_OTHERS)}""",
    f"{_TAKE} WHERE m.id IN ({LATE_ANSWERS})",
    # Others answer by `reply_to`, also what the companion answered to the person, and also in
    # another conversation, such as a thread.
    """INSERT OR IGNORE INTO temp.answers SELECT reply_to, id, message_id FROM messages
    WHERE role = 'assistant' AND user_id IS NULL AND reply_to IS NOT NULL""",
    _ANSWERS,
    "INSERT INTO temp.gone_users VALUES (?1)",
)
_SINCE: Final = """m.id > (SELECT last_id FROM temp.former_last)
            AND m.message_id NOT IN (SELECT message_id FROM temp.former_messages)"""
# Whoever wrote there since rows were deleted began something new, with the companion's answers. Who
# wrote what was deleted again, such as a repeated import, did not. The companion says the same to
# many: its text is new if it answers something new.
_SPARE: Final = f"""WITH RECURSIVE new (id, message_id, channel_id, conversation_id, role) AS (
        SELECT m.id, m.message_id, m.channel_id, m.conversation_id, m.role FROM messages AS m
        WHERE {_SINCE} AND m.content NOT IN (SELECT content FROM temp.gone_texts)
        UNION
        SELECT m.id, m.message_id, m.channel_id, m.conversation_id, m.role FROM new
        JOIN temp.answers AS a ON a.reply_to = new.message_id JOIN messages AS m ON m.id = a.id
        WHERE {_SINCE}
    )
    DELETE FROM temp.gone_messages WHERE id IN (
        SELECT m.id FROM new AS m JOIN (
            SELECT channel_id, conversation_id, min(id) AS id FROM new
            WHERE role = 'user' GROUP BY 1, 2
        ) AS f USING (channel_id, conversation_id) WHERE m.id >= f.id)"""
_CHANNEL, _CONVERSATION = (
    (
        f"{_TAKE} WHERE m.{one}_id = ?1",
        f"""INSERT OR IGNORE INTO temp.answers SELECT reply_to, id, message_id FROM messages
        WHERE {one}_id = ?1 AND role = 'assistant' AND reply_to IS NOT NULL""",
        _SPARE,
        _ANSWERS,  # late answers to what was deleted are none to whoever wrote since
        f"""INSERT INTO temp.gone_{one}s SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM messages
            WHERE {one}_id = ?1 AND id NOT IN (SELECT id FROM temp.gone_messages))""",
    )
    for one in ("channel", "conversation")
)
_BEFORE: Final = (
    f"{_TAKE} WHERE m.timestamp < ?1",
    "INSERT INTO temp.gone_items SELECT 'memories', memory_id FROM memories WHERE created_at < ?1",
    (
        "INSERT INTO temp.gone_items SELECT 'feedback_events', event_id FROM feedback_events "
        "WHERE timestamp < ?1"
    ),
)
_NUMBER: Final = "(SELECT number FROM imports WHERE import_id = ?1)"
# What a later import changed stays, as if that one had added it: see `undoing`.
_LATER: Final = (
    "SELECT 1 FROM import_rows AS later WHERE later.table_name = 'messages' "
    f"AND later.row_key = CAST(m.id AS TEXT) AND later.number > {_NUMBER}"
)
_ITEMS: Final = "SELECT row_key FROM temp.gone_items WHERE table_name ="
_UNUSED: Final = {
    "users": f"""EXISTS (SELECT 1 FROM messages AS m WHERE m.user_id = t.user_id
            AND m.id NOT IN (SELECT id FROM temp.gone_messages))
        OR EXISTS (SELECT 1 FROM memories AS m WHERE m.user_id = t.user_id
            AND m.memory_id NOT IN ({_ITEMS} 'memories'))
        OR EXISTS (SELECT 1 FROM feedback_events AS f WHERE f.user_id = t.user_id
            AND f.event_id NOT IN ({_ITEMS} 'feedback_events'))
        OR EXISTS (SELECT 1 FROM user_profiles AS p WHERE p.user_id = t.user_id)
        OR EXISTS (SELECT 1 FROM preferences AS p WHERE p.user_id = t.user_id)
        OR EXISTS (SELECT 1 FROM relationships AS r WHERE r.user_id = t.user_id)
        OR EXISTS (SELECT 1 FROM personality_profiles AS p WHERE p.user_id = t.user_id)
        OR EXISTS (SELECT 1 FROM personality_policies AS p WHERE p.user_id = t.user_id
            AND p.policy_id NOT IN ({_ITEMS} 'personality_policies'))
        OR EXISTS (SELECT 1 FROM personality_changes AS p WHERE p.user_id = t.user_id)""",
    "channels": """EXISTS (SELECT 1 FROM messages AS m WHERE m.channel_id = t.channel_id
            AND m.id NOT IN (SELECT id FROM temp.gone_messages))""",
}
_ADDED_BY: Final = (
    f"SELECT row_key FROM import_rows WHERE number = {_NUMBER} AND former IS NULL AND table_name = "
)
_IMPORT: Final = (
    (
        f"{_TAKE} JOIN import_ranges AS r ON m.id BETWEEN r.first_id AND r.last_id "
        f"WHERE r.number = {_NUMBER} AND NOT EXISTS ({_LATER})"
    ),
    (
        f"{_TAKE} WHERE m.id IN (SELECT CAST(row_key AS INTEGER) FROM ({_ADDED_BY} 'messages')) "
        f"AND NOT EXISTS ({_LATER})"
    ),
    (
        "INSERT INTO temp.gone_items SELECT table_name, row_key FROM import_rows "
        f"WHERE number = {_NUMBER} "
        "AND table_name IN ('memories', 'feedback_events', 'personality_policies')"
    ),
    # People and channels that it added stay if a message that is left names them, or a version of
    # one that comes back when another import is undone.
    *(
        f"""INSERT INTO temp.still_named SELECT id, '{table}', {key} FROM messages
        WHERE {key} IN ({_ADDED_BY} '{table}')
            AND id NOT IN (SELECT id FROM temp.gone_messages)"""
        for table, key in (("users", "user_id"), ("channels", "channel_id"))
    ),
    f"""INSERT OR IGNORE INTO temp.still_named SELECT m.id, 'users', x.former ->> 'user_id'
    FROM import_rows AS x JOIN messages AS m ON m.id = CAST(x.row_key AS INTEGER)
    WHERE x.table_name = 'messages' AND x.number <> {_NUMBER}
        AND x.former ->> 'user_id' IN ({_ADDED_BY} 'users')
        AND m.id NOT IN (SELECT id FROM temp.gone_messages)""",
    (
        "INSERT INTO temp.gone_users SELECT user_id FROM users AS t "
        f"WHERE user_id IN ({_ADDED_BY} 'users' "
        "EXCEPT SELECT row_key FROM temp.still_named WHERE table_name = 'users') "
        f"AND NOT ({_UNUSED['users']})"
    ),
    (
        "INSERT INTO temp.gone_channels SELECT channel_id FROM channels "
        f"WHERE channel_id IN ({_ADDED_BY} 'channels' "
        "EXCEPT SELECT row_key FROM temp.still_named WHERE table_name = 'channels')"
    ),
)
_SELECT: Final = {
    "user": _USER,
    "channel": _CHANNEL,
    "conversation": _CONVERSATION,
    "before": _BEFORE,
    "import": _IMPORT,
}
# Conversations and channels that lose their last message. A channel that was there before an undone
# import stays, unless the version of a message with which it came was erased since.
_LOST: Final = """INSERT OR IGNORE INTO temp.gone_conversations
    SELECT conversation_id FROM temp.gone_messages WHERE conversation_id IS NOT NULL
    EXCEPT SELECT conversation_id FROM messages
        WHERE id NOT IN (SELECT id FROM temp.gone_messages)"""
_EMPTIED: Final = f"""INSERT OR IGNORE INTO temp.gone_channels
    SELECT channel_id FROM channels AS t
    WHERE channel_id IN (SELECT channel_id FROM temp.gone_messages)
        AND NOT ({_UNUSED["channels"]})"""
# Those of messages that came with an import whose version was undone or erased: channels that an
# import had added, or, if somebody was erased, those with the id of a person who is gone.
_EMPTIED_OF_ERASED: Final = f"""{_EMPTIED} AND channel_id IN (SELECT channel_id FROM messages
        WHERE id IN (SELECT CAST(row_key AS INTEGER) FROM ({_ADDED_BY} 'messages')))
    AND (channel_id IN (SELECT row_key FROM import_rows WHERE table_name = 'channels')
        OR (channel_id GLOB 'direct:?*'
            AND substr(channel_id, 8) NOT IN (SELECT user_id FROM users)
            AND EXISTS (SELECT 1 FROM erasures WHERE iif(
                json_valid(receipt), receipt ->> '$.scope.kind', NULL) IN ('user', 'before'))))"""


_LEFT: Final = "FROM messages WHERE id NOT IN (SELECT id FROM temp.gone_messages)"
_KEPT_PLACE: Final = "(k.content ->> 'channel_id', k.content ->> 'conversation_id')"
_TAKE_KEPT: Final = "INSERT OR IGNORE INTO temp.gone_kept SELECT k.id FROM temp.kept AS k WHERE "
# A message that is stored as well keeps its own id. No row has a negative number.
_TAKE_THEIR_MESSAGES: Final = """INSERT OR IGNORE INTO temp.gone_messages
    SELECT -(1 << 40) - id, content ->> 'message_id', content ->> 'channel_id',
        content ->> 'conversation_id'
    FROM temp.kept JOIN temp.gone_kept USING (id)
    WHERE table_name = 'messages' AND content ->> 'message_id' NOT IN
        (SELECT message_id FROM messages)"""
_KEPT_OF: Final = {
    "user": (
        (
            f"{_TAKE_KEPT} ?1 IN (k.content ->> 'user_id', k.content ->> 'other') "
            "OR (k.table_name = 'channels' AND k.content ->> 'channel_id' = 'direct:' || ?1)"
        ),
        _TAKE_THEIR_MESSAGES,
        _ANSWERS,
        # What the companion answered to the person, or said where nobody else is.
        f"""{_TAKE_KEPT} k.table_name = 'messages' AND k.content ->> 'user_id' IS NULL
            AND k.content ->> 'role' <> 'user'
            AND (k.content ->> 'reply_to' IN (SELECT message_id FROM temp.gone_messages)
                OR ({_KEPT_PLACE} IN
                    (SELECT channel_id, conversation_id FROM temp.gone_messages)
                AND {_not_in(_KEPT_PLACE, f"SELECT channel_id, conversation_id {_LEFT}")}
                AND k.content ->> 'conversation_id' NOT IN
                    (SELECT content ->> 'conversation_id' FROM temp.kept
                    WHERE table_name = 'messages' AND content ->> 'conversation_id' IS NOT NULL
                        AND content ->> 'role' = 'user' AND content ->> 'user_id' IS NOT ?1)))""",
    ),
    "channel": (f"{_TAKE_KEPT} k.content ->> 'channel_id' = ?1",),
    "conversation": (f"{_TAKE_KEPT} k.content ->> 'conversation_id' = ?1",),
    "before": (
        f"""{_TAKE_KEPT} CASE k.table_name
            WHEN 'messages' THEN k.content ->> 'timestamp'
            WHEN 'feedback_events' THEN k.content ->> 'timestamp'
            WHEN 'memories' THEN k.content ->> 'created_at'
            WHEN 'conversation_segments' THEN k.content ->> 'ended_at' END < ?1""",
    ),
    "import": (f"{_TAKE_KEPT} ?1 IN (SELECT value FROM json_each(k.imports))",),
}
"""SQL for the rows of a scope that are kept beside the tables."""
# Rows of others that answer an erased message stay, as they do in the tables. Of a segment that is
# not in the tables any more, only the time tells which messages it was of.
_KEPT_OF_ERASED: Final = f"""{_TAKE_KEPT}
    k.content ->> 'message_id' IN (SELECT message_id FROM temp.gone_messages)
    OR (k.table_name, coalesce(k.content ->> 'memory_id', k.content ->> 'event_id',
        k.content ->> 'policy_id')) IN (SELECT * FROM temp.gone_items)
    OR (k.table_name = 'conversation_segments' AND (
        k.content ->> 'segment_id' IN (SELECT segment_id FROM segment_messages
            WHERE message_id IN (SELECT message_id FROM temp.gone_messages))
        OR EXISTS (SELECT 1 FROM messages AS m WHERE m.channel_id = k.content ->> 'channel_id'
            AND m.conversation_id
                = coalesce(k.content ->> 'conversation_id', m.conversation_id)
            AND m.timestamp BETWEEN k.content ->> 'started_at' AND k.content ->> 'ended_at'
            AND m.id IN (SELECT id FROM temp.gone_messages))))
    OR (k.table_name = 'users' AND k.content ->> 'user_id' IN (SELECT * FROM temp.gone_users))
    OR (k.table_name = 'channels'
        AND k.content ->> 'channel_id' IN (SELECT * FROM temp.gone_channels))"""


def _take_emptied(table: str, columns: Sequence[str]) -> str:
    """Return SQL that takes kept channels or segments in which nobody else's message is left."""
    named = ", ".join(columns)
    row = ", ".join(f"content ->> '{column}'" for column in columns)
    others = f"""SELECT {row} FROM temp.kept
        WHERE table_name = 'messages' AND id NOT IN (SELECT id FROM temp.gone_kept)"""
    return f"""{_TAKE_KEPT} k.table_name = '{table}'
        AND ({row}) IN (SELECT {named} FROM temp.gone_messages)
        AND {_not_in(f"({row})", f"SELECT {named} {_LEFT}")} AND {_not_in(f"({row})", others)}"""


_KEPT_EMPTIED: Final = (
    _take_emptied("channels", ["channel_id"]),
    _take_emptied("conversation_segments", ["channel_id", "conversation_id"]),
)

_STILL_GONE: Final = {
    "user_id": "INSERT OR IGNORE INTO temp.gone_users SELECT user_id FROM "
    f"(SELECT value AS user_id FROM json_each(?1)) AS t WHERE NOT ({_UNUSED['users']})",
    "channel_id": "INSERT OR IGNORE INTO temp.gone_channels SELECT channel_id FROM "
    f"(SELECT value AS channel_id FROM json_each(?1)) AS t WHERE NOT ({_UNUSED['channels']})",
    "conversation_id": "INSERT OR IGNORE INTO temp.gone_conversations "
    "SELECT value FROM json_each(?1) WHERE value NOT IN (SELECT conversation_id FROM messages "
    "WHERE id NOT IN (SELECT id FROM temp.gone_messages))",
}
"""Add the ids of an earlier deletion by column, but none that somebody uses again."""

# No row has a negative number.
_MESSAGES_AGAIN: Final = (
    "INSERT OR IGNORE INTO temp.gone_messages (id, message_id) "
    "SELECT -1 - key, value FROM json_each(?1)"
)


def select(connection: Connection, scope: Scope, former: Patterns | None = None) -> None:
    """Fill the temporary tables with what belongs to a scope.

    Args:
        connection: The primary database, inside a transaction.
        scope: The scope.
        former: What of the scope was deleted before, if others may have written since.
    """
    _make_tables(connection)
    if former is not None:
        connection.execute(
            f"{_MESSAGES_AGAIN} WHERE value NOT IN (SELECT message_id FROM messages)",
            [json.dumps(former.of_column("message_id"))],
        )
        _fill(connection, "former_messages", former.of_column("message_id"))
        _fill(connection, "former_channels", former.of_column("channel_id"))
        connection.execute(
            "INSERT OR IGNORE INTO temp.former_conversations SELECT value ->> 0, value ->> 1 "
            "FROM json_each(?)",
            [json.dumps(former.alone)],
        )
        if not former.alone:  # an earlier version kept only the ids of conversations
            connection.execute(
                "INSERT OR IGNORE INTO temp.former_conversations "
                "SELECT channel_id, conversation_id FROM messages "
                "WHERE conversation_id IN (SELECT value FROM json_each(?))",
                [json.dumps(former.of_column("conversation_id"))],
            )
        if former.last_id:
            connection.execute("INSERT INTO temp.former_last VALUES (?)", [former.last_id])
        _add_texts(connection, former)
    for statement in _SELECT[scope.kind]:
        connection.execute(statement, [scope.value] if "?1" in statement else [])
    _select_kept(connection, scope)
    connection.execute(_LOST)
    if scope.kind == "import":
        connection.execute(_EMPTIED_OF_ERASED, [scope.value])
    else:
        connection.execute(_EMPTIED)
        for statement in _KEPT_EMPTIED:
            connection.execute(statement)
    if former is not None:
        for column, statement in _STILL_GONE.items():
            connection.execute(statement, [json.dumps(former.of_column(column))])


def _select_kept(connection: Connection, scope: Scope) -> None:
    """Select what of a scope is kept beside the tables, and what in the tables answers that."""
    rows = kept_rows(connection)
    connection.execute_many(
        "INSERT INTO temp.kept (source, number, table_name, content, imports) "
        "VALUES (?, ?, ?, ?, ?)",
        [
            (row.source, row.number, row.table, json.dumps(row.values), json.dumps(row.imports))
            for row in rows
        ],
    )
    before: object = None
    # An answer may be kept to one that is stored, which answers another that is kept.
    while rows:
        count = connection.fetch_one("SELECT count(*) FROM temp.gone_kept")
        if count == before:
            break
        before = count
        for statement in (*_KEPT_OF[scope.kind], _TAKE_THEIR_MESSAGES, _KEPT_OF_ERASED):
            connection.execute(statement, [scope.value] if "?1" in statement else [])


def select_again(connection: Connection, patterns: Patterns) -> None:
    """Fill the temporary tables with the ids and texts by which stores are searched.

    Args:
        connection: The primary database, or a copy of it.
        patterns: What was erased.
    """
    _make_tables(connection)
    for table in ("users", "channels", "conversations"):
        _fill(connection, f"gone_{table}", patterns.of_column(f"{table[:-1]}_id"))
    connection.execute(_MESSAGES_AGAIN, [json.dumps(patterns.of_column("message_id"))])
    _add_texts(connection, patterns)


def _add_texts(connection: Connection, patterns: Patterns) -> None:
    _fill(connection, "gone_texts", patterns.texts)
    connection.execute(
        "INSERT OR IGNORE INTO temp.gone_turns SELECT value ->> 0, value ->> 1, value ->> 2, ?2 "
        "FROM json_each(?1)",
        [json.dumps(patterns.turns), patterns.last_id],
    )


def _fill(connection: Connection, table: str, names: Sequence[str]) -> None:
    connection.execute(
        f"INSERT OR IGNORE INTO temp.{table} SELECT value FROM json_each(?)", [json.dumps(names)]
    )


def _make_tables(connection: Connection) -> None:
    for table, columns in TEMPORARY.items():
        connection.execute(f"DROP TABLE IF EXISTS temp.{table}")
        connection.execute(f"CREATE TEMP TABLE {table} {columns}")


def drop(connection: Connection) -> None:
    """Remove the temporary tables."""
    for table in TEMPORARY:
        connection.execute(f"DROP TABLE IF EXISTS temp.{table}")
