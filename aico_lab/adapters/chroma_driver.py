"""The only importer of ChromaDB: opens its clients and converts its errors."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

from aico_lab.adapters.base import by_words
from aico_lab.errors import (
    AicoLabError,
    CorruptDatabase,
    DatabaseLocked,
    DiskFull,
    InvalidValue,
    NotADatabase,
    NotPermitted,
    StorageError,
    UnknownName,
    UnstorableValue,
)
from aico_lab.home.files import FULL_RAM, RAM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.base import Meanings

_FULL = f"found no space. Free some on the disk; or the memory {RAM} {FULL_RAM}"
_DAMAGED = "is damaged: run `aico-lab sync --only vectors --full`"

# Messages of Chroma's Rust part about SQLite, its index and the operating system.
_MESSAGES: Meanings = (
    (
        "file is not a database",
        NotADatabase,
        "is not a ChromaDB store: run `aico-lab sync --only vectors --full`",
    ),
    (
        "file exists",
        NotADatabase,
        "is not a ChromaDB folder: run `aico-lab sync --only vectors --full`",
    ),
    ("malformed", CorruptDatabase, _DAMAGED),
    ("hnsw", CorruptDatabase, _DAMAGED),
    ("is full", DiskFull, _FULL),
    ("no space left", DiskFull, _FULL),
    ("is locked", DatabaseLocked, "is in use by another program: try again when it is done"),
    ("readonly", NotPermitted, "may not be written: check its permissions"),
    ("permission denied", NotPermitted, "may not be opened: check its permissions"),
    ("unable to open", NotPermitted, "cannot be opened: check its permissions"),
    # One of Chroma's threads crashed on the data it read, or found data that it did not write.
    ("error executing plan", CorruptDatabase, _DAMAGED),
)

_MEANT: dict[str, type[AicoLabError]] = {
    "InvalidArgumentError": InvalidValue,
    "InvalidDimensionException": InvalidValue,
    "DuplicateIDError": InvalidValue,
    "NotFoundError": UnknownName,
}


def translate(error: BaseException, where: str) -> AicoLabError:
    """Return this package's error for an error of ChromaDB.

    Args:
        error: The exception; Chroma raises Python's own exceptions for invalid arguments.
        where: The name of the store for people.
    """
    text = " ".join(str(error).split())
    if isinstance(error, UnicodeError):
        return UnstorableValue(f"{where} cannot store text that is not valid Unicode.")
    if meant := _MEANT.get(type(error).__name__):
        return meant(f"{where} cannot do that: {text.rstrip('.')}.")
    if isinstance(error, ValueError | TypeError):  # not quoted: it may contain the arguments
        return InvalidValue(
            f"{where} cannot do that: check the number of results, the ids, the metadata and the "
            "condition."
        )
    if found := by_words(text, where, _MESSAGES):
        return found
    if type(error).__name__ == "PanicException":
        return CorruptDatabase(f"{where} {_DAMAGED}.")
    return StorageError(f"{where} refused: {text.rstrip('.')}.")


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Convert ChromaDB's errors inside the block to this package's errors."""
    import chromadb.errors

    try:
        yield
    except AicoLabError:
        raise
    except (chromadb.errors.ChromaError, ValueError, TypeError) as error:
        raise translate(error, where) from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # from Rust; not a subclass of Exception
            raise translate(error, where) from None
        raise


def folder_client(folder: Path) -> Any:
    """Open a folder with ChromaDB's own client."""
    import chromadb
    from chromadb.api.shared_system_client import SharedSystemClient
    from chromadb.config import Settings

    try:
        return chromadb.PersistentClient(str(folder), Settings(anonymized_telemetry=False))
    except BaseException:
        # Chroma caches a system that failed to start, and would reuse it for the same folder.
        SharedSystemClient._identifier_to_system.pop(str(folder), None)  # noqa: SLF001
        raise


def memory_client() -> Any:
    """Return a client with its own in-memory database: Chroma shares one per process."""
    import chromadb
    from chromadb.config import Settings

    client: Any = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))
    database = f"lab-{secrets.token_hex(8)}"
    client._admin_client.create_database(database)  # noqa: SLF001 - a second client never closes
    client.set_database(database)
    return client
