"""Read a whole table page by page, as the first load does: several times faster than by rows.

`sqlite_dbpage` returns the decrypted pages of the reader's own snapshot. The row ids of rows that
the decoder does not read (overflow pages, a value of another type) are returned, to be read by SQL.

Source of the format: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.adapters.sql_text import folded
from aico_lab.errors import CorruptDatabase
from aico_lab.etl.contract import rowid_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from aico_lab.adapters.libsql import Connection
    from aico_lab.etl.contract import Contract

CHUNK_PAGES: Final = 512
"""Pages decoded at a time: 8 MB, which fit into SQLite's own cache."""

_INTERIOR: Final = 5  # the type of a page that points to other pages
_DEEPEST: Final = 20
"""The most levels of a b-tree; a damaged file could have a cycle."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of a table in its file.

    Attributes:
        leaves: The numbers of its leaf pages, in the order of the row ids.
        page_size: Bytes of a page.
        usable: Bytes of a page that SQLite uses.
        rowid: The column that is the row id, or None.
        may_be_short: For each column, whether it is NULL in rows written before it was added.
    """

    leaves: tuple[int, ...]
    page_size: int
    usable: int
    rowid: str | None
    may_be_short: tuple[bool, ...]


def read_layout(connection: Connection, contract: Contract) -> Layout | None:
    """Return the layout of a table in its file; None if only SQL can read the table.

    Args:
        connection: The primary database, inside `snapshot()`.
        contract: The table. Only SQL can read one WITHOUT ROWID, with generated columns, or whose
            columns are not exactly those of the contract.

    Raises:
        CorruptDatabase: The pages do not form a tree.
    """
    table = contract.table
    found = connection.fetch_one(
        "SELECT rootpage, page_size FROM pragma_table_list AS list "
        "JOIN sqlite_master AS master ON master.name = list.name AND master.type = list.type "
        "JOIN pragma_page_size JOIN pragma_encoding "
        "WHERE list.name = ? AND list.type = 'table' AND list.schema = 'main' AND NOT wr "
        "AND encoding = 'UTF-8'",
        [table],
    )
    columns = connection.fetch_all(
        "SELECT name, dflt_value IS NULL, hidden FROM pragma_table_xinfo(?) ORDER BY cid", [table]
    )
    rowid = rowid_column(connection, table)
    hides_rowid = any(folded(name) == "rowid" and name != rowid for name, *_ in columns)
    generated = any(hidden for *_, hidden in columns)
    others = [name for name, *_ in columns] != [column.name for column in contract.columns]
    if found is None or hides_rowid or generated or others:
        return None
    root, page_size = found
    reserved = _fetch(connection, [1])[0][20]
    return Layout(
        leaves=tuple(_leaves(connection, root)),
        page_size=page_size,
        usable=page_size - reserved,
        rowid=rowid,
        may_be_short=tuple(bool(no_default) for *_, no_default, _ in columns),
    )


def read_columns(
    connection: Connection, contract: Contract, layout: Layout
) -> Iterator[tuple[list[pa.Array], NDArray[np.int64], NDArray[np.int64]]]:
    """Read a table, chunk by chunk.

    Args:
        connection: The primary database, inside the `snapshot()` in which the layout was read.
        contract: The table.
        layout: The layout of the table in the file.

    Yields:
        The columns as they are stored (texts as bytes) and the row ids of the decoded rows, and the
        row ids of the rows that must be read by SQL.

    Raises:
        CorruptDatabase: A page is not a page of a table.
    """
    from aico_lab.etl.record_format import decode  # Numba takes half a second to import

    for at in range(0, len(layout.leaves), CHUNK_PAGES):
        chunk = _fetch(connection, layout.leaves[at : at + CHUNK_PAGES])
        yield decode(b"".join(chunk), contract, layout)


def _leaves(connection: Connection, root: int) -> list[int]:
    """Return the leaf pages of a table's b-tree, level by level; all leaves are equally deep."""
    level = [root]
    for _ in range(_DEEPEST):
        if _fetch(connection, level[:1])[0][0] != _INTERIOR:
            return level
        level = [child for page in _fetch(connection, level) for child in _children(page)]
    raise damaged("A table")


def _children(page: bytes) -> list[int]:
    if page[0] != _INTERIOR:
        raise damaged("A table")
    cells = int.from_bytes(page[3:5], "big")
    pointers = np.frombuffer(page, ">u2", min(cells, len(page) // 2 - 6), offset=12)
    children = [int.from_bytes(page[at : at + 4], "big") for at in pointers.tolist()]
    return [*children, int.from_bytes(page[8:12], "big")]  # the right-most one


def _fetch(connection: Connection, numbers: Sequence[int]) -> list[bytes]:
    rows = connection.fetch_all(
        "SELECT data FROM json_each(?) AS wanted "
        "CROSS JOIN sqlite_dbpage AS page ON page.pgno = wanted.value",
        [json.dumps(numbers)],
    )
    if len(rows) != len(numbers):
        raise damaged("A table")
    return [data for (data,) in rows]


def damaged(what: str) -> CorruptDatabase:
    """Return the error for pages that do not have the expected format."""
    return CorruptDatabase(f"{what} is damaged: restore the database from a backup.")
