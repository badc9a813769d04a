"""The lab: the one place where the parts are put together, and the object that notebooks use."""

from __future__ import annotations

import contextlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.config import Settings
from aico_lab.errors import ConnectionIsClosed, DatabaseLocked
from aico_lab.etl import snapshots
from aico_lab.etl.sync import SyncResult, sync
from aico_lab.home import Home, os_errors
from aico_lab.keys import Keys, Protection, create_keys, open_keys
from aico_lab.schema.core import CORE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import duckdb

    from aico_lab.adapters import libsql
    from aico_lab.cache.store import KeyValueStore
    from aico_lab.dal import DataAccessLayer
    from aico_lab.embeddings.index import VectorIndex
    from aico_lab.etl.sync import Progress
    from aico_lab.importer import ImportResult
    from aico_lab.projections.result import Projected
    from aico_lab.reports.runner import RunResult
    from aico_lab.reports.runs import ReportRun
    from aico_lab.sources.records import Batch

REPORT_SECONDS = 600.0


class Lab:
    """An opened home.

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
    ) -> None:
        self.home = home
        self.timezone = timezone
        self._keys = keys
        self._settings = settings
        self._pinned = generation
        self._primary: libsql.Connection | None = None
        self._reader = snapshots.Reader(home, keys.duckdb(), timezone=timezone, pinned=generation)
        self._index: VectorIndex | None = None
        self._caches: dict[bool, KeyValueStore] = {}  # by whether it was opened to be read only
        self._closed = False

    @classmethod
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
        folder.prepare()
        home_id = secrets.token_hex(16)
        keys, slot = create_keys(home_id, protection, settings)
        with LibSQLAdapter(folder.primary, keys.libsql()).connect() as connection:
            CORE.apply_core_schemas(connection)
        folder.write_marker({"home_id": home_id, "key": slot})
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
    ) -> Lab:
        """Open a home.

        Args:
            home: The folder; AICO_LAB_HOME or the platform's data folder where it is None.
            key_file: The key file, if it is not in its usual place.
            passphrase: The passphrase; AICO_LAB_PASSPHRASE where it is None.
            timezone: An IANA name; days and hours of timestamps are counted in it.
            generation: Read this snapshot rather than the newest one.

        Raises:
            HomeMissing: There is no lab in that folder.
            KeyProblem: The key file or passphrase does not open it.
        """
        settings = Settings.resolve(home=home, key_file=key_file, passphrase=passphrase)
        folder = Home(settings.home)
        keys = open_keys(folder.read_marker(), settings)
        return cls(folder, keys, settings, timezone=timezone, generation=generation)

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
    def primary(self) -> libsql.Connection:
        """A connection to the primary database, opened on first use, its schema up to date."""
        self._check_open()
        if self._primary is None:
            connection = self.adapter.connect()
            try:
                CORE.apply_core_schemas(connection)
            except BaseException:
                connection.close()
                raise
            self._primary = connection
        return self._primary

    def data_access(self) -> DataAccessLayer:
        """Open a data access layer on the primary database; close it, or use it as a context."""
        from aico_lab.dal import DataAccessLayer

        self.primary  # noqa: B018 - brings the schema up to date
        return DataAccessLayer(self.adapter)

    @property
    def generation(self) -> int:
        """The snapshot that `sql` reads now."""
        return self._reader.generation

    def import_from(
        self,
        source: str,
        path: Path | None = None,
        *,
        limit: int | None = None,
        progress: Callable[[Batch], None] | None = None,
    ) -> ImportResult:
        """Add the messages of a source to the primary database; the same ones twice add nothing.

        Args:
            source: A name of `aico_lab.sources.SOURCES`.
            path: The file, for sources that read one.
            limit: At most so many messages.
            progress: Told of every batch that was committed.
        """
        from aico_lab.importer import import_batches
        from aico_lab.sources import read

        return import_batches(self.primary, read(source, path, limit=limit), progress=progress)

    def sync(self, *, full: bool = False, progress: Progress | None = None) -> SyncResult:
        """Bring every projection up to date, and publish a snapshot of the warehouse.

        A cache that another process holds is left to that process.

        Args:
            full: Read the tables whole even where the change feed would do.
            progress: Told of a table, the rows moved so far, and the rows in all.

        Returns:
            What was done to the warehouse.
        """
        self._check_open()
        with contextlib.suppress(DatabaseLocked):
            self.sync_cache()  # first: the warehouse prunes the feed, the cache does not hold it
        result = self.sync_warehouse(full=full, progress=progress)
        self.sync_vectors(full=full)
        return result

    def sync_warehouse(self, *, full: bool = False, progress: Progress | None = None) -> SyncResult:
        """Bring the warehouse alone up to date and publish a snapshot; arguments as for `sync`."""
        self._check_open()
        return sync(self.primary, self.home, self._keys.duckdb(), full=full, progress=progress)

    def sync_vectors(self, *, full: bool = False) -> Projected:
        """Bring the vectors of the memories up to date.

        Args:
            full: Write all of them anew.

        Raises:
            DatabaseLocked: Another process is writing them.
        """
        from aico_lab.adapters.chroma import ChromaDBAdapter
        from aico_lab.embeddings.encoder import Encoder
        from aico_lab.projections.vectors import project_memories

        adapter = ChromaDBAdapter(self.home.vectors, self._keys.chroma())
        return project_memories(self.primary, adapter, Encoder(), full=full)

    def sync_cache(self) -> Projected:
        """Remove rows that changed from the cache, where there is one.

        Raises:
            DatabaseLocked: Another process holds the cache.
        """
        from aico_lab.cache.store import open_cache
        from aico_lab.projections.cache import invalidate
        from aico_lab.projections.result import Projected

        if False in self._caches:
            return invalidate(self.primary, self._caches[False])
        if not self.home.cache.exists():
            return Projected("nothing")
        with contextlib.closing(open_cache(self.home, self._keys)) as store:
            return invalidate(self.primary, store)

    def vectors(self) -> VectorIndex:
        """Give what finds memories by meaning, as of the last sync; it closes with the lab."""
        from aico_lab.adapters.chroma import ChromaDBAdapter
        from aico_lab.embeddings.encoder import Encoder
        from aico_lab.embeddings.index import VectorIndex

        self._check_open()
        if self._index is None:
            adapter = ChromaDBAdapter(self.home.vectors, self._keys.chroma(), read_only=True)
            self._index = VectorIndex(adapter, Encoder())
        return self._index

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
            self._caches[read_only] = open_cache(self.home, self._keys, read_only=read_only)
        return self._caches[read_only]

    def sql(self, query: str) -> duckdb.DuckDBPyRelation | None:
        """Ask the newest snapshot, or the pinned one.

        Args:
            query: DuckDB's SQL; the view `conversations` and the tables of `raw` are there.

        Returns:
            A relation: `.pl()`, `.arrow()`, `.df()` or `.fetchall()` give its rows. None for a
            statement that has no result, such as SET.

        Raises:
            NeverSynced: There is no snapshot yet.
            InvalidStatement: DuckDB cannot run the query.
        """
        self._check_open()
        return self._reader.sql(query)

    def run_report(
        self,
        name: str,
        parameters: Mapping[str, object] | None = None,
        *,
        timeout: float = REPORT_SECONDS,
        on_cell: Callable[[int, int], None] | None = None,
    ) -> RunResult:
        """Execute a notebook on the newest snapshot and keep it, with one HTML file, as a record.

        Args:
            name: A notebook, such as 'pattern_analysis'.
            parameters: Values for its parameters cell; `generation` is the newest by default.
            timeout: Seconds after which it is stopped.
            on_cell: Told of the number of cells that were executed, and of all.

        Raises:
            UnknownName: There is no such notebook or parameter.
            InvalidValue: A parameter has the wrong type.
            NeverSynced: There is no snapshot yet.
            NotebookFailed: A cell raised; the partial notebook is kept.
        """
        from aico_lab.reports import runs
        from aico_lab.reports.parameters import bind, read_parameters
        from aico_lab.reports.runner import run_notebook

        notebook = runs.find_notebook(name)
        values = bind(read_parameters(notebook), parameters or {})
        # 0 means the newest: name it, so that a sync meanwhile changes nothing of this run.
        wanted = values.get("generation")
        generation, _ = snapshots.find(
            self.home.snapshots, wanted if isinstance(wanted, int) and wanted else self._pinned
        )
        if "generation" in values:
            values["generation"] = generation
        now = datetime.now(UTC)
        run_id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        destination = self.home.reports / name / run_id
        with os_errors(self.home.reports):
            destination.mkdir(parents=True)
        with (
            runs.recorded(self.primary, run_id, notebook, values, generation),
            self._settings.exported(),
        ):
            return run_notebook(
                notebook,
                parameters=values,
                destination=destination,
                title=f"{name.replace('_', ' ').capitalize()} · {now:%Y-%m-%d %H:%M} UTC",
                timeout=timeout,
                secrets=self._secrets(),
                on_cell=on_cell,
            )

    def report_runs(self, name: str | None = None) -> list[ReportRun]:
        """Give the runs of one report, or of all, newest first."""
        from aico_lab.reports.runs import read_runs

        return read_runs(self.primary, name)

    def report_file(self, run: ReportRun, suffix: str = ".html") -> Path:
        """Give the file that a run left, whether or not it is still there."""
        return self.home.reports / run.report / run.run_id / f"{run.report}{suffix}"

    def close(self) -> None:
        """Release every file."""
        self._closed = True
        if self._primary is not None:
            self._primary.close()
        self._reader.close()
        if self._index is not None:
            self._index.close()
        for store in self._caches.values():
            store.close()
        self._primary = self._index = None
        self._caches = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _secrets(self) -> list[str]:
        """Give the texts that must not stand in anything that is written."""
        keys = self._keys
        texts = [self._settings.passphrase, keys.libsql(), keys.duckdb(), keys.chroma()]
        return [text for text in texts if text]

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionIsClosed("This lab was closed before: open it again with Lab.open().")
