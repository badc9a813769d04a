"""`Lab`, the entry point of notebooks and commands to a home and all its parts."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from aico_lab.config import Settings, source_key
from aico_lab.errors import (
    AicoLabError,
    DatabaseLocked,
    EncoderError,
    HomeError,
    NeverSynced,
    StorageError,
    WrongUse,
)
from aico_lab.etl.snapshots import published
from aico_lab.home.files import private_files
from aico_lab.home.folder import Home
from aico_lab.home.keys import open_keys
from aico_lab.home.known import note_encrypted
from aico_lab.home.os_keyring import with_keyring
from aico_lab.storage import Storage, create_home
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import date, datetime

    from aico_lab.adapters import libsql
    from aico_lab.adapters.duckdb_relation import Relation
    from aico_lab.backup.lab_backups import Backups
    from aico_lab.cache.lab_cache import Cache
    from aico_lab.dal import DataAccessLayer
    from aico_lab.embeddings.lab_embeddings import Embeddings
    from aico_lab.etl.evolution import OnChange
    from aico_lab.etl.foreign import LoadResult
    from aico_lab.etl.sync import Progress, SyncResult
    from aico_lab.etl.verify import Proof
    from aico_lab.federation.lab_devices import Devices
    from aico_lab.home.credentials import Protection
    from aico_lab.importing.importer import ImportResult, OnConflict
    from aico_lab.importing.rescoring import RescoreResult
    from aico_lab.knowledge.lab_knowledge import Knowledge
    from aico_lab.messages.records import Batch
    from aico_lab.metrics.lab_metrics import Metrics
    from aico_lab.personality.lab_personality import Personality
    from aico_lab.pipeline.lab_pipelines import Pipelines
    from aico_lab.pipeline.lab_schedules import Schedules
    from aico_lab.privacy.lab_privacy import Privacy
    from aico_lab.projections.lab_memories import Memories
    from aico_lab.projections.result import Projected
    from aico_lab.reports.lab_reports import Reports
    from aico_lab.search.passages import Passages
    from aico_lab.search.searching import Mode, Source
    from aico_lab.sources.exports.engine.conversation import Options


RESUMED = (
    "An erasure that was interrupted, or that a restored database had lost, was carried out again."
)


class _Moved:
    """A former attribute of `Lab` that says where it is now.

    A `__getattr__` would do the same, but IPython completes nothing of a class that has one.
    """

    def __init__(self, where: str) -> None:
        self._where = where

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, lab: object, owner: type) -> Self:
        if lab is None:
            return self
        raise AttributeError(f"lab.{self._name} was renamed: use lab.{self._where}.")


class Lab:
    """An opened home, for use in one thread.

    ::

        with Lab.open() as lab:
            lab.sync()
            lab.sql("SELECT role, count(*) FROM conversations GROUP BY 1").pl()

    Attributes:
        storage: The opened databases.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        storage.when_opened = self.privacy.erase_again

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
        """Create a home with an empty primary database, and open it.

        Args:
            home: The folder; None means AICO_LAB_HOME or the platform's data folder.
            protection: 'key-file', 'passphrase', or 'none' for no encryption.
            key_file: The key file, created if it does not exist.
            passphrase: The passphrase.

        Raises:
            HomeExists: The folder contains a lab already.
            HomeNotWritable: The folder cannot be written.
            KeyProblem: The key file or passphrase cannot be used.
        """
        settings = Settings.resolve(home=home, key_file=key_file, passphrase=passphrase)
        folder = Home(settings.home)
        keys = create_home(folder, settings, protection)
        return cls(Storage(folder, keys, settings))

    @classmethod
    def open(
        cls,
        home: Path | str | None = None,
        *,
        key_file: Path | str | None = None,
        passphrase: str | None = None,
        keyring: bool = False,
        timezone: str = "UTC",
        generation: int | None = None,
        external_access: bool = False,
    ) -> Lab:
        """Open a home.

        Args:
            home: The folder; None means AICO_LAB_HOME or the platform's data folder.
            key_file: The key file, if it is not in its usual place.
            passphrase: The passphrase; None means AICO_LAB_PASSPHRASE.
            keyring: Take a passphrase that is not given from the operating system's keyring, as
                with AICO_LAB_KEYRING=1.
            timezone: The IANA name, in any case, of the zone that defines days and hours.
            generation: The generation of the snapshot to read; None means the newest at any time.
            external_access: Let `sql` read and write any file, load extensions, use the network and
                change DuckDB's settings. An untrusted query can then destroy or send anything.

        Raises:
            HomeMissing: There is no lab in that folder.
            KeyProblem: The key file or passphrase does not open the home.
            InvalidValue: A passphrase was given, but the home is not protected by one.
            InvalidValue: The time zone does not exist.
        """
        if timezone != "UTC":  # UTC needs no zone data
            timezone = get_zone(timezone).key
        settings = Settings.resolve(
            home=home, key_file=key_file, passphrase=passphrase, keyring=keyring
        )
        folder = Home(settings.home)
        marker = folder.read_marker()
        settings = with_keyring(settings, marker)
        keys = open_keys(marker, settings)
        if keys.master is not None:
            note_encrypted(marker)
        return cls(
            Storage(
                folder,
                keys,
                settings,
                timezone=timezone,
                generation=generation,
                external_access=external_access,
            )
        )

    @property
    def home(self) -> Home:
        """The folder that contains the files of the lab."""
        return self.storage.home

    @property
    def timezone(self) -> str:
        """The time zone in which `sql` and metrics count days and hours."""
        return self.storage.timezone

    @property
    def home_id(self) -> str:
        """The id of this home, which stays the same when the folder is moved."""
        return str(self.home.read_marker()["home_id"])

    @property
    def encrypted(self) -> bool:
        """Whether the databases of this home are encrypted."""
        return self.storage.keys.master is not None

    @property
    def primary(self) -> libsql.Connection:
        """The lab's own connection to the primary database, with its schema up to date."""
        return self.storage.primary

    def data_access(
        self,
        *,
        max_connections: int = 10,
        acquire_timeout: float = 30.0,
        operation_timeout: float | None = None,
    ) -> DataAccessLayer:
        """Return a data access layer on the primary database; close it, or use it in `with`.

        Args:
            max_connections: The most connections that are open at a time.
            acquire_timeout: Seconds that an operation waits for a connection.
            operation_timeout: Seconds that an operation may take; None for no limit.

        Raises:
            InvalidValue: The number of connections or a timeout is not above 0.
        """
        from aico_lab.dal import DataAccessLayer

        _ = self.primary  # opening it brings the schema up to date
        return DataAccessLayer(
            self.storage.adapter,
            max_connections=max_connections,
            acquire_timeout=acquire_timeout,
            operation_timeout=operation_timeout,
        )

    @property
    def generation(self) -> int:
        """The generation of the snapshot that `sql` reads now."""
        return self.storage.reader.generation

    @private_files()
    def import_from(
        self,
        source: Path | str,
        path: Path | str | None = None,
        *,
        limit: int | None = None,
        on_conflict: OnConflict | None = None,
        dry_run: bool = False,
        deletions: bool = False,
        timezone: str | None = None,
        me: str | None = None,
        companion: str | Iterable[str] = (),
        start: str | datetime | None = None,
        step: float | None = None,
        day_first: bool | None = None,
        trust_times: bool = False,
        map: Mapping[str, str] | None = None,  # noqa: A002 - the name of the option
        role_map: Mapping[str, str] | None = None,
        options: Options | None = None,
        progress: Callable[[Batch], None] | None = None,
    ) -> ImportResult:
        """Import messages into the primary database; importing twice adds nothing.

        Args:
            source: A file, folder or archive as another program exported it, whose format is
                recognised by its content; or a name in `aico_lab.sources.SOURCES`, or one saved
                in this home by `aico-lab import --save`.
            path: The file, after the name of a source that reads one.
            limit: The most messages to read.
            on_conflict: If a stored message with the same conversation and id differs in content,
                role or timestamp, 'keep' leaves it unchanged, 'replace' updates it. By default an
                export replaces, as it may have edited messages, and so does a table without a
                column of ids, whose messages differ only by the answers; any other source keeps.
            dry_run: Count what would be imported, and write nothing.
            deletions: Mark the stored messages that an export no longer has, in conversations that
                it holds whole; metrics leave them out. The mark goes when an import has the message
                again.
            timezone: The zone of times that have none in the file; by default UTC.
            me: The person whose conversations these are.
            companion: The name of the companion, or a list of names, where the file does not say
                it.
            start: The time of the first message of a file without any times.
            step: The seconds between two messages of such a file.
            day_first: Whether 3/4 is 3 April, where the file leaves it open.
            trust_times: Accept times that are all the same, as those of an import are.
            map: The columns of a table by field, such as `{"content": "Text"}`.
            role_map: The roles by the values of a table, such as `{"bot": "assistant"}`.
            options: These answers as one object, instead of the nine arguments above.
            progress: Called with every batch when it is done.

        Raises:
            WrongUse: A file is missing or superfluous, or an option is invalid, or answers are
                given beside `options`, or the data of the home are simulated. Nothing is read.
            WhoIsWho: An export does not say who the companion is.
            SourceError: The input cannot be read.
        """
        from aico_lab.importing.from_file import choose, import_from
        from aico_lab.messages.simulated import refuse_if_simulated
        from aico_lab.sources.exports.engine.conversation import Options

        refuse_if_simulated(self.primary)
        given = Options.read(
            timezone=timezone, me=me, companion=companion, start=start, step=step,
            day_first=day_first, trust_times=trust_times, map=map, role_map=role_map,
        )  # fmt: skip
        if options is not None and given != Options():
            raise WrongUse("Give the answers one by one or as options, not both.")
        return import_from(
            self.primary,
            choose(self.home, source, path, options or given),
            limit=limit,
            on_conflict=on_conflict,
            dry_run=dry_run,
            deletions=deletions,
            progress=progress,
        )

    def rescore(
        self, *, progress: Callable[[str, int, int | None], None] | None = None
    ) -> RescoreResult:
        """Score messages that have no score or one of an older version; imported scores stay.

        Args:
            progress: Called with "rescore", the number of messages done, and their total.
        """
        from aico_lab.importing.rescoring import rescore

        return rescore(self.primary, progress=progress)

    @private_files()
    def sync(
        self,
        *,
        only: Literal["warehouse"] | None = None,
        full: bool = False,
        on_change: OnChange | None = None,
        acknowledge: bool = False,
        progress: Progress | None = None,
    ) -> SyncResult:
        """Bring every projection up to date, and publish a snapshot of the warehouse.

        A cache that another process holds is left to that process. Failures of the cache or the
        vectors do not stop the warehouse; they are reported in the result's `problems`. Vectors
        that are found damaged are rebuilt, which is reported in its `warnings`: a sync reads them
        whole if texts changed, otherwise only their beginning.

        Args:
            only: 'warehouse' leaves the cache and the vectors as they are; see `sync_vectors` and
                `sync_cache` for them alone.
            full: Read all tables completely instead of the change feed, and rebuild damaged files.
            on_change: If the warehouse would lose a table, a column or a type: 'evolve' drops it,
                'ignore' keeps it, 'freeze' leaves that table unchanged. None raises.
            acknowledge: Accept rows that no longer fit their columns although no change of them was
                recorded; until then they are in the result's `unexplained`, and `verify` fails.
            progress: Called with the table, the rows moved so far, and their total.

        Returns:
            The result of the warehouse's sync.

        Raises:
            SchemaChanged: The warehouse would lose a table, a column or a type, and `on_change` is
                None.
        """
        from aico_lab.etl.sync import sync
        from aico_lab.integrity.guard import SyncGuard

        primary, problems = self.primary, []
        resumed: list[str] = []
        try:
            resumed = [RESUMED for _ in self.privacy.resume()]
        except AicoLabError as error:
            # Raises if nobody knows what was erased: a restored database would publish it.
            self.privacy.unfinished()
            problems.append(f"An erasure is not finished: {error}")
        guard = SyncGuard(self.storage)
        guard.before(full=full)
        # The cache first: the warehouse prunes the feed without waiting for the cache.
        if only is None:
            try:
                self.sync_cache(full=full)
            except DatabaseLocked:
                pass
            except (StorageError, HomeError) as error:
                problems.append(str(error))
        result = sync(
            primary,
            self.home,
            self.storage.keys.duckdb(),
            full=full,
            on_change=on_change,
            acknowledge=acknowledge,
            progress=progress,
            examine=guard.all,
        )
        if result.mode != "nothing":
            guard.after()
        warnings = [*resumed, *result.warnings]
        if only is None:
            try:
                if self._sync_vectors(full=full).rebuilt:
                    warnings = [*warnings, "The vectors were damaged and were rebuilt."]
            except (StorageError, HomeError, EncoderError) as error:
                problems.append(str(error))
        warnings = [*guard.reports(), *warnings]
        return replace(result, warnings=warnings, problems=tuple(problems))

    @private_files()
    def sync_vectors(self, *, full: bool = False, progress: Progress | None = None) -> Projected:
        """Bring only the vectors of segments, memories and documents up to date.

        Damaged and missing vectors, and the store of another program, are made anew. `sync` does
        the same without reading all vectors to find those that another program damaged.

        Args:
            full: Make the whole vector store anew, and accept another model than before.
            progress: Called with "vectors", the number of encoded texts, and their total.

        Raises:
            DatabaseLocked: Another process is writing the vectors.
            OtherModel: The vectors are of another model, and `full` is False.
            StorageError: A database failed.
        """
        from aico_lab.integrity.guard import SyncGuard

        SyncGuard(self.storage).before(full=full)
        return self._sync_vectors(full=full, examine=True, progress=progress)

    def _sync_vectors(
        self, *, full: bool, examine: bool = False, progress: Progress | None = None
    ) -> Projected:
        from aico_lab.projections.vectors import sync_vectors

        def show(done: int, total: int) -> None:
            if progress is not None:
                progress("vectors", done, total)

        return sync_vectors(
            self.primary,
            self.home,
            self.storage.keys,
            full=full,
            examine=examine,
            progress=show,
        )

    @private_files()
    def sync_cache(self, *, full: bool = False) -> Projected:
        """Remove only from the cache what changed or expired; replace a damaged cache.

        Args:
            full: Read every entry, and delete a cache that has another key.

        Raises:
            DatabaseLocked: Another process has the cache open for writing.
            NotADatabase: The cache has another key, and `full` is False.
        """
        from aico_lab.projections.cache import sync_cache

        return sync_cache(self.primary, self.home, self.storage.keys, self.cache.held, full=full)

    def verify(self, *, progress: Callable[[str, int, int | None], None] | None = None) -> Proof:
        """Compare every value of the newest (or pinned) snapshot with the primary database.

        Args:
            progress: Called with the next table, the number of tables compared, and their total.

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
        """Load a table of another program's database into the warehouse, as `"<name>"."<table>"`.

        Columns of strict types (INTEGER, REAL, TEXT, TIMESTAMP and the like) keep their type, and
        rows that do not fit are quarantined. Columns of loose types, such as DECIMAL, DATETIME,
        BOOL, BLOB or none, get the type that all their values fit; otherwise they become text with
        every digit, and a warning says so.

        The first load reads the whole table, later ones read from the watermark on. A row that was
        added late or changed below the watermark minus the lag is not seen until a `full` load.
        Rows with NULL in the watermark column are read every time. Name a key if rows are deleted:
        VACUUM may renumber row ids.

        Args:
            path: A SQLite or libSQL file, which is only read; the environment variable
                AICO_LAB_SOURCE_KEY holds the key of an encrypted file, as text or hexadecimal.
            table: The table or view.
            name: The schema in the warehouse; by default derived from the file's name: `sp_ace`
                from `sp ace.db`, `memory_db` from `memory.db`, `select_db` from `select.db`.
            key: The columns that identify a row; by default the primary key, or else the row id.
            watermark: A column of numbers or times that grows with every row, or 'rowid'.
            lag: How far below the watermark to read again: in seconds for times, also if the column
                holds seconds or milliseconds since 1970; otherwise in the unit of the column.
            deletes: Find rows that were deleted from the table, and remove them.
            full: Read the whole table, and replace all rows loaded before.
            progress: Called with the table, the rows read so far, and their total.

        Raises:
            WrongUse: An argument is invalid or names something that does not exist.
            SourceError: The file does not exist, or its schema cannot be loaded.
            StorageError: The file is damaged, in use, or encrypted with another key.
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
        except NeverSynced:  # a snapshot needs the tables and views of the primary database, too
            self.sync()
            return load()

    def sql(
        self, query: str, parameters: Sequence[object] | Mapping[str, object] | None = None
    ) -> Relation | None:
        """Query the newest snapshot, or the pinned one.

        Args:
            query: SQL in DuckDB's dialect, on the view `conversations`, the tables of `raw` and
                others. It cannot use files, the network or settings, unless the lab was opened with
                `external_access`.
            parameters: Values for `?`, in order, or for `$name`, by name.

        Returns:
            A DuckDB relation, computed when `.pl()`, `.arrow()`, `.df()`, `.fetchall()` or
            `.write(FILE)` is called; these methods raise the same errors. None for a statement
            without a result, such as CREATE TEMP TABLE or VACUUM.

        Raises:
            NeverSynced: There is no snapshot yet.
            InvalidStatement: DuckDB cannot run the query.
            NotPermitted: The query reaches beyond the snapshot.
        """
        self.storage.check_open()
        return self.storage.reader.sql(query, parameters)

    @private_files()
    def search(
        self,
        text: str,
        *,
        mode: Mode = "hybrid",
        source: Source = "conversations",
        user: str | Sequence[str] | None = None,
        channel: str | Sequence[str] | None = None,
        role: str | None = None,
        since: str | date | None = None,
        until: str | date | None = None,
        sentiment: str | None = None,
        k: int = 10,
        decay: float | None = None,
        around: int = 3,
        content: bool = False,
        timezone: str | None = None,
    ) -> Passages:
        """Search all committed conversations, memories and documents.

        Of messages in no segment yet, the newest 5,000 that pass the filters are searched as well;
        `lab.embeddings.update()` makes segments of them.

        Args:
            text: The text to search for; nothing is found for a blank one.
            mode: 'semantic' searches by meaning, 'keyword' by words, 'hybrid' fuses the ranks of
                both.
            source: 'conversations', 'memories', 'knowledge' (documents), or 'all'.
            user: Only passages with a message of these people, or their memories: ids or names.
            channel: Only passages in these channels: ids or names.
            role: Only passages with a message by this side: 'user', 'assistant' or 'system'.
            since: The first day or moment, or a span back from the last message: '30d', '4w'.
            until: The last day, which is included, or a moment.
            sentiment: 'positive', 'neutral' or 'negative'. One message must pass all filters.
            k: The maximum number of passages.
            decay: The age in days at which a score is halved, counted from the newest passage
                found that is not in the future; None for no decay. The 10,000 nearest passages, and
                the 500 with the highest scores by words, are weighted, or 5 `k` if that is more.
            around: The number of messages before, and after, each passage.
            content: Whether a report shows the texts.
            timezone: The IANA time zone of days; by default the lab's.

        Raises:
            InvalidValue: An argument is invalid.
            UnknownName: There is no such person or channel.
            OtherModel: The index has vectors of another model.
        """
        from aico_lab.search.filters import resolve
        from aico_lab.search.searching import search

        filters = resolve(
            self.primary, user=user, channel=channel, role=role, since=since, until=until,
            sentiment=sentiment, timezone=timezone or self.timezone,
        )  # fmt: skip
        return search(
            self.primary, self.memories.index, text, mode=mode, source=source, filters=filters,
            k=k, decay=decay, around=around, content=content,
        )  # fmt: skip

    @cached_property  # IPython does not complete attributes of plain properties
    def metrics(self) -> Metrics:
        """The catalogue of metrics, computed on the newest (or pinned) snapshot.

        ::

            lab.metrics.reply_latency(since="30d", timezone="Europe/Berlin").plot()

        """
        from aico_lab.metrics.engine.memo import Memo
        from aico_lab.metrics.lab_metrics import Metrics

        self.storage.check_open()
        memo = Memo(self.home, self.storage.keys.answers())
        return Metrics(self.storage.reader, timezone=self.timezone, memo=memo)

    @cached_property
    def reports(self) -> Reports:
        """The reports: run notebooks, and list the runs."""
        from aico_lab.reports.lab_reports import Reports

        return Reports(self.storage)

    @cached_property
    def pipelines(self) -> Pipelines:
        """The pipelines: run them, and list the runs."""
        from aico_lab.pipeline.lab_pipelines import Pipelines

        return Pipelines(self)

    @cached_property
    def schedules(self) -> Schedules:
        """The schedules of the pipelines: run what is due, and list the next and last runs."""
        from aico_lab.pipeline.lab_schedules import Schedules

        return Schedules(self)

    @cached_property
    def memories(self) -> Memories:
        """The companion's memories, searched by meaning."""
        from aico_lab.projections.lab_memories import Memories

        return Memories(self.storage, lambda: self.cache.held)

    @cached_property
    def embeddings(self) -> Embeddings:
        """The segments of messages, their themes, and the index that searches them."""
        from aico_lab.embeddings.lab_embeddings import Embeddings

        return Embeddings(self.storage)

    @cached_property
    def knowledge(self) -> Knowledge:
        """People's own documents, for search."""
        from aico_lab.knowledge.lab_knowledge import Knowledge

        return Knowledge(self.storage)

    @cached_property
    def backups(self) -> Backups:
        """The backups: write and check them."""
        from aico_lab.backup.lab_backups import Backups

        return Backups(self.storage)

    @cached_property
    def privacy(self) -> Privacy:
        """The people whose conversations these are: erase, and read the receipts."""
        from aico_lab.privacy.lab_privacy import Privacy

        return Privacy(self.storage, self._release_cache)

    @cached_property
    def personality(self) -> Personality:
        """The companion's personality: its versions, policies, and changes with evidence."""
        from aico_lab.personality.lab_personality import Personality

        return Personality(self.storage)

    @cached_property
    def devices(self) -> Devices:
        """The person's devices: pair them, and exchange changes with them.

        Raises:
            NotFederated: The home is not encrypted.
        """
        from aico_lab.federation.lab_devices import Devices

        return Devices(self.storage, self.privacy.erase_asked)

    @cached_property
    def cache(self) -> Cache:
        """The cache of hot state."""
        from aico_lab.cache.lab_cache import Cache

        return Cache(self.storage)

    def _release_cache(self) -> None:
        self.cache.release()

    def close(self) -> None:
        """Close all files; a second call has no effect."""
        for name, member in vars(Lab).items():
            if isinstance(member, cached_property):
                self.__dict__.pop(name, None)
        self.storage.close()

    adapter = _Moved("storage.adapter")
    open_primary = _Moved("storage.open_primary")
    report_file = _Moved("reports.page")
    report_runs = _Moved("reports.list")
    run_report = _Moved("reports.run")
    vectors = _Moved("memories.index")

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
