"""Know every schema by name and version, and bring a database to the newest of each.

Each version of each schema is applied in one transaction together with its record, so a failure
leaves the version before it. A checksum of what was applied tells an edited migration apart.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from aico_lab.adapters.libsql import NOW
from aico_lab.errors import (
    InvalidValue,
    MigrationFailed,
    SchemaTampered,
    SchemaTooNew,
    StorageError,
)
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aico_lab.adapters.libsql import Connection

Kind = Literal["core", "plugin"]

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


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """One step of a schema.

    Attributes:
        version: 1, 2, 3 …
        name: What it is called where people read it.
        description: What it changes.
        sql_statements: What brings the version before it to this one, one statement each.
        rollback_statements: What undoes them.
        tracked: The tables of this version whose changes go into the change feed, each with the
            columns that identify a row on every device.
    """

    version: int
    name: str
    description: str
    sql_statements: Sequence[str]
    rollback_statements: Sequence[str]
    tracked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def checksum(self) -> str:
        """SHA-256 over everything that reaches the database."""
        tracked = {table: list(keys) for table, keys in sorted(self.tracked.items())}
        applied = [list(self.sql_statements), list(self.rollback_statements), tracked]
        return hashlib.sha256(json.dumps(applied).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
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


class SchemaRegistry:
    """An explicit set of schemas."""

    def __init__(self) -> None:
        self._schemas: dict[str, Schema] = {}

    def register(
        self,
        name: str,
        kind: Kind,
        versions: Mapping[int, SchemaVersion],
        *,
        priority: int = 100,
    ) -> None:
        """Add a schema.

        Args:
            name: Unique among all schemas.
            kind: Whose it is: this package's, or a plugin's.
            versions: By number, 1 to n without a gap.
            priority: Lower ones are applied first; equal ones by name.

        Raises:
            InvalidValue: The name is taken, or the versions have a gap.
        """
        if name in self._schemas:
            raise InvalidValue(f"A schema named {name!r} is registered already: choose another.")
        numbers = [version.version for version in versions.values()]
        if not versions or numbers != list(versions) or numbers != [*range(1, len(versions) + 1)]:
            raise InvalidValue(f"The versions of schema {name!r} must be numbered 1, 2, 3 …")
        self._schemas[name] = Schema(name, kind, versions, priority)

    def __iter__(self) -> Iterator[Schema]:
        """Give the schemas in the order in which they are applied."""
        return iter(sorted(self._schemas.values(), key=lambda s: (s.priority, s.name)))

    def apply_core_schemas(self, connection: Connection) -> dict[str, int]:
        """Bring every core schema to its newest version.

        Returns:
            The schemas that changed, with the version that they have now.

        Raises:
            SchemaTooNew: The database was migrated by a later version of this program.
            SchemaTampered: A version that was applied differs from the one registered now.
            MigrationFailed: A version did not apply; the database stands at the one before it.
        """
        if not pending(self, connection):  # the usual case needs no write lock
            return {}
        with connection.transaction():
            for statement in (*BOOKKEEPING, *feed.TABLES):
                connection.execute(statement)
        applied: dict[str, int] = {}
        for schema in self:
            if schema.kind != "core":
                continue
            while (version := _next_version(schema, connection)) is not None:
                if _apply(schema, version, connection):
                    applied[schema.name] = version.version
        return applied


def pending(registry: SchemaRegistry, connection: Connection) -> dict[str, int]:
    """Say which core schemas have versions that are not applied, and how many.

    Raises:
        SchemaTooNew: The database was migrated by a later version of this program.
        SchemaTampered: A version that was applied differs from the one registered now.
    """
    if not connection.fetch_all("SELECT 1 FROM sqlite_master WHERE name = 'schema_metadata'"):
        return {schema.name: schema.newest for schema in registry if schema.kind == "core"}
    current: dict[str, int] = dict(
        connection.fetch_all("SELECT schema_name, version FROM schema_metadata")
    )
    applied = {
        (name, version): checksum
        for name, version, checksum in connection.fetch_all(
            "SELECT schema_name, version, checksum FROM schema_migration_history "
            "WHERE direction = 'apply' ORDER BY id"
        )
    }
    behind = {}
    for schema in registry:
        if schema.kind != "core":
            continue
        at = current.get(schema.name, 0)
        if at > schema.newest:
            raise SchemaTooNew(
                f"The schema {schema.name!r} is at version {at} and this program knows only "
                f"{schema.newest}: install a newer aico-lab."
            )
        for number in range(1, at + 1):
            if applied.get((schema.name, number)) != schema.versions[number].checksum:
                raise SchemaTampered(
                    f"Version {number} of the schema {schema.name!r} is not the one that was "
                    "applied: install the aico-lab that made this home."
                )
        if at < schema.newest:
            behind[schema.name] = schema.newest - at
    return behind


def _next_version(schema: Schema, connection: Connection) -> SchemaVersion | None:
    row = connection.fetch_one(
        "SELECT version FROM schema_metadata WHERE schema_name = ?", [schema.name]
    )
    return schema.versions.get((row[0] if row else 0) + 1)


def _apply(schema: Schema, version: SchemaVersion, connection: Connection) -> bool:
    """Apply one version; False where another process did it meanwhile."""
    try:
        with connection.transaction():
            following = _next_version(schema, connection)  # now under the write lock
            if following is None or following.version != version.version:
                return False
            for statement in version.sql_statements:
                connection.execute(statement)
            for table, key_columns in version.tracked.items():
                feed.track(connection, table, key_columns)
            connection.execute(
                f"INSERT INTO schema_metadata VALUES (?, ?, ?, {NOW}) ON CONFLICT (schema_name) "
                "DO UPDATE SET version = excluded.version, updated_at = excluded.updated_at",
                [schema.name, schema.kind, version.version],
            )
            connection.execute(
                "INSERT INTO schema_migration_history "
                f"(schema_name, version, direction, checksum, at) VALUES (?, ?, 'apply', ?, {NOW})",
                [schema.name, version.version, version.checksum],
            )
    except StorageError as failed:
        raise MigrationFailed(
            f"Version {version.version} of the schema {schema.name!r} was rolled back ({failed})"
        ) from failed
    return True
