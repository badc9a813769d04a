"""All errors that the package raises for its users.

::

    AicoLabError
    ├── WrongUse                    an invalid request; exit code 2
    │   ├── UnknownName             no source, notebook, parameter, table … has that name
    │   │   └── UnknownAttribute
    │   └── InvalidValue            a value of the wrong type or out of range
    │       └── NameTaken           another trusted device has that name
    ├── ExtensionBroken             a source or metric of an installed package cannot be used
    ├── HomeError                   the folder of the lab
    │   ├── HomeMissing
    │   ├── HomeExists
    │   ├── HomeBusy                another program has it open, or changes its key; transient
    │   └── HomeNotWritable
    ├── KeyProblem                  the key of a home
    │   ├── KeyMissing
    │   ├── KeyFileExposed
    │   ├── KeyringRefused          the operating system's keyring: none, locked, no answer
    │   ├── MarkerAltered           the slots of the key were changed by another program
    │   └── WrongKey
    ├── StorageError                a database; errors of drivers are translated to these
    │   ├── NotADatabase
    │   ├── CorruptDatabase
    │   ├── DatabaseLocked          transient
    │   ├── ConstraintViolated
    │   ├── InvalidStatement
    │   ├── UnstorableValue         refused, since the driver would silently change the value
    │   ├── ConnectionIsClosed
    │   ├── DiskFull
    │   ├── NotPermitted
    │   ├── PoolExhausted           transient
    │   ├── LayerClosed
    │   ├── OperationTimedOut       transient
    │   └── LibraryMissing          the library of an optional part is not installed
    ├── DomainError                 a violated rule of the companion
    │   ├── InvalidEntity           a field of the wrong type or out of range
    │   ├── TextTooLong
    │   ├── UnknownUser
    │   └── DuplicateId
    ├── SchemaError
    │   ├── SchemaTampered          a migration or the live schema differs from what was applied
    │   ├── SchemaTooNew
    │   ├── MigrationFailed
    │   ├── MigrationBusy           transient
    │   ├── DowngradeImpossible
    │   └── StatementForbidden      a plugin's statement reaches beyond its own tables
    ├── SourceError                 a file to import
    │   ├── SourceMissing
    │   ├── SourceUnreadable
    │   ├── WhoIsWho                an export does not say who the companion is
    │   └── LinesRejected           a pipeline stopped at invalid lines
    ├── SyncError                   a projection could not be brought up to date
    │   ├── SyncBusy                transient
    │   ├── SchemaChanged           the warehouse would lose a table, a column or a type
    │   └── NeverSynced
    ├── EncoderError                a model that makes vectors of texts
    │   ├── ModelMissing            it is not on this machine, and nothing is downloaded
    │   ├── ModelUnusable
    │   ├── OtherModel              the stored vectors are of another model
    │   └── NeverExplored           there is no exploration yet, or nothing to explore
    ├── ErasureError                something could not be erased everywhere yet
    │   ├── ErasureBusy             transient
    │   └── ErasureIncomplete       a search still found something; another call goes on; transient
    ├── BusError
    │   ├── InvalidTopic
    │   └── HandlerFailed
    ├── FederationError
    │   ├── NotFederated            the home has no federation, or is not encrypted
    │   ├── DeviceRevoked           the other devices no longer trust this one
    │   ├── FolderUnusable          a shared folder is missing, full, or of other devices
    │   ├── PairingFailed           two devices did not get to know each other
    │   ├── DeviceUnreachable       transient: no device answers in the local network
    │   └── FederationBusy          transient
    ├── ReportError
    │   ├── LeakFound               it would have published a key, or text of a message
    │   ├── NotebookFailed
    │   └── NotebookTimedOut
    ├── ChangeRefused               a change of the personality cannot be made now
    └── PipelineError
        ├── PipelineBusy            it is running already; transient, exit code 75
        ├── PeriodDone              a scheduled run was begun already
        ├── PeriodMissed            no run began in time; for notices, it is never raised
        ├── PipelineChanged         a run cannot be continued with another file
        ├── SchedulerRefused        the operating system does not start a job
        ├── ShellRefused            nobody allowed commands of the shell; exit code 2
        ├── StepFailed
        └── StepTimedOut

The text of an error is one sentence that says what to do next; it never contains a key or the text
of a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class AicoLabError(Exception):
    """Base class of the package's errors."""

    exit_code: ClassVar[int] = 1  # of the command that ends with the error
    transient: ClassVar[bool] = False  # whether a retry may succeed

    __str__ = Exception.__str__  # of an error that is also a KeyError too, which quotes its message


class WrongUse(AicoLabError):
    """The request is invalid."""

    exit_code = 2


class UnknownName(WrongUse, KeyError):
    """No source, notebook, metric, parameter, table or other thing has that name.

    It is a KeyError, so that mappings of such things have a working `get`.
    """


class UnknownAttribute(UnknownName, AttributeError):
    """No attribute has that name. Also an AttributeError, so that `hasattr` works."""


class InvalidValue(WrongUse):
    """A value has the wrong type or is out of range."""


class NameTaken(InvalidValue):
    """Another device of the person has that name."""


class ExtensionBroken(AicoLabError):
    """An extension of an installed package cannot be used.

    Args:
        kind: The kind of extension, such as "metric".
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
    """The folder does not contain a lab."""


class HomeExists(HomeError):
    """The folder contains a lab already."""


class HomeBusy(HomeError):
    """Another program has the home open, or changes its key."""

    transient = True


class HomeNotWritable(HomeError):
    """The folder, or a file in it, cannot be written or read."""


class KeyProblem(AicoLabError):
    """The key of a home is missing, unsafe or wrong."""


class KeyMissing(KeyProblem):
    """No key file or passphrase was found for this home."""


class KeyFileExposed(KeyProblem):
    """Other users of the machine can read the key file."""


class KeyringRefused(KeyProblem):
    """The operating system has no keyring, or it is locked, refuses or does not answer."""


class MarkerAltered(KeyProblem):
    """The slots in `lab.json` were changed by another program."""


class WrongKey(KeyProblem):
    """The key file or passphrase does not open this home."""


class StorageError(AicoLabError):
    """An operation on a database failed."""


class NotADatabase(StorageError):
    """The file is not a database, or this key does not open it."""


class CorruptDatabase(StorageError):
    """The file is damaged."""


class DatabaseLocked(StorageError):
    """Another connection held the database for longer than the busy timeout."""

    transient = True


class ConstraintViolated(StorageError):
    """A UNIQUE, NOT NULL, CHECK or FOREIGN KEY rule of the schema refused a row."""


class InvalidStatement(StorageError):
    """The SQL has invalid syntax, an unknown name, or the wrong number of parameters."""


class UnstorableValue(StorageError):
    """The value is refused, since the driver would silently lose or change it."""


class ConnectionIsClosed(StorageError):
    """The connection is closed."""


class DiskFull(StorageError):
    """The disk that holds the database is full."""


class NotPermitted(StorageError):
    """The operating system, or a read-only connection, does not permit the operation."""


class PoolExhausted(StorageError):
    """No connection became free within the timeout."""

    transient = True


class LayerClosed(StorageError):
    """The data access layer is closed."""


class OperationTimedOut(StorageError):
    """An operation exceeded its timeout, and was rolled back."""

    transient = True


class LibraryMissing(StorageError):
    """The library of an optional part is not installed."""


class DomainError(AicoLabError):
    """A value or operation violates a rule of the companion."""


class InvalidEntity(DomainError):
    """A field has the wrong type or is out of range."""


class TextTooLong(DomainError):
    """A text is longer than allowed."""


class UnknownUser(DomainError):
    """No user has that id."""


class DuplicateId(DomainError):
    """The id is in use already."""


class SchemaError(AicoLabError):
    """The schema of the primary database cannot be used or changed."""


class SchemaTampered(SchemaError):
    """A migration or the live schema differs from what was applied."""


class SchemaTooNew(SchemaError):
    """The database was migrated by a later version of this program."""


class MigrationFailed(SchemaError):
    """A migration failed and was rolled back."""


class MigrationBusy(SchemaError):
    """Another process is migrating this database."""

    transient = True


class DowngradeImpossible(SchemaError):
    """The schema has no earlier version to go back to."""


class StatementForbidden(SchemaError):
    """A statement of a plugin reaches beyond the plugin's own tables."""


class SourceError(AicoLabError):
    """A source of messages cannot be imported."""


class SourceMissing(SourceError):
    """The file, or the package with the data, does not exist."""


class SourceUnreadable(SourceError):
    """The file cannot be read in its format."""


class WhoIsWho(SourceError):
    """The export does not say who the companion is.

    Attributes:
        authors: The names of its authors, those with the most messages first.
    """

    exit_code = 2

    def __init__(self, message: str, authors: list[str]) -> None:
        super().__init__(message)
        self.authors = authors


class LinesRejected(SourceError):
    """A pipeline stopped because lines of its input are invalid; the valid lines were imported."""


class SyncError(AicoLabError):
    """A projection could not be brought up to date."""


class SyncBusy(SyncError):
    """Another process is syncing this home."""

    transient = True


class SchemaChanged(SyncError):
    """A table, a column or a type is gone from the primary database; a person must decide."""


class NeverSynced(SyncError):
    """No snapshot has been published yet, or none by this version of the program."""


class EncoderError(AicoLabError):
    """A model that makes vectors of texts cannot be used."""


class ModelMissing(EncoderError):
    """The model is not on this machine, and nothing is downloaded."""


class ModelUnusable(EncoderError):
    """The files of the model cannot be read, do not fit together, or make no vectors."""


class OtherModel(EncoderError):
    """The stored vectors are of another model, with which the vectors cannot be compared."""


class NeverExplored(EncoderError):
    """There is no exploration of passages yet, or there are no passages."""


class ErasureError(AicoLabError):
    """Something could not be erased everywhere yet."""


class ErasureBusy(ErasureError):
    """Another process is erasing from this home."""

    transient = True


class ErasureIncomplete(ErasureError):
    """A search after an erasure still found something; another call goes on."""

    transient = True


class BusError(AicoLabError):
    """An operation of the message bus failed."""


class InvalidTopic(BusError):
    """A topic, or a pattern of topics, is malformed."""


class HandlerFailed(BusError):
    """A subscriber failed to handle a message in every attempt."""


class FederationError(AicoLabError):
    """The devices of a person could not exchange changes."""


class NotFederated(FederationError):
    """The home has no federation, or cannot have one because it is not encrypted."""


class DeviceRevoked(FederationError):
    """The other devices no longer trust this one."""


class FolderUnusable(FederationError):
    """A shared folder is missing, cannot be read or written, or is that of other devices."""


class PairingFailed(FederationError):
    """Two devices did not get to know each other: no answer, a wrong code, or a refusal."""


class DeviceUnreachable(FederationError):
    """No device answers in the local network, or it does not trust this one."""

    transient = True


class FederationBusy(FederationError):
    """Another process is exchanging changes of this home."""

    transient = True


class ReportError(AicoLabError):
    """A report could not be created.

    Attributes:
        notebook: The partial notebook, if one was kept.
    """

    notebook: Path | None = None


class LeakFound(ReportError):
    """A report or an export holds a key, or text of messages that it must not hold."""


class NotebookFailed(ReportError):
    """A cell of the notebook raised, or its kernel died."""


class NotebookTimedOut(ReportError):
    """The notebook exceeded its timeout."""


class ChangeRefused(AicoLabError):
    """A change of the companion's personality cannot be made now; the profiles are unchanged."""


class PipelineError(AicoLabError):
    """A pipeline could not be run to its end."""


class PipelineBusy(PipelineError):
    """The pipeline is running already on this home."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: the caller may try again later
    transient = True


class PeriodDone(PipelineError):
    """A run was begun already for the time of the schedule."""


class PeriodMissed(PipelineError):
    """No run began in time for the schedule."""


class PipelineChanged(PipelineError):
    """The file of a pipeline is not the one that a run used."""


class SchedulerRefused(PipelineError):
    """The scheduler of the operating system does not start or end a job."""


class ShellRefused(PipelineError):
    """A pipeline has a command of the shell, and the person did not allow any."""

    exit_code = 2


class StepFailed(PipelineError):
    """A step found a fault, its command failed, or its process was lost."""


class StepTimedOut(PipelineError):
    """A step exceeded its timeout and was ended."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return the end of a sentence about an unknown name, with similar names if there are any.

    Args:
        name: The unknown name.
        known: The existing names.
        otherwise: The end of the sentence if no existing name is similar.
    """
    import difflib
    import functools

    folded = {one.casefold(): one for one in known}
    alike = functools.partial(difflib.get_close_matches, name.casefold(), n=2, cutoff=0.75)
    similar = alike(folded) or [one for one in folded if alike(one.split("_"))][:2]
    return (
        f": did you mean {' or '.join(folded[one] for one in similar)}?" if similar else otherwise
    )
