"""`aico-lab sql`: query the newest snapshot, and print or write the rows."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from aico_lab.cli.common import (
    ForceOption,
    HomeOption,
    JsonOption,
    KeyFileOption,
    open_lab,
    refuse_existing,
)
from aico_lab.cli.output import emit, note, say, show

if TYPE_CHECKING:
    from aico_lab.adapters.duckdb_relation import Relation

SHOWN: Final = 20
"""The default number of rows in a printed table."""

WIDE: Final = 1_000_000
"""The width in characters of a table that is not printed to a terminal."""


def sql(
    query: Annotated[str, typer.Argument(help="The query, in DuckDB's SQL.")],
    *,
    home: HomeOption = None,
    key_file: KeyFileOption = None,
    timezone: Annotated[str, typer.Option(help="The IANA time zone of days and hours.")] = "UTC",
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"The maximum number of rows; by default {SHOWN} in a table, else all."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A .csv, .parquet or .json file for the rows. It is not encrypted, but only you "
            "can read it."
        ),
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Query the newest snapshot in SQL.

    The query has no access to other files or the network.
    """
    from aico_lab.adapters.duckdb import translated
    from aico_lab.errors import InvalidValue
    from aico_lab.mart.simulated import is_simulated
    from aico_lab.messages.simulated import SENTENCE

    if output and json:
        raise InvalidValue("Use only one of --output and --json.")
    if not query.strip().strip(";").strip():
        raise InvalidValue("The query is empty: give one, such as 'SELECT count(*) FROM messages'.")
    refuse_existing(output, force=force)
    with open_lab(home, key_file, timezone=timezone) as lab:
        relation = lab.sql(query)
        if relation is None:  # a statement without a result, such as CREATE TEMP TABLE
            say("[]" if json else "Done.")
            return
        with translated("The snapshot"):
            rows: Relation = relation.limit(limit) if limit else relation
            if output:
                rows.write(output)
                say(f"Wrote {output}.")
            elif json:
                emit(rows.objects())
            else:
                _show(relation, limit or SHOWN)
            if is_simulated(lab.storage.reader.connection()):
                note(SENTENCE)


def _show(relation: Relation, limit: int) -> None:
    """Print a table of the first rows, as wide as the terminal, or in full if there is none."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
    drawn = io.StringIO()
    with contextlib.redirect_stdout(drawn):  # only `show` takes the size of the table
        relation.limit(limit).show(max_width=width, max_rows=limit)
    table = drawn.getvalue().rstrip("\n")
    show(table)
    if len(table.splitlines()) > limit and relation.limit(1, offset=limit).fetchone():
        note(
            f"Only the first {limit:,} rows are shown: use --limit 1000 for more (and | less -S to "
            "scroll), or --output FILE for all."
        )
