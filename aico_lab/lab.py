"""The lab: the object that notebooks and commands use, and through which they find every part."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from aico_lab.config import Settings, source_key
from aico_lab.errors import DatabaseLocked, HomeError, NeverSynced, StorageError
from aico_lab.etl.snapshots import published
from aico_lab.home import Home, private_files
from aico_lab.keys import Protection, open_keys
from aico_lab.storage import Storage, create_home
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aico_lab.adapters import libsql
    from aico_lab.adapters.duckdb_relation import Relation
    from aico_lab.cache.opened import Cache
    from aico_lab.dal import DataAccessLayer
    from aico_lab.etl.evolution import OnChange
    from aico_lab.etl.foreign import LoadResult
    from aico_lab.etl.sync import Progress, SyncResult
    from aico_lab.etl.verify import Proof
    from aico_lab.importer import ImportResult, OnConflict
    from aico_lab.keys import Keys
    from aico_lab.metrics.named import Metrics
    from aico_lab.projections.memories import Memories
    from aico_lab.reports.runs import Reports
    from aico_lab.rescoring import RescoreResult
    from aico_lab.sources.records import Batch

_MOVED: Final = {
    "adapter": "storage.adapter",
    "open_primary": "storage.open_primary",
    "report_file": "reports.page",
    "report_runs": "reports.list",
    "run_report": "reports.run",
    "vectors": "memories.index",
}
"""What attributes of a lab were called before, with where they are now."""


class Lab:
    """An opened home; for one thread.

    ::

        with Lab.open() as lab:
            lab.sync()
            lab.sql("SELECT role, count(*) FROM conversations GROUP BY 1").pl()

    Attributes:
        storage: The opened databases.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

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
        return cls._of(folder, create_home(folder, settings, protection), settings)

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
        return cls._of(
            folder,
            keys,
            settings,
            timezone=timezone,
            generation=generation,
            external_access=external_access,
        )

    @classmethod
    def _of(
        cls,
        home: Home,
        keys: Keys,
        settings: Settings,
        *,
        timezone: str = "UTC",
        generation: int | None = None,
        external_access: bool = False,
    ) -> Self:
        return cls(
            Storage(
                home,
                keys,
                settings,
                timezone=timezone,
                generation=generation,
                external_access=external_access,
            )
        )

    @property
    def home(self) -> Home:
        """Where the files of the lab lie."""
        return self.storage.home

    @property
    def timezone(self) -> str:
        """The time zone in which `sql` and metrics count days and hours."""
        return self.storage.timezone

    @property
    def home_id(self) -> str:
        """What this home is known by wherever it lies."""
        return str(self.home.read_marker()["home_id"])

    @property
    def encrypted(self) -> bool:
        """Whether the databases of this home are encrypted."""
        return self.storage.keys.master is not None

    @property
    def primary(self) -> libsql.Connection:
        """The lab's own connection to the primary database, its schema up to date."""
        return self.storage.primary

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
            self.storage.adapter,
            max_connections=max_connections,
            acquire_timeout=acquire_timeout,
            operation_timeout=operation_timeout,
        )

    @property
    def generation(self) -> int:
        """The snapshot that `sql` reads now."""
        return self.storage.reader.generation

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
        Vectors that are damaged are made anew, which is among its warnings.

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

        primary, keys, problems = self.primary, self.storage.keys, []
        # The cache first: the warehouse prunes the feed, which the cache does not hold back.
        try:
            sync_cache(primary, self.home, keys, self.cache.held, full=full)
        except DatabaseLocked:
            pass
        except (StorageError, HomeError) as error:
            problems.append(str(error))
        result = sync(
            primary,
            self.home,
            keys.duckdb(),
            full=full,
            on_change=on_change,
            acknowledge=acknowledge,
            progress=progress,
        )
        warnings = result.warnings
        try:
            if sync_vectors(primary, self.home, keys, full=full).rebuilt:
                warnings = [*warnings, "The vectors were damaged and were made anew."]
        except (StorageError, HomeError) as error:
            problems.append(str(error))
        return replace(result, warnings=warnings, problems=tuple(problems))

    def verify(self, *, progress: Callable[[str, int, int | None], None] | None = None) -> Proof:
        """Compare every value of the newest snapshot, or the pinned one, with the primary database.

        Args:
            progress: Told of the next table, how many were compared, and of all.

        Raises:
            NeverSynced: There is no snapshot yet.
        """
        from aico_lab.etl.verify import verify

        return verify(self.primary, self.storage.reader, progress=progress)

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
                `sp ace.db`, `memory_db` of `memory.db` and `select_db` of `select.db`.
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

        self.storage.check_open()

        def load() -> LoadResult:
            return load_foreign(
                self.home,
                self.storage.keys.duckdb(),
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

    def sql(
        self, query: str, parameters: Sequence[object] | Mapping[str, object] | None = None
    ) -> Relation | None:
        """Ask the newest snapshot, or the pinned one.

        Args:
            query: DuckDB's SQL; the view `conversations` and the tables of `raw` are there. It can
                use no file, address or setting, unless the lab was opened with `external_access`.
            parameters: Values for its `?`, or by name for its `$name`.

        Returns:
            A relation of DuckDB's, which is computed when `.pl()`, `.arrow()`, `.df()` or
            `.fetchall()` ask for its rows; they raise these errors, too. None for a statement that
            has no result, such as CREATE TEMP TABLE.

        Raises:
            NeverSynced: There is no snapshot yet.
            InvalidStatement: DuckDB cannot run the query.
            NotPermitted: It reaches beyond the snapshot.
        """
        self.storage.check_open()
        return self.storage.reader.sql(query, parameters)

    @cached_property  # of plain properties IPython completes nothing
    def metrics(self) -> Metrics:
        """The catalogue of metrics, asked of the newest snapshot, or the pinned one.

        ::

            lab.metrics.reply_latency(since="30d", timezone="Europe/Berlin").plot()

        """
        from aico_lab.metrics.named import Metrics

        self.storage.check_open()
        return Metrics(self.storage.reader, timezone=self.timezone)

    @cached_property
    def reports(self) -> Reports:
        """Runs notebooks as reports, and lists the runs."""
        from aico_lab.reports.runs import Reports

        return Reports(self.storage)

    @cached_property
    def memories(self) -> Memories:
        """Finds memories by meaning."""
        from aico_lab.projections.memories import Memories

        return Memories(self.storage)

    @cached_property
    def cache(self) -> Cache:
        """The cache of hot state."""
        from aico_lab.cache.opened import Cache

        return Cache(self.storage)

    def close(self) -> None:
        """Release every file; a second call does nothing."""
        for part in ("metrics", "reports", "memories", "cache"):
            self.__dict__.pop(part, None)
        self.storage.close()

    def __getattr__(self, name: str) -> Any:
        if name in _MOVED:
            raise AttributeError(f"lab.{name} is lab.{_MOVED[name]} now.")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        if self.storage.closed:
            return f"<Lab {self.home.path}, closed>"
        newest = self.storage.generation or max(published(self.home.snapshots), default=None)
        snapshot = f"snapshot {newest}" if newest else "no snapshot yet: call .sync()"
        return f"<Lab {self.home.path}, {snapshot}, days and hours of {self.timezone}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
