"""Move a database between the versions of its schemas, each step in one transaction.

A step is proved before it touches a row: its statements run on a twin of the database in memory
(see `aico_lab.schema.drift`), a plugin's in the sandbox before. Where rows may be lost, a backup
comes first. Afterwards the database must be sound, and look like the twin; else nothing happened.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aico_lab.adapters.libsql_errors import SHOWN, on_one_line
from aico_lab.adapters.sql_text import quoted
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
from aico_lab.home import held
from aico_lab.schema import feed, sandbox, versions
from aico_lab.schema.authorizer import Guard
from aico_lab.schema.backup import back_up, loses_data
from aico_lab.schema.drift import VECTOR_TABLE, Twin, structure
from aico_lab.schema.versions import applied_checksums, current_versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.schema.versions import Direction, Schema

LOCK_SECONDS = 30.0  # for which a second migrator waits


@dataclass(frozen=True, slots=True)
class MigrationStep:
    """One version that was applied or rolled back, or would be.

    Attributes:
        schema: The name of the schema.
        version: The version.
        name: What the version is called.
        direction: Whether it was applied or rolled back.
        statements: What was executed.
        backup: The copy that was made before, where rows might be lost.
    """

    schema: str
    version: int
    name: str
    direction: Direction
    statements: tuple[str, ...]
    backup: Path | None = None


@contextlib.contextmanager
def exclusive(connection: Connection) -> Iterator[None]:
    """Keep other migrators out, and foreign keys from acting while tables come and go.

    Raises:
        MigrationBusy: Another program has been migrating the database for a long time.
        InvalidValue: The connection is in a transaction.
    """
    if connection.in_transaction:
        raise InvalidValue("Leave the transaction before migrating: each version has its own.")
    name = connection.path.name

    def busy(who: str) -> MigrationBusy:
        return MigrationBusy(f"{name} is being migrated by {who}: try again when it is done.")

    with held(connection.path.with_name(f"{name}.migration.lock"), LOCK_SECONDS, busy):
        # Else dropping a table would delete the rows that refer to it. It has no effect inside a
        # transaction; instead, each one checks every reference before it commits.
        connection.execute("PRAGMA foreign_keys = OFF")
        try:
            yield
        finally:
            connection.execute("PRAGMA foreign_keys = ON")


def known_steps(connection: Connection, schemas: Sequence[Schema]) -> list[tuple[Schema, int]]:
    """Give the schemas that the database has just as they are known here, with their versions."""
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
    """Moves one database; made and used while `exclusive` holds."""

    def __init__(
        self, connection: Connection, schemas: Sequence[Schema], *, dry_run: bool = False
    ) -> None:
        """Look at the database.

        Args:
            connection: The live database.
            schemas: Every schema that is known, in the order in which they are applied.
            dry_run: Make no backups, since the caller undoes everything.

        Raises:
            CorruptDatabase: It is damaged, or a row refers to one that is not there.
            SchemaTampered: Its schema is not what was applied.
        """
        self._connection = connection
        self._dry_run = dry_run
        self._backups: list[Path] = []
        self._steps = dict(known_steps(connection, schemas))
        check_sound(connection)
        self._twin = Twin(self._steps.items())
        drift = self._twin.compare(connection)
        self._tolerated = set(drift.added)
        if drift.broken:
            self.close()
            raise SchemaTampered(
                f"The schema of {connection.path.name} is not what was applied "
                f"({', '.join(drift.broken)}): restore it from a backup."
            )

    def close(self) -> None:
        """Forget the twin."""
        self._twin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def apply(self, schema: Schema) -> list[MigrationStep]:
        """Apply the versions of a schema that are missing.

        Raises:
            StatementForbidden: A plugin's version reaches beyond the plugin's own tables.
            MigrationFailed: A version did not apply; the database stands at the one before it.
        """
        missing = range(self._steps[schema] + 1, schema.newest + 1)
        return [self._move(schema, number, "apply") for number in missing]

    def roll_back(self, schema: Schema, to_version: int) -> list[MigrationStep]:
        """Roll versions of a schema back, newest first.

        Raises:
            DowngradeImpossible: A version has nothing that undoes it, or others depend on it.
            MigrationFailed: A version could not be undone; the database stands at it.
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
        """Remove everything that a plugin made, by its prefix; its statements are not needed.

        Args:
            plugin: Its name; its schema is not among those that this migration knows.

        Returns:
            The backup, where rows were lost.
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
            return {what.partition(" ")[2].lower() for what in others.structure()}

    def _replace_twin(self, steps: dict[Schema, int]) -> None:
        self._twin.close()
        self._twin = Twin(steps.items())

    def _check_needless(self, schema: Schema, number: int) -> None:
        """Make sure that nothing else needs a version that is to be rolled back."""
        try:
            with Twin((self._steps | {schema: number - 1}).items()) as twin:
                dangling = twin.dangling()
        except StorageError as error:  # what needs it could not even be made
            dangling = str(error)
        if dangling:
            raise DowngradeImpossible(
                f"Version {number} of the schema {schema.name!r} is needed by others ({dangling}): "
                "roll those back before."
            )

    def _back_up(self, statements: Sequence[str], reason: str) -> Path | None:
        if self._dry_run or not loses_data(self._connection, statements):
            return None
        # Those of this very run are named in what it returns, and so must be there.
        self._backups.append(back_up(self._connection, reason, spare=self._backups))
        return self._backups[-1]

    def _check_after(self) -> None:
        self._drop_vector_table()
        check_sound(self._connection)
        drift = self._twin.compare(self._connection)
        left = [f"{name} is left" for name in drift.added if name not in self._tolerated]
        if left or drift.broken:
            raise InvalidStatement(", ".join([*left, *drift.broken]))

    def _objects_of(self, guard: Guard) -> list[str]:
        """Give a plugin's tables and views, which take their indexes and triggers with them."""
        core = self._twin.structure()
        found = [
            what
            for what in structure(self._connection)
            if what not in core
            and what.startswith(("table ", "view "))
            and guard.is_own(what.partition(" ")[2])
        ]
        # libSQL's own tables of a vector index go with it, and must not go before it.
        return sorted(found, key=lambda what: (what.endswith("_shadow"), what))

    def _drop_vector_table(self) -> None:
        """Drop the list of vector indexes that libSQL leaves when the last one is gone."""
        what, connection = f"table {VECTOR_TABLE}", self._connection
        if (
            what in structure(connection)
            and what not in self._twin.structure()
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


def check_sound(connection: Connection) -> None:
    """Do nothing if the database is undamaged and every reference leads somewhere.

    Raises:
        CorruptDatabase: It is not.
    """
    name = connection.path.name
    rows = connection.fetch_all("PRAGMA quick_check")
    if rows != [("ok",)]:
        found = on_one_line(rows[0][0])[:SHOWN]
        raise CorruptDatabase(f"{name} is damaged ({found}): restore it from a backup.")
    broken = connection.fetch_all("PRAGMA foreign_key_check")
    if broken:
        raise CorruptDatabase(
            f"{len(broken)} rows of {name} refer to rows that are not there, the first of them in "
            f"{broken[0][0]}: delete those, or restore a backup."
        )
