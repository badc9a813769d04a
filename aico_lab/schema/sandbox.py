"""Restrict a plugin's statements to the plugin's own tables.

libSQL's driver has no authorizer, and parsing SQL with regular expressions is unreliable. So the
statements run first on SQLite itself, in memory, on a copy of the live schema without data, where
an authorizer checks every table, column and function of every compiled statement. It allows the
actions listed here and denies the rest. SQLite compiles the bodies of triggers and views only when
they are used, so each of them is used once.

A plugin may:

- create, alter, drop, fill, change and empty tables named `<plugin>_…`, and views, triggers and
  indexes with the same prefix on them; an index may also be named `idx_…`;
- use libSQL's vector columns and vector indexes on its own tables.

A plugin may not use, even where it would be harmless:

- virtual tables and table-valued functions: some of them read every page of the database;
- `CREATE TABLE … AS SELECT`, recursive queries, temporary objects, and any PRAGMA;
- foreign keys to tables that are not its own: they reveal which keys exist there, and could prevent
  the deletion of a person.

This protects the data from a plugin's schema, but not from a plugin's Python code.
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from typing import TYPE_CHECKING, Any

from aico_lab.adapters.sql_text import folded, normalised, quoted, tokens, updated_columns
from aico_lab.errors import StatementForbidden
from aico_lab.schema.authorizer import VERBS, Guard

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.schema.versions import Direction, Schema

VECTOR_FUNCTIONS = (
    "libsql_vector_idx", "vector", "vector32", "vector64", "vector_extract",
    "vector_distance_cos", "vector_distance_l2",
)  # fmt: skip
LONGEST = 10_000_000  # maximum bytes of one value or statement
STEPS, MOST_STEPS = 1_000_000, 50  # instructions of SQLite between checks, and checks allowed

_IDX = re.compile(r"idx_[a-z0-9_]+", re.ASCII | re.IGNORECASE)
_EVENTS = ("INSERT", "UPDATE", "DELETE")


def check(
    connection: Connection,
    schema: Schema,
    number: int,
    direction: Direction,
    *,
    foreign: Collection[str],
) -> None:
    """Raise StatementForbidden if a version of a plugin accesses more than the plugin's own tables.

    For a version to be applied, it also checks that its rollback restores the schema.

    Args:
        connection: The live database, in the transaction in which the version will run.
        schema: The plugin's schema.
        number: The number of the version.
        direction: Whether the version is to be applied or rolled back.
        foreign: The names of the objects of other schemas, in lower case.

    Raises:
        StatementForbidden: A statement is not allowed, or the rollback does not restore the schema.
    """
    scratch = _Scratch(Guard(schema.name, foreign))
    try:
        scratch.build(connection)
        if direction == "apply":
            if number == 1 and (taken := sorted(name for *_, name in scratch.objects())):
                raise _Refused(f"{taken[0]} exists already")
            scratch.apply(schema, number)
        else:
            scratch.run(schema.versions[number].rollback_statements)
    except (_Refused, sqlite3.Error, sqlite3.Warning, ValueError, TypeError) as refused:
        reason = scratch.denied or str(refused)
        raise StatementForbidden(
            f"Version {number} of the plugin {schema.name!r} is not allowed, and nothing was "
            f"changed ({scratch.position}{reason}): a plugin may touch only tables, views, "
            f"triggers and indexes of its own, named {schema.name}_…"
        ) from refused
    finally:
        scratch.close()


class _Refused(Exception):
    """A violation of a rule that SQLite's authorizer cannot check."""


class _Scratch:
    """An in-memory copy of the live schema: the plugin's objects, and outlines of all others."""

    def __init__(self, guard: Guard) -> None:
        self.position = ""
        self._guard = guard
        self._foreign: set[str] = set()
        self._ticks = 0
        self._sqlite = sqlite3.connect(":memory:", isolation_level=None)
        self._sqlite.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        self._sqlite.set_progress_handler(self._tick, STEPS)
        for function in VECTOR_FUNCTIONS:
            self._sqlite.create_function(function, -1, lambda *_: None, deterministic=True)

    @property
    def denied(self) -> str:
        """A description of the first action that the authorizer denied."""
        return self._guard.denied

    def close(self) -> None:
        self._sqlite.close()

    def build(self, live: Connection) -> None:
        """Copy the structure of the live database.

        Of other schemas' objects only the names matter: without them, `DROP INDEX IF EXISTS` would
        find nothing, and so would not call the authorizer.
        """
        # Create SQLite's own table `sqlite_sequence` now: the authorizer could not tell its
        # creation from that of a plugin's table.
        self._rows("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)")
        self._rows("DROP TABLE t")
        master = live.fetch_all(
            "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' "
            "ESCAPE '!' ORDER BY instr('table view index trigger', type)"
        )
        # libSQL keeps a vector index in its own tables, which are created and dropped with it.
        shadows = {
            f"{name}_shadow{end}" for kind, name, _, _ in master if kind == "index"
            for end in ("", "_idx")
        }  # fmt: skip
        views = {name for kind, name, _, _ in master if kind == "view"}
        for kind, name, table, sql in master:
            of_own = self._guard.is_own(table)
            if of_own and name in shadows:
                continue
            if of_own and (kind != "trigger" or self._guard.is_own(name)):
                self._sqlite.execute(sql)
                continue
            self._foreign.add(name)
            columns = [
                column
                for (column,) in live.fetch_all("SELECT name FROM pragma_table_xinfo(?)", [table])
            ]
            self._sqlite.execute(_outline(kind, name, table, columns, views))

    def apply(self, schema: Schema, number: int) -> None:
        """Run a version, and then its rollback, which has to restore the schema."""
        before, version = self.objects(), schema.versions[number]
        self.run(version.sql_statements)
        tables = {folded(name): name for kind, _, name in self.objects() if kind == "table"}
        for table, keys in schema.tracked(number).items():
            found = tables.get(folded(table))
            if not found and table not in version.tracked:
                continue  # it was dropped
            known = {name for name in self._columns(table) if re.fullmatch(r"\w+", name, re.ASCII)}
            if found != table or not keys or not known.issuperset(keys):
                raise _Refused(f"the change feed cannot follow {table} by {', '.join(keys)}")
        if not version.rollback_statements:
            return
        self.run(version.rollback_statements)
        if left := {name for *_, name in before ^ self.objects()}:
            raise _Refused(f"its rollback does not restore {', '.join(sorted(left))}")

    def run(self, statements: Sequence[str]) -> None:
        """Run statements under the authorizer, and check the objects that they created."""
        for number, statement in enumerate(statements, 1):
            self.position = f"statement {number}: "
            verb = tuple(itertools.islice(tokens(statement), 2))
            if verb[:1] and verb[0] not in VERBS:
                raise _Refused(f"{verb[0].upper()} is not one of {', '.join(sorted(VERBS))}")
            self._guarded(statement, verb)
            for kind, _, name in self.objects():
                if not self._guard.is_own(name) and not (kind == "index" and _IDX.fullmatch(name)):
                    raise _Refused(f"{name} has another prefix")
        self.position = ""
        for kind, _, name in sorted(self.objects()):
            if kind in ("table", "view"):
                self._use(kind, name)

    def objects(self) -> set[tuple[str, str, str]]:
        """Return the kind, definition and name of each of the plugin's own objects."""
        rows = self._rows(
            "SELECT type, sql, name FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"
        )
        return {
            (kind, normalised(sql), name) for kind, sql, name in rows if name not in self._foreign
        }

    def _use(self, kind: str, name: str) -> None:
        """Compile every use of a table or view, and with it the bodies of its triggers."""
        parents = self._rows(f"SELECT \"table\" FROM pragma_foreign_key_list('{name}')")
        if others := [parent for (parent,) in parents if not self._guard.is_own(parent)]:
            raise _Refused(f"{name} has a foreign key to {others[0]}")
        if kind == "view":
            self._guarded(f'EXPLAIN SELECT * FROM "{name}"')
            for event in _EVENTS:  # a view without triggers cannot be written
                self._rows(
                    f'CREATE TRIGGER "probe {event}" INSTEAD OF {event} ON "{name}" '
                    "BEGIN SELECT 1; END"
                )
        written = [column for column, generated in self._columns(name).items() if not generated]
        for (definition,) in self._rows(
            f"SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = '{name}'"
        ):
            # No UPDATE can set a generated column, so the trigger's body would not be compiled.
            if unknown := updated_columns(definition) - set(map(folded, written)):
                raise _Refused(f"no UPDATE of {name} sets {min(unknown)}, which a trigger watches")
        columns = " = NULL, ".join(map(quoted, written))
        self._guarded(f'EXPLAIN INSERT INTO "{name}" DEFAULT VALUES')
        self._guarded(f'EXPLAIN UPDATE "{name}" SET {columns} = NULL')
        self._guarded(f'EXPLAIN DELETE FROM "{name}"')
        if kind == "view":
            for event in _EVENTS:
                self._rows(f'DROP TRIGGER "probe {event}"')

    def _columns(self, table: str) -> dict[str, int]:
        """Return the columns of a table, with a non-zero number for hidden and generated ones."""
        return dict(self._rows(f"SELECT name, hidden FROM pragma_table_xinfo('{table}')"))

    def _guarded(self, statement: str, verb: tuple[str, ...] = ()) -> None:
        self._guard.verb = verb
        self._ticks = 0
        self._sqlite.set_authorizer(self._guard.allow)
        try:
            self._sqlite.execute(statement).fetchall()
        finally:
            self._sqlite.set_authorizer(None)

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._sqlite.execute(query).fetchall()

    def _tick(self) -> int:
        self._ticks += 1
        return self._ticks > MOST_STEPS


def _outline(kind: str, name: str, table: str, columns: list[str], views: set[str]) -> str:
    names = [quoted(column) for column in columns]
    match kind:
        case "table":
            return f"CREATE TABLE {quoted(name)} ({', '.join(names)})"
        case "view":
            selected = ", ".join(f"NULL AS {column}" for column in names)
            return f"CREATE VIEW {quoted(name)} AS SELECT {selected}"
        case "index":
            return f"CREATE INDEX {quoted(name)} ON {quoted(table)} ({names[0]})"
    when = "INSTEAD OF" if table in views else "AFTER"
    return f"CREATE TRIGGER {quoted(name)} {when} INSERT ON {quoted(table)} BEGIN SELECT 1; END"
