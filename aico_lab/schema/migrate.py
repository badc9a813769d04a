"""Move a database between the versions of its schemas, each step in one transaction.

Before a step changes the database, its statements run on an in-memory twin of the schema (see
`aico_lab.schema.drift`), and a plugin's statements in the sandbox before that. If rows may be lost,
a backup is made first. Afterwards the database must be intact and have the schema of the twin;
otherwise the step is rolled back.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aico_lab.adapters.libsql_errors import SHOWN, on_one_line
from aico_lab.adapters.sql_text import folded, quoted, shown
from aico_lab.errors import (
    CorruptDatabase,
    DatabaseLocked,
    DowngradeImpossible,
    InvalidStatement,
    InvalidValue,
    MigrationBusy,
    MigrationFailed,
    SchemaTampered,
    StorageError,
)
from aico_lab.home.files import held
from aico_lab.schema import federated, feed, sandbox, versions
from aico_lab.schema.authorizer import Guard
from aico_lab.schema.backup import back_up, loses_data
from aico_lab.schema.drift import VECTOR_TABLE, Twin, structure
from aico_lab.schema.versions import applied_checksums, current_versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.schema.versions import Direction, Schema

_NULL_VALUE = re.compile(r"NULL value in (\w+)\.(\w+)")

LOCK_SECONDS = 30.0  # maximum wait for another migration


@dataclass(frozen=True, slots=True)
class MigrationStep:
    """One version that was applied or rolled back, or would be in a dry run.

    Attributes:
        schema: The name of the schema.
        version: The number of the version.
        name: The name of the version.
        direction: Whether it was applied or rolled back.
        statements: The executed statements.
        backup: The backup made before, if rows might be lost.
    """

    schema: str
    version: int
    name: str
    direction: Direction
    statements: tuple[str, ...]
    backup: Path | None = None


@contextlib.contextmanager
def exclusive(connection: Connection) -> Iterator[None]:
    """Exclude other migrations, and turn foreign keys off, during the block.

    Raises:
        MigrationBusy: Another program migrates the database for longer than `LOCK_SECONDS`.
        InvalidValue: The connection is in a transaction.
    """
    if connection.in_transaction:
        raise InvalidValue("Leave the transaction before migrating: each version has its own.")
    name = connection.path.name

    def busy(who: str) -> MigrationBusy:
        return MigrationBusy(f"{name} is being migrated by {who}: try again when it is done.")

    with held(connection.path.with_name(f"{name}.migration.lock"), LOCK_SECONDS, busy):
        # Otherwise dropping a table would delete the rows that refer to it. The PRAGMA has no
        # effect inside a transaction; each transaction checks all references before its commit.
        connection.execute("PRAGMA foreign_keys = OFF")
        try:
            yield
        finally:
            connection.execute("PRAGMA foreign_keys = ON")


def known_steps(connection: Connection, schemas: Sequence[Schema]) -> list[tuple[Schema, int]]:
    """Return the schemas, with versions, whose applied versions are all registered unchanged."""
    current, checksums = current_versions(connection), {}
    if current:
        checksums = applied_checksums(connection)
    steps = []
    for schema in schemas:
        reached = current.get(schema.name, (schema.kind, 0))[1]
        numbers = range(1, reached + 1)
        if reached <= schema.newest and all(
            checksums.get((schema.name, n)) == schema.versions[n].checksum for n in numbers
        ):
            steps.append((schema, reached))
    return steps


class Migration:
    """Migrates one database; to be made and used inside `exclusive`."""

    def __init__(
        self, connection: Connection, schemas: Sequence[Schema], *, dry_run: bool = False
    ) -> None:
        """Check the database.

        Args:
            connection: The live database.
            schemas: Every registered schema, in the order in which they are applied.
            dry_run: Make no backups, because the caller rolls everything back.

        Raises:
            CorruptDatabase: The database is damaged, or a row refers to a missing row.
            SchemaTampered: The live schema differs from the applied versions.
        """
        self._connection = connection
        self._dry_run = dry_run
        self._backups: list[Path] = []
        self._steps = dict(known_steps(connection, schemas))
        write_out_defaults(connection)
        check_sound(connection)
        self._twin = Twin(self._steps.items())
        drift = self._twin.compare(connection)
        self._tolerated = set(drift.added)
        if drift.broken:
            self.close()
            raise SchemaTampered(
                f"The schema of {connection.path.name} differs from the applied versions "
                f"({', '.join(drift.broken)}): restore it from a backup."
            )

    def close(self) -> None:
        """Close the twin."""
        self._twin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def apply(self, schema: Schema) -> list[MigrationStep]:
        """Apply the missing versions of a schema.

        Raises:
            StatementForbidden: A plugin's version accesses more than the plugin's own tables.
            MigrationFailed: A version failed; the database has the version before it.
        """
        missing = range(self._steps[schema] + 1, schema.newest + 1)
        return [self._move(schema, number, "apply") for number in missing]

    def roll_back(self, schema: Schema, to_version: int) -> list[MigrationStep]:
        """Roll back the versions of a schema above `to_version`, newest first.

        Raises:
            DowngradeImpossible: A version has no rollback statements, or other schemas need it.
            MigrationFailed: A rollback failed; the database still has that version.
        """
        numbers = range(self._steps[schema], to_version, -1)
        for number in numbers:
            version = schema.versions[number]
            if version.sql_statements and not version.rollback_statements:
                raise DowngradeImpossible(
                    f"Version {number} of the schema {schema.name!r} has no rollback statements: "
                    "restore an older backup instead."
                )
            self._check_needless(schema, number)
        return [self._move(schema, number, "rollback") for number in numbers]

    def remove(self, plugin: str) -> Path | None:
        """Remove all objects with a plugin's prefix; the plugin's statements are not needed.

        Args:
            plugin: The plugin's name; its schema is not among the schemas of this migration.

        Returns:
            The backup, if rows were lost, else None.

        Raises:
            MigrationFailed: The plugin could not be removed; nothing was changed.
        """
        connection = self._connection
        _, reached = current_versions(connection)[plugin]
        checksums = applied_checksums(connection)
        with _failing(f"The plugin {plugin!r} was not removed"), connection.transaction():
            own = self._objects_of(Guard(plugin))
            backup = self._back_up([f"DROP {what}" for what in own], f"before-{plugin}-0")
            for what in own:
                kind, _, name = what.partition(" ")
                feed.untrack(connection, name)
                connection.execute(f"DROP {kind} IF EXISTS {quoted(name)}")
            for number in range(reached, 0, -1):
                checksum = checksums.get((plugin, number), "")
                versions.record(connection, plugin, "plugin", number, "rollback", checksum=checksum)
            self._check_after()
        return backup

    def _move(self, schema: Schema, number: int, direction: Direction) -> MigrationStep:
        version, connection = schema.versions[number], self._connection
        applying = direction == "apply"
        reached = number if applying else number - 1
        statements = version.sql_statements if applying else version.rollback_statements
        done = "rolled back" if applying else "not undone"
        failed = f"Version {number} of the schema {schema.name!r} was {done}"
        with _failing(failed), connection.transaction():
            if schema.kind == "plugin":
                foreign = self._made_by_others(schema)
                sandbox.check(connection, schema, number, direction, foreign=foreign)
            if not applying:
                self._replace_twin(self._steps | {schema: reached})
            elif dangling := self._twin.run(schema, number):
                raise InvalidStatement(dangling)
            lossless = version.derived and schema.kind == "core"
            at_risk = () if lossless else statements
            backup = self._back_up(at_risk, f"before-{schema.name}-{reached}")
            versions.run(connection, schema, number, direction)
            if (
                applying
                and schema.is_federated
                and (why := federated.obstacle(connection, schema.tracked(number)))
            ):
                raise InvalidStatement(why)
            versions.record(
                connection, schema.name, schema.kind, number, direction, checksum=version.checksum
            )
            self._check_after()
        self._steps[schema] = reached
        return MigrationStep(
            schema.name, number, version.name, direction, tuple(statements), backup
        )

    def _made_by_others(self, schema: Schema) -> set[str]:
        with Twin((other, at) for other, at in self._steps.items() if other != schema) as others:
            return {folded(what.partition(" ")[2]) for what in others.structure()}

    def _replace_twin(self, steps: dict[Schema, int]) -> None:
        self._twin.close()
        self._twin = Twin(steps.items())

    def _check_needless(self, schema: Schema, number: int) -> None:
        """Raise DowngradeImpossible if other schemas need a version that is to be rolled back."""
        try:
            with Twin((self._steps | {schema: number - 1}).items()) as twin:
                dangling = twin.dangling()
        except StorageError as error:  # a schema that needs the version could not be created
            dangling = str(error)
        if dangling:
            raise DowngradeImpossible(
                f"Version {number} of the schema {schema.name!r} is needed by others ({dangling}): "
                "roll those back first."
            )

    def _back_up(self, statements: Sequence[str], reason: str) -> Path | None:
        if self._dry_run or not loses_data(self._connection, statements):
            return None
        # Keep the backups of this run, because its result names them.
        self._backups.append(back_up(self._connection, reason, spare=self._backups))
        return self._backups[-1]

    def _check_after(self) -> None:
        self._drop_vector_table()
        write_out_defaults(self._connection)
        check_sound(self._connection)
        drift = self._twin.compare(self._connection)
        left = [f"{shown(name)} is left" for name in drift.added if name not in self._tolerated]
        if left or drift.broken:
            raise InvalidStatement(", ".join([*left, *drift.broken]))

    def _objects_of(self, guard: Guard) -> list[str]:
        """Return a plugin's tables and views; dropping these drops their indexes and triggers."""
        core = self._twin.structure()
        found = [
            what
            for what in structure(self._connection)
            if what not in core
            and what.startswith(("table ", "view "))
            and guard.is_own(what.partition(" ")[2])
        ]
        # libSQL's tables of a vector index are dropped with it, and must not be dropped before.
        return sorted(found, key=lambda what: (what.endswith("_shadow"), what))

    def _drop_vector_table(self) -> None:
        """Drop the table of vector indexes that libSQL leaves after the last one is dropped."""
        connection = self._connection
        if (
            connection.fetch_all("SELECT 1 FROM sqlite_master WHERE name = ?", [VECTOR_TABLE])
            and f"table {VECTOR_TABLE}" not in self._twin.structure()
            and not connection.fetch_all(f"SELECT 1 FROM {VECTOR_TABLE} LIMIT 1")
        ):
            connection.execute(f"DROP TABLE {VECTOR_TABLE}")


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except DatabaseLocked:
        raise
    except StorageError as failed:
        raise MigrationFailed(f"{what} ({failed})") from failed


def write_out_defaults(connection: Connection) -> None:
    """Write the defaults of added columns into the rows that were there before.

    SQLite 3.45 reads such rows rightly, but its integrity check takes the default of a column such
    as `REAL NOT NULL DEFAULT 0.8` for NULL until the rows are written again.
    """
    found = (_NULL_VALUE.fullmatch(row[0]) for row in connection.fetch_all("PRAGMA quick_check"))
    for table, column in {match.groups() for match in found if match}:
        # `IS NULL` would be taken as false for a column that cannot be NULL.
        name = quoted(column)
        really = f"SELECT 1 FROM {quoted(table)} WHERE typeof({name}) = 'null' LIMIT 1"
        if not connection.fetch_all(really):
            connection.execute(f"UPDATE {quoted(table)} SET {name} = {name}")


def check_sound(connection: Connection) -> None:
    """Raise CorruptDatabase if the database is damaged or a row refers to a missing row."""
    name = connection.path.name
    rows = connection.fetch_all("PRAGMA quick_check")
    if rows != [("ok",)]:
        found = on_one_line(rows[0][0])[:SHOWN]
        raise CorruptDatabase(f"{name} is damaged ({found}): restore it from a backup.")
    broken = connection.fetch_all("PRAGMA foreign_key_check")
    if broken:
        raise CorruptDatabase(
            f"{len(broken)} rows of {name} refer to missing rows, the first of them in "
            f"{broken[0][0]}: delete those rows, or restore a backup."
        )
