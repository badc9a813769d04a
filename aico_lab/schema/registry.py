"""Know every schema by name and version, and bring a database to the newest of each.

Each version of each schema is applied in one transaction together with its record, so a failure
leaves the version before it. A checksum of what was applied tells an edited migration apart.
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


class _OrDefault(Generic[Parameters, Result]):
    """A method that works on the default registry where the class itself is asked."""

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

    What is asked of the class itself, such as `SchemaRegistry.apply_core_schemas(connection)`, is
    asked of the default registry.

    Attributes:
        default: This package's own schemas, and the plugins that were registered nowhere else.
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
    ) -> None:
        """Add a schema.

        Args:
            name: Unique among all schemas. A plugin's is one word of small letters and digits,
                since it is also the prefix of all its tables.
            kind: Whose it is: this package's, or a plugin's.
            versions: By number, 1 to n without a gap.
            priority: Lower ones are applied first; equal ones by name.

        Raises:
            InvalidValue: The name is taken or no name, or the versions have a gap.
        """
        if name in self._schemas:
            raise InvalidValue(f"A schema named {name!r} is registered already: choose another.")
        if kind not in get_args(Kind):
            raise InvalidValue(f"The schema {name!r} is either 'core' or 'plugin', not {kind!r}.")
        # An underscore would let the prefix of one plugin begin that of another.
        if kind == "plugin" and (name in RESERVED or not re.fullmatch("[a-z][a-z0-9]*", name)):
            raise InvalidValue(
                f"{name!r} cannot name a plugin: choose one word of small letters and digits "
                "with which no table of this program begins."
            )
        numbers = [version.version for version in versions.values()]
        if not versions or numbers != list(versions) or numbers != [*range(1, len(versions) + 1)]:
            raise InvalidValue(f"The versions of schema {name!r} must be numbered 1, 2, 3 …")
        self._schemas[name] = Schema(name, kind, versions, priority)

    def __iter__(self) -> Iterator[Schema]:
        """Give the schemas in the order in which they are applied."""
        return iter(sorted(self._schemas.values(), key=lambda s: (s.priority, s.name)))

    def __getitem__(self, name: str) -> Schema:
        """Give a schema by its name.

        Raises:
            UnknownName: There is none.
        """
        if name not in self._schemas:
            end = did_you_mean(name, self._schemas, ": see `aico-lab schema status`.")
            raise UnknownName(f"No schema is named {name!r}{end}")
        return self._schemas[name]

    @_OrDefault
    def apply_core_schemas(self, connection: Connection) -> dict[str, int]:
        """Bring every core schema to its newest version.

        Args:
            connection: A connection that is in no transaction.

        Returns:
            The schemas that changed, with the version that they have now.

        Raises:
            SchemaTooNew: The database was migrated by a later version of this program.
            SchemaTampered: A version that was applied, or the live schema, is not as registered.
            CorruptDatabase: The database is damaged; nothing was changed.
            MigrationBusy: Another program is migrating the database.
            MigrationFailed: A version did not apply; the database stands at the one before it.
        """
        core = [schema for schema in self if schema.kind == "core"]
        return {step.schema: step.version for step in self._apply(core, connection)}

    @_OrDefault
    def apply_plugin_schema(self, plugin_name: str, connection: Connection) -> int:
        """Activate a plugin: bring its schema to its newest version.

        Args:
            plugin_name: A registered plugin.
            connection: A connection that is in no transaction.

        Returns:
            The version that it has now.

        Raises:
            UnknownName: No such plugin is registered.
            StatementForbidden: It reaches beyond its own tables; nothing was changed.
            SchemaError: As `apply_core_schemas` has it.
        """
        schema = self[plugin_name]
        if schema.kind != "plugin":
            raise UnknownName(f"{plugin_name!r} is no plugin: name one.")
        self._apply([schema], connection)
        return schema.newest

    @_OrDefault
    def remove_plugin_schema(self, plugin_name: str, connection: Connection) -> Path | None:
        """Deactivate a plugin: remove all that it has in the database, registered here or not.

        Only the history says afterwards that it was there.

        Args:
            plugin_name: An active plugin.
            connection: A connection that is in no transaction.

        Returns:
            The backup that was made before, where the plugin had rows.

        Raises:
            UnknownName: No such plugin is active.
            SchemaError: It could not be removed; nothing was changed.
        """
        with exclusive(connection):
            if current_versions(connection).get(plugin_name, ("core", 0))[0] != "plugin":
                raise UnknownName(f"No plugin named {plugin_name!r} is active.")
            others = [schema for schema in self if schema.name != plugin_name]
            with Migration(connection, others) as migration:
                return migration.remove(plugin_name)

    def upgrade(self, connection: Connection, *, dry_run: bool = False) -> list[MigrationStep]:
        """Bring every core schema and every active plugin to its newest version.

        Args:
            connection: A connection that is in no transaction.
            dry_run: Undo everything: it has then been executed, on the real rows, and would work.

        Returns:
            What was applied, or would be.

        Raises:
            SchemaError: As `apply_core_schemas` has it.
        """
        return self._apply(self.wanted(connection), connection, dry_run=dry_run)

    def rollback(self, name: str, to_version: int, connection: Connection) -> list[MigrationStep]:
        """Take a schema back to an earlier version.

        This program brings core schemas forward again when it opens a lab: roll back before an
        earlier one is installed.

        Args:
            name: The schema.
            to_version: The version that it is to have; 0 removes it.
            connection: A connection that is in no transaction.

        Returns:
            What was rolled back, newest first, each with the backup that was made before.

        Raises:
            UnknownName: There is no such schema.
            DowngradeImpossible: There is no such earlier version, or other schemas need this one.
            SchemaError: As `apply_core_schemas` has it.
        """
        schema = self[name]
        with exclusive(connection):
            _behind([schema], connection)
            at = current_versions(connection).get(name, (schema.kind, 0))[1]
            if not 0 <= to_version < at:
                raise DowngradeImpossible(
                    f"The schema {name!r} is at version {at}: it can go back to "
                    + (f"0 … {at - 1}." if at else "nothing.")
                )
            with Migration(connection, list(self)) as migration:
                return migration.roll_back(schema, to_version)

    def drift(self, connection: Connection) -> Drift:
        """Compare the live schema with what its versions make of an empty database.

        Schemas whose applied versions are not those that are registered cannot be compared: see
        `pending`. Objects of plugins that are not registered are left out.
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
        """Say which core schemas and active plugins have versions to be applied, and how many.

        Raises:
            SchemaTooNew: The database was migrated by a later version of this program.
            SchemaTampered: A version that was applied differs from the one registered now.
        """
        return _behind(self.wanted(connection), connection)

    def wanted(self, connection: Connection) -> list[Schema]:
        """Give the schemas that a database is to have: the core and the active plugins."""
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
            _behind(schemas, connection)  # another process may have been here meanwhile
            with Migration(connection, list(self), dry_run=dry_run) as migration:
                for schema in schemas:
                    steps += migration.apply(schema)
            if dry_run:
                raise _Undo
        return steps


class _Undo(Exception):
    """Leaves a transaction that is not to be committed."""


def _behind(schemas: Iterable[Schema], connection: Connection) -> dict[str, int]:
    current, behind = current_versions(connection), {}
    applied = applied_checksums(connection) if current else {}
    for schema in schemas:
        at = current.get(schema.name, (schema.kind, 0))[1]
        if at > schema.newest:
            raise SchemaTooNew(
                f"The schema {schema.name!r} is at version {at} and this program knows only "
                f"{schema.newest}: install a newer one."
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
