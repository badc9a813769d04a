"""Refuse tables of a federated plugin whose rows devices could not agree on.

Each device applies the rows of others one by one, in any order, and deletes those whose parent is
deleted. A constraint that refuses a row on one device only would keep them apart for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aico_lab.adapters.sql_text import folded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.adapters.libsql import Connection


def obstacle(connection: Connection, tables: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return why tables cannot be federated, in a clause that names one of them, or None.

    Args:
        connection: A database with the tables.
        tables: The tracked tables of a schema, each with the columns of its key.
    """
    names = {folded(table) for table in tables}
    for table, keys in tables.items():
        why = _obstacle_of_references(connection, table, names) or _obstacle_of_keys(
            connection, table, {*map(folded, keys)}
        )
        if why:
            return f"{why}, so devices could not agree on its rows"
    return None


def _obstacle_of_references(connection: Connection, table: str, names: set[str]) -> str | None:
    for parent, place, on_delete in connection.fetch_all(
        'SELECT "table", seq, on_delete FROM pragma_foreign_key_list(?)', [table]
    ):
        if folded(parent) == folded(table):
            return f"{table} refers to itself"
        if folded(parent) in names and on_delete not in ("CASCADE", "SET NULL"):
            return f"{table} refers to {parent} without ON DELETE CASCADE or SET NULL"
        if folded(parent) in names and place:
            return f"{table} refers to {parent} by several columns"
    return None


def _obstacle_of_keys(connection: Connection, table: str, keys: set[str]) -> str | None:
    number = {
        folded(name)
        for (name,) in connection.fetch_all(
            "SELECT name FROM pragma_table_info(?) WHERE pk AND upper(type) = 'INTEGER'", [table]
        )
    }
    is_unique = keys == number
    for index, is_partial in connection.fetch_all(
        'SELECT name, partial FROM pragma_index_list(?) WHERE "unique"', [table]
    ):
        columns = connection.fetch_all(
            "SELECT coalesce(name, ''), coll FROM pragma_index_xinfo(?) WHERE \"key\"", [index]
        )
        if is_partial or {folded(name) for name, _ in columns} != keys:
            return f"{table} has a UNIQUE constraint or index besides its key"
        if any(collation != "BINARY" for _, collation in columns):
            return f"the key of {table} has a collation"
        is_unique = True
    return None if is_unique else f"the key of {table} is not unique"
