"""The stores that a rotation of the key has written under the new key, but not yet put in place.

A rotation writes each store anew beside the old one, verifies it, and then renames it. The renaming
of the primary database decides: before it, the home has its old key. Afterwards a store has the old
key exactly as long as its new file is still there under the other name. So a home that was left at
any moment can be opened without trying keys.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

STAGED: Final = {
    "libsql": ("aico.db", ".aico.db.rekeyed"),
    "duckdb": ("warehouse/writer.duckdb", "warehouse/.writer.duckdb.rekeyed"),
    "chroma": ("vectors.age", ".vectors.age.rekeyed"),
    "rocksdb": ("cache", ".cache.rekeyed"),
}
"""The path of each store in a home, and that of its copy under the new key."""

FIRST: Final = "libsql"
"""The store whose renaming decides, and with which all other keys go."""

RESTORED: Final = "aico.db.restored"
"""The name of a restored database, with its seal, until it takes the place of the former one."""

_WITH: Final = {"answers": "duckdb"}
"""The other stores that have their key from the time at which another store has it."""


def staged(home: Path, store: str) -> Path:
    """Return the path of a store's copy under the new key."""
    return home / STAGED[store][1]


def staged_copies(home: Path) -> list[Path]:
    """Return all copies of stores that a rotation made, also what a killed one left half."""
    folders = (home, home / "warehouse", home / "backups")
    return sorted(path for folder in folders for path in folder.glob("*.rekeyed*"))


def has_old_key(home: Path, key: str) -> bool:
    """Return whether a store of a home whose rotation has begun to rename files has its old key.

    Args:
        home: The home.
        key: The store, or another purpose of a key.
    """
    if staged(home, FIRST).exists():
        return True
    store = _WITH.get(key, key)
    return store in STAGED and staged(home, store).exists()


def seal_of(database: Path) -> Path:
    """Return the path of the seal of a database."""
    return database.with_name(f"{database.name}.seal")


def put_seal_in_place(home: Path, name: str = STAGED[FIRST][1]) -> None:
    """Put the seal of a primary database in place that was renamed; else do nothing.

    Args:
        home: The home.
        name: The name that the database had before.
    """
    copy = home / name
    database = home / STAGED[FIRST][0]
    if copy.exists() or not seal_of(copy).exists():
        return
    database.with_name(f"{database.name}.tail").unlink(missing_ok=True)  # of the former seal
    with contextlib.suppress(FileNotFoundError):  # another process has just done it
        seal_of(copy).replace(seal_of(database))
