"""Compare the live schema with the one that its versions create in an empty database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from aico_lab.adapters.libsql import Connection
from aico_lab.adapters.sql_text import normalised, quoted, shown
from aico_lab.errors import StorageError
from aico_lab.schema import feed, versions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from aico_lab.schema.authorizer import Guard
    from aico_lab.schema.versions import Schema

VECTOR_TABLE = "libsql_vector_meta_shadow"
"""libSQL's own table of vector indexes, created with the first one."""


@dataclass(frozen=True, slots=True)
class SchemaObject:
    """A table, index, trigger or view; equal if the normalised definitions are equal.

    Attributes:
        table: The table that it belongs to; its own name for a table or view.
        sql: The normalised definition of the object.
    """

    table: str
    sql: str


def structure(connection: Connection) -> dict[str, SchemaObject]:
    """Return the objects of a database by kind and name, such as 'table messages'.

    Triggers of the change feed by earlier versions of this program count as current ones.
    """
    return _objects(connection, feed.former_triggers(connection))


def _objects(connection: Connection, former: Mapping[str, feed.Renewed]) -> dict[str, SchemaObject]:
    objects = {}
    for kind, name, table, sql in connection.fetch_all(
        # Cast to BLOB, since the driver panics on a damaged definition that is not UTF-8.
        "SELECT type, name, tbl_name, CAST(sql AS BLOB) FROM sqlite_master "
        "WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    ):
        written = normalised(sql.decode(errors="replace"))
        renewed = former.get(written)
        objects[f"{kind} {name}"] = SchemaObject(table, renewed.sql if renewed else written)
    return objects


@dataclass(frozen=True, slots=True)
class Drift:
    """The differences between a live schema and its versions; objects as 'table messages'.

    Attributes:
        added: Objects that no version creates.
        missing: Objects that a version creates and the database does not have.
        changed: Objects with another definition.
    """

    added: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[str, ...]:
        """The differences that prevent a migration, in words; added objects do not."""
        return (*(f"{shown(name)} is missing" for name in self.missing),
                *(f"{shown(name)} is changed" for name in self.changed))  # fmt: skip


class Twin:
    """An in-memory database of the same engine, with the schema of some versions and no data."""

    def __init__(self, steps: Iterable[tuple[Schema, int]]) -> None:
        """Apply the versions from 1 to the given number of each schema, in the given order."""
        self._connection = Connection(Path(":memory:"), None, busy_timeout=0)
        self._connection.path = Path("the schema")  # its name in error messages
        self._known: dict[str, SchemaObject] | None = None
        try:
            versions.prepare(self._connection)
            for schema, reached in steps:
                for number in range(1, reached + 1):
                    self._apply(schema, number)
        except BaseException:
            self.close()
            raise

    def run(self, schema: Schema, number: int) -> str | None:
        """Apply one version.

        Returns:
            A sentence about an object that cannot be used any more, or None; see `dangling`.
        """
        before = self.structure()
        self._apply(schema, number)
        after = self.structure()
        changed = any(after.get(name) != what for name, what in before.items())
        return self.dangling(after if changed else after.keys() - before.keys())

    def _apply(self, schema: Schema, number: int) -> None:
        self._known = None
        self._connection.execute("PRAGMA foreign_keys = OFF")
        versions.run(self._connection, schema, number, "apply")
        self._connection.execute("PRAGMA foreign_keys = ON")

    def structure(self) -> dict[str, SchemaObject]:
        """Return the objects of the twin."""
        if self._known is None:
            self._known = _objects(self._connection, {})  # this version made all of its triggers
        return self._known

    def compare(self, live: Connection, *, without: Collection[Guard] = ()) -> Drift:
        """Return how a live database differs, ignoring objects of the plugins in `without`."""
        found, expected = structure(live), self.structure()
        added = [
            name
            for name in found.keys() - expected.keys()
            if name != f"table {VECTOR_TABLE}"
            and not any(guard.is_own(_owner(found, name)) for guard in without)
        ]
        return Drift(
            added=tuple(sorted(added)),
            missing=tuple(sorted(expected.keys() - found.keys())),
            changed=tuple(
                sorted(n for n in found.keys() & expected.keys() if found[n] != expected[n])
            ),
        )

    def dangling(self, names: Iterable[str] | None = None) -> str | None:
        """Return a sentence about a table or view with a broken reference, or None.

        SQLite finds a broken reference in a view, a trigger or a foreign key only when it compiles
        a statement that needs it, so each kind of statement is compiled here.

        Args:
            names: The objects to check; by default all.
        """
        for name in self.structure() if names is None else names:
            kind, _, table = name.partition(" ")
            for statement in _uses(self._connection, kind, table):
                try:
                    self._connection.fetch_all(f"EXPLAIN {statement}")
                except StorageError as error:
                    return f"{name} cannot be used: {error}"
        return None

    def close(self) -> None:
        """Close the in-memory database."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _owner(objects: Mapping[str, SchemaObject], name: str) -> str:
    """Return the table that an object belongs to, even if it is part of a vector index."""
    table = objects[name].table
    index = objects.get(f"index {table.removesuffix('_shadow')}")
    return index.table if index and table.endswith("_shadow") else table


def _uses(connection: Connection, kind: str, name: str) -> list[str]:
    table = quoted(name)
    if kind == "view":
        return [f"SELECT * FROM {table}"]
    if kind != "table":
        return []
    # Hidden columns are not listed: they are generated, or arguments of a virtual table.
    columns = [quoted(column) for (column,) in connection.fetch_all(
        "SELECT name FROM pragma_table_info(?)", [name])]  # fmt: skip
    return [
        f"INSERT INTO {table} DEFAULT VALUES",
        f"UPDATE {table} SET {' = NULL, '.join(columns)} = NULL",
        f"DELETE FROM {table}",
    ]
