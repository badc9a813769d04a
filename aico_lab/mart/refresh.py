"""Bring the tables of `mart` up to date in DuckDB, in the transaction that changes `raw`.

The place of a message depends only on those before it. So of a conversation only what comes after
a change is placed anew, counting on from the last message before; a message that was merely edited
keeps its place. The turns, sessions and days follow that the changed messages are part of.
"""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

WORD: Final = r"[\p{L}\p{N}]+(?:['’][\p{L}\p{N}]+)*"  # noqa: RUF001
"""A word: letters and digits of any script, with apostrophes inside it."""

QUESTION: Final = r"""[?？؟](?:[\s!?"')\]…]|$)"""  # noqa: RUF001
"""A question mark that ends a sentence, and is no part of an address."""

MEMORY_LIMIT: Final = "300MB"
"""What DuckDB may use for windows over all messages of a large home; more is spilled."""

_DAY: Final = "floor(ts_ms / 86400000)"

GROUPS: Final = {
    "turns": ("turn_idx", "turn_idx"),
    "sessions": ("session_idx", "session_idx"),
    "daily": ("day", _DAY),
}
"""The tables of groups of a conversation's messages: their column that says which group it is, and
what says so of a message."""

TABLES: Final = ("messages", *GROUPS)

_PLAIN: Final = f"^{WORD}[.,!?]*(?: {WORD}[.,!?]*)*$"
"""Nine of ten messages: words, each but the last followed by one space. To see that it is so, and
count the spaces, takes a third of the time of finding every word."""

_MEASURED: Final = f"""
    CASE WHEN regexp_matches(content, $word${_PLAIN}$word$)
        THEN strlen(content) - strlen(replace(content, ' ', '')) + 1
        ELSE len(regexp_extract_all(content, $word${WORD}$word$)) END AS n_words,
    length(content) AS n_chars,
    regexp_matches(content, $mark${QUESTION}$mark$) AS is_question"""

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

_ALL_STALE: Final = """CREATE OR REPLACE TEMP TABLE stale AS
    SELECT
        row_number() OVER () AS conversation, conversation_id,
        0 AS msg_idx, 0 AS turn_idx, 0 AS session_idx
    FROM (SELECT DISTINCT conversation_id FROM raw.messages)"""

_STALE: Final = f"""CREATE OR REPLACE TEMP TABLE stale AS
    WITH
        moved AS (
            (SELECT {PLACED_BY} FROM came EXCEPT FROM went)
            UNION ALL (FROM went EXCEPT SELECT {PLACED_BY} FROM came)
        ),
        since AS (
            SELECT conversation_id, min(epoch_ms(timestamp)) AS since_ms
            FROM moved WHERE role <> 'system' GROUP BY conversation_id
        ),
        last AS (
            SELECT
                conversation_id, max(ts_ms) AS ts_ms, max(msg_idx) AS msg_idx,
                max(turn_idx) AS turn_idx, max(session_idx) AS session_idx,
                arg_max({{'role': role, 'user_id': user_id}}, msg_idx) AS side
            FROM mart.messages JOIN since USING (conversation_id)
            WHERE ts_ms < since_ms GROUP BY conversation_id
        )
    SELECT
        row_number() OVER () AS conversation, conversation_id, since_ms,
        ts_ms AS last_ms, side.role AS last_role, side.user_id AS last_user_id,
        coalesce(msg_idx, 0) AS msg_idx, coalesce(turn_idx, 0) AS turn_idx,
        coalesce(session_idx, 0) AS session_idx
    FROM since LEFT JOIN last USING (conversation_id)"""
"""Conversations with messages that came, went or moved, the time of the first of these, and the
last message before it."""

_TALK: Final = """CREATE OR REPLACE TEMP TABLE talk AS
    SELECT
        id, conversation_id, user_id, role, timestamp, response_time, channel_id, sentiment_score
    FROM raw.messages JOIN stale USING (conversation_id)
    WHERE epoch_ms(timestamp) >= since_ms"""
"""What is to be placed anew."""

_WAS: Final = """CREATE OR REPLACE TEMP TABLE was AS
    SELECT m.rowid AS row, m.*
    FROM mart.messages m JOIN stale USING (conversation_id) WHERE ts_ms >= since_ms
    UNION ALL
    SELECT m.rowid, m.*
    FROM mart.messages m SEMI JOIN came USING (id) LEFT JOIN stale USING (conversation_id)
    WHERE ts_ms < coalesce(since_ms, 9e18::BIGINT)"""
"""Messages as they were that are to be placed anew, or were edited and keep their place."""

_WRITERS: Final = """(
    SELECT user_id FROM talk UNION ALL SELECT last_user_id FROM stale)"""

_EDITED: Final = """
    UNION ALL
    SELECT was.* EXCLUDE (row) REPLACE (
        came.channel_id AS channel_id, came.sentiment_score AS sentiment_score,
        measured.n_words AS n_words, measured.n_chars AS n_chars,
        measured.is_question AS is_question
    )
    FROM was JOIN came USING (id) JOIN measured USING (id) ANTI JOIN talk USING (id)"""


_LAST: Final = """
    UNION ALL
    SELECT
        NULL, conversation, coalesce(person, 0), last_role = 'user', last_ms * 1000, last_ms, NULL
    FROM stale LEFT JOIN people ON user_id = last_user_id WHERE last_ms IS NOT NULL"""
"""The last messages before, from which one counts on."""

_KNOWN: Final = """INSERT INTO measured
    SELECT id, n_words, n_chars, is_question FROM was ANTI JOIN measured USING (id)"""
"""Texts that did not change."""


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
        self._connection.execute(f"INSERT INTO measured SELECT id, {_MEASURED} FROM new_rows")
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
            self._rebuild()
        elif self._noted:
            self._refresh()

    def _begin(self) -> None:
        if not self._noted:
            self._connection.execute(_NOTES)
            self._noted = True

    def _rebuild(self) -> None:
        for table in TABLES:
            self._connection.execute(f"CREATE OR REPLACE TABLE mart.{table} ({_columns(table)})")
        self._connection.execute(_ALL_STALE)
        self._connection.execute(_people("raw.messages"))
        self._connection.execute(f"INSERT INTO mart.messages {_placed('raw.messages')}")
        for table in GROUPS:
            self._connection.execute(
                f"INSERT INTO mart.{table} WITH slice AS (FROM mart.messages) {_query(table)}"
            )
        self._forget("measured", "came", "went", "stale", "people")

    def _refresh(self) -> None:
        self._connection.execute(_STALE)
        self._connection.execute(_TALK)
        self._connection.execute(_WAS)
        self._connection.execute(_KNOWN)
        self._connection.execute(_people(_WRITERS))
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE fresh AS {_placed('talk', _LAST)}{_EDITED}"
        )
        self._connection.execute("DELETE FROM mart.messages WHERE rowid IN (SELECT row FROM was)")
        self._connection.execute("INSERT INTO mart.messages FROM fresh")
        for table, (column, group) in GROUPS.items():
            self._connection.execute(
                f"""CREATE OR REPLACE TEMP TABLE touched AS
                SELECT conversation_id, {group} AS nth FROM was
                UNION SELECT conversation_id, {group} FROM fresh"""
            )
            self._connection.execute(
                f"""DELETE FROM mart.{table} t USING touched
                WHERE t.conversation_id = touched.conversation_id AND t.{column} = nth"""
            )
            self._connection.execute(
                f"""INSERT INTO mart.{table}
                WITH slice AS (
                    SELECT m.* FROM mart.messages m JOIN touched
                    ON m.conversation_id = touched.conversation_id AND {group} = nth
                )
                {_query(table)}"""
            )
        self._forget(
            "measured", "came", "went", "stale", "people", "talk", "was", "fresh", "touched"
        )

    def _forget(self, *tables: str) -> None:
        for table in tables:
            self._connection.execute(f"DROP TABLE temp.{table}")


def empty_tables() -> list[str]:
    """Give the statements that make the tables where they are not there yet."""
    return [f"CREATE TABLE IF NOT EXISTS mart.{table} ({_columns(table)})" for table in TABLES]


@functools.cache
def version() -> str:
    """Name how the tables are made: another version of the package has another name for it."""
    sources = sorted(files("aico_lab.mart").iterdir(), key=lambda file: file.name)
    content = b"".join(file.read_bytes() for file in sources if file.is_file())
    return hashlib.sha256(content).hexdigest()


def schemas() -> dict[str, dict[str, str]]:
    """Give the columns of every table, with their types as Ibis names them."""
    from aico_lab.mart import compiler

    return compiler.schemas()


def _people(messages: str) -> str:
    """Number those who wrote messages."""
    return f"""CREATE OR REPLACE TEMP TABLE people AS
        SELECT row_number() OVER () AS person, user_id
        FROM (SELECT DISTINCT user_id FROM {messages} WHERE user_id IS NOT NULL)"""


def _placed(messages: str, last: str = "") -> str:
    """Make rows of `mart.messages` out of messages of the conversations of `stale`."""
    return f"""
    WITH
        slice AS (
            SELECT
                id, conversation, coalesce(person, 0) AS author, role = 'user' AS by_user,
                epoch_us(timestamp) AS ts_us, epoch_ms(timestamp) AS ts_ms,
                TRY_CAST(round(response_time * 1000) AS BIGINT) AS response_ms
            FROM {messages} JOIN stale USING (conversation_id) LEFT JOIN people USING (user_id)
            WHERE role <> 'system'{last}
        ),
        places AS ({_query("places")})
    SELECT
        id, m.conversation_id, channel_id, people.user_id, role, epoch_ms(timestamp) AS ts_ms,
        s.msg_idx + p.msg_idx AS msg_idx, s.turn_idx + p.turn_idx AS turn_idx,
        s.session_idx + p.session_idx AS session_idx, gap_ms, reply_ms, n_words, n_chars,
        is_question, sentiment_score
    FROM {messages} m JOIN places p USING (id) JOIN stale s USING (conversation)
        JOIN measured USING (id) LEFT JOIN people USING (person)"""


def _columns(table: str) -> str:
    return _compiled()[f"columns of {table}"]


def _query(table: str) -> str:
    return _compiled()[f"query of {table}"]


@functools.cache
def _compiled() -> dict[str, str]:
    text = files("aico_lab.mart").joinpath("compiled.sql").read_text(encoding="utf-8")
    sections = (section.partition("\n") for section in text.split("-- ")[1:])
    return {title: body for title, _, body in sections}
