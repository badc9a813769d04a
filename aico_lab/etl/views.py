"""Definitions of the warehouse: schemas, tables of its own, a macro and the views."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from aico_lab.constants import POSITIVE
from aico_lab.etl.misfits import NAMING
from aico_lab.mart import refresh
from aico_lab.mart.marks import IS_ESTIMATED, IS_MISSING

if TYPE_CHECKING:
    import duckdb

    from aico_lab.etl.contract import Kind

DEFINITIONS = (
    "CREATE SCHEMA IF NOT EXISTS raw",
    "CREATE SCHEMA IF NOT EXISTS quarantine",
    "CREATE SCHEMA IF NOT EXISTS meta",
    "CREATE SCHEMA IF NOT EXISTS mart",
    """CREATE TABLE IF NOT EXISTS quarantine.misfits (
        table_name VARCHAR, row_key VARCHAR, column_name VARCHAR, reason VARCHAR, value VARCHAR
    )""",
    # Rows that did not fit any more when their table was read whole, although the feed recorded no
    # change of them. They stay until a person has acknowledged them.
    """CREATE TABLE IF NOT EXISTS quarantine.unexplained (
        table_name VARCHAR, row_key VARCHAR, generation BIGINT
    )""",
    """CREATE TABLE IF NOT EXISTS meta.state (
        generation BIGINT, database_id VARCHAR, seq BIGINT, anchor VARCHAR, synced_at TIMESTAMPTZ
    )""",
    """CREATE TABLE IF NOT EXISTS meta.runs (
        generation BIGINT, mode VARCHAR, finished_at TIMESTAMPTZ, seconds DOUBLE, changes VARCHAR
    )""",
    "CREATE TABLE IF NOT EXISTS meta.frozen (table_name VARCHAR)",
    """CREATE TABLE IF NOT EXISTS meta.watermarks (
        source VARCHAR, "table" VARCHAR, "column" VARCHAR, value VARCHAR, key_columns VARCHAR,
        file VARCHAR, loaded_at TIMESTAMPTZ
    )""",
    # Another version named these rows otherwise: without a watermark their tables are loaded again.
    """DELETE FROM meta.watermarks WHERE source || '.' || "table" IN (
        SELECT table_name FROM quarantine.misfits
    )""",
    # The source document's query uses date_sub(timestamp, interval), which DuckDB lacks; the
    # second form keeps the builtin function of that name.
    """CREATE OR REPLACE MACRO date_sub(ts, iv) AS ts - iv,
        (part, startdate, enddate) AS datesub(part, startdate, enddate)""",
    *refresh.empty_tables(),
)
"""Statements to run before rows are loaded; each may be run again."""

CONVERSATIONS = f"""CREATE OR REPLACE VIEW conversations AS
    SELECT
        user_id, content AS message, content, timestamp,
        role = 'assistant' AS is_ai_response,
        CASE WHEN sentiment_score >= {POSITIVE} THEN 'positive'
             WHEN sentiment_score <= -{POSITIVE} THEN 'negative'
             WHEN sentiment_score IS NOT NULL THEN 'neutral' END AS sentiment,
        sentiment_score,
        -- As recorded; else the seconds since the other side's last message, for the message that
        -- answers it. System and missing messages neither answer nor are answered; an estimated
        -- time is no end of a time.
        coalesce(response_time, CASE
            WHEN talks AND lag(role) OVER previous <> role
                AND NOT is_estimated AND NOT lag(is_estimated) OVER previous
            THEN epoch_us(timestamp - lag(timestamp) OVER previous) / 1e6 END) AS response_time,
        message_id, conversation_id, channel_id, role
    FROM (
        SELECT
            *, role <> 'system' AND NOT {IS_MISSING} AS talks, {IS_ESTIMATED} AS is_estimated
        FROM raw.messages
    )
    WINDOW previous AS (PARTITION BY conversation_id, talks ORDER BY timestamp, id)"""
"""The source document's view. The labels' thresholds are those of Hutto and Gilbert (2014)."""

NEEDED: Final[dict[str, dict[str, Kind]]] = {
    "messages": {
        "id": "integer", "message_id": "text", "conversation_id": "text", "channel_id": "text",
        "user_id": "text", "role": "text", "content": "text", "timestamp": "timestamp",
        "response_time": "real", "sentiment_score": "real", "metadata": "json",
    }
}  # fmt: skip
"""Columns of `raw` that the view above and the mart need, each with its kind.

A column that the primary database no longer has is kept, and is NULL.
"""

VIEWS = (CONVERSATIONS,)
"""Views over the tables of `raw`, which must exist before."""


def are_of_this_version(connection: duckdb.DuckDBPyConnection) -> bool:
    """Return whether the views of a warehouse are as this version of the package defines them."""
    made_by = connection.execute(
        "SELECT comment FROM duckdb_views() WHERE database_name = current_database() "
        "AND schema_name = 'main' AND view_name = 'conversations'"
    ).fetchone()
    return made_by == (version(),)


def names_rows_alike(connection: duckdb.DuckDBPyConnection) -> bool:
    """Return whether rows have the same names in a warehouse's quarantine as in this version."""
    named = connection.execute(
        "SELECT comment FROM duckdb_tables() WHERE database_name = current_database() "
        "AND schema_name = 'quarantine' AND table_name = 'misfits'"
    ).fetchone()
    return named == (NAMING,) or are_of_this_version(connection)


def comments() -> tuple[str, ...]:
    """Return SQL that records the version of all definitions, and the form of the rows' names."""
    return (
        f"COMMENT ON VIEW conversations IS '{version()}'",
        f"COMMENT ON TABLE quarantine.misfits IS '{NAMING}'",
    )


def version() -> str:
    """Return a hash of all definitions, which differs between versions with other definitions."""
    return hashlib.sha256(
        repr((DEFINITIONS, NEEDED, VIEWS, NAMING, refresh.VERSION)).encode()
    ).hexdigest()
