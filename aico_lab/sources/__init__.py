"""Sources of messages, which all yield the same kind of batches.

A source is a module and a `Source` object that names it: in the list below, or in another package
as an entry point of the group `aico_lab.sources`. A module has `read(path, *, limit)` and
`total(path, limit)`; that of an export has `recognise` and `conversations`, see
`aico_lab.sources.exports`. It is imported on first use, so listing the sources is fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

from aico_lab.errors import InvalidValue, UnknownName, WrongUse, did_you_mean
from aico_lab.extensions import added, loaded
from aico_lab.sources.exports import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint

    from aico_lab.messages.records import Batch
    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.recognition import Recognised
    from aico_lab.sources.objects import batches_of
    from aico_lab.sources.tables.identity import KnownMessages

_MODULES: Final = {
    "Batch": "aico_lab.messages.records",
    "batches_of": "aico_lab.sources.objects",
}

__all__ = ["SOURCES", "Batch", "Source", "batches_of", "read", "recognise"]


def __getattr__(name: str) -> object:  # imported on first use: naming the sources needs neither
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__


class _Reader(Protocol):
    def read(self, path: Path | None, *, limit: int | None) -> Iterator[Batch]: ...
    def total(self, path: Path | None, limit: int | None) -> int | None: ...


@dataclass(frozen=True)
class Source:
    """A kind of input.

    Attributes:
        name: The name of the source on the command line.
        description: A description in one line.
        module: The full name of the module that reads it.
        needs_path: Whether it reads a file that the user names.
        unit: The unit of `total` and of a batch's `progress`.
        export: Whether it is the export of another program, which may be recognised by its
            content and take `Options`.
        how: For an export, how to get one, in at most two lines.
        table: Whether it reads tables, which are recognised and take `Options` too.
    """

    name: str
    description: str
    module: str
    needs_path: bool
    unit: str
    export: bool = False
    how: str = ""
    table: bool = False

    @property
    def on_conflict(self) -> Literal["keep", "replace"]:
        """The default treatment of messages that differ from stored ones.

        An export may hold edited messages; any other source keeps what is stored, except for tables
        without ids, see `on_conflict_in`.
        """
        return "replace" if self.export else "keep"

    def on_conflict_in(
        self, path: Path | str | None, options: Options | None = None
    ) -> Literal["keep", "replace"]:
        """Return the default treatment of messages of a file that differ from stored ones.

        In a table without a column of ids, messages are known by what the file writes, so they
        differ only if other answers give them another time or role.

        Args:
            path: The file.
            options: The answers of the user.

        Raises:
            SourceError: The file of a table cannot be read.
        """
        if not self.table or path is None:
            return self.on_conflict
        from aico_lab.sources.exports.engine.conversation import Options
        from aico_lab.sources.tables.reading import fields_of

        fields = fields_of(cast("Path", _named(path)), options or Options())
        return "keep" if "message_id" in fields else "replace"

    def read(
        self,
        path: Path | str | None = None,
        *,
        limit: int | None = None,
        options: Options | None = None,
        stored: KnownMessages | None = None,
    ) -> Iterator[Batch]:
        """Return an iterator over the messages in batches, in the order of the source.

        Args:
            path: The file; None for a source that needs none.
            limit: The most messages to read.
            options: The user's answers about the export or table.
            stored: For a table, the stored messages, if it may have been imported before.

        Raises:
            WrongUse: The file is missing or superfluous, or the limit is below 1.
            SourceError: The input cannot be read; raised with the first batch.
        """
        self.check(path, limit)
        self.check_options(options)
        if self.export:
            from aico_lab.sources.exports.engine.conversation import Options
            from aico_lab.sources.exports.engine.reading import read

            named = cast("Path", _named(path))
            return read(self.name, self.module, named, limit=limit, options=options or Options())
        if self.table:
            from aico_lab.sources.tables.reading import read as read_table

            named = cast("Path", _named(path))
            return read_table(named, limit=limit, options=options, stored=stored)
        return self._reader().read(_named(path), limit=limit)

    def total(self, path: Path | str | None = None, limit: int | None = None) -> int | None:
        """Return the amount to read, in `unit`, or None if it is not known in advance.

        Raises:
            WrongUse: The file is missing or superfluous, or the limit is below 1.
        """
        self.check(path, limit)
        return None if self.export else self._reader().total(_named(path), limit)

    def check(self, path: Path | str | None, limit: int | None) -> None:
        """Validate the arguments of `read`, except whether the file exists.

        Raises:
            WrongUse: The file is missing or superfluous, or the limit is below 1.
        """
        if self.needs_path and path is None:
            raise WrongUse(f"The source {self.name} reads a file; name it after the source.")
        if not self.needs_path and path is not None:
            raise WrongUse(f"The source {self.name} has its own data; leave the file out.")
        if limit is not None and limit < 1:
            raise InvalidValue("The limit must be at least 1 message.")

    def check_options(self, options: Options | None, *, deletions: bool = False) -> None:
        """Raise WrongUse if answers are given that the source does not take.

        Args:
            options: The answers.
            deletions: Whether stored messages that are missing from the file are to be marked.
        """
        if self.export and options is not None and (options.columns or options.role_map):
            raise WrongUse(
                f"The format {self.name} has columns and roles of its own: leave --map and "
                "--role-map out, or read the file as a table with --as table."
            )
        if self.export:
            return
        if deletions:
            raise WrongUse(
                f"The source {self.name} holds no whole conversations: only exports of other "
                "programs take deletions."
            )
        if not self.table and options is not None and options != type(options)():
            raise WrongUse(
                f"The source {self.name} takes no zone, companion, start or other answers about an "
                "export: leave these options out, or name the file alone if it is a table."
            )

    def _reader(self) -> _Reader:
        return cast("_Reader", import_module(self.module))


_OURS: Final = (
    Source(
        name="chitchat",
        description="7,168 real conversations between people (2018); needs no file",
        module="aico_lab.sources.chitchat",
        needs_path=False,
        unit="messages",
    ),
    Source(
        name="csv",
        description="a CSV file whose header names content and timestamp",
        module="aico_lab.sources.csv_file",
        needs_path=True,
        unit="bytes",
    ),
    Source(
        name="jsonl",
        description="one JSON object per line, with content and timestamp",
        module="aico_lab.sources.jsonl",
        needs_path=True,
        unit="bytes",
    ),
    Source(
        name="table",
        description="a table with any columns: CSV, TSV, JSON, JSON Lines or Parquet",
        module="aico_lab.sources.tables.reading",
        needs_path=True,
        unit="bytes",
        how="""Any program that saves messages as a table, also a spreadsheet (save as CSV).
Columns, roles and dates that are not recognised are named with --map and --role-map.""",
        table=True,
    ),
    *(
        Source(
            name=name,
            description=description,
            module=f"aico_lab.sources.exports.{name}",
            needs_path=True,
            unit="messages",
            export=True,
            how=how,
        )
        for name, (description, how) in FORMATS.items()
    ),
)


class Sources(Mapping[str, Source]):
    """Sources by name: those of this package, and those that installed packages add."""

    def __getitem__(self, name: str) -> Source:
        """Return a source.

        Raises:
            UnknownName: No source has that name.
            ExtensionBroken: The package that adds the source does not provide a valid one.
        """
        for source in _OURS:
            if source.name == name:
                return source
        if name not in _added():
            known = did_you_mean(name, self, f"; choose one of {', '.join(self)}.")
            raise UnknownName(f"There is no source {name!r}{known}")
        return loaded(_added()[name], "source", Source)

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def __iter__(self) -> Iterator[str]:
        return iter([*(source.name for source in _OURS), *_added()])

    def __len__(self) -> int:
        return len(list(iter(self)))


SOURCES: Final = Sources()


def _added() -> dict[str, EntryPoint]:
    return added("aico_lab.sources", (source.name for source in _OURS))


def _named(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path).expanduser()


def read(
    name: str,
    path: Path | str | None = None,
    *,
    limit: int | None = None,
    options: Options | None = None,
) -> Iterator[Batch]:
    """Read the messages of a source by its name; see `Source.read`."""
    return SOURCES[name].read(path, limit=limit, options=options)


def recognise(path: Path | str, options: Options | None = None) -> Recognised:
    """Return the format of an export or a table, by its content.

    Args:
        path: The file, folder or archive.
        options: Answers that name columns or roles, which only tables have.

    Raises:
        SourceMissing: The path does not exist.
        SourceUnreadable: No format or more than one fits, or the file cannot be read.
    """
    from aico_lab.sources.exports.engine.recognition import Recognised
    from aico_lab.sources.exports.engine.recognition import recognise as recognise_by

    if options is not None and (options.columns or options.role_map):
        from aico_lab.sources.tables.reading import described

        return Recognised("table", described(Path(path).expanduser(), options))
    exports = {
        name: source.module for name, source in SOURCES.items() if source.export or source.table
    }
    return recognise_by(Path(path).expanduser(), exports)
