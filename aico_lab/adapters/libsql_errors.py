"""What went wrong in libSQL: the driver raises a bare `ValueError` for everything, or panics."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from aico_lab.errors import (
    AicoLabError,
    ConstraintViolated,
    CorruptDatabase,
    DatabaseLocked,
    DiskFull,
    InvalidStatement,
    NotADatabase,
    NotPermitted,
    StorageError,
)

if TYPE_CHECKING:
    from pathlib import Path

SHOWN = 200
"""Characters of what an integrity check found; the list may be endless."""

ROOM = 1 << 20  # bytes; with less, a disk counts as full

_UNRUNNABLE = "was given a statement that it cannot run"
_WRONG_KEY = (
    "is no database, or not one that this key opens: give its key, or restore it from a backup"
)
_DAMAGED = "is damaged: restore it from a backup"
_BUSY = "is in use by another program: try again when it is done"

# The driver's only word on what went wrong is its message; SQLite's wording is stable. Those that
# quote a statement or a name of the schema come first: what they quote may be any words below.
_MESSAGES: tuple[tuple[str, type[AicoLabError], str], ...] = (
    ("malformed database schema (", CorruptDatabase, _DAMAGED),  # and how: as "syntax error"
    ("no such", InvalidStatement, _UNRUNNABLE),
    ("syntax error", InvalidStatement, _UNRUNNABLE),
    ("unrecognized token", InvalidStatement, _UNRUNNABLE),
    ("constraint failed", ConstraintViolated, "refused a row"),
    ("already exists", InvalidStatement, _UNRUNNABLE),
    ("has no column", InvalidStatement, _UNRUNNABLE),
    ("values were supplied", InvalidStatement, _UNRUNNABLE),
    ("values for", InvalidStatement, _UNRUNNABLE),
    ("malformed json", InvalidStatement, _UNRUNNABLE),
    ("incomplete input", InvalidStatement, _UNRUNNABLE),
    ("unable to resolve", InvalidStatement, _UNRUNNABLE),
    ("file is not a database", NotADatabase, _WRONG_KEY),
    ("file is encrypted", NotADatabase, _WRONG_KEY),
    ("disk image is malformed", CorruptDatabase, _DAMAGED),
    ("is locked", DatabaseLocked, _BUSY),
    ("database is busy", DatabaseLocked, _BUSY),
    ("database or disk is full", DiskFull, "lies on a full disk: free some space"),
    ("disk i/o error", CorruptDatabase, "cannot be read or written: check the disk"),
    ("readonly database", NotPermitted, "may not be written: check its permissions"),
    ("unable to open", NotPermitted, "cannot be opened: check its permissions and its folder's"),
    ("parameter", InvalidStatement, "was given a statement with other parameters than it needs"),
)


def translate(error: BaseException, path: Path) -> AicoLabError:
    """Give our error for one of the driver's, by its message.

    Args:
        error: What the driver raised, panics included.
        path: The database's file.
    """
    text, where = on_one_line(str(error)), path.name
    lowered = text.lower()
    if "disk i/o error" in lowered and _is_full(path.parent):
        # What SQLite says where there is no room even for its shared memory.
        lowered = "database or disk is full"
    for words, kind, meaning in _MESSAGES:
        if words in lowered:
            detail = "" if kind in (NotADatabase, DatabaseLocked, DiskFull) else f" ({text})"
            return kind(f"{where} {meaning}{detail}.")
    if is_panic(error):
        return CorruptDatabase(
            f"{where} holds something that its driver cannot read: restore it from a backup."
        )
    return StorageError(f"{where} refused: {text}.")


def on_one_line(text: str) -> str:
    """Return what SQLite says, without the line ends and the bytes of a damaged page in it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < ROOM
    except OSError:
        return False


def is_panic(error: BaseException) -> bool:
    """Say whether the driver panicked, by a BaseException that nobody can import."""
    return type(error).__name__ == "PanicException"
