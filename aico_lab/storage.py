"""`Storage`: the keys, settings and database connections of an opened home.

`Lab` creates one and passes it to its parts, each of which opens what it needs on first use.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, TypeVar

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.adapters.temporary_folders import give_back, own_folder
from aico_lab.config import usual_key_file
from aico_lab.errors import ConnectionIsClosed, MarkerAltered, NotADatabase
from aico_lab.etl.reader import Reader
from aico_lab.etl.soundness import read_whole
from aico_lab.home.credentials import check_credentials, remove_key_file
from aico_lab.home.files import private_files
from aico_lab.home.handover import inheritable
from aico_lab.home.in_use import folder_of, refuse_during_rotation
from aico_lab.home.keys import create_keys
from aico_lab.home.known import is_older
from aico_lab.home.staged import RESTORED, put_seal_in_place
from aico_lab.integrity.guard import begin
from aico_lab.reports.records import clear_up
from aico_lab.schema.core import CORE
from aico_lab.schema.versions import current_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from aico_lab.adapters import libsql
    from aico_lab.config import Settings
    from aico_lab.home.credentials import Protection
    from aico_lab.home.folder import Home
    from aico_lab.home.keys import Keys

T = TypeVar("T")


class Storage:
    """The opened databases of a home, for use in one thread.

    Attributes:
        home: The folder.
        keys: The keys of the databases.
        settings: The settings that the home was opened with.
        timezone: The IANA name of the zone that defines days and hours.
        generation: The generation of the snapshot to read, or None for the newest at any time.
        reader: The reader of that snapshot.
        when_opened: Called when the primary database was opened; does nothing unless it is set.
    """

    def __init__(
        self,
        home: Home,
        keys: Keys,
        settings: Settings,
        *,
        timezone: str = "UTC",
        generation: int | None = None,
        external_access: bool = False,
    ) -> None:
        self.home = home
        self.keys = keys
        self.settings = settings
        self.timezone = timezone
        self.generation = generation
        self._primary: libsql.Connection | None = None
        self._opened = contextlib.ExitStack()
        self._closed = False
        self.when_opened: Callable[[], None] = lambda: None
        if keys.master is not None:  # else there is no key to change
            self._note_use()
        self.reader = Reader(
            home,
            keys.duckdb(),
            timezone=timezone,
            pinned=generation,
            external_access=external_access,
        )
        self._opened.callback(self.reader.close)

    def _note_use(self) -> None:
        """Make known that the home is open, until it is closed.

        Raises:
            HomeBusy: The key of the home is being changed.
        """
        folder = folder_of(self.home)
        with contextlib.suppress(OSError):  # a home that cannot be written keeps its key
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._opened.callback(give_back, own_folder(folder))
        try:
            refuse_during_rotation(self.home)
            if self.keys.home is not None:  # a rotation renames files; before, none is in place
                put_seal_in_place(self.home.path)
            put_seal_in_place(self.home.path, RESTORED)
        except BaseException:
            self._opened.close()
            raise

    @property
    def adapter(self) -> LibSQLAdapter:
        """An adapter that opens further connections to the primary database."""
        return LibSQLAdapter(self.home.primary, self.keys.libsql(), create=False)

    @property
    def primary(self) -> libsql.Connection:
        """A connection to the primary database, opened on first use, with its schema up to date.

        It is read-only if the home cannot be written.

        Raises:
            NotADatabase: The file is empty, or not the database of a home.
        """
        self.check_open()
        if self._primary is None:
            with private_files(), contextlib.ExitStack() as opened:
                connection = opened.enter_context(self.open_primary())
                if not current_versions(connection):  # a sync would empty the warehouse
                    raise NotADatabase(
                        f"{self.home.primary} is empty, or not the database of a home: "
                        "restore it from a backup or create a new home."
                    )
                CORE.apply_core_schemas(connection)
                if self._is_writable:
                    begin(connection, self.keys.libsql())
                clear_up(connection, self.home)
                self._opened.enter_context(opened.pop_all())
            self._primary = connection
            self.when_opened()
        return self._primary

    @contextlib.contextmanager
    def open_primary(self) -> Iterator[libsql.Connection]:
        """Open another connection to the primary database, without updating its schema.

        It is read-only if the home cannot be written.
        """
        if self._is_writable or not self.home.primary.exists():
            with self._connected() as connection:
                yield connection
            return
        from aico_lab.adapters.libsql_readonly import open_unwritable

        with open_unwritable(self.home.primary, self.keys.libsql()) as connection:
            yield connection

    def _connected(self) -> libsql.Connection:
        try:
            return self.adapter.connect()
        except NotADatabase as refused:
            if not is_older(self.home.read_marker()):
                raise
            raise MarkerAltered(
                f"The lab.json of {self.home.path} is older than the last change of its key: "
                "restore the newer one, or a backup of the whole home."
            ) from refused

    @property
    def _is_writable(self) -> bool:
        return os.access(self.home.path, os.W_OK)

    def read_snapshot(self, generation: int) -> Reader:
        """Return a reader of one snapshot; the snapshot is kept until the reader is closed."""
        return Reader(self.home, self.keys.duckdb(), timezone=self.timezone, pinned=generation)

    def read_whole(self, path: Path, where: str) -> None:
        """Read every value in a file of the warehouse, to find damage.

        Args:
            path: A snapshot, or the writer's file while nobody writes it.
            where: The name of the file in errors.

        Raises:
            StorageError: The file is damaged.
        """
        read_whole(path, self.keys.duckdb(), temporary=self.home.temporary, where=where)

    def for_child(self) -> AbstractContextManager[tuple[dict[str, str], tuple[int, ...]]]:
        """Return the environment and the open files with which a child process opens this home.

        The process is started in the block of the returned context manager.
        """
        home_id = str(self.home.read_marker().get("home_id"))
        return inheritable(home_id, self.keys, self.settings)

    def keep_open(self, context: AbstractContextManager[T]) -> T:
        """Enter a context manager, and exit it when the lab is closed."""
        self.check_open()
        return self._opened.enter_context(context)

    @property
    def closed(self) -> bool:
        """Whether the storage was closed."""
        return self._closed

    def __repr__(self) -> str:
        if self._closed:
            return f"<Storage of {self.home.path}, closed>"
        return (
            f"<Storage of {self.home.path}: .primary is the connection to the primary database, "
            ".open_primary() opens another one>"
        )

    def check_open(self) -> None:
        """Raise ConnectionIsClosed if the storage was closed."""
        if self._closed:
            raise ConnectionIsClosed("This lab was closed before: open it again with Lab.open().")

    def close(self) -> None:
        """Close all files, even if closing one raises; a second call has no effect."""
        self._closed = True
        self._primary = None
        self._opened.close()


def create_home(home: Home, settings: Settings, protection: Protection) -> Keys:
    """Create a home with an empty primary database, and return its keys.

    Args:
        home: The folder, created if it does not exist.
        settings: The key file, created if it does not exist, or the passphrase.
        protection: 'key-file', 'passphrase' or 'none'.

    Raises:
        HomeExists: The folder contains a lab already.
        HomeNotWritable: The folder cannot be written.
        KeyProblem: The key file or passphrase cannot be used.
        InvalidValue: The passphrase or key file is not fit for this home.
    """
    home.refuse_lab()
    check_credentials(protection, settings)
    with home.being_made():
        if (abandoned := home.abandoned()) is not None:  # an earlier attempt was killed
            home.discard()
            remove_key_file(usual_key_file(abandoned))
        home_id = secrets.token_hex(16)
        home.prepare(home_id)
        file = settings.key_file or usual_key_file(home_id)
        is_new = protection == "key-file" and not file.exists()
        try:
            keys, marker = create_keys(home_id, protection, settings)
            with LibSQLAdapter(home.primary, keys.libsql()).connect() as connection:
                CORE.apply_core_schemas(connection)
                begin(connection, keys.libsql())
            home.write_marker(marker)
        except BaseException:
            home.discard()
            if is_new:
                remove_key_file(file)
            raise
    return keys
