"""The lab: the one place where the parts are put together, and the object that notebooks use."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.config import Settings, source_key, usual_key_file
from aico_lab.errors import (
    ConnectionIsClosed,
    DatabaseLocked,
    NeverSynced,
    NotADatabase,
    StorageError,
)
from aico_lab.etl.snapshots import Reader, published
from aico_lab.home import Home, private_files
from aico_lab.keys import Keys, Protection, create_keys, open_keys, remove_key_file
from aico_lab.reports.records import clear_up, page_of, read_runs
from aico_lab.schema.core import CORE
from aico_lab.schema.versions import current_versions
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import duckdb

    from aico_lab.adapters import libsql
    from aico_lab.cache.store import KeyValueStore
    from aico_lab.dal import DataAccessLayer
    from aico_lab.embeddings.index import VectorIndex
    from aico_lab.etl.evolution import OnChange
    from aico_lab.etl.foreign import LoadResult
    from aico_lab.etl.sync import Progress, SyncResult
    from aico_lab.etl.verify import Proof
    from aico_lab.importer import ImportResult, OnConflict
    from aico_lab.metrics.named import Metrics
    from aico_lab.reports.records import ReportRun
    from aico_lab.reports.runner import RunResult
    from aico_lab.rescoring import RescoreResult
    from aico_lab.sources.records import Batch

REPORT_SECONDS = 600.0


class Lab:
    """An opened home; for one thread.

    ::

        with Lab.open() as lab:
            lab.sync()
            lab.sql("SELECT role, count(*) FROM conversations GROUP BY 1").pl()

    Attributes:
        home: Where its files lie.
        timezone: In which days and hours of timestamps are counted by `sql`.
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
        self.timezone = timezone
        self._keys = keys
        self._settings = settings
        self._pinned = generation
        self._primary: libsql.Connection | None = None
        self._index: VectorIndex | None = None
        self._caches: dict[bool, KeyValueStore] = {}  # by whether it was opened to be read only
        self._reader = Reader(
            home,
            keys.duckdb(),
            timezone=timezone,
            pinned=generation,
            external_access=external_access,
        )
        self._opened = contextlib.ExitStack()
        self._opened.callback(self._reader.close)
        self._closed = False

    @classmethod
    @private_files()
    def create(
        cls,
        home: Path | str | None = None,
        *,
        protection: Protection = "key-file",
        key_file: Path | str | None = None,
        passphrase: str | None = None,
    ) -> Lab:
        """Make a new home with an empty primary database.

        Args:
            home: The folder; AICO_LAB_HOME or the platform's data folder where it is None.
            protection: What opens the home: a key file, a passphrase, or nothing at all.
            key_file: The key file; made where it does not exist.
            passphrase: The passphrase.

        Raises:
            HomeExists: There is a lab in that folder already.
            HomeNotWritable: The folder cannot be written.
            KeyProblem: The key file or passphrase cannot be used.
        """
        settings = Settings.resolve(home=home, key_file=key_file, passphrase=passphrase)
        folder = Home(settings.home)
        with folder.being_made():
            if (abandoned := folder.abandoned()) is not None:  # a try that was killed
                folder.discard()
                remove_key_file(usual_key_file(abandoned))
            home_id = secrets.token_hex(16)
            folder.prepare(home_id)
            file = settings.key_file or usual_key_file(home_id)
            is_new = protection == "key-file" and not file.exists()
            try:
                keys, slot = create_keys(home_id, protection, settings)
                with LibSQLAdapter(folder.primary, keys.libsql()).connect() as connection:
                    CORE.apply_core_schemas(connection)
                folder.write_marker({"home_id": home_id, "key": slot})
            except BaseException:
                folder.discard()
                if is_new:
                    remove_key_file(file)
                raise
        return cls(folder, keys, settings)

    @classmethod
    def open(
        cls,
        home: Path | str | None = None,
        *,
        key_file: Path | str | None = None,
        passphrase: str | None = None,
        timezone: str = "UTC",
        generation: int | None = None,
        external_access: bool = False,
    ) -> Lab:
        """Open a home.

        Args:
            home: The folder; AICO_LAB_HOME or the platform's data folder where it is None.
            key_file: The key file, if it is not in its usual place.
            passphrase: The passphrase; AICO_LAB_PASSPHRASE where it is None.
            timezone: An IANA name, in any case; days and hours of timestamps are counted in it.
            generation: Read this snapshot rather than the newest one.
            external_access: Let `sql` read and write any file, load extensions, use the network and
                change DuckDB's settings. A query from elsewhere can then destroy or send anything.

        Raises:
            HomeMissing: There is no lab in that folder.
            KeyProblem: The key file or passphrase does not open it.
            InvalidValue: A passphrase was given, and it is not one that opens this home.
            InvalidValue: There is no such time zone.
        """
        if timezone != "UTC":  # which needs no zone data
            timezone = get_zone(timezone).key
        settings = Settings.resolve(home=home, key_file=key_file, passphrase=passphrase)
        folder = Home(settings.home)
        keys = open_keys(folder.read_marker(), settings)
        return cls(
            folder,
            keys,
            settings,
            timezone=timezone,
            generation=generation,
            external_access=external_access,
        )

    @property
    def home_id(self) -> str:
        """What this home is known by wherever it lies."""
        return str(self.home.read_marker()["home_id"])

    @property
    def encrypted(self) -> bool:
        """Whether the databases of this home are encrypted."""
        return self._keys.master is not None

    @property
    def adapter(self) -> LibSQLAdapter:
        """Opens further connections to the primary database."""
        return LibSQLAdapter(self.home.primary, self._keys.libsql(), create=False)

    @property
    @private_files()
    def primary(self) -> libsql.Connection:
        """A connection to the primary database, opened on first use, its schema up to date.

        Where nothing can be written into the home, it only reads.
        """
        self._check_open()
        if self._primary is None:
            with contextlib.ExitStack() as opened:
                connection = opened.enter_context(self.open_primary())
                if not current_versions(connection):  # else a sync would empty the warehouse
                    raise NotADatabase(
                        f"{self.home.primary} is empty, or not the database of a home: "
                        "restore it from a backup or create a new home."
                    )
                CORE.apply_core_schemas(connection)
                clear_up(connection, self.home)
                self._opened.enter_context(opened.pop_all())
            self._primary = connection
        return self._primary

    @contextlib.contextmanager
    def open_primary(self) -> Iterator[libsql.Connection]:
        """Open another connection to the primary database, whose schema stays as it is.

        Where nothing can be written into the home, it only reads.
        """
        if os.access(self.home.path, os.W_OK) or not self.home.primary.exists():
            with self.adapter.connect() as connection:
                yield connection
            return
        from aico_lab.adapters.libsql_readonly import open_unwritable

        with open_unwritable(self.home.primary, self._keys.libsql()) as connection:
            yield connection

    def data_access(
        self,
        *,
        max_connections: int = 10,
        acquire_timeout: float = 30.0,
        operation_timeout: float | None = None,
    ) -> DataAccessLayer:
        """Open a data access layer on the primary database; close it, or use it as a context.

        Args:
            max_connections: How many are open at a time.
            acquire_timeout: Seconds that an operation waits for one.
            operation_timeout: Seconds that an operation may take; None for no limit.

        Raises:
            InvalidValue: There would be no connection, or no time.
        """
        from aico_lab.dal import DataAccessLayer

        _ = self.primary  # which brings the schema up to date
        return DataAccessLayer(
            self.adapter,
            max_connections=max_connections,
            acquire_timeout=acquire_timeout,
            operation_timeout=operation_timeout,
        )

    @property
    def generation(self) -> int:
        """The snapshot that `sql` reads now."""
        return self._reader.generation

    @private_files()
    def import_from(
        self,
        source: str,
        path: Path | None = None,
        *,
        limit: int | None = None,
        on_conflict: OnConflict = "keep",
        progress: Callable[[Batch], None] | None = None,
    ) -> ImportResult:
        """Add the messages of a source to the primary database; the same ones twice add nothing.

        Args:
            source: A name of `aico_lab.sources.SOURCES`.
            path: The file, for sources that read one.
            limit: At most so many messages.
            on_conflict: What becomes of a message that is there, in the same conversation under
                the same id, with another content, role or timestamp: 'keep' leaves it as it is,
                'replace' takes the new one for an edit of it.
            progress: Told of every batch that was committed.

        Raises:
            WrongUse: At once, if a file is missing or too much, or an option cannot be meant.
            SourceError: The input cannot be read.
        """
        from aico_lab.importer import check_on_conflict, import_batches
        from aico_lab.sources import read

        check_on_conflict(on_conflict)
        batches = read(source, path, limit=limit)
        return import_batches(self.primary, batches, on_conflict=on_conflict, progress=progress)

    def rescore(
        self, *, progress: Callable[[str, int, int | None], None] | None = None
    ) -> RescoreResult:
        """Score messages anew whose sentiment score is of an older rule; given scores stay.

        Args:
            progress: Told of "rescore", the messages that are done, and all of them.
        """
        from aico_lab.rescoring import rescore

        return rescore(self.primary, progress=progress)

    @private_files()
    def sync(
        self,
        *,
        full: bool = False,
        on_change: OnChange | None = None,
        acknowledge: bool = False,
        progress: Progress | None = None,
    ) -> SyncResult:
        """Bring every projection up to date, and publish a snapshot of the warehouse.

        A cache that another process holds is left to that process. Neither the cache nor the
        vectors stop the warehouse: what they could not do is among the problems of the result.

        Args:
            full: Read the tables whole even where the change feed would do, and make anew whatever
                is damaged.
            on_change: What to do where the warehouse would lose a table, a column or a type:
                'evolve' to lose it, 'ignore' to keep it, 'freeze' to leave that table as it is.
            acknowledge: Take rows that do not fit any more, though nothing has recorded a change of
                them, for what they are: `verify` fails until then.
            progress: Told of a table, the rows moved so far, and the rows in all.

        Returns:
            What was done to the warehouse.

        Raises:
            SchemaChanged: The warehouse would lose something; say `on_change`.
        """
        from aico_lab.etl.sync import sync
        from aico_lab.projections.cache import sync_cache
        from aico_lab.projections.vectors import sync_vectors

        primary, problems = self.primary, []
        # The cache first: the warehouse prunes the feed, which the cache does not hold back.
        try:
            sync_cache(primary, self.home, self._keys, self._caches.get(False), full=full)
        except DatabaseLocked:
            pass
        except StorageError as error:
            problems.append(str(error))
        result = sync(
            primary,
            self.home,
            self._keys.duckdb(),
            full=full,
            on_change=on_change,
            acknowledge=acknowledge,
            progress=progress,
        )
        try:
            sync_vectors(primary, self.home, self._keys, full=full)
        except StorageError as error:
            problems.append(str(error))
        return replace(result, problems=tuple(problems))

    def read_whole(self, path: Path, where: str) -> None:
        """Read every value of one of the warehouse's files.

        Args:
            path: A snapshot, or the writer's file while nobody writes it.
            where: The file, as a person knows it.

        Raises:
            StorageError: It is damaged.
        """
        from aico_lab.etl.soundness import read_whole

        read_whole(path, self._keys.duckdb(), temporary=self.home.temporary, where=where)

    def verify(self, *, progress: Callable[[str, int, int | None], None] | None = None) -> Proof:
        """Compare every value of the newest snapshot, or the pinned one, with the primary database.

        Args:
            progress: Told of the next table, how many were compared, and of all.

        Raises:
            NeverSynced: There is no snapshot yet.
        """
        from aico_lab.etl.verify import verify

        self._check_open()
        return verify(self.primary, self._reader, progress=progress)

    @private_files()
    def load(
        self,
        path: Path | str,
        table: str,
        *,
        name: str | None = None,
        key: Sequence[str] | None = None,
        watermark: str = "rowid",
        lag: float = 0,
        deletes: bool = False,
        full: bool = False,
        progress: Progress | None = None,
    ) -> LoadResult:
        """Bring a table of another program's database into the warehouse, as `"<name>"."<table>"`.

        Columns of strict types (INTEGER, REAL, TEXT, TIMESTAMP and the like) have these; what does
        not fit goes to quarantine. Others, of types such as DECIMAL, DATETIME, BOOL, BLOB or none,
        have the type that all their values fit, else text with every digit, and a warning.

        The first time it is read whole, afterwards from its watermark on. A row that came late, or
        changed, below the watermark and its lag is not seen until a load is `full`. Rows without a
        value in the watermark's column are read every time. The row id is no key of a table that
        VACUUM may number anew: name one where rows are deleted.

        Args:
            path: A SQLite or libSQL file, which is only read; the key of an encrypted one is in the
                environment variable AICO_LAB_SOURCE_KEY, as its text or in hexadecimal digits.
            table: A table of it, or a view.
            name: The schema in the warehouse; else one made of the file's name, such as `sp_ace` of
                `sp ace.db` and `memory_db` of `memory.db`.
            key: The columns that identify a row; else the primary key, else the row id.
            watermark: A column of numbers or times that grows with every row, or 'rowid'.
            lag: How far below the watermark to look again: seconds of a time, also where the column
                holds seconds or milliseconds since 1970; else row ids, or whatever it counts.
            deletes: Find the rows that are gone from the table, and remove them.
            full: Read the table whole, and keep nothing else.
            progress: Told of the table, the rows read so far, and the rows in all.

        Raises:
            WrongUse: An argument cannot be meant; the message says what there is.
            SourceError: There is no such file, or its schema cannot be taken.
            StorageError: The file is damaged, in use, or its key another one.
        """
        from aico_lab.etl.foreign import load_foreign

        self._check_open()

        def load() -> LoadResult:
            return load_foreign(
                self.home,
                self._keys.duckdb(),
                Path(path).expanduser().absolute(),
                table,
                name=name,
                key_columns=key,
                watermark=watermark,
                lag=lag,
                deletes=deletes,
                full=full,
                source_key=source_key(),
                progress=progress,
            )

        try:
            return load()
        except NeverSynced:  # a snapshot has the tables and views of the primary database, too
            self.sync()
            return load()

    @private_files()
    def vectors(self) -> VectorIndex:
        """Give what finds memories by meaning, as of the last sync; it closes with the lab."""
        from aico_lab.projections.vectors import open_index

        self._check_open()
        if self._index is None:
            self._index = self._opened.enter_context(open_index(self.home, self._keys))
        return self._index

    @private_files()
    def cache(self, *, read_only: bool = False) -> KeyValueStore:
        """Give the cache; it closes with the lab.

        Args:
            read_only: Look into it beside the process that holds it.

        Raises:
            DatabaseLocked: Another process holds it, and it is to be written.
        """
        from aico_lab.cache.store import open_cache

        self._check_open()
        if read_only not in self._caches:
            store = open_cache(self.home, self._keys, read_only=read_only)
            self._caches[read_only] = self._opened.enter_context(contextlib.closing(store))
        return self._caches[read_only]

    def sql(
        self, query: str, parameters: Sequence[object] | Mapping[str, object] | None = None
    ) -> duckdb.DuckDBPyRelation | None:
        """Ask the newest snapshot, or the pinned one.

        Args:
            query: DuckDB's SQL; the view `conversations` and the tables of `raw` are there. It can
                use no file, address or setting, unless the lab was opened with `external_access`.
            parameters: Values for its `?`, or by name for its `$name`.

        Returns:
            A relation: `.pl()`, `.arrow()`, `.df()` or `.fetchall()` give its rows. None for a
            statement that has no result, such as CREATE TEMP TABLE.

        Raises:
            NeverSynced: There is no snapshot yet.
            InvalidStatement: DuckDB cannot run the query.
            NotPermitted: It reaches beyond the snapshot.
        """
        self._check_open()
        return self._reader.sql(query, parameters)

    @cached_property  # of plain properties IPython completes nothing
    def metrics(self) -> Metrics:
        """The catalogue of metrics, asked of the newest snapshot, or the pinned one.

        ::

            lab.metrics.reply_latency(since="30d", timezone="Europe/Berlin").plot()

        """
        from aico_lab.metrics.named import Metrics

        self._check_open()
        return Metrics(self._reader, timezone=self.timezone)

    @private_files()
    def run_report(
        self,
        name: str | Path,
        parameters: Mapping[str, object] | None = None,
        *,
        timeout: float = REPORT_SECONDS,
        on_cell: Callable[[int, int], None] | None = None,
    ) -> RunResult:
        """Execute a notebook on the newest snapshot and keep it, with one HTML file, as a record.

        Args:
            name: A notebook of the package, such as 'pattern_analysis', or of the home's folder
                `notebooks`; or the path of any, with its ending `.ipynb`.
            parameters: Values for its parameters cell. By default `generation` is the newest, or
                this lab's, and `timezone` is this lab's.
            timeout: Seconds after which it is stopped.
            on_cell: Told of the number of cells that were executed, and of all.

        Raises:
            UnknownName: There is no such notebook, parameter, person or channel.
            InvalidValue: A parameter has the wrong type, or a value that its filter does not take.
            NeverSynced: There is no snapshot yet.
            DiskFull: There is no room for what it writes.
            NotebookFailed: A cell raised; the partial notebook is kept.
        """
        from aico_lab.reports import runs

        def read_snapshot(generation: int) -> Reader:
            key = self._keys.duckdb()
            return Reader(self.home, key, timezone=self.timezone, pinned=generation)

        return runs.run_report(
            str(name),
            parameters or {},
            primary=self.primary,
            home=self.home,
            read_snapshot=read_snapshot,
            generation=self._pinned,
            timezone=self.timezone,
            timeout=timeout,
            environment=self._settings.environment(),
            known_secrets=self._keys.texts() | {self._settings.passphrase or ""},
            on_cell=on_cell,
        )

    def report_runs(self, name: str | None = None) -> list[ReportRun]:
        """Give the runs of one report, or of all, newest first."""
        clear_up(self.primary, self.home)
        return read_runs(self.primary, name)

    def report_file(self, run: ReportRun) -> Path:
        """Give the page that a run left, whether or not it is still there."""
        return page_of(self.home, run)

    def close(self) -> None:
        """Release every file, whatever one of them may raise; a second call does nothing."""
        self._closed = True
        self._primary = self._index = None
        self._caches = {}
        self.__dict__.pop("metrics", None)
        self._opened.close()

    def __repr__(self) -> str:
        if self._closed:
            return f"<Lab {self.home.path}, closed>"
        newest = self._pinned or max(published(self.home.snapshots), default=None)
        snapshot = f"snapshot {newest}" if newest else "no snapshot yet: call .sync()"
        return f"<Lab {self.home.path}, {snapshot}, days and hours of {self.timezone}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionIsClosed("This lab was closed before: open it again with Lab.open().")
