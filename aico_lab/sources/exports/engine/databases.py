"""Open the SQLite databases of an export, without writing into them or beside them."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.libsql_readonly import open_readonly
from aico_lab.adapters.sealed import PrivateFolder
from aico_lab.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.sources.exports.engine.opened import Member, Opened

_MAGIC: Final = b"SQLite format 3\0"
_LOGS: Final = ("-wal", "-journal")


def databases(export: Opened) -> list[Member]:
    """Return the members that are SQLite databases."""
    return [
        member
        for member in export.members
        if not member.name.endswith((*_LOGS, "-shm")) and member.head().startswith(_MAGIC)
    ]


@contextmanager
def database(export: Opened, member: Member, key: str | None = None) -> Iterator[Connection]:
    """Open a database for the block, or again, since it stays open until the export is closed.

    So a database that is read from a copy, as one in an archive, is copied once.

    Args:
        export: The export.
        member: The database in it.
        key: The key of the database, if it is encrypted.

    Raises:
        StorageError: The database cannot be read, or is damaged.
    """
    name = member.name, key
    if name not in export.connections:
        with ExitStack() as opening:
            path = _unpacked(export, member, opening) if member.path is None else member.path
            export.connections[name] = opening.enter_context(open_readonly(path, key))
            export.until_closed.push(opening.pop_all())
    yield export.connections[name]


def _unpacked(export: Opened, member: Member, opening: ExitStack) -> Path:
    """Return the path of a copy of a database in an archive, with its logs."""
    names = [member.name, *(f"{member.name}{log}" for log in _LOGS)]
    parts = [one for one in export.members if one.name in names]
    folder = PrivateFolder(sum(one.size for one in parts))
    opening.callback(folder.remove)
    for one in parts:
        log = one.name.removeprefix(member.name)
        with one.open() as source, (folder.path / f"copy.db{log}").open("wb") as target:
            shutil.copyfileobj(source, target)
    return folder.path / "copy.db"


def columns(export: Opened, member: Member, table: str) -> frozenset[str]:
    """Return the columns of a table; none if there is no such table, or it cannot be read."""
    try:
        with database(export, member) as connection:
            found = connection.fetch_all("SELECT name FROM pragma_table_info(?)", [table])
    except StorageError:
        return frozenset()
    return frozenset(name for (name,) in found)
