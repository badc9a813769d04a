"""SQL that fills the tables of `mart`; `aico_lab.mart.refresh` says in which order it is run.

Messages reach SQL as an Arrow table that is called `rows`. Any change here may change the tables:
see `aico_lab.mart.refresh.VERSION`.
"""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Final

from aico_lab import constants
from aico_lab.mart.marks import IS_ESTIMATED, IS_MISSING
from aico_lab.mart.text import MEASURED

DAY: Final = f"floor(ts_ms / {constants.MS_PER_DAY})"
"""SQL for a message's day, counted from 1970-01-01 (UTC)."""

GROUPS: Final = {
    "turns": ("turn_idx", "turn_idx"),
    "sessions": ("session_idx", "session_idx"),
    "daily": ("day", DAY),
}
"""The tables that group a conversation's messages: the column that numbers the groups, and SQL for
that number in `mart.messages`."""

TABLES: Final = ("messages", *GROUPS)

PLACED_BY: Final = "id, conversation_id, user_id, role, timestamp, response_time"
"""The columns of `raw.messages` on which the places of messages depend, besides the marks."""

_MARKED: Final = f"{IS_ESTIMATED} AS is_estimated, {IS_MISSING} AS is_missing"
READ_BY_PLACES: Final = f"{PLACED_BY}, {_MARKED}"
"""SQL for everything in `raw.messages` on which the places of messages depend."""

NEVER: Final = "9e18::BIGINT"
"""A time after all others, in milliseconds."""

NOTES: Final = """
    CREATE OR REPLACE TEMP TABLE measures (
        id BIGINT, n_words INTEGER, n_chars INTEGER, is_question BOOLEAN
    );
    CREATE OR REPLACE TEMP TABLE marked (id BIGINT, is_estimated BOOLEAN, is_missing BOOLEAN);
    CREATE OR REPLACE TEMP TABLE rows_added (
        id BIGINT, conversation_id VARCHAR, user_id VARCHAR, role VARCHAR, timestamp TIMESTAMPTZ,
        response_time DOUBLE, is_estimated BOOLEAN, is_missing BOOLEAN, channel_id VARCHAR,
        sentiment_score DOUBLE
    );
    CREATE OR REPLACE TEMP TABLE rows_removed (
        id BIGINT, conversation_id VARCHAR, user_id VARCHAR, role VARCHAR, timestamp TIMESTAMPTZ,
        response_time DOUBLE, is_estimated BOOLEAN, is_missing BOOLEAN
    )"""

TEMPORARY: Final = (
    "measures", "marked", "rows_added", "rows_removed", "all_conversations",
    "affected_conversations", "last_places", "conversation_counts", "numbered_conversations",
    "batch_conversations", "messages_to_place", "old_rows", "people", "measured_places", "new_rows",
    "affected_groups",
)  # fmt: skip
"""Every temporary table that is made here."""

MEASURE: Final = f"INSERT INTO measures {MEASURED}"

MARK: Final = (
    f"INSERT INTO marked SELECT id, {_MARKED} FROM rows WHERE {IS_ESTIMATED} OR {IS_MISSING}"
)
"""Few messages have a mark."""

NOTE_ADDED: Final = (
    f"INSERT INTO rows_added SELECT {READ_BY_PLACES}, channel_id, sentiment_score FROM rows"
)

NOTE_REMOVED: Final = "INSERT INTO rows_removed FROM rows"

ALL_CONVERSATIONS: Final = """CREATE OR REPLACE TEMP TABLE all_conversations AS
    SELECT
        conversation_id, first_id, last_id, row_number() OVER w AS conversation,
        (sum(n_messages) OVER w) // ? AS batch
    FROM (
        SELECT
            conversation_id, min(id) AS first_id, max(id) AS last_id, count(*) AS n_messages
        FROM raw.messages GROUP BY conversation_id
    )
    WINDOW w AS (ORDER BY first_id ROWS UNBOUNDED PRECEDING)"""
"""All conversations in batches, in the order of import: DuckDB skips row groups outside a batch's
range of ids, so that most messages are read once."""

ALL_BATCHES: Final = """SELECT batch, min(first_id), max(last_id)
    FROM all_conversations GROUP BY batch ORDER BY batch"""

ALL_MESSAGES: Final = """
    SELECT
        id, conversation, conversation_id, channel_id, user_id, role, role = 'user' AS by_user,
        false AS earlier, epoch_us(timestamp) AS ts_us, epoch_ms(timestamp) AS ts_ms,
        TRY_CAST(round(response_time * 1000) AS BIGINT) AS recorded_ms, sentiment_score,
        n_words, n_chars, is_question, coalesce(is_estimated, false) AS is_estimated
    FROM measures JOIN raw.messages USING (id) LEFT JOIN marked USING (id)
        JOIN (FROM all_conversations WHERE batch = ?) USING (conversation_id)
    WHERE role <> 'system' AND is_missing IS NOT TRUE AND id BETWEEN ? AND ?"""
"""The messages of a batch of all conversations, as `place_people` takes them."""

INSERT_ALL: Final = """INSERT INTO mart.messages
    SELECT
        id, conversation_id, channel_id, person, role, ts_ms, msg_idx, turn_idx, session_idx,
        gap_ms, reply_ms, CASE WHEN reply_ms IS NOT NULL THEN recorded_ms END, is_estimated,
        reply_is_estimated, n_words, n_chars, is_question, sentiment_score
    FROM rows"""

INSERT_ALL_GROUPS: Final = "INSERT INTO mart.{table} WITH slice AS (FROM mart.messages) {query}"

AFFECTED_CONVERSATIONS: Final = f"""CREATE OR REPLACE TEMP TABLE affected_conversations AS
    WITH noted AS (
        SELECT *, count(*) OVER (PARTITION BY {PLACED_BY}, is_estimated, is_missing) = 1 AS moved
        FROM (
            SELECT {PLACED_BY}, is_estimated, is_missing FROM rows_added
            UNION ALL FROM rows_removed
        )
    )
    SELECT
        conversation_id, count(*) AS n_noted,
        coalesce(min(epoch_ms(timestamp)) FILTER (moved), {NEVER}) AS since_ms
    FROM noted WHERE role <> 'system' GROUP BY conversation_id"""
"""Conversations with changed messages, and the time of the first message that was added, removed
or moved. A row that is the same in both tables was merely edited."""

LAST_PLACES: Final = f"""CREATE OR REPLACE TEMP TABLE last_places AS
    SELECT
        conversation_id, user_id, role, max(ts_ms) AS ts_ms, max(msg_idx) AS msg_idx,
        max(turn_idx) AS turn_idx, max(session_idx) AS session_idx,
        arg_max(is_estimated, msg_idx) AS is_estimated
    FROM mart.messages JOIN affected_conversations USING (conversation_id)
    WHERE ts_ms < since_ms AND since_ms < {NEVER} GROUP BY conversation_id, user_id, role"""
"""The last message before `since_ms` by each person, and by the companion to each person."""

CONVERSATION_COUNTS: Final = """CREATE OR REPLACE TEMP TABLE conversation_counts AS
    WITH
        placed AS (
            SELECT
                conversation_id, max(msg_idx) + 1 AS n_placed, max(turn_idx) + 1 AS n_turns,
                max(session_idx) + 1 AS n_sessions
            FROM last_places GROUP BY conversation_id
        ),
        later AS (
            SELECT conversation_id, sum(n_messages) AS n_later
            FROM mart.sessions JOIN affected_conversations USING (conversation_id)
            WHERE ended_ms >= since_ms GROUP BY conversation_id
        )
    SELECT
        conversation_id, since_ms, coalesce(n_placed, 0) AS n_placed,
        coalesce(n_turns, 0) AS n_turns, coalesce(n_sessions, 0) AS n_sessions,
        n_noted + coalesce(n_later, 0) AS n_messages
    FROM affected_conversations
        LEFT JOIN placed USING (conversation_id) LEFT JOIN later USING (conversation_id)"""
"""Affected conversations with the numbers of messages, turns and sessions before `since_ms`, and
about how many messages are to be written."""

NUMBERED_CONVERSATIONS: Final = """CREATE OR REPLACE TEMP TABLE numbered_conversations AS
    SELECT
        *, row_number() OVER w AS conversation, (sum(n_messages) OVER w) // ? AS batch
    FROM conversation_counts WINDOW w AS (ORDER BY conversation_id ROWS UNBOUNDED PRECEDING)"""

BATCHES: Final = "SELECT DISTINCT batch FROM numbered_conversations ORDER BY batch"

BATCH_CONVERSATIONS: Final = """CREATE OR REPLACE TEMP TABLE batch_conversations AS
    FROM numbered_conversations WHERE batch = ?"""

MESSAGES_TO_PLACE: Final = f"""CREATE OR REPLACE TEMP TABLE messages_to_place AS
    SELECT
        id, conversation_id, user_id, role, timestamp, response_time, channel_id, sentiment_score,
        {IS_ESTIMATED} AS is_estimated
    FROM raw.messages JOIN batch_conversations USING (conversation_id)
    WHERE role <> 'system' AND epoch_ms(timestamp) >= since_ms AND since_ms < {NEVER}
        AND NOT {IS_MISSING}"""
"""The messages to place; of a conversation whose messages were merely edited, none is read."""

OLD_ROWS: Final = """CREATE OR REPLACE TEMP TABLE old_rows AS
    SELECT m.rowid AS row, m.*
    FROM mart.messages m JOIN batch_conversations USING (conversation_id)
    WHERE ts_ms >= since_ms OR id IN (SELECT id FROM rows_added)"""
"""Rows of `mart.messages` to be replaced: of messages to be placed, and of edited ones."""

OLD_MEASURES: Final = """INSERT INTO measures
    SELECT id, n_words, n_chars, is_question FROM old_rows ANTI JOIN measures USING (id)"""
"""The measures of texts that did not change."""

PEOPLE: Final = """CREATE OR REPLACE TEMP TABLE people AS
    SELECT row_number() OVER () AS person, user_id
    FROM (
        SELECT user_id FROM messages_to_place
        UNION SELECT user_id FROM last_places SEMI JOIN batch_conversations USING (conversation_id)
    )
    WHERE user_id IS NOT NULL"""

PLACES_SOURCE: Final = """
    SELECT
        id, conversation, coalesce(person, 0) AS author, role = 'user' AS by_user,
        false AS earlier, is_estimated, epoch_us(timestamp) AS ts_us, epoch_ms(timestamp) AS ts_ms
    FROM messages_to_place
        JOIN batch_conversations USING (conversation_id) LEFT JOIN people USING (user_id)
    UNION ALL
    SELECT
        msg_idx, conversation, coalesce(person, 0), role = 'user', true, is_estimated,
        l.ts_ms * 1000, l.ts_ms
    FROM last_places l
        JOIN batch_conversations USING (conversation_id) LEFT JOIN people USING (user_id)"""
"""The messages to be placed and those of `last_places`, as `places` takes them."""

MEASURED_PLACES: Final = """CREATE OR REPLACE TEMP TABLE measured_places AS
    SELECT p.*, n_words, n_chars, is_question FROM measures JOIN rows p USING (id)"""
"""The places and the measures of the same messages: few rows, whatever the home holds."""

_PLACED: Final = """
    SELECT
        id, m.conversation_id, channel_id, people.user_id, role, epoch_ms(timestamp) AS ts_ms,
        n_placed + p.msg_idx AS msg_idx, n_turns + p.turn_idx AS turn_idx,
        n_sessions + p.session_idx AS session_idx, gap_ms, reply_ms,
        CASE WHEN reply_ms IS NOT NULL THEN
            TRY_CAST(round(response_time * 1000) AS BIGINT) END AS recorded_ms,
        is_estimated, reply_is_estimated, n_words, n_chars, is_question, sentiment_score
    FROM messages_to_place m JOIN measured_places p USING (id)
        LEFT JOIN batch_conversations USING (conversation) LEFT JOIN people USING (person)"""
"""Rows of `mart.messages`, in the order of `raw.messages`: sorting them otherwise takes longer than
everything else."""

_EDITED: Final = """
    SELECT old_rows.* EXCLUDE (row) REPLACE (
        rows_added.channel_id AS channel_id, rows_added.sentiment_score AS sentiment_score,
        measures.n_words AS n_words, measures.n_chars AS n_chars,
        measures.is_question AS is_question
    )
    FROM old_rows JOIN batch_conversations USING (conversation_id)
        JOIN rows_added USING (id) JOIN measures USING (id)
    WHERE ts_ms < since_ms"""
"""Rows of `mart.messages` that keep their place."""

NEW_ROWS: Final = f"""CREATE OR REPLACE TEMP TABLE new_rows AS
    ({_PLACED}) UNION ALL ({_EDITED})"""

REPLACE_MESSAGES: Final = """
    DELETE FROM mart.messages WHERE rowid IN (SELECT row FROM old_rows);
    INSERT INTO mart.messages FROM new_rows"""

AFFECTED_GROUPS: Final = """CREATE OR REPLACE TEMP TABLE affected_groups AS
    SELECT conversation_id, {group} AS nth FROM old_rows
    UNION SELECT conversation_id, {group} FROM new_rows"""
"""The turns, sessions or days of old and of new rows."""

REPLACE_GROUPS: Final = """
    DELETE FROM mart.{table} t USING affected_groups g
    WHERE t.conversation_id = g.conversation_id AND t.{column} = nth;
    INSERT INTO mart.{table}
    WITH slice AS (
        SELECT m.* FROM mart.messages m JOIN affected_groups g
        ON m.conversation_id = g.conversation_id AND {group} = nth
    )
    {query}"""


def columns(table: str) -> str:
    """Return the columns of a table of `mart`, as CREATE TABLE takes them."""
    return _compiled()[f"columns of {table}"]


def query(table: str) -> str:
    """Return the query that makes the rows of a table of `mart` from the messages of `slice`."""
    return _compiled()[f"query of {table}"]


@functools.cache
def _compiled() -> dict[str, str]:
    text = files("aico_lab.mart").joinpath("compiled.sql").read_text(encoding="utf-8")
    sections = (section.partition("\n") for section in text.split("-- ")[1:])
    return {title: body for title, _, body in sections}
