"""The mark of simulated data in a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def is_simulated(connection: duckdb.DuckDBPyConnection) -> bool:
    """Return whether the data of a snapshot are simulated."""
    known = connection.execute(
        "SELECT 1 FROM duckdb_views() WHERE schema_name = 'mart' AND view_name = 'decisions'"
    ).fetchall()
    if not known:  # another program removed the table
        return False
    found = connection.execute("SELECT 1 FROM mart.decisions WHERE simulated LIMIT 1").fetchall()
    return bool(found)
