"""The tables that are federated: their classes, keys, columns and parents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.sql_text import quoted
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aico_lab.adapters.libsql import Connection

BASE: Final = "people"
"""The class that every device holds."""

CLASSES: Final = {
    BASE: (
        "users",
        "user_profiles",
        "preferences",
        "preference_changes",
        "relationships",
        "channels",
    ),
    "summaries": ("conversation_segments",),
    "conversations": ("messages", "segment_messages"),
    "memories": ("memories",),
    "personality": (
        "personality_profiles",
        "personality_policies",
        "personality_changes",
        "personality_decisions",
        "feedback_events",
    ),
}
"""The tables of every class, parents before children.

A plugin that was registered as federated is a class, too.

Vectors are computed again on every device; runs, the outbox and the bus belong to one device.
"""

# Rows that are written once, or whose history is stored elsewhere, cannot lose anything.
_WITHOUT_CONFLICTS: Final = frozenset(
    {
        "preferences",
        "preference_changes",
        "segment_messages",
        "feedback_events",
        "personality_decisions",
    }
)

_REFUSED: Final[dict[str, frozenset[type]]] = {
    "TEXT": frozenset({int, float, bool}),
    "REAL": frozenset({int, bool}),
    "INTEGER": frozenset({bool}),
    "BLOB": frozenset({bool}),
}


@dataclass(frozen=True, slots=True)
class Parent:
    """A reference to a row of another federated table.

    Attributes:
        position: The position of the referring column in a full row: the key, then the columns.
        table: The table of the parent.
        is_cleared: Whether the reference becomes NULL when the parent is deleted.
    """

    position: int
    table: str
    is_cleared: bool


@dataclass(frozen=True, slots=True)
class FederatedTable:
    """A table whose rows are the same on all devices that hold its class.

    Attributes:
        name: The name of the table.
        class_: The class of the table.
        keys: The columns of the key.
        columns: The other columns, sorted, without those that belong to one device.
        defaults: The default values of these columns.
        refused_types: The types that their values never have, by their affinities.
        parents: The references to other federated tables.
        queues_conflicts: Whether the losers of concurrent changes are kept for a person.
        place: SQL for the number of a row on this device; empty if it has none. Rows are sent in
            the order of these numbers, and so get theirs in the same order on other devices.
    """

    name: str
    class_: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    defaults: tuple[object, ...]
    refused_types: tuple[frozenset[type], ...]
    parents: tuple[Parent, ...]
    queues_conflicts: bool
    place: str


def read_tables(connection: Connection, plugins: Iterable[str] = ()) -> dict[str, FederatedTable]:
    """Return the federated tables of a database, parents before children.

    Args:
        connection: The database.
        plugins: The plugins whose tables are federated, each as a class of its own.
    """
    tracked = feed.tracked_tables(connection)
    created = [
        name
        for (name,) in connection.fetch_all(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid"
        )
        if name in tracked
    ]
    classes = CLASSES | {
        plugin: tuple(name for name in created if name.startswith(f"{plugin}_"))
        for plugin in plugins
    }
    names = [(class_, name) for class_, tables in classes.items() for name in tables]
    federated = {name for _, name in names if name in tracked}
    return {
        name: _read(connection, name, class_, tracked[name], federated)
        for class_, name in names
        if name in federated
    }


def _read(
    connection: Connection, name: str, class_: str, keys: tuple[str, ...], federated: set[str]
) -> FederatedTable:
    every = connection.fetch_all(
        "SELECT name, upper(type), dflt_value, pk FROM pragma_table_info(?)", [name]
    )
    # A number that SQLite chooses is another one on every device.
    chosen = [column for column, type_, _, primary in every if primary and type_ == "INTEGER"]
    is_alone = sum(bool(primary) for *_, primary in every) == 1
    local = {*keys, *chosen, *feed.computed_columns(connection, name)}
    found = sorted(
        (column, type_, default) for column, type_, default, _ in every if column not in local
    )
    columns = tuple(column for column, _, _ in found)
    full = (*keys, *columns)
    return FederatedTable(
        name,
        class_,
        keys,
        columns,
        tuple(_value_of(connection, default) for _, _, default in found),
        tuple(_REFUSED[affinity(type_)] for _, type_, _ in found),
        tuple(
            Parent(full.index(column), parent, on_delete == "SET NULL")
            for parent, column, on_delete in connection.fetch_all(
                'SELECT "table", "from", on_delete FROM pragma_foreign_key_list(?) ORDER BY id',
                [name],
            )
            if parent in federated
        ),
        name not in _WITHOUT_CONFLICTS,
        quoted(chosen[0]) if chosen and is_alone else "",
    )


def _value_of(connection: Connection, default: str | None) -> object:
    row = connection.fetch_one(f"SELECT {default}") if default is not None else None
    return row[0] if row else None


def affinity(type_: str) -> str:
    """Return the affinity of a declared type by SQLite's rules."""
    if "INT" in type_:
        return "INTEGER"
    if any(word in type_ for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    return "REAL" if any(word in type_ for word in ("REAL", "FLOA", "DOUB")) else "BLOB"


def closed(tables: dict[str, FederatedTable], class_: str) -> set[str]:
    """Return a class with all the classes that its rows refer to."""
    needed = {BASE, class_}
    while True:
        more = {
            tables[parent.table].class_
            for table in tables.values()
            if table.class_ in needed
            for parent in table.parents
        } - needed
        if not more:
            return needed
        needed |= more


def select_key(table: FederatedTable, row: str) -> str:
    """Return SQL for the key of a row, as the change feed names it."""
    columns = [f"{row}.{quoted(column)}" for column in table.keys]
    return columns[0] if len(columns) == 1 else f"json_array({', '.join(columns)})"
