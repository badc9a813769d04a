"""Bring the tables of `mart` up to date in DuckDB, in the transaction that changes `raw`.

Of a conversation that changed only its end is made anew: from the beginning of the session before
the first change. So what a new message costs does not grow with a conversation that never ends.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir
    import pyarrow as pa

WORD: Final = r"[\p{L}\p{N}]+(?:['’][\p{L}\p{N}]+)*"  # noqa: RUF001
"""A word: letters and digits of any script, with apostrophes inside it."""

_QUESTION: Final = r"""[?？؟](?:[\s!?"')\]…]|$)"""  # noqa: RUF001
"""A question mark that ends a sentence, and is no part of an address."""

MEMORY_LIMIT: Final = "400MB"
"""What DuckDB needs for windows over all messages of a large home."""

_MS_OF_A_DAY: Final = 86_400_000
_ALWAYS: Final = "-9e18::BIGINT"

_SLICE: Final = """
    SELECT
        id, conversation, person AS author, role = 'user' AS by_user,
        epoch_us(timestamp) AS ts_us, epoch_ms(timestamp) AS ts_ms,
        TRY_CAST(round(response_time * 1000) AS BIGINT) AS response_ms,
        before_ms, before_by_user, before_person AS before_author, before_person, before_msg_idx,
        before_turn_idx, before_session_idx
    FROM raw.messages JOIN before USING (conversation_id) LEFT JOIN people USING (user_id)
    WHERE role <> 'system' AND epoch_ms(timestamp) >= since_ms"""
_DUCKDB_TYPES: Final = {
    "int64": "BIGINT",
    "string": "VARCHAR",
    "boolean": "BOOLEAN",
    "float64": "DOUBLE",
}

TABLES: Final = ("messages", "turns", "sessions", "daily")


def rebuild(connection: duckdb.DuckDBPyConnection) -> None:
    """Make every table anew from `raw.messages`."""
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    connection.execute("CREATE SCHEMA IF NOT EXISTS mart")
    for table, columns in schemas().items():
        declared = ", ".join(f"{name} {_DUCKDB_TYPES[type_]}" for name, type_ in columns.items())
        connection.execute(f"CREATE OR REPLACE TABLE mart.{table} ({declared})")
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE stale AS "
        f"SELECT DISTINCT conversation_id, {_ALWAYS} AS since_ms FROM raw.messages"
    )
    _fill(connection)


def refresh(connection: duckdb.DuckDBPyConnection, changed: pa.Table) -> None:  # noqa: ARG001
    """Make anew what changed messages are part of.

    Args:
        connection: The warehouse; `raw.messages` is already as it will be.
        changed: `conversation_id` and `ts_ms` of messages that came, went or changed; both times
            of one that moved.
    """
    # DuckDB finds `changed` by its name, in this very function.
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE stale AS
        WITH earliest AS (
            SELECT conversation_id, min(ts_ms) AS ts_ms FROM changed GROUP BY conversation_id
        )
        SELECT e.conversation_id, coalesce(max(s.started_ms), {_ALWAYS}) AS since_ms
        FROM earliest e LEFT JOIN mart.sessions s
            ON s.conversation_id = e.conversation_id AND s.started_ms < e.ts_ms
        GROUP BY e.conversation_id"""
    )
    for table in TABLES:
        connection.execute(
            f"DELETE FROM mart.{table} t USING stale "
            f"WHERE t.conversation_id = stale.conversation_id AND {_since(table)}"
        )
    _fill(connection)


def _since(table: str) -> str:
    """Whether a row of a table is among those that are made anew."""
    if table == "daily":
        return f"(day + 1) * {_MS_OF_A_DAY} > since_ms"
    return f"{'ts_ms' if table == 'messages' else 'started_ms'} >= since_ms"


def _fill(connection: duckdb.DuckDBPyConnection) -> None:
    """Insert what belongs to the conversations of `stale`, from their time on."""
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE people AS
        SELECT row_number() OVER () AS person, user_id
        FROM (SELECT DISTINCT user_id FROM raw.messages WHERE user_id IS NOT NULL)"""
    )
    connection.execute(
        """CREATE OR REPLACE TEMP TABLE before AS
        SELECT
            row_number() OVER () AS conversation, stale.conversation_id, since_ms, b.* EXCLUDE c
        FROM stale LEFT JOIN (
            SELECT
                conversation_id AS c, max(ts_ms) AS before_ms,
                arg_max(role, msg_idx) = 'user' AS before_by_user,
                arg_max(person, msg_idx) AS before_person, max(msg_idx) AS before_msg_idx,
                max(turn_idx) AS before_turn_idx, max(session_idx) AS before_session_idx
            FROM mart.messages SEMI JOIN stale USING (conversation_id)
                LEFT JOIN people USING (user_id)
            GROUP BY conversation_id
        ) b ON c = stale.conversation_id"""
    )
    connection.execute(
        f"""INSERT INTO mart.messages
        WITH
            slice AS ({_SLICE}),
            places AS ({_queries()["places"]})
        SELECT
            id, conversation_id, channel_id, people.user_id, role, ts_ms, msg_idx, turn_idx,
            session_idx, gap_ms, reply_ms,
            len(regexp_extract_all(content, $word${WORD}$word$)), length(content),
            regexp_matches(content, '[?？؟]')
                AND regexp_matches(content, $word${_QUESTION}$word$),
            sentiment_score
        FROM raw.messages JOIN places USING (id) LEFT JOIN people USING (person)"""  # noqa: RUF001
    )
    for table in TABLES[1:]:
        since = "since_ms"
        if table == "daily":
            since = f"since_ms - (since_ms % {_MS_OF_A_DAY} + {_MS_OF_A_DAY}) % {_MS_OF_A_DAY}"
        connection.execute(
            f"""INSERT INTO mart.{table}
            WITH slice AS (
                SELECT m.* FROM mart.messages m JOIN stale USING (conversation_id)
                WHERE ts_ms >= {since}
            )
            FROM ({_queries()[table]})"""
        )
    for made in ("stale", "people", "before"):
        connection.execute(f"DROP TABLE temp.{made}")


@functools.cache
def _tables() -> dict[str, ir.Table]:
    import ibis

    from aico_lab.mart import definitions

    slice_ = ibis.table(definitions.MESSAGES, name="slice")
    return {
        "messages": slice_,
        "turns": definitions.turns(slice_),
        "sessions": definitions.sessions(slice_),
        "daily": definitions.daily(slice_, slice_.ts_ms // _MS_OF_A_DAY),
    }


@functools.cache
def schemas() -> dict[str, dict[str, str]]:
    """Give the columns of every table, with their types as Ibis names them."""
    return {
        name: {column: str(type_).removeprefix("!") for column, type_ in table.schema().items()}
        for name, table in _tables().items()
    }


@functools.cache
def _queries() -> dict[str, str]:
    import ibis

    from aico_lab.mart import definitions

    tables = {
        **_tables(),
        "places": definitions.places(ibis.table(definitions.SOURCE, name="slice")),
    }
    return {name: str(ibis.to_sql(t, dialect="duckdb")) for name, t in tables.items()}
