"""Names of channels and people in a page: pseudonyms, or their ids on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aico_lab.adapters.duckdb import translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

_COLUMNS: Final = {"channel": "channel_id", "person": "user_id"}


def names_of(
    connection: duckdb.DuckDBPyConnection, dimension: str, ids: Sequence[str], *, names: bool
) -> list[str]:
    """Return the labels of channels or people: 'Channel 2', 'Person 3', or their ids.

    Args:
        connection: A connection to the snapshot.
        dimension: 'channel' or 'person'.
        ids: The ids.
        names: Whether to return the ids.
    """
    if names or not ids:
        return list(ids)
    column = _COLUMNS[dimension]
    with translated("The snapshot"):
        numbers = dict(
            connection.execute(
                f"SELECT name, row_number() OVER (ORDER BY first, name) FROM ("
                f"SELECT {column} AS name, min(ts_ms) AS first FROM mart.messages "
                f"WHERE {column} IS NOT NULL GROUP BY 1)"
            ).fetchall()
        )
    return [f"{dimension.title()} {numbers[one]}" for one in ids]
