"""Compare a database with the registered schemas, without changing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aico_lab.errors import SchemaError, StorageError
from aico_lab.schema.drift import Drift
from aico_lab.schema.migrate import check_sound
from aico_lab.schema.versions import current_versions

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection
    from aico_lab.schema.registry import SchemaRegistry
    from aico_lab.schema.versions import Kind

State = Literal["up to date", "behind", "ahead", "not active", "not installed"]


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """The status of one schema.

    Attributes:
        name: The name of the schema.
        kind: 'core' or 'plugin'.
        version: The version that the database has; 0 for none.
        newest: The newest registered version; None if the schema is not registered.
        state: How `version` compares with `newest`.
    """

    name: str
    kind: Kind
    version: int
    newest: int | None
    state: State


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of checking a database against its schemas.

    Attributes:
        ok: Whether there is no drift and no problem; pending versions are allowed.
        pending: The number of versions to be applied, by schema.
        drift: The differences of the live schema.
        problems: Other problems, one sentence each.
    """

    ok: bool
    pending: dict[str, int]
    drift: Drift
    problems: tuple[str, ...]


def read_status(registry: SchemaRegistry, connection: Connection) -> list[SchemaStatus]:
    """Return the status of every schema that is registered or that the database has."""
    current = current_versions(connection)
    found = []
    for schema in registry:
        _, version = current.pop(schema.name, (schema.kind, 0))
        state: State = "up to date"
        if version > schema.newest:
            state = "ahead"
        elif version == 0 and schema.kind == "plugin":
            state = "not active"
        elif version < schema.newest:
            state = "behind"
        found.append(SchemaStatus(schema.name, schema.kind, version, schema.newest, state))
    return found + [
        SchemaStatus(name, kind, version, None, "not installed")
        for name, (kind, version) in sorted(current.items())
    ]


def verify_schema(registry: SchemaRegistry, connection: Connection) -> Verification:
    """Check versions, checksums, the live schema, and the integrity of the database."""
    waiting: dict[str, int] = {}
    drift = Drift()
    problems: list[str] = []
    try:
        check_sound(connection)
        drift = registry.drift(connection)
        waiting = registry.pending(connection)
    except (SchemaError, StorageError) as error:
        problems.append(str(error))
    return Verification(drift == Drift() and not problems, waiting, drift, tuple(problems))
