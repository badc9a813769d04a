"""Bring the tables of `mart` up to date in DuckDB, in the transaction that changes `raw`.

The place of a message depends only on those before it. So of a conversation only what comes after
a change is placed anew, counting on from the last messages before; a message that was merely edited
keeps its place. The turns, sessions and days follow that the changed messages are part of.
"""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from aico_lab.mart.places import place_people, places
from aico_lab.mart.text import MEASURED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import duckdb
    import pyarrow as pa

MEMORY_LIMIT: Final = "150MB"
"""What DuckDB may use for joins over all messages of a large home; more is spilled."""

_DAY: Final = "floor(ts_ms / 86400000)"

GROUPS: Final = {
    "turns": ("turn_idx", "turn_idx"),
    "sessions": ("session_idx", "session_idx"),
    "daily": ("day", _DAY),
}
"""The tables of groups of a conversation's messages: their column that says which group it is, and
what says so of a message."""

TABLES: Final = ("messages", *GROUPS)

PLACED_BY: Final = "id, conversation_id, user_id, role, timestamp, response_time"
"""Columns of `raw.messages` that a message's place, and that of others, depends on."""

_NOTES: Final = """
    CREATE OR REPLACE TEMP TABLE measured (
        id BIGINT, n_words INTEGER, n_chars INTEGER, is_question BOOLEAN
    );
    CREATE OR REPLACE TEMP TABLE came (
        id BIGINT, conversation_id VARCHAR, user_id VARCHAR, role VARCHAR, timestamp TIMESTAMPTZ,
        response_time DOUBLE, channel_id VARCHAR, sentiment_score DOUBLE
    );
    CREATE OR REPLACE TEMP TABLE went (
        id BIGINT, conversation_id VARCHAR, user_id VARCHAR, role VARCHAR, timestamp TIMESTAMPTZ,
        response_time DOUBLE
    )"""

_MADE: Final = (
    "measured", "came", "went", "since", "earlier", "changed", "numbered", "stale", "talk", "was",
    "people", "ready", "fresh", "touched",
)  # fmt: skip

_NEVER: Final = "9e18::BIGINT"

BATCH = 120_000
"""About how many messages are placed at a time, so that memory does not grow with all of them."""

_EVERYTHING: Final = """CREATE OR REPLACE TEMP TABLE numbered AS
    SELECT
        conversation_id, first_id, last_id, row_number() OVER w AS conversation,
        (sum(n_messages) OVER w) // ? AS batch
    FROM (
        SELECT
            conversation_id, min(id) AS first_id, max(id) AS last_id, count(*) AS n_messages
        FROM raw.messages GROUP BY conversation_id
    )
    WINDOW w AS (ORDER BY first_id ROWS UNBOUNDED PRECEDING)"""
"""All conversations, those side by side that were imported together: DuckDB leaves out what lies
outside of a batch's ids, so that most messages are read once."""

_ALL_TALK: Final = """
    SELECT
        id, conversation, conversation_id, channel_id, user_id, role, role = 'user' AS by_user,
        false AS earlier, epoch_us(timestamp) AS ts_us, epoch_ms(timestamp) AS ts_ms,
        TRY_CAST(round(response_time * 1000) AS BIGINT) AS recorded_ms, sentiment_score,
        n_words, n_chars, is_question
    FROM measured JOIN raw.messages USING (id)
        JOIN (FROM numbered WHERE batch = ?) USING (conversation_id)
    WHERE role <> 'system' AND id BETWEEN ? AND ?"""
"""What is to be placed of a batch, where everything is made anew."""

_ALL_PLACED: Final = """INSERT INTO mart.messages
    SELECT
        id, conversation_id, channel_id, person, role, ts_ms, msg_idx, turn_idx, session_idx,
        gap_ms, reply_ms, CASE WHEN reply_ms IS NOT NULL THEN recorded_ms END, n_words, n_chars,
        is_question, sentiment_score
    FROM placed"""

_SINCE: Final = f"""CREATE OR REPLACE TEMP TABLE since AS
    WITH noted AS (
        SELECT *, count(*) OVER (PARTITION BY {PLACED_BY}) = 1 AS moved
        FROM (SELECT {PLACED_BY} FROM came UNION ALL FROM went)
    )
    SELECT
        conversation_id, count(*) AS n_noted,
        coalesce(min(epoch_ms(timestamp)) FILTER (moved), {_NEVER}) AS since_ms
    FROM noted WHERE role <> 'system' GROUP BY conversation_id"""
"""Conversations with changed messages, and the time of the first that came, went or moved."""

_EARLIER: Final = f"""CREATE OR REPLACE TEMP TABLE earlier AS
    SELECT
        conversation_id, user_id, role, max(ts_ms) AS ts_ms, max(msg_idx) AS msg_idx,
        max(turn_idx) AS turn_idx, max(session_idx) AS session_idx
    FROM mart.messages JOIN since USING (conversation_id)
    WHERE ts_ms < since_ms AND since_ms < {_NEVER} GROUP BY conversation_id, user_id, role"""
"""Where each person and the companion last wrote to each other before that."""

_CHANGED: Final = """CREATE OR REPLACE TEMP TABLE changed AS
    WITH
        placed AS (
            SELECT
                conversation_id, max(msg_idx) + 1 AS n_placed, max(turn_idx) + 1 AS n_turns,
                max(session_idx) + 1 AS n_sessions
            FROM earlier GROUP BY conversation_id
        ),
        later AS (
            SELECT conversation_id, sum(n_messages) AS n_later
            FROM mart.sessions JOIN since USING (conversation_id)
            WHERE ended_ms >= since_ms GROUP BY conversation_id
        )
    SELECT
        conversation_id, since_ms, coalesce(n_placed, 0) AS n_placed,
        coalesce(n_turns, 0) AS n_turns, coalesce(n_sessions, 0) AS n_sessions,
        n_noted + coalesce(n_later, 0) AS n_messages
    FROM since LEFT JOIN placed USING (conversation_id) LEFT JOIN later USING (conversation_id)"""
"""The same conversations; how many messages, turns and sessions each has before, and about how many
messages there are to be made."""

_NUMBERED: Final = """CREATE OR REPLACE TEMP TABLE numbered AS
    SELECT
        *, row_number() OVER w AS conversation, (sum(n_messages) OVER w) // ? AS batch
    FROM changed WINDOW w AS (ORDER BY conversation_id ROWS UNBOUNDED PRECEDING)"""

_STALE: Final = """CREATE OR REPLACE TEMP TABLE stale AS
    FROM numbered WHERE batch = ?"""

_TALK: Final = f"""talk AS
    SELECT
        id, conversation_id, user_id, role, timestamp, response_time, channel_id, sentiment_score
    FROM raw.messages JOIN stale USING (conversation_id)
    WHERE role <> 'system' AND epoch_ms(timestamp) >= since_ms AND since_ms < {_NEVER}"""
"""What is to be placed; where messages were merely edited, the messages are not even read."""

_WAS: Final = """CREATE OR REPLACE TEMP TABLE was AS
    SELECT m.rowid AS row, m.*
    FROM mart.messages m JOIN stale USING (conversation_id)
    WHERE ts_ms >= since_ms OR id IN (SELECT id FROM came)"""
"""Rows that are to be replaced: of messages to be placed, and of edited ones."""

_KNOWN: Final = """INSERT INTO measured
    SELECT id, n_words, n_chars, is_question FROM was ANTI JOIN measured USING (id)"""
"""Texts that did not change."""

_PEOPLE: Final = """CREATE OR REPLACE TEMP TABLE people AS
    SELECT row_number() OVER () AS person, user_id
    FROM (
        SELECT user_id FROM talk
        UNION SELECT user_id FROM earlier SEMI JOIN stale USING (conversation_id)
    )
    WHERE user_id IS NOT NULL"""

_SOURCE: Final = """
    SELECT
        id, conversation, coalesce(person, 0) AS author, role = 'user' AS by_user,
        false AS earlier, epoch_us(timestamp) AS ts_us, epoch_ms(timestamp) AS ts_ms
    FROM talk JOIN stale USING (conversation_id) LEFT JOIN people USING (user_id)
    UNION ALL
    SELECT
        msg_idx, conversation, coalesce(person, 0), role = 'user', true, e.ts_ms * 1000, e.ts_ms
    FROM earlier e JOIN stale USING (conversation_id) LEFT JOIN people USING (user_id)"""
"""The messages that `places` takes."""

_READY: Final = """CREATE OR REPLACE TEMP TABLE ready AS
    SELECT p.*, n_words, n_chars, is_question FROM measured JOIN placed p USING (id)"""
"""The places and the measures of the same messages: few rows, whatever the home holds."""

_PLACED: Final = """
    SELECT
        id, m.conversation_id, channel_id, people.user_id, role, epoch_ms(timestamp) AS ts_ms,
        n_placed + r.msg_idx AS msg_idx, n_turns + r.turn_idx AS turn_idx,
        n_sessions + r.session_idx AS session_idx, gap_ms, reply_ms,
        CASE WHEN reply_ms IS NOT NULL THEN
            TRY_CAST(round(response_time * 1000) AS BIGINT) END AS recorded_ms,
        n_words, n_chars, is_question, sentiment_score
    FROM {talk} m JOIN ready r USING (id)
        LEFT JOIN stale s USING (conversation) LEFT JOIN people USING (person)"""
"""Rows of `mart.messages`, in the order in which the messages lie: to put them in another one takes
longer than all else."""

_EDITED: Final = """
    SELECT was.* EXCLUDE (row) REPLACE (
        came.channel_id AS channel_id, came.sentiment_score AS sentiment_score,
        measured.n_words AS n_words, measured.n_chars AS n_chars,
        measured.is_question AS is_question
    )
    FROM was JOIN stale USING (conversation_id) JOIN came USING (id) JOIN measured USING (id)
    WHERE ts_ms < since_ms"""
"""Messages that keep their place."""


class Changes:
    """What a sync does to messages; the tables of `mart` follow when all of it is known.

    Messages are measured while they are at hand: to read all texts again would take longer.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, anew: bool) -> None:
        """Change nothing yet.

        Args:
            connection: The warehouse, in the transaction that changes `raw.messages`.
            anew: Whether all messages are read anew, and so every table is made anew.
        """
        self._connection = connection
        self._anew = anew
        self._noted = False

    def came(self, new_rows: pa.Table) -> None:  # noqa: ARG002 - DuckDB finds it by its name
        """Note rows as they are now."""
        self._begin()
        self._connection.execute(f"INSERT INTO measured {MEASURED}")
        if not self._anew:
            self._connection.execute(
                f"INSERT INTO came SELECT {PLACED_BY}, channel_id, sentiment_score FROM new_rows"
            )

    def went(self, old_rows: pa.Table) -> None:  # noqa: ARG002 - DuckDB finds it by its name
        """Note rows as they were; the columns of `PLACED_BY`."""
        self._begin()
        self._connection.execute(f"INSERT INTO went SELECT {PLACED_BY} FROM old_rows")

    def apply(self) -> None:
        """Bring the tables up to date; `raw.messages` is as it will be."""
        if self._anew:
            self._begin()
            self._make_anew()
        elif self._noted:
            self._run(_SINCE)
            self._run(_EARLIER)
            for _ in self._batches():
                self._run(f"CREATE OR REPLACE TEMP TABLE {_TALK}")  # to read them once
                self._run(_PEOPLE)
                self._replace()
        else:
            return
        for made in _MADE:
            self._run(f"DROP TABLE IF EXISTS temp.{made}")

    def _make_anew(self) -> None:
        for table in TABLES:
            self._run(f"CREATE OR REPLACE TABLE mart.{table} ({_columns(table)})")
        self._run(_EVERYTHING, [BATCH])
        batches = self._run(
            "SELECT batch, min(first_id), max(last_id) FROM numbered GROUP BY batch ORDER BY batch"
        ).fetchall()
        for batch in batches:
            self._place_all(batch)
        for table in GROUPS:
            self._run(
                f"INSERT INTO mart.{table} WITH slice AS (FROM mart.messages) {_query(table)}"
            )

    def _batches(self) -> Iterator[None]:
        """Let `stale` be some of the changed conversations at a time."""
        self._run(_CHANGED)
        self._run(_NUMBERED, [BATCH])
        for batch in self._run("SELECT DISTINCT batch FROM numbered ORDER BY batch").fetchall():
            self._run(_STALE, batch)
            yield

    def _begin(self) -> None:
        if not self._noted:
            self._run(_NOTES)
            self._noted = True

    def _replace(self) -> None:
        self._run(_WAS)
        self._run(_KNOWN)
        placed = _PLACED.format(talk="talk")
        self._place()
        self._run(f"CREATE OR REPLACE TEMP TABLE fresh AS ({placed}) UNION ALL ({_EDITED})")
        self._run("DELETE FROM mart.messages WHERE rowid IN (SELECT row FROM was)")
        self._run("INSERT INTO mart.messages FROM fresh")
        for table, (column, group) in GROUPS.items():
            self._run(
                f"""CREATE OR REPLACE TEMP TABLE touched AS
                SELECT conversation_id, {group} AS nth FROM was
                UNION SELECT conversation_id, {group} FROM fresh"""
            )
            self._run(
                f"""DELETE FROM mart.{table} t USING touched
                WHERE t.conversation_id = touched.conversation_id AND t.{column} = nth"""
            )
            self._run(
                f"""INSERT INTO mart.{table}
                WITH slice AS (
                    SELECT m.* FROM mart.messages m JOIN touched
                    ON m.conversation_id = touched.conversation_id AND {group} = nth
                )
                {_query(table)}"""
            )

    def _place_all(self, batch: Sequence[object]) -> None:
        placed = place_people(self._run(_ALL_TALK, batch).to_arrow_table())  # noqa: F841 - as below
        self._connection.execute(_ALL_PLACED)

    def _place(self) -> None:
        """Let `ready` be the places and measures of what is to be placed."""
        placed = places(self._run(_SOURCE).to_arrow_table())  # noqa: F841 - DuckDB finds it so
        self._connection.execute(_READY)

    def _run(self, statement: str, values: Sequence[object] = ()) -> duckdb.DuckDBPyConnection:
        return self._connection.execute(statement, values)


def empty_tables() -> list[str]:
    """Return the statements that make the tables where they are not there yet."""
    return [f"CREATE TABLE IF NOT EXISTS mart.{table} ({_columns(table)})" for table in TABLES]


@functools.cache
def version() -> str:
    """Name how the tables are made: another version of the package has another name for it."""
    sources = sorted(files("aico_lab.mart").iterdir(), key=lambda file: file.name)
    content = b"".join(file.read_bytes() for file in sources if file.is_file())
    return hashlib.sha256(content).hexdigest()


def _columns(table: str) -> str:
    return _compiled()[f"columns of {table}"]


def _query(table: str) -> str:
    return _compiled()[f"query of {table}"]


@functools.cache
def _compiled() -> dict[str, str]:
    text = files("aico_lab.mart").joinpath("compiled.sql").read_text(encoding="utf-8")
    sections = (section.partition("\n") for section in text.split("-- ")[1:])
    return {title: body for title, _, body in sections}
