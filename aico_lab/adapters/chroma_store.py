"""An open vector store: its collections, its state, and making its files durable."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from aico_lab.adapters.chroma_collection import Collection
from aico_lab.adapters.chroma_driver import folder_client, memory_client, translated
from aico_lab.errors import ConnectionIsClosed, CorruptDatabase, InvalidValue
from aico_lab.home.files import os_errors, remove_whole, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

REMEDY = "run `aico-lab sync --only vectors --full`"
STATE = "state.json"
DATABASE = "chroma.sqlite3"
"""Chroma's main file; without it Chroma would open an empty store."""

CANDIDATES = 1_600
"""The number of candidates among which a query of Chroma searches (`ef_search`).

Chroma's own 100 are enough for texts that it holds, but not for what people ask. Recall@10 of first
sentences and of short queries by hand, and the time of a query:

- 100: 0.92 and 0.98 of 21,797 segments of the demo, 0.98 and 0.80 of 45,060 paragraphs; 5 ms
- 400: 0.97 and 0.99, 0.99 and 0.88; 8 ms
- 800: 0.99 and 1.00, 1.00 and 0.93; 9 ms
- 1,600: 1.00 and 1.00, 1.00 and 0.98; 13 ms
- 3,200: 1.00 and 1.00, 1.00 and 0.99; 16 ms
"""


class ChromaConnection:
    """An open store; not to be used by several threads at the same time.

    `seal` and `close` make changes durable. When an exception leaves a `with` block, an encrypted
    store loses its changes since the last `seal`.
    """

    def __init__(
        self,
        name: str,
        folder: Path | None,
        keep: Callable[[bytes], None] | None,
        resources: contextlib.ExitStack,
    ) -> None:
        """Use a folder that `ChromaDBAdapter.connect` prepared, and release its resources on close.

        Args:
            name: The name of the store for people.
            folder: The folder with Chroma's files, or None for memory.
            keep: Makes the folder durable, together with the given state; None if nothing is kept.
            resources: Resources to release on close.
        """
        self.name = name
        self._folder = folder
        self._keep = keep
        self._resources = resources
        self._driver: Any = None
        self._collections: dict[str, Any] = {}
        self._changed = False
        self._untidy = False
        self._closed = False
        self._state = None if folder is None else read_state(folder / STATE)

    @property
    def client(self) -> Any:
        """ChromaDB's own client, which raises its own errors; `seal` and `clear` close it."""
        self._changed = True
        return self._open()

    @property
    def state(self) -> dict[str, Any] | None:
        """A small JSON object stored together with the vectors, such as a cursor."""
        return self._state

    @state.setter
    def state(self, value: dict[str, Any] | None) -> None:
        self._check_open()
        self._state, self._changed = value, True

    def collection(
        self, name: str, facts: Mapping[str, str | int | float | bool] | None = None
    ) -> Collection:
        """Return a collection; make it if it does not exist.

        Args:
            name: 3 to 512 letters, digits, `.`, `_` or `-`, beginning and ending with a letter or
                digit.
            facts: Facts about a new collection, such as the model of its vectors.

        Raises:
            InvalidValue: The name is invalid, or the collection does not use cosine similarity.
        """
        with translated(self.name):
            if name not in self._collections:
                self._collections[name] = self._find(name, facts)
        return Collection(name, partial(self._reading, name), partial(self._writing, name))

    def names(self) -> list[str]:
        """Return the names of all collections, in alphabetical order."""
        with translated(self.name):
            return sorted(found.name for found in self._open().list_collections())

    def widen(self) -> None:
        """Let queries of collections that were made otherwise search among `CANDIDATES`, too."""
        changed = False
        for name in self.names():
            with self._reading(name) as driver:
                if driver.configuration_json["hnsw"]["ef_search"] != CANDIDATES:
                    with warnings.catch_warnings():  # that there is no embedding function
                        warnings.simplefilter("ignore", DeprecationWarning)
                        driver.modify(configuration={"hnsw": {"ef_search": CANDIDATES}})
                    changed = True
        if changed:
            self._stop()  # a collection that was read before would keep its number

    def drop(self, name: str) -> None:
        """Delete a collection with everything that its files hold of it."""
        self._changed = self._untidy = True
        with translated(self.name):
            self._open().delete_collection(name)
            self._collections.pop(name, None)

    def clear(self) -> None:
        """Delete all files, including the remains of entries that were deleted before."""
        self._check_open()
        self._stop()
        self._state, self._changed = None, True
        if self._folder is not None:
            with os_errors(self._folder):
                # First: after a crash, the cursor would claim entries that no longer exist.
                remove_whole(self._folder / STATE)
                sync_folder(self._folder)
                for path in self._folder.iterdir():
                    remove_whole(path)

    def seal(self) -> None:
        """Make all changes durable; without changes, or in memory, this does nothing.

        Raises:
            DiskFull: The disk is full; an encrypted store stays as it was last sealed.
        """
        self._check_open()
        if self._keep is None or not self._changed:
            return
        self._stop()  # so that Chroma writes nothing meanwhile
        self._keep(json.dumps(self._state).encode())
        self._changed = False

    def close(self) -> None:
        """Seal, and release every file; a second call does nothing."""
        if not self._closed:
            try:
                self.seal()
            finally:
                self._release()

    def check(self) -> None:
        """Raise StorageError if Chroma cannot answer a small query."""
        with translated(self.name):
            self._open().count_collections()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._release()

    @contextlib.contextmanager
    def _reading(self, collection: str) -> Iterator[Any]:
        """Yield Chroma's own collection, and convert its errors inside the block."""
        with translated(self.name):
            if collection not in self._collections:
                self._collections[collection] = self._find(collection, None)
            yield self._collections[collection]

    @contextlib.contextmanager
    def _writing(self, collection: str) -> Iterator[Any]:
        """Yield Chroma's own collection for a block that changes it, and convert its errors."""
        self._changed = True
        with self._reading(collection) as driver:
            yield driver

    def _find(self, name: str, facts: Mapping[str, str | int | float | bool] | None) -> Any:
        found = self._open().get_or_create_collection(
            name,
            embedding_function=None,
            configuration={"hnsw": {"space": "cosine", "ef_search": CANDIDATES}},
            metadata=dict(facts) if facts else None,
        )
        if found.configuration_json["hnsw"]["space"] != "cosine":
            raise InvalidValue(
                f"The collection {name} was made without cosine similarity: choose another name."
            )
        return found

    def _open(self) -> Any:
        self._check_open()
        if self._driver is None:
            with translated(self.name):
                self._driver = (
                    memory_client() if self._folder is None else folder_client(self._folder)
                )
        return self._driver

    def _stop(self) -> None:
        """Make Chroma close its files; the next use opens them again."""
        self._collections.clear()
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()
            if self._untidy and self._folder is not None:
                _tidy(self._folder)
            self._untidy = False

    def _release(self) -> None:
        self._closed = True
        try:
            self._stop()
        finally:
            self._resources.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionIsClosed(f"The connection to {self.name} was closed before.")


def _tidy(folder: Path) -> None:
    """Remove the remains of deleted collections and entries, which Chroma leaves in its files.

    Nothing may have the folder open. The graph of a collection (`data_level0.bin`) keeps its
    deleted vectors until the collection is dropped.
    """
    with contextlib.closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as database:
        try:
            database.execute("VACUUM")
            used = {id_ for (id_,) in database.execute("SELECT id FROM segments")}
        except sqlite3.DatabaseError as error:
            raise CorruptDatabase(f"{folder.name} is damaged: {REMEDY}.") from error
    with os_errors(folder):
        for path in folder.iterdir():
            if path.is_dir() and path.name not in used:
                remove_whole(path)


def read_state(path: Path) -> dict[str, Any] | None:
    """Return the state in a file, or None if there is none."""
    try:
        return parse_state(path.read_bytes())
    except OSError:
        return None


def parse_state(content: bytes) -> dict[str, Any] | None:
    """Return the state in the content of a file, or None if it is malformed."""
    try:
        state = json.loads(content)
    except ValueError:
        return None
    return state if isinstance(state, dict) else None
