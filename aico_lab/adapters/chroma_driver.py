"""The one importer of ChromaDB: its clients, and its errors as ours."""

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

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aico_lab.adapters.base import Meanings

_DAMAGED = "is damaged: run `aico-lab sync --full`"

# What Chroma's Rust half says of SQLite, of its index and of the operating system.
_MESSAGES: Meanings = (
    ("file is not a database", NotADatabase, "is no store of ChromaDB: run `aico-lab sync --full`"),
    ("file exists", NotADatabase, "is no folder of ChromaDB: run `aico-lab sync --full`"),
    ("malformed", CorruptDatabase, _DAMAGED),
    ("hnsw", CorruptDatabase, _DAMAGED),
    ("is full", DiskFull, "lies on a full disk: free some space"),
    ("no space left", DiskFull, "lies on a full disk: free some space"),
    ("is locked", DatabaseLocked, "is in use by another program: try again when it is done"),
    ("readonly", NotPermitted, "may not be written: check its permissions"),
    ("permission denied", NotPermitted, "may not be opened: check its permissions"),
    ("unable to open", NotPermitted, "cannot be opened: check its permissions"),
    # A thread of Chroma's has died of what it read, or found something else than it wrote.
    ("error executing plan", CorruptDatabase, _DAMAGED),
)

_MEANT: dict[str, type[AicoLabError]] = {
    "InvalidArgumentError": InvalidValue,
    "InvalidDimensionException": InvalidValue,
    "DuplicateIDError": InvalidValue,
    "NotFoundError": UnknownName,
}


def translate(error: BaseException, where: str) -> AicoLabError:
    """Give our error for one of ChromaDB's.

    Args:
        error: What Chroma raised; it checks what it is given with Python's own errors.
        where: The store, as a person knows it.
    """
    text = " ".join(str(error).split())
    if isinstance(error, UnicodeError):
        return UnstorableValue(f"{where} cannot store text that is not valid Unicode.")
    if meant := _MEANT.get(type(error).__name__):
        return meant(f"{where} cannot do that: {text.rstrip('.')}.")
    if isinstance(error, ValueError | TypeError):  # not quoted: it may repeat what was given
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
    """Turn ChromaDB's errors inside the block into ours."""
    import chromadb.errors

    try:
        yield
    except AicoLabError:
        raise
    except (chromadb.errors.ChromaError, ValueError, TypeError) as error:
        raise translate(error, where) from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of Rust, and no Exception
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
        # Chroma keeps what failed to start, and would give it again for the same folder.
        SharedSystemClient._identifier_to_system.pop(str(folder), None)  # noqa: SLF001
        raise


def memory_client() -> Any:
    """Give a client with a database of its own: Chroma has one memory for the whole process."""
    import chromadb
    from chromadb.config import Settings

    client: Any = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))
    database = f"lab-{secrets.token_hex(8)}"
    client._admin_client.create_database(database)  # noqa: SLF001 - a second client never closes
    client.set_database(database)
    return client
