"""Every error that a user of the package can meet.

::

    AicoLabError
    ├── WrongUse                    the request cannot be meant; exit code 2
    │   ├── UnknownName             no source, notebook, parameter, table … of that name
    │   └── InvalidValue            a value of the wrong type or out of range
    ├── HomeError                   the folder of the lab
    │   ├── HomeMissing
    │   ├── HomeExists
    │   └── HomeNotWritable
    ├── KeyProblem                  what opens the home
    │   ├── KeyMissing
    │   ├── KeyFileExposed
    │   └── WrongKey
    ├── StorageError                a database; drivers' errors are translated to these
    │   ├── NotADatabase
    │   ├── CorruptDatabase
    │   ├── DatabaseLocked          transient
    │   ├── ConstraintViolated
    │   ├── InvalidStatement
    │   ├── UnstorableValue         the driver would change the value silently, so it is refused
    │   ├── ConnectionIsClosed
    │   ├── DiskFull
    │   ├── NotPermitted
    │   ├── PoolExhausted           transient
    │   ├── LayerClosed
    │   ├── OperationTimedOut       transient
    │   └── LibraryMissing          an optional part was asked for and is not installed
    ├── DomainError                 what the companion's own rules refuse
    │   ├── InvalidEntity           a field of the wrong type or out of range
    │   ├── TextTooLong
    │   ├── UnknownUser
    │   └── DuplicateId
    ├── SchemaError
    │   ├── SchemaTampered          a migration or the live schema is not what was applied
    │   ├── SchemaTooNew
    │   ├── MigrationFailed
    │   ├── MigrationBusy           transient
    │   ├── DowngradeImpossible
    │   └── StatementForbidden      a plugin's statement reaches beyond its own tables
    ├── SourceError                 a file to import
    │   ├── SourceMissing
    │   ├── SourceUnreadable
    │   └── LinesRejected           the good lines went in
    ├── SyncError                   a projection could not be brought up to date
    │   ├── SyncBusy                transient
    │   ├── SchemaChanged           the warehouse would lose a table, a column or a type
    │   └── NeverSynced
    ├── BusError
    │   ├── InvalidTopic
    │   └── HandlerFailed
    └── ReportError
        ├── NotebookFailed
        └── NotebookTimedOut

The text of an error is one sentence that says what to do next; it never holds a key or a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class AicoLabError(Exception):
    """Anything that went wrong and that we understand."""

    exit_code: ClassVar[int] = 1
    transient: ClassVar[bool] = False  # trying again later may help


class WrongUse(AicoLabError):
    """The request cannot be meant as it stands."""

    exit_code = 2


class UnknownName(WrongUse):
    """There is nothing of that name."""


class InvalidValue(WrongUse):
    """A value has the wrong type or is out of range."""


class ExtensionBroken(AicoLabError):
    """An installed package adds something that cannot be used.

    Args:
        kind: What it adds, such as "metric".
        name: The name of its entry point.
        package: The package.
        reason: Why it cannot be used.
    """

    def __init__(self, kind: str, name: str, package: str, reason: str) -> None:
        super().__init__(
            f"The {kind} {name!r} of the package {package!r} cannot be used ({reason}): "
            "update that package or uninstall it."
        )


class HomeError(AicoLabError):
    """The folder that holds a lab cannot be used."""


class HomeMissing(HomeError):
    """There is no lab in that folder."""


class HomeExists(HomeError):
    """There is a lab in that folder already."""


class HomeNotWritable(HomeError):
    """The folder, or something in it, cannot be written or read."""


class KeyProblem(AicoLabError):
    """The home cannot be unlocked."""


class KeyMissing(KeyProblem):
    """No key file or passphrase was found for this home."""


class KeyFileExposed(KeyProblem):
    """Other users of the machine can read the key file."""


class WrongKey(KeyProblem):
    """The key file or passphrase does not open this home."""


class StorageError(AicoLabError):
    """A database refused."""


class NotADatabase(StorageError):
    """The file is no database, or not one that this key opens."""


class CorruptDatabase(StorageError):
    """The file is damaged."""


class DatabaseLocked(StorageError):
    """Another connection held the database for longer than the busy timeout."""

    transient = True


class ConstraintViolated(StorageError):
    """A UNIQUE, NOT NULL, CHECK or FOREIGN KEY rule of the schema refused a row."""


class InvalidStatement(StorageError):
    """The SQL cannot be run: its syntax, a name in it, or the number of its parameters."""


class UnstorableValue(StorageError):
    """The driver would lose or change this value silently."""


class ConnectionIsClosed(StorageError):
    """The connection was closed before this use."""


class DiskFull(StorageError):
    """There is no room left where the database lies."""


class NotPermitted(StorageError):
    """The operating system, or a read-only connection, does not allow it."""


class PoolExhausted(StorageError):
    """No connection came free within the time allowed."""

    transient = True


class LayerClosed(StorageError):
    """The data access layer was closed before this use."""


class OperationTimedOut(StorageError):
    """An operation took longer than allowed, and was undone."""

    transient = True


class LibraryMissing(StorageError):
    """A part that is optional was asked for, and its library is not installed."""


class DomainError(AicoLabError):
    """The companion's own rules refuse it."""


class InvalidEntity(DomainError):
    """A field has the wrong type or is out of range."""


class TextTooLong(DomainError):
    """A text is longer than can be kept."""


class UnknownUser(DomainError):
    """Nobody has that user id."""


class DuplicateId(DomainError):
    """Something with that id is there already."""


class SchemaError(AicoLabError):
    """The schema of the primary database."""


class SchemaTampered(SchemaError):
    """A migration or the live schema differs from what was applied."""


class SchemaTooNew(SchemaError):
    """The database was migrated by a later version of this program."""


class MigrationFailed(SchemaError):
    """A migration was rolled back."""


class MigrationBusy(SchemaError):
    """Another process is migrating this database."""

    transient = True


class DowngradeImpossible(SchemaError):
    """There is no version to go back to."""


class StatementForbidden(SchemaError):
    """A statement of a plugin reaches beyond the plugin's own tables."""


class SourceError(AicoLabError):
    """A file to import."""


class SourceMissing(SourceError):
    """There is no such file."""


class SourceUnreadable(SourceError):
    """The file cannot be read as what it is said to be."""


class LinesRejected(SourceError):
    """Lines of a pipeline's input could not be taken, and it is not to go on without them."""


class SyncError(AicoLabError):
    """A projection could not be brought up to date."""


class SyncBusy(SyncError):
    """Another process is syncing this home."""

    transient = True


class SchemaChanged(SyncError):
    """The primary database's tables have changed, and the warehouse would lose something."""


class NeverSynced(SyncError):
    """There is no published snapshot yet, or none that this version made."""


class BusError(AicoLabError):
    """The message bus."""


class InvalidTopic(BusError):
    """A topic, or a pattern of topics, is malformed."""


class HandlerFailed(BusError):
    """A subscriber could not handle a message, however often it was tried."""


class ReportError(AicoLabError):
    """A report could not be made."""


class NotebookFailed(ReportError):
    """A cell of the notebook raised."""


class NotebookTimedOut(ReportError):
    """The notebook ran for longer than allowed."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return the end of a sentence about a name that there is not.

    Args:
        name: What was asked for.
        known: The names that there are.
        otherwise: How the sentence ends where none of them is similar.
    """
    import difflib

    folded = {one.casefold(): one for one in known}
    similar = difflib.get_close_matches(name.casefold(), folded, n=2, cutoff=0.75)
    return (
        f": did you mean {' or '.join(folded[one] for one in similar)}?" if similar else otherwise
    )
