"""Translate libSQL's errors: the driver raises a bare `ValueError` for everything, or panics."""

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
"""The maximum number of characters shown of an integrity check's findings."""

ROOM = 1 << 20  # bytes; a disk with less free space counts as full

_UNRUNNABLE = "was given a statement that it cannot run"
_WRONG_KEY = "is not a database, or has another key: give its key, or restore it from a backup"
_DAMAGED = "is damaged: restore it from a backup"
_BUSY = "is in use by another program: try again when it is done"

# The driver's errors differ only by their message; SQLite's wording is stable. Messages that quote
# a statement or a name of the schema come first: the quotation may contain any text below.
_MESSAGES: tuple[tuple[str, type[AicoLabError], str], ...] = (
    ("malformed database schema (", CorruptDatabase, _DAMAGED),  # may end with "syntax error"
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
    ("vtable constructor failed", CorruptDatabase, _DAMAGED),
    ("is locked", DatabaseLocked, _BUSY),
    ("database is busy", DatabaseLocked, _BUSY),
    ("database or disk is full", DiskFull, "lies on a full disk: free some space"),
    ("disk i/o error", CorruptDatabase, "cannot be read or written: check the disk"),
    ("readonly database", NotPermitted, "may not be written: check its permissions"),
    ("unable to open", NotPermitted, "cannot be opened: check its permissions and its folder's"),
    ("parameter", InvalidStatement, "was given a statement with a wrong number of parameters"),
)


def translate(error: BaseException, path: Path) -> AicoLabError:
    """Return this package's error for an error of the driver, by its message.

    Args:
        error: The driver's exception or panic.
        path: The database file.
    """
    text, where = on_one_line(str(error)), path.name
    lowered = text.lower()
    if "disk i/o error" in lowered and _is_full(path.parent):
        # SQLite reports an I/O error if there is no space even for its shared memory.
        lowered = "database or disk is full"
    for words, kind, meaning in _MESSAGES:
        if words in lowered:
            detail = "" if kind in (NotADatabase, DatabaseLocked, DiskFull) else f" ({text})"
            return kind(f"{where} {meaning}{detail}.")
    if is_panic(error):
        return CorruptDatabase(
            f"{where} contains data that its driver cannot read: restore it from a backup."
        )
    return StorageError(f"{where} refused: {text}.")


def on_one_line(text: str) -> str:
    """Return a message of SQLite on one line, without unprintable bytes of a damaged page."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < ROOM
    except OSError:
        return False


def is_panic(error: BaseException) -> bool:
    """Return whether an exception is a panic of the driver, whose class cannot be imported."""
    return type(error).__name__ == "PanicException"
