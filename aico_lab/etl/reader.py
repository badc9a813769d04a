"""Query the newest snapshot of the warehouse, or a pinned one."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aico_lab.adapters.duckdb import ALIAS, DuckDBAdapter, translated
from aico_lab.adapters.duckdb_confined import check_statements, refuse_lost_results
from aico_lab.adapters.duckdb_relation import Relation
from aico_lab.errors import CorruptDatabase, InvalidStatement, InvalidValue, StorageError
from aico_lab.etl.pins import Pin
from aico_lab.etl.snapshots import CHECKSUMS, find, log, published
from aico_lab.etl.soundness import checksum, read_checksums

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

    from aico_lab.home.folder import Home


class Reader:
    """Runs queries on the newest snapshot, or on a pinned one; use it in one thread.

    Results are read lazily, so a snapshot stays open as long as one of its results is in use.
    """

    def __init__(
        self,
        home: Home,
        key: str | None,
        *,
        timezone: str,
        pinned: int | None = None,
        external_access: bool = False,
    ) -> None:
        """Pin a generation if one is given; open nothing yet.

        Args:
            home: The lab's folder.
            key: DuckDB's key.
            timezone: The time zone in which queries see timestamps.
            pinned: Read this generation rather than the newest, and keep it until `close`.
            external_access: Let queries use files and the network, and change settings.
        """
        self._home = home
        self._key = key
        self._timezone = timezone
        self._pinned = pinned
        self._confined = not external_access
        self._open: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
        self._newest: duckdb.DuckDBPyConnection | None = None
        self._opened: tuple[str, ...] = ()  # the state of the files of `_newest`
        self._pin: Pin | None = None
        if pinned in published(home.snapshots):
            self._pin = Pin(home, pinned)

    @property
    def generation(self) -> int:
        """The generation that queries read now."""
        return find(self._home.snapshots, self._pinned)[0]

    def identity(self) -> tuple[int, tuple[str, ...]] | None:
        """Return the generation that queries read now, and what tells its files from others.

        These are the recorded checksums of its file and its log, and the sizes and times of both as
        they lie there. None if there is no checksum, if queries may reach beyond the snapshot, or
        if a pinned snapshot is open whose files were replaced since.

        Raises:
            NeverSynced: There is no snapshot yet.
            UnknownName: The pinned snapshot is not kept any more.
            CorruptDatabase: The newest snapshot's file is missing.
        """
        generation, path = find(self._home.snapshots, self._pinned)
        noted = read_checksums(path.parent.with_name(CHECKSUMS))
        if path.name not in noted or not self._confined:
            return None
        states = _states(path)
        if self._pinned is not None and self._newest is not None and states != self._opened:
            return None
        recorded = (noted.get(file.name, "") for file in (path, log(path)))
        return generation, tuple(map(str.__add__, recorded, states))

    def sql(
        self, query: str, parameters: Sequence[object] | Mapping[str, object] | None = None
    ) -> Relation | None:
        """Run a query; return its result, or None for a statement without one.

        Args:
            query: DuckDB's SQL.
            parameters: Values for its `?`, or by name for its `$name`.

        Raises:
            InvalidValue: The query is not UTF-8 text, or consists of several queries, of which only
                the last would be answered; or the parameters are neither a list nor a mapping.
            NeverSynced: There is no snapshot yet.
            InvalidStatement: DuckDB cannot run the query.
            NotPermitted: The query reaches beyond the snapshot.
        """
        if isinstance(parameters, str) or not isinstance(parameters, Sequence | Mapping | None):
            raise InvalidValue(
                f"Parameters are a list, or a mapping by name, not {parameters!r}: write [value]."
            )
        try:
            # In a locale without UTF-8, Python escapes the bytes of the command line.
            query = query.encode("utf-8", "surrogateescape").decode()
        except UnicodeError:
            raise InvalidValue("The query holds bytes that are not UTF-8 text.") from None
        connection = self.connection()
        with translated("The snapshot"):
            if self._confined:
                check_statements(connection, query)
            refuse_lost_results(connection, query)
            relation = connection.sql(query, params=parameters)
        if relation is None:
            return None
        return Relation(relation, "The snapshot", timezone=self._timezone)

    def connection(self) -> duckdb.DuckDBPyConnection:
        """Return a connection to the snapshot; connections to older ones stay open in results."""
        if self._newest is not None and self._pinned is not None:
            return self._newest  # even if its file was removed
        while True:
            generation, path = find(self._home.snapshots, self._pinned)
            states = _states(path)  # a warehouse that was made anew counts from 1 again
            if self._newest is not None and states == self._opened:
                return self._newest
            try:
                _check_log(path)
                connection = self._connect(path)
                _check_content(connection, generation)
            except StorageError:
                if path.exists():
                    raise
                continue
            self._open.add(connection)
            if path.exists():  # else its log may have been removed before DuckDB read it
                self._newest, self._opened = connection, states

    def _connect(self, path: Path) -> duckdb.DuckDBPyConnection:
        return DuckDBAdapter(
            path,
            self._key,
            read_only=True,
            temporary=self._home.temporary,
            timezone=self._timezone,
            confined=self._confined,
        ).connect()

    def close(self) -> None:
        """Close all snapshots; results that were not read yet cannot be read any more."""
        self._newest = None
        for connection in list(self._open):
            connection.close()
        if self._pin is not None:
            self._pin.close()


def _states(snapshot: Path) -> tuple[str, ...]:
    """Return the names of a snapshot's files, their sizes, and the times of their last changes."""
    return tuple(map(_state, (snapshot, log(snapshot))))


def _state(file: Path) -> str:
    try:
        found = file.stat()
    except OSError:
        return f" {file.name} absent"
    return f" {file.name} {found.st_size} {found.st_mtime_ns}"


def _check_log(snapshot: Path) -> None:
    """Raise CorruptDatabase if a snapshot's log does not have its recorded checksum."""
    noted = read_checksums(snapshot.parent.with_name(CHECKSUMS)).get(log(snapshot).name)
    try:
        same = noted is None or noted == checksum(log(snapshot))
    except OSError:
        same = False
    if not same:
        raise CorruptDatabase(f"{snapshot.name} is damaged: run `aico-lab sync --full`.")


def _check_content(connection: duckdb.DuckDBPyConnection, generation: int) -> None:
    """Close the connection and raise CorruptDatabase if a snapshot holds another generation.

    A snapshot whose log is missing or cut off can be opened, but holds an older generation.
    """
    try:
        with translated("The snapshot"):
            row = connection.execute(f"SELECT generation FROM {ALIAS}.meta.state").fetchone()
    except InvalidStatement:
        row = None
    if row != (generation,):
        connection.close()
        raise CorruptDatabase(f"Snapshot {generation} is damaged: run `aico-lab sync --full`.")
