"""Schemas as numbered versions of SQL, and the record of the versions that a database has."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from aico_lab.adapters.libsql import NOW
from aico_lab.adapters.sql_text import normalised
from aico_lab.errors import InvalidStatement
from aico_lab.schema import feed
from aico_lab.schema.authorizer import Guard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aico_lab.adapters.libsql import Connection

Kind = Literal["core", "plugin"]
Direction = Literal["apply", "rollback"]

BOOKKEEPING = (
    """CREATE TABLE IF NOT EXISTS schema_metadata (
        schema_name TEXT PRIMARY KEY NOT NULL,
        kind TEXT NOT NULL,
        version INTEGER NOT NULL,
        updated_at TIMESTAMP TEXT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS schema_migration_history (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        schema_name TEXT NOT NULL,
        version INTEGER NOT NULL,
        direction TEXT NOT NULL CHECK (direction IN ('apply', 'rollback')),
        checksum TEXT NOT NULL,
        at TIMESTAMP TEXT NOT NULL
    )""",
)

MARKS = frozenset({"schema_metadata", "schema_migration_history", "change_log", "feed_tables"})
"""Tables that every database of this program has, even before its first schema."""


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """One step of a schema.

    Attributes:
        version: The number: 1, 2, 3 …
        name: A name for people.
        description: A description of the change.
        sql_statements: Statements that upgrade the version before, one per item.
        rollback_statements: Statements that undo them; without these the version cannot be rolled
            back.
        tracked: The tables of this version whose changes go into the change feed, each with the
            columns that identify a row on every device.
        computed: Columns of tracked tables that triggers compute from other tables: an update of
            these alone is not logged in the change feed, and the warehouse does not hold them.
        derived: Whether everything that it removes can be rebuilt from the remaining data, so that
            no backup is needed; for core schemas only.
    """

    version: int
    name: str
    description: str
    sql_statements: Sequence[str]
    rollback_statements: Sequence[str]
    tracked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    computed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    derived: bool = False

    @property
    def checksum(self) -> str:
        """SHA-256 of all statements, tracked tables and computed columns, without comments."""
        tracked = {table: list(keys) for table, keys in sorted(self.tracked.items())}
        statements = [[*map(normalised, self.sql_statements)],
                      [*map(normalised, self.rollback_statements)]]  # fmt: skip
        applied = [*statements, tracked]
        if self.computed:  # versions without any keep the checksum that they had before
            applied.append({table: list(names) for table, names in sorted(self.computed.items())})
        return hashlib.sha256(json.dumps(applied).encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """All versions of one schema."""

    name: str
    kind: Kind
    versions: Mapping[int, SchemaVersion]
    priority: int
    is_federated: bool = False

    @property
    def newest(self) -> int:
        """The highest version."""
        return max(self.versions)

    def tracked(self, number: int) -> dict[str, tuple[str, ...]]:
        """Return the tables that versions up to `number` put into the change feed, with keys."""
        tables: dict[str, tuple[str, ...]] = {}
        for version in range(1, number + 1):
            tables.update(self.versions[version].tracked)
        return tables

    def computed(self, number: int) -> dict[str, tuple[str, ...]]:
        """Return the columns that versions up to `number` declare as computed, by table."""
        columns: dict[str, tuple[str, ...]] = {}
        for version in range(1, number + 1):
            columns.update(self.versions[version].computed)
        return columns


def prepare(connection: Connection) -> None:
    """Create the tables of the registry and of the change feed, and update the feed's triggers."""
    for statement in (*BOOKKEEPING, *feed.TABLES):
        connection.execute(statement)
    feed.renew(connection)


def current_versions(connection: Connection) -> dict[str, tuple[Kind, int]]:
    """Return the kind and version of every schema that the database has."""
    if not connection.fetch_all("SELECT 1 FROM sqlite_master WHERE name = 'schema_metadata'"):
        return {}
    return {
        name: (kind, version)
        for name, kind, version in connection.fetch_all(
            "SELECT schema_name, kind, version FROM schema_metadata"
        )
    }


def applied_checksums(connection: Connection) -> dict[tuple[str, int], str]:
    """Return the checksum with which each version of each schema was last applied."""
    return {
        (name, version): checksum
        for name, version, checksum in connection.fetch_all(
            "SELECT schema_name, version, checksum FROM schema_migration_history "
            "WHERE direction = 'apply' ORDER BY id"
        )
    }


def given_up(connection: Connection, tables: Iterable[str]) -> set[str]:
    """Return the tables, among some, of plugins that a person deactivated or rolled back.

    Tables of plugins that were upgraded since are not among them.
    """
    current = current_versions(connection)
    if not current:
        return set()
    plugins = [
        Guard(name)
        for name, direction, _ in connection.fetch_all(  # of each schema the last step
            "SELECT schema_name, direction, max(id) FROM schema_migration_history GROUP BY 1"
        )
        if direction == "rollback" and current.get(name, ("plugin", 0))[0] == "plugin"
    ]
    return {table for table in tables if any(plugin.is_own(table) for plugin in plugins)}


def run(connection: Connection, schema: Schema, number: int, direction: Direction) -> None:
    """Execute the statements of one version, and update the tables of the change feed.

    Args:
        connection: A connection inside a transaction.
        schema: The schema.
        number: The number of the version.
        direction: Whether the version is applied or rolled back.

    Raises:
        InvalidStatement: The change feed would silently lose a table.
    """
    version = schema.versions[number]
    if direction == "apply":
        statements, reached = version.sql_statements, number
    else:
        statements, reached = version.rollback_statements, number - 1
    for statement in statements:
        connection.execute(statement)
    # A rebuilt table has lost its triggers, and a dropped table is still listed in the feed.
    tables = {name for (name,) in connection.fetch_all("SELECT name FROM sqlite_master")}
    wanted, fresh = schema.tracked(reached), version.tracked if direction == "apply" else {}
    computed = schema.computed(reached)
    for table, keys in wanted.items():
        needed = (*keys, *computed.get(table, ()))
        if not feed.can_follow(connection, table, needed) and not (
            table not in fresh and feed.is_over(connection, table, fresh)
        ):
            raise InvalidStatement(
                f"the change feed cannot follow {table} by {', '.join(needed)}: put its name and "
                "key after this version into `tracked`, and its computed columns into `computed`"
            )
    for table in schema.tracked(number):
        if table in fresh or (table in wanted and table in tables):
            feed.track(connection, table, wanted[table], computed.get(table, ()))
        else:
            feed.untrack(connection, table)


def record(
    connection: Connection,
    schema: str,
    kind: Kind,
    version: int,
    direction: Direction,
    *,
    checksum: str,
) -> None:
    """Write a schema's new version to the metadata, and the step to the migration history."""
    reached = version if direction == "apply" else version - 1
    if reached:
        connection.execute(
            f"INSERT INTO schema_metadata VALUES (?, ?, ?, {NOW}) ON CONFLICT (schema_name) "
            "DO UPDATE SET version = excluded.version, updated_at = excluded.updated_at",
            [schema, kind, reached],
        )
    else:
        connection.execute("DELETE FROM schema_metadata WHERE schema_name = ?", [schema])
    connection.execute(
        "INSERT INTO schema_migration_history "
        f"(schema_name, version, direction, checksum, at) VALUES (?, ?, ?, ?, {NOW})",
        [schema, version, direction, checksum],
    )
