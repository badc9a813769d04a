"""Find descriptions of tables by the names that a person types."""

from __future__ import annotations

import string
from typing import Final

from aico_lab.errors import UnknownName, did_you_mean
from aico_lab.etl.dictionary import TABLES, Table
from aico_lab.etl.dictionary_stored import STORED

ALL: Final = (*TABLES, *STORED)

_MAIN: Final = "main"
_SMALL: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def is_schema(name: str) -> bool:
    """Return whether a name is that of a described schema."""
    return name.translate(_SMALL) in {_schema(table) for table in ALL}


def find_tables(name: str | None) -> list[Table]:
    """Return the descriptions of the tables with a name, in the order of the dictionary.

    Args:
        name: A schema, or a table with or without its schema; None for all tables. As in SQL, ASCII
            letters may have any case.

    Raises:
        UnknownName: No described table or schema has that name.
    """
    if name is None:
        return list(ALL)
    wanted = name.translate(_SMALL)
    found = [table for table in ALL if wanted in (*_names(table), _schema(table))]
    if found:
        return found
    schemas = dict.fromkeys(_schema(table) for table in ALL)
    known = [*schemas, *(one for table in ALL for one in _names(table))]
    end = did_you_mean(
        name,
        known,
        f"; the schemas are {', '.join(schemas)}, and `aico-lab schema describe SCHEMA` lists the "
        "tables of one. A table of a plugin or of a loaded file is described by "
        "`aico-lab sql 'DESCRIBE SCHEMA.TABLE'`.",
    )
    raise UnknownName(f"There is no description of {name!r}{end}")


def _schema(table: Table) -> str:
    schema, dot, _ = table.name.rpartition(".")
    return schema if dot else _MAIN


def _names(table: Table) -> tuple[str, str]:
    """Return the name of a table with its schema and without."""
    bare = table.name.rpartition(".")[2]
    return f"{_schema(table)}.{bare}", bare
