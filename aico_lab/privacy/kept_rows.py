"""Rows of other devices that are kept beside the tables: lost versions, and rows that wait."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aico_lab.federation.undone import row_hash, undone_imports
from aico_lab.schema import feed

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection

_KEPT: Final = """
    SELECT 'sync_conflicts' AS source, conflict_id AS number, table_name, row_key, content
    FROM sync_conflicts WHERE state = 'open'
    UNION ALL SELECT 'sync_parked', parked_id, table_name, row_key, version -> '$[1]'
    FROM sync_parked"""
_COLUMNS: Final = {"user": ("user_id", "other")}


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row that a person or another row decides about.

    Attributes:
        source: The table that it is kept in.
        number: Its number there.
        table: The table that it is of.
        values: Its values by column.
        imports: The imports that were undone, and had added it.
    """

    source: str
    number: int
    table: str
    values: dict[str, Any]
    imports: list[str]


def kept_rows(connection: Connection) -> list[KeptRow]:
    """Return all kept rows of a primary database."""
    rows = connection.fetch_all(_KEPT)
    if not rows:
        return []
    tracked, undone = feed.tracked_tables(connection), undone_imports(connection)
    found = []
    for source, number, table, key, content in rows:
        columns = tracked.get(table, ("key",))  # of a plugin that was deactivated
        values = json.loads(key) if len(columns) > 1 else [key]
        stored = json.loads(content or "null") or {}
        found.append(
            KeptRow(
                source,
                number,
                table,
                {**stored, **dict(zip(columns, values, strict=True))},
                [one for one, hashes in undone.items() if row_hash(table, key) in hashes],
            )
        )
    return found


def kept_ids(connection: Connection, kind: str) -> set[str]:
    """Return the ids of people, channels, conversations or undone imports that kept rows have."""
    if kind == "import":
        return {one for row in kept_rows(connection) for one in row.imports}
    columns = _COLUMNS.get(kind, (f"{kind}_id",))
    ids = {row.values.get(column) for row in kept_rows(connection) for column in columns}
    return {one for one in ids if isinstance(one, str)}
