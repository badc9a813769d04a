"""Open a table of any kind: text with delimiters, JSON or Parquet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aico_lab.errors import SourceUnreadable
from aico_lab.sources.files import is_binary
from aico_lab.sources.tables.delimited import header_of, text_table
from aico_lab.sources.tables.encodings import WORDS, as_utf8
from aico_lab.sources.tables.headers import columns_by_field, has_texts
from aico_lab.sources.tables.json_table import json_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.sources.exports.engine.opened import Member
    from aico_lab.sources.tables.layout import OpenedTable


_PARQUET: Final = b"PAR1"


def open_table(member: Member, given: Mapping[str, str] | None = None) -> OpenedTable | None:
    """Return the table in a file, or None if the file is no table with a text of messages.

    Args:
        member: The file.
        given: Columns that the user names, by field; a table with them is one for sure.

    Raises:
        SourceUnreadable: The file cannot be read.
        UnknownName: The user names a column that the table does not have.
    """
    with member.open() as stream:
        is_parquet = stream.read(len(_PARQUET)) == _PARQUET
    if is_parquet:
        from aico_lab.sources.tables.parquet import ParquetTable

        return _with_content(ParquetTable(member), given)
    text, encoding = as_utf8(member)
    head = text.head()
    if not head.strip() or is_binary(head.replace(b"\0", b"")):  # NUL is left out of cells
        return None
    if head.lstrip()[:1] in (b"{", b"["):
        return json_table(text, WORDS[encoding], given)
    return text_table(text, encoding, given)


def _with_content(table: OpenedTable, given: Mapping[str, str] | None) -> OpenedTable | None:
    return table if has_texts(columns_by_field(table.columns, given)) else None


def no_table(member: Member) -> SourceUnreadable:
    """Return the error about a file in which no column is the text of messages."""
    from aico_lab.sources.tables.headers import listed

    columns = header_of(member)
    shown = listed(columns, all_are_names=False)
    return SourceUnreadable(
        f"{member.name} is no table whose header names the text of its messages (columns found: "
        f"{shown}): name the columns in its first line, or say which it is with --map "
        "content=COLUMN."
    )
