"""What a schema is: numbered versions of SQL, and the record of those that a database has."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from aico_lab.adapters.libsql import NOW
from aico_lab.adapters.sql_text import normalised
from aico_lab.errors import InvalidStatement
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
"""Tables that every database of this program has, before any of its schemas."""


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """One step of a schema.

    Attributes:
        version: 1, 2, 3 …
        name: What it is called where people read it.
        description: What it changes.
        sql_statements: What brings the version before it to this one, one statement each.
        rollback_statements: What undoes them; without them the version cannot be rolled back.
        tracked: The tables of this version whose changes go into the change feed, each with the
            columns that identify a row on every device.
        derived: Whether all that it removes can be made again from what stays, so that no backup
            is needed; of core schemas only.
    """

    version: int
    name: str
    description: str
    sql_statements: Sequence[str]
    rollback_statements: Sequence[str]
    tracked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    derived: bool = False

    @property
    def checksum(self) -> str:
        """SHA-256 over everything that reaches the database, blanks and comments apart."""
        tracked = {table: list(keys) for table, keys in sorted(self.tracked.items())}
        statements = [[*map(normalised, self.sql_statements)],
                      [*map(normalised, self.rollback_statements)]]  # fmt: skip
        applied = [*statements, tracked]
        return hashlib.sha256(json.dumps(applied).encode()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """All versions of one schema."""

    name: str
    kind: Kind
    versions: Mapping[int, SchemaVersion]
    priority: int

    @property
    def newest(self) -> int:
        """The highest version."""
        return max(self.versions)

    def tracked(self, number: int) -> dict[str, tuple[str, ...]]:
        """Give the tables that versions up to `number` put into the change feed."""
        tables: dict[str, tuple[str, ...]] = {}
        for version in range(1, number + 1):
            tables.update(self.versions[version].tracked)
        return tables


def prepare(connection: Connection) -> None:
    """Make the tables of the registry and of the change feed, and bring its triggers up to date."""
    for statement in (*BOOKKEEPING, *feed.TABLES):
        connection.execute(statement)
    feed.renew(connection)


def current_versions(connection: Connection) -> dict[str, tuple[Kind, int]]:
    """Give kind and version of every schema that the database has."""
    if not connection.fetch_all("SELECT 1 FROM sqlite_master WHERE name = 'schema_metadata'"):
        return {}
    return {
        name: (kind, version)
        for name, kind, version in connection.fetch_all(
            "SELECT schema_name, kind, version FROM schema_metadata"
        )
    }


def applied_checksums(connection: Connection) -> dict[tuple[str, int], str]:
    """Give the checksum with which each version of each schema was applied last."""
    return {
        (name, version): checksum
        for name, version, checksum in connection.fetch_all(
            "SELECT schema_name, version, checksum FROM schema_migration_history "
            "WHERE direction = 'apply' ORDER BY id"
        )
    }


def run(connection: Connection, schema: Schema, number: int, direction: Direction) -> None:
    """Execute the statements of one version, and let the change feed follow.

    Args:
        connection: Inside a transaction.
        schema: The schema.
        number: The version that is applied or rolled back.
        direction: Which of the two.

    Raises:
        InvalidStatement: The change feed would silently lose sight of a table.
    """
    version = schema.versions[number]
    if direction == "apply":
        statements, reached = version.sql_statements, number
    else:
        statements, reached = version.rollback_statements, number - 1
    for statement in statements:
        connection.execute(statement)
    # A rebuilt table has lost its triggers, and a dropped one has left its name in the feed.
    tables = {name for (name,) in connection.fetch_all("SELECT name FROM sqlite_master")}
    wanted, fresh = schema.tracked(reached), version.tracked if direction == "apply" else {}
    for table, keys in wanted.items():
        if not feed.can_follow(connection, table, keys) and not (
            table not in fresh and feed.is_over(connection, table, fresh)
        ):
            raise InvalidStatement(
                f"the change feed cannot follow {table} by {', '.join(keys)}: give its name and "
                "key as they are after this version in `tracked`"
            )
    for table in schema.tracked(number):
        if table in fresh or (table in wanted and table in tables):
            feed.track(connection, table, wanted[table])
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
    """Note in the metadata where a schema stands now, and in the history how it came there."""
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
