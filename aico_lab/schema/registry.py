"""The registry of all schemas and their versions, which brings a database to the newest of each.

Each version of a schema is applied in one transaction together with its record, so a failure leaves
the version before it. A checksum of the applied statements detects edited migrations.
"""

from __future__ import annotations

import re
from contextlib import ExitStack, suppress
from typing import (
    TYPE_CHECKING,
    ClassVar,
    Concatenate,
    Generic,
    ParamSpec,
    TypeVar,
    cast,
    get_args,
)

from aico_lab.errors import (
    DowngradeImpossible,
    InvalidValue,
    SchemaTampered,
    SchemaTooNew,
    UnknownName,
    did_you_mean,
)
from aico_lab.schema.authorizer import RESERVED, Guard
from aico_lab.schema.drift import Drift, Twin
from aico_lab.schema.migrate import Migration, exclusive, known_steps
from aico_lab.schema.versions import (
    Kind,
    Schema,
    SchemaVersion,
    applied_checksums,
    current_versions,
    prepare,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.schema.migrate import MigrationStep

__all__ = ["SchemaRegistry", "SchemaVersion"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


_CLASSES = frozenset({"people", "summaries"})
"""Names of classes of core tables that a plugin could have."""


class _OrDefault(Generic[Parameters, Result]):
    """A method that uses the default registry when it is called on the class."""

    def __init__(self, method: Callable[Concatenate[SchemaRegistry, Parameters], Result]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(
        self, registry: SchemaRegistry | None, kind: type[SchemaRegistry]
    ) -> Callable[Parameters, Result]:
        bound = self._method.__get__(kind.default if registry is None else registry)
        return cast("Callable[Parameters, Result]", bound)


class SchemaRegistry:
    """An explicit set of schemas.

    Methods that are called on the class, such as `SchemaRegistry.apply_core_schemas(connection)`,
    use the default registry.

    Attributes:
        default: The registry of this package's schemas and of plugins without another registry.
    """

    default: ClassVar[SchemaRegistry]

    def __init__(self) -> None:
        self._schemas: dict[str, Schema] = {}

    def register(
        self,
        name: str,
        kind: Kind,
        versions: Mapping[int, SchemaVersion],
        *,
        priority: int = 100,
        federated: bool = False,
    ) -> None:
        """Add a schema.

        Args:
            name: Unique among all schemas. A plugin's name is one word of lower-case letters and
                digits, because it is also the prefix of all its tables.
            kind: 'core' for this package's schemas, or 'plugin'.
            versions: The versions by number, 1 to n without a gap.
            priority: Schemas of lower priority are applied first, equal ones by name.
            federated: Whether the rows of a plugin's tracked tables go to the person's other
                devices.

        Raises:
            InvalidValue: The name is taken or invalid, the kind is unknown, or the versions have a
                gap.
        """
        if name in self._schemas:
            raise InvalidValue(f"A schema named {name!r} is registered already: choose another.")
        if kind not in get_args(Kind):
            raise InvalidValue(
                f"The kind of the schema {name!r} must be 'core' or 'plugin', not {kind!r}."
            )
        # With an underscore, one plugin's prefix could begin with another's.
        if kind == "plugin" and (name in RESERVED or not re.fullmatch("[a-z][a-z0-9]*", name)):
            raise InvalidValue(
                f"{name!r} cannot name a plugin: choose one word of lower-case letters and digits "
                "that is not the prefix of a table of this program."
            )
        if federated and (kind != "plugin" or name in _CLASSES):
            raise InvalidValue(f"The schema {name!r} cannot be federated: choose another name.")
        numbers = [version.version for version in versions.values()]
        if not versions or numbers != list(versions) or numbers != [*range(1, len(versions) + 1)]:
            raise InvalidValue(f"The versions of schema {name!r} must be numbered 1, 2, 3 …")
        self._schemas[name] = Schema(name, kind, versions, priority, federated)

    def __iter__(self) -> Iterator[Schema]:
        """Iterate over the schemas in the order in which they are applied."""
        return iter(sorted(self._schemas.values(), key=lambda s: (s.priority, s.name)))

    def __getitem__(self, name: str) -> Schema:
        """Return a schema by its name.

        Raises:
            UnknownName: No schema has this name.
        """
        if name not in self._schemas:
            end = did_you_mean(name, self._schemas, ": see `aico-lab schema status`.")
            raise UnknownName(f"No schema is named {name!r}{end}")
        return self._schemas[name]

    @_OrDefault
    def apply_core_schemas(self, connection: Connection) -> dict[str, int]:
        """Bring every core schema to its newest version.

        Args:
            connection: A connection outside a transaction.

        Returns:
            The schemas that changed, with their new versions.

        Raises:
            SchemaTooNew: The database was migrated by a later version of this program.
            SchemaTampered: An applied version, or the live schema, differs from the registered one.
            CorruptDatabase: The database is damaged; nothing was changed.
            MigrationBusy: Another program is migrating the database.
            MigrationFailed: A version failed; the database has the version before it.
        """
        core = [schema for schema in self if schema.kind == "core"]
        return {step.schema: step.version for step in self._apply(core, connection)}

    @_OrDefault
    def apply_plugin_schema(self, plugin_name: str, connection: Connection) -> int:
        """Activate a plugin: bring its schema to its newest version.

        Args:
            plugin_name: A registered plugin.
            connection: A connection outside a transaction.

        Returns:
            The plugin's new version.

        Raises:
            UnknownName: No such plugin is registered.
            StatementForbidden: The plugin accesses more than its own tables; nothing was changed.
            SchemaError: As for `apply_core_schemas`.
        """
        schema = self[plugin_name]
        if schema.kind != "plugin":
            raise UnknownName(f"{plugin_name!r} is not a plugin: see `aico-lab schema status`.")
        self._apply([schema], connection)
        return schema.newest

    @_OrDefault
    def remove_plugin_schema(self, plugin_name: str, connection: Connection) -> Path | None:
        """Deactivate a plugin, registered or not: remove all its objects from the database.

        Only the migration history keeps a record of it.

        Args:
            plugin_name: An active plugin.
            connection: A connection outside a transaction.

        Returns:
            The backup made before, if the plugin had rows, else None.

        Raises:
            UnknownName: No such plugin is active.
            SchemaError: The plugin could not be removed; nothing was changed.
        """
        with exclusive(connection):
            if current_versions(connection).get(plugin_name, ("core", 0))[0] != "plugin":
                raise UnknownName(
                    f"No plugin named {plugin_name!r} is active: see `aico-lab schema status`."
                )
            others = [schema for schema in self if schema.name != plugin_name]
            with Migration(connection, others) as migration:
                return migration.remove(plugin_name)

    def upgrade(self, connection: Connection, *, dry_run: bool = False) -> list[MigrationStep]:
        """Bring every core schema and every active plugin to its newest version.

        Args:
            connection: A connection outside a transaction.
            dry_run: Execute everything on the real rows, then roll it back.

        Returns:
            The versions that were applied, or would be.

        Raises:
            SchemaError: As for `apply_core_schemas`.
        """
        return self._apply(self.wanted(connection), connection, dry_run=dry_run)

    def rollback(self, name: str, to_version: int, connection: Connection) -> list[MigrationStep]:
        """Roll a schema back to an earlier version.

        Opening a lab brings core schemas to their newest versions again: use this right before you
        install an earlier version of the program.

        Args:
            name: The name of the schema.
            to_version: The version to go back to; 0 removes the schema.
            connection: A connection outside a transaction.

        Returns:
            The versions that were rolled back, newest first, with the backups made before.

        Raises:
            UnknownName: There is no such schema.
            DowngradeImpossible: There is no such earlier version, a version has no rollback
                statements, or other schemas need it.
            SchemaError: As for `apply_core_schemas`.
        """
        schema = self[name]
        with exclusive(connection):
            _behind([schema], connection)
            at = current_versions(connection).get(name, (schema.kind, 0))[1]
            if not 0 <= to_version < at:
                raise DowngradeImpossible(
                    f"The schema {name!r} is at version {at}: it "
                    + (f"can go back to 0 … {at - 1}." if at else "has no earlier version.")
                )
            with Migration(connection, list(self)) as migration:
                return migration.roll_back(schema, to_version)

    def drift(self, connection: Connection) -> Drift:
        """Compare the live schema with the one that its versions create in an empty database.

        Schemas whose applied versions differ from the registered ones cannot be compared: see
        `pending`. Objects of unregistered plugins are ignored.
        """
        steps = known_steps(connection, list(self))
        known = {schema.name for schema, _ in steps}
        unknown = [
            Guard(name)
            for name, (kind, _) in current_versions(connection).items()
            if kind == "plugin" and name not in known
        ]
        with Twin(steps) as twin:
            return twin.compare(connection, without=unknown)

    def pending(self, connection: Connection) -> dict[str, int]:
        """Return the number of versions to apply for each outdated core schema and active plugin.

        Raises:
            SchemaTooNew: The database was migrated by a later version of this program.
            SchemaTampered: An applied version differs from the registered one.
        """
        return _behind(self.wanted(connection), connection)

    def wanted(self, connection: Connection) -> list[Schema]:
        """Return the schemas that a database should have: the core and the active plugins."""
        active = current_versions(connection)
        return [schema for schema in self if schema.kind == "core" or schema.name in active]

    def _apply(
        self, schemas: list[Schema], connection: Connection, *, dry_run: bool = False
    ) -> list[MigrationStep]:
        steps: list[MigrationStep] = []
        if not _behind(schemas, connection):  # the usual case needs no lock
            return steps
        with exclusive(connection), suppress(_Undo), ExitStack() as outermost:
            if dry_run:
                outermost.enter_context(connection.transaction())
            with connection.transaction():
                prepare(connection)
            _behind(schemas, connection)  # another process may have migrated meanwhile
            with Migration(connection, list(self), dry_run=dry_run) as migration:
                for schema in schemas:
                    steps += migration.apply(schema)
            if dry_run:
                raise _Undo
        return steps


class _Undo(Exception):
    """Rolls back the transaction of a dry run."""


def _behind(schemas: Iterable[Schema], connection: Connection) -> dict[str, int]:
    current, behind = current_versions(connection), {}
    applied = applied_checksums(connection) if current else {}
    for schema in schemas:
        at = current.get(schema.name, (schema.kind, 0))[1]
        if at > schema.newest:
            raise SchemaTooNew(
                f"The schema {schema.name!r} is at version {at} and this program knows only "
                f"{schema.newest}: install a newer version of it."
            )
        for number in range(1, at + 1):
            if applied.get((schema.name, number)) != schema.versions[number].checksum:
                raise SchemaTampered(
                    f"Version {number} of the schema {schema.name!r} is not the one that was "
                    "applied: install the version that applied it."
                )
        if at < schema.newest:
            behind[schema.name] = schema.newest - at
    return behind
