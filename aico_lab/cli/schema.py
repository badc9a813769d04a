"""`aico-lab schema`: show and change the versions of the primary database's schemas."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from aico_lab.cli.common import HomeOption, JsonOption, KeyFileOption, open_lab
from aico_lab.cli.output import emit, note, say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.schema.migrate import MigrationStep

schema = typer.Typer(
    help="Describe tables; show and change versions of schemas.", no_args_is_help=True
)


@contextmanager
def _as_it_is(home: Path | None, key_file: Path | None) -> Iterator[Connection]:
    """Open the primary database without updating its schemas."""
    from aico_lab.schema.discovery import discover

    discover()
    with open_lab(home, key_file) as lab, lab.storage.open_primary() as connection:
        yield connection


@schema.command()
def status(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """Show the version and state of every schema."""
    from aico_lab.schema import SchemaRegistry
    from aico_lab.schema.status import read_status

    with _as_it_is(home, key_file) as connection:
        found = read_status(SchemaRegistry.default, connection)
    if json:
        emit(found)
        return
    for one in found:
        newest = "" if one.newest in (None, one.version) else f" of {one.newest}"
        say(f"{one.name:<16} {one.kind:<7} {f'{one.version}{newest}':<8} {one.state}")


@schema.command()
def describe(
    name: Annotated[
        str | None,
        typer.Argument(help="A table, such as mart.turns, or a schema; by default all tables."),
    ] = None,
    *,
    json: JsonOption = False,
) -> None:
    """Describe the tables for SQL.

    The description has the columns with their types, units and meanings.
    """
    from aico_lab.etl.dictionary_lookup import find_tables, is_schema

    chosen = find_tables(name)
    if json:
        emit(chosen)
        return
    if name and is_schema(name):
        for one in chosen:
            say(f"{one.name:<26} {one.meaning}")
        return
    for number, one in enumerate(chosen):
        say(f"{'' if not number else chr(10)}{one.name}: {one.meaning}")
        for column in one.columns:
            unit = f" ({column.unit})" if column.unit else ""
            say(f"  {column.name:<18} {column.type:<25} {column.meaning}{unit}")


@schema.command()
def migrate(
    *,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Execute the migrations, undo them, and print their SQL."),
    ] = False,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Migrate core schemas and active plugins to newest versions."""
    from aico_lab.schema import SchemaRegistry

    with _as_it_is(home, key_file) as connection:
        steps = SchemaRegistry.default.upgrade(connection, dry_run=dry_run)
    if json:
        emit({"dry_run": dry_run, "steps": steps})
        return
    _say_steps(steps, "Would apply" if dry_run else "Applied")
    if dry_run:
        for statement in (text for step in steps for text in step.statements):
            say(f"{statement};")
    if not steps:
        say("Every schema is up to date.")


@schema.command()
def activate(
    plugin: Annotated[
        str, typer.Argument(help="The name of a plugin: see `aico-lab schema status`.")
    ],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Create the tables of a plugin, or migrate them."""
    from aico_lab.schema import SchemaRegistry

    with _as_it_is(home, key_file) as connection:
        version = SchemaRegistry.apply_plugin_schema(plugin, connection)
    if json:
        emit({"plugin": plugin, "version": version})
    else:
        say(f"The plugin {plugin} is active, at version {version}.")


@schema.command()
def deactivate(
    plugin: Annotated[str, typer.Argument(help="The name of an active plugin, installed or not.")],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Remove the tables of a plugin, after a backup of their rows."""
    from aico_lab.schema import SchemaRegistry

    with _as_it_is(home, key_file) as connection:
        backup = SchemaRegistry.remove_plugin_schema(plugin, connection)
    if json:
        emit({"plugin": plugin, "backup": backup})
        return
    say(f"The plugin {plugin} was deactivated.")
    if backup:
        say(f"  Backup: {backup}")


@schema.command()
def rollback(
    name: Annotated[
        str, typer.Argument(help="The name of a schema: see `aico-lab schema status`.")
    ],
    *,
    to: Annotated[int, typer.Option(help="The version to return to; 0 removes the schema.")],
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = False,
) -> None:
    """Return a schema to an earlier version.

    Rows that are lost are backed up before.
    """
    from aico_lab.schema import SchemaRegistry

    with _as_it_is(home, key_file) as connection:
        steps = SchemaRegistry.default.rollback(name, to, connection)
    if json:
        emit({"schema": name, "version": to, "steps": steps})
        return
    _say_steps(steps, "Rolled back")
    if SchemaRegistry.default[name].kind == "core":
        note(
            "This version of aico-lab will migrate the schema again when it opens the home: "
            "install the earlier version first."
        )


@schema.command()
def verify(
    *, home: HomeOption = None, key_file: KeyFileOption = None, json: JsonOption = False
) -> None:
    """Check that the database is sound and its schema unchanged."""
    from aico_lab.adapters.sql_text import shown
    from aico_lab.schema import SchemaRegistry
    from aico_lab.schema.status import verify_schema

    with _as_it_is(home, key_file) as connection:
        result = verify_schema(SchemaRegistry.default, connection)
    if json:
        emit(result)
    else:
        for words, names in (
            ("does not belong to any schema", result.drift.added),
            ("is missing", result.drift.missing),
            ("differs from what was applied", result.drift.changed),
        ):
            for name in names:
                say(f"FAIL {shown(name)} {words}")
        for problem in result.problems:
            say(f"FAIL {problem}")
        for name, count in result.pending.items():
            say(f"{name}: {count} to be applied by `aico-lab schema migrate`")
        if result.ok:
            say("ok   The database is sound, and its schema is as applied.")
    if not result.ok:
        raise typer.Exit(1)


def _say_steps(steps: list[MigrationStep], done: str) -> None:
    for step in steps:
        say(f"{done} version {step.version} of {step.schema}: {step.name}")
        if step.backup:
            say(f"  Backup: {step.backup}")
