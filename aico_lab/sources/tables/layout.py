"""The rows of a table, which are alike for all kinds of files.

A row has a number for reports, and a mapping of JSON values by column, or the reason why it cannot
be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from aico_lab.sources.tables.headers import named_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aico_lab.messages.records import NotAMessageError


TableRow = dict[str, Any]


LINES_LOOKED_AT: Final = 50
"""Rows at the beginning of a file by which its delimiter and columns are found."""


@dataclass(slots=True)
class Reached:
    """The place that reading has reached.

    Attributes:
        number: The number of the last line or row.
        position: The amount read, roughly in bytes.
    """

    number: int = 0
    position: int = 0


class OpenedTable(Protocol):
    """A table whose columns are known.

    Attributes:
        kind: A key of `aico_lab.sources.tables.KINDS`.
        layout: What was detected, as a part of a sentence.
        columns: The names of the columns.
        unit: The noun of the number of a row: 'line' or 'row'.
    """

    kind: str
    columns: list[str]
    unit: str

    @property
    def layout(self) -> str:  # noqa: D102 see the class
        ...

    def rows(self, reached: Reached) -> Iterator[tuple[int, TableRow | NotAMessageError]]:
        """Yield the rows with their numbers; can be called again to read from the beginning."""

    def notes(self) -> list[str]:
        """Return sentences about oddities, complete after all rows were read."""


def names_any(columns: list[str], given: Mapping[str, str]) -> bool:
    """Return whether any column that the user names is there, so that errors name the others."""
    from aico_lab.errors import UnknownName

    for name, column in given.items():
        try:
            named_columns(columns, {name: column})
        except UnknownName:
            continue
        return True
    return False
