"""Compile the definitions to a file of DuckDB's SQL, so that a sync need not import Ibis.

The import takes a second, longer than most syncs. A test fails if the file is out of date;
`python -m aico_lab.mart.compiler` writes it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final

import ibis

from aico_lab.constants import MS_PER_DAY
from aico_lab.mart import definitions

if TYPE_CHECKING:
    import ibis.expr.types as ir

FILE: Final = Path(__file__).with_name("compiled.sql")

_DUCKDB_TYPES: Final = {
    "int64": "BIGINT",
    "string": "VARCHAR",
    "boolean": "BOOLEAN",
    "float64": "DOUBLE",
}


@functools.cache
def tables() -> dict[str, ir.Table]:
    """Return the tables of `mart` as expressions over a table of messages that is named `slice`."""
    messages = ibis.table(definitions.MESSAGES, name="slice")
    return {
        "messages": messages,
        "turns": definitions.turns(messages),
        "sessions": definitions.sessions(messages),
        "daily": definitions.daily(messages, messages.ts_ms // MS_PER_DAY),
    }


@functools.cache
def schemas() -> dict[str, dict[str, str]]:
    """Return the columns of every table of `mart`, with Ibis' names of their types."""
    return {
        name: {column: str(type_).removeprefix("!") for column, type_ in table.schema().items()}
        for name, table in tables().items()
    }


def compiled() -> str:
    """Return the content of the file: each table's columns, and the query that fills it."""
    queries = {name: table for name, table in tables().items() if name != "messages"}
    sections = {
        f"columns of {name}": ",\n".join(f"{column} {_DUCKDB_TYPES[type_]}"
                                         for column, type_ in columns.items())
        for name, columns in schemas().items()
    } | {
        f"query of {name}": str(ibis.to_sql(table, dialect="duckdb"))
        for name, table in queries.items()
    }  # fmt: skip
    return "\n".join(f"-- {title}\n{text}\n" for title, text in sections.items())


if __name__ == "__main__":
    FILE.write_text(compiled(), encoding="utf-8")
