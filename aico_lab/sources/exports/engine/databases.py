"""Open the SQLite databases of an export, without writing into them or beside them."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.libsql_readonly import open_readonly
from aico_lab.adapters.sealed import PrivateFolder
from aico_lab.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """Open a database for the block; a database in an archive is unpacked for the block.

    Args:
        export: The export.
        member: The database in it.
        key: The key of the database, if it is encrypted.

    Raises:
        StorageError: The database cannot be read, or is damaged.
    """
    if member.path is not None:
        with open_readonly(member.path, key) as connection:
            yield connection
        return
    folder = PrivateFolder()
    try:
        for one in export.members:
            if one.name == member.name or one.name in {f"{member.name}{log}" for log in _LOGS}:
                log = one.name.removeprefix(member.name)
                with one.open() as source, (folder.path / f"copy.db{log}").open("wb") as target:
                    shutil.copyfileobj(source, target)
        with open_readonly(folder.path / "copy.db", key) as connection:
            yield connection
    finally:
        folder.remove()


def columns(export: Opened, member: Member, table: str) -> frozenset[str]:
    """Return the columns of a table; none if there is no such table, or it cannot be read."""
    try:
        with database(export, member) as connection:
            found = connection.fetch_all("SELECT name FROM pragma_table_info(?)", [table])
    except StorageError:
        return frozenset()
    return frozenset(name for (name,) in found)
