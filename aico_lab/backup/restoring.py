"""Restore a backup into a new home, or into the home that it is a backup of."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.age import read_identities
from aico_lab.adapters.libsql import LibSQLAdapter
from aico_lab.backup import records
from aico_lab.backup.container import newest_in, read_heading
from aico_lab.backup.rebuilding import rebuild, remove_database
from aico_lab.backup.writing import FOLDERS, own_identity, refuse_rotation
from aico_lab.config import usual_key_file
from aico_lab.errors import (
    CorruptDatabase,
    DatabaseLocked,
    HomeExists,
    KeyMissing,
    KeyProblem,
    NotADatabase,
    WrongKey,
)
from aico_lab.home.credentials import remove_key_file
from aico_lab.home.files import held, os_errors, private_files, sync_folder, write_atomically
from aico_lab.home.folder import Home
from aico_lab.home.keys import create_keys, open_keys
from aico_lab.home.os_keyring import with_keyring
from aico_lab.home.receipts import SealedErasures, erasing_alone, receipt_key
from aico_lab.home.staged import RESTORED, put_seal_in_place
from aico_lab.integrity.guard import reseal_file
from aico_lab.schema import feed
from aico_lab.schema.backup import PARTIAL, REPLACED, backup_path

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.backup.container import Heading
    from aico_lab.backup.rebuilding import Rebuilt
    from aico_lab.config import Settings
    from aico_lab.home.keys import Keys

_PATIENCE: Final = 5.0  # seconds that a restoration waits for other programs

_NOT_CARRIED: Final = (
    "As the former database could not be read, the home has only the recipients of backups, keys "
    "of studies and list of backups that the backup has: add later recipients again, by "
    "--recipient of `aico-lab backup`."
)
_OURS: Final = (
    "database_id", "backups", "backup_recipients", "study:*", "schedules", "watched:*",
    "name of model *",
)  # fmt: skip
"""The keys in `system_state` that are carried over, or that the use of a home writes."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of restoring a backup.

    Attributes:
        home: The folder of the home.
        made_at: When the backup was made.
        rows: The number of restored rows of all tables.
        files: The restored files, such as notebooks, by their paths in the home.
        differing: The files that the home has with another content, and that stay as they are.
        key_file: The new key file, if the home got a new key.
        replaced: The former database, which is kept; None in a new home.
        warning: A sentence about what the home lost, as its former database was damaged; else ''.
    """

    home: str
    made_at: str
    rows: int
    files: tuple[str, ...]
    differing: tuple[str, ...]
    key_file: str | None
    replaced: str | None
    warning: str = ""


def restore(
    backup: Path,
    settings: Settings,
    *,
    identity_file: Path | None = None,
    consent: bool = False,
    force: bool = False,
) -> Restored:
    """Restore a backup; what is derived from the database is made again by the next sync.

    Args:
        backup: The file, or a folder for the newest one in it; one of changes needs the whole one
            beside it.
        settings: The home, new or existing, and the key file or passphrase that opens the backup.
        identity_file: The identity of a recipient of the backup, if there is no key file or
            passphrase any more; a new home then gets a new key.
        consent: Replace the database of an existing home.
        force: Replace it even if it has changes that the backup lacks, or cannot be read.

    Raises:
        HomeExists: There is a home already, and no consent; or it is another one, or newer.
        WrongKey: The key does not open the backup.
        KeyMissing: There is no key.
        StorageError: The backup is damaged, or another program has the home open.
        DiskFull: There is no room.
    """
    backup = newest_in(backup.expanduser().absolute())
    heading = read_heading(backup)
    home = Home(settings.home)
    opener = _Opener(settings, read_identities(identity_file) if identity_file else None)
    with private_files():
        if home.marker.exists():
            return _replace(home, backup, heading, opener, consent=consent or force, force=force)
        return _create(home, backup, heading, opener)


@dataclass(frozen=True, slots=True)
class _Opener:
    """The credentials that open backups.

    Attributes:
        settings: The key file or passphrase.
        identities: The given identities instead, or None.
    """

    settings: Settings
    identities: list[str] | None

    def keys(self, heading: Heading) -> Keys:
        """Unwrap the key of the home as it was when a backup was made."""
        try:
            return open_keys(heading.marker, with_keyring(self.settings, heading.marker))
        except KeyMissing as missing:
            raise KeyMissing(
                f"{str(missing).rstrip('.')}; or name the identity of the backups by --identity."
            ) from missing

    def __call__(self, heading: Heading) -> list[str]:
        if self.identities is not None:
            return self.identities
        own = own_identity(self.keys(heading))
        if own is None:
            raise WrongKey(
                "This is a backup of a home without a key: name the identity that was printed "
                "when its first backup was made by --identity."
            )
        return [own]


def _create(home: Home, backup: Path, heading: Heading, opener: _Opener) -> Restored:
    """Restore into a new home: as it was, or with a new key if only an identity opens it."""
    openers = opener(heading)  # before anything is made
    with home.being_made():
        if home.abandoned() is not None:  # a restoration that was killed
            home.discard()
        # No home's id, since the key file of an abandoned home is removed by its id.
        home.prepare(f"restored-{secrets.token_hex(8)}")
        files = _Files(home)
        new_file = None
        try:
            if opener.identities is None:
                keys, marker = opener.keys(heading), heading.marker
            else:
                keys, marker, new_file = _new_key(heading, opener.settings)
            done = rebuild(backup, home.primary, keys.libsql(), lambda _: openers, keep=files.keep)
            _complete(home.primary, keys.libsql(), done, backup)
            home.write_marker(marker)
        except BaseException:
            home.discard()
            if new_file is not None:
                remove_key_file(new_file)
            raise
    return _result(home, done, files, key_file=new_file)


def _new_key(heading: Heading, settings: Settings) -> tuple[Keys, dict[str, object], Path | None]:
    """Return a new key, the marker of a home with it, and its key file if that was made."""
    if settings.passphrase:
        return *create_keys(heading.home_id, "passphrase", settings), None
    file = settings.key_file or usual_key_file(heading.home_id)
    is_new = not file.exists()
    return *create_keys(heading.home_id, "key-file", settings), file if is_new else None


def _replace(
    home: Home, backup: Path, heading: Heading, opener: _Opener, *, consent: bool, force: bool
) -> Restored:
    """Replace the database of a home by that of a backup, which gets the home's present key."""
    marker = home.read_marker()
    if marker.get("home_id") != heading.home_id:
        raise HomeExists(
            f"The lab in {home.path} is another one than that of {backup.name}: name a new folder "
            "with --home."
        )
    if not consent:
        raise HomeExists(
            f"There is a lab in {home.path}: add --replace to replace its database, which is "
            "kept in its folder backups, or name a new folder with --home."
        )
    refuse_rotation(marker)
    openers = opener(heading)
    try:
        keys = open_keys(marker, with_keyring(opener.settings, marker))
    except KeyProblem as problem:
        raise type(problem)(
            f"{str(problem).rstrip('.')}; or restore into a new folder with --home."
        ) from problem
    _keep_receipts(home, keys)
    prepared = home.path / RESTORED
    files = _Files(home)
    with alone(home), os_errors(home.path):
        put_seal_in_place(home.path, RESTORED)  # of a restoration that was killed
        remove_database(prepared)
        try:
            done = rebuild(backup, prepared, keys.libsql(), lambda _: openers, keep=files.keep)
            # Whoever opens the new file beside the former seal would take it for an older one.
            carried = _complete(prepared, keys.libsql(), done, backup, former=home.primary)
            former = _exchange(home.primary, prepared, keys.libsql(), done, force=force)
            put_seal_in_place(home.path, RESTORED)
        finally:
            if prepared.exists():
                remove_database(prepared)
    return _result(home, done, files, replaced=former, warning="" if carried else _NOT_CARRIED)


def _keep_receipts(home: Home, keys: Keys) -> None:
    """Add the erasures of the former database to the sealed file, by which they count afterwards.

    Raises:
        CorruptDatabase: That file is damaged.
        ErasureBusy: Another process is erasing.
    """
    receipts: list[str | None] = []
    with contextlib.suppress(CorruptDatabase, NotADatabase), contextlib.ExitStack() as opened:
        if home.primary.exists():
            adapter = LibSQLAdapter(home.primary, keys.libsql(), busy_timeout=_PATIENCE)
            connection = opened.enter_context(adapter.connect())
            if connection.fetch_one("SELECT 1 FROM sqlite_master WHERE name = 'erasures'"):
                receipts = [one for (one,) in connection.fetch_all("SELECT receipt FROM erasures")]
    kept = SealedErasures(home, keys)
    if lost := kept.lacking(receipts, receipt_key(home, keys)):
        with erasing_alone(home):
            for one in lost:
                kept.keep(one)


def _complete(
    restored: Path, key: str | None, done: Rebuilt, backup: Path, former: Path | None = None
) -> bool:
    """Add to a restored database what nothing else would tell it, and seal it.

    The former seal, of later changes, would refuse it.

    Args:
        restored: The restored database.
        key: Its key.
        done: What was restored.
        backup: The backup, which does not know itself.
        former: The database whose place it takes, with the same key.

    Returns:
        Whether the former database could be read.
    """
    carried = False
    with LibSQLAdapter(restored, key, create=False).connect() as connection:
        records.record(connection, records.record_of(backup, done))
        if former is not None and former.exists():
            adapter = LibSQLAdapter(former, key, busy_timeout=_PATIENCE)
            with contextlib.suppress(CorruptDatabase, NotADatabase), adapter.connect() as known:
                records.carry_over(known, connection)
                carried = True
        reseal_file(connection, key, f"the backup of {done.heading.made_at} was restored")
    return carried


def alone(home: Home) -> AbstractContextManager[None]:
    """Exclude other restorations and backups of a home.

    Raises:
        DatabaseLocked: There is one.
    """

    def busy(who: str) -> DatabaseLocked:
        return DatabaseLocked(f"The home is being restored or backed up by {who}: wait for it.")

    return held(home.temporary / "backup.lock", 0, busy)


def _exchange(
    primary: Path, prepared: Path, key: str | None, done: Rebuilt, *, force: bool
) -> Path | None:
    """Put a new file in the place of the database, which is kept; return where.

    At every moment the database is the former or the new one, each as a whole.

    Raises:
        HomeExists: The database has changes that the backup lacks, or cannot be read.
        DatabaseLocked: Another program has the database open.
    """
    if not primary.exists():
        prepared.replace(primary)
        sync_folder(primary.parent)
        return None
    try:
        with LibSQLAdapter(primary, key, busy_timeout=_PATIENCE).connect() as connection:
            _refuse_newer(connection, prepared, done, force=force)  # before the log goes
            _lock_out(connection)
            # Nothing can change any more.
            _refuse_newer(connection, prepared, done, force=force)
            former = backup_path(primary, REPLACED)
            former.parent.mkdir(mode=0o700, exist_ok=True)
            connection.seal = None  # of the file that goes
            # While both names are of the database in use, this one must not look like a backup.
            second_name = former.with_name(f"{former.name}{PARTIAL}")
            os.link(primary, second_name)
            prepared.replace(primary)
            sync_folder(primary.parent)
            connection.execute("ROLLBACK")
        second_name.replace(former)
        sync_folder(former.parent)
    except (CorruptDatabase, NotADatabase) as damage:
        if not force:
            raise HomeExists(
                "The home's database cannot be read, so that nobody knows which of its changes "
                "the backup lacks: add --force to replace it."
            ) from damage
        return _put_aside(primary, prepared)
    return former


def _lock_out(connection: Connection) -> None:
    """Begin a transaction that excludes all other programs, and leaves no log beside the file.

    SQLite leaves WAL mode only if no other connection is open.
    """
    try:
        if connection.fetch_all("PRAGMA journal_mode = DELETE") != [("delete",)]:
            raise DatabaseLocked("in use")
        connection.execute("BEGIN EXCLUSIVE")
    except DatabaseLocked as locked:
        raise DatabaseLocked(
            "Another program has the home open: stop it, and restore the backup again."
        ) from locked


def _refuse_newer(connection: Connection, prepared: Path, done: Rebuilt, *, force: bool) -> None:
    if force:
        return
    if newer := _changes_since(connection, prepared, done):
        raise HomeExists(
            f"The home {newer} that the backup of {done.heading.made_at[:16]} lacks: add "
            "--force to lose them, or name a new folder with --home."
        )


def _changes_since(connection: Connection, prepared: Path, done: Rebuilt) -> str:
    """Return that a database has changes that a backup lacks in words; '' if it has none.

    A home with fewer changes than the backup may have others: it was restored from an older one,
    and went on. The log of the backup tells, unless it was pruned.
    """
    now, then = feed.head(connection), done.facts
    if now.database_id != then["database_id"]:
        return "has another history, with changes"
    if now.seq > then["seq"]:
        return f"has {now.seq - then['seq']:,} changes"
    with connection.open_beside(prepared) as restored:
        if feed.continues(restored, now):
            found = (
                ("undelivered event", len(_events(connection) - _events(restored))),
                ("fact", len(_facts(connection) - _facts(restored))),
            )
            more = [f"{n:,} {noun}{'' if n == 1 else 's'}" for noun, n in found if n]
            return f"has {' and '.join(more)}" if more else ""
        known = restored.fetch_one("SELECT 1 FROM change_log WHERE seq = ?", [now.seq])
    return "has other changes" if known else "may have changes"


def _events(connection: Connection) -> set[tuple[object, ...]]:
    """Return what identifies the events and dead letters of a database, which no feed has."""
    return {
        row
        for table, columns in (
            ("outbox", "'', seq, created_at"), ("dead_letters", "consumer, seq, died_at"),
        )
        if connection.fetch_one("SELECT 1 FROM sqlite_master WHERE name = ?", [table])
        for row in connection.fetch_all(f"SELECT {columns} FROM {table}")
    }  # fmt: skip


def _facts(connection: Connection) -> set[tuple[object, ...]]:
    """Return the companion's facts, which no feed has, without what this package notes."""
    ours = " OR ".join(f"key GLOB '{one}'" for one in _OURS)
    return set(connection.fetch_all(f"SELECT key, value FROM system_state WHERE NOT ({ours})"))


def _put_aside(primary: Path, prepared: Path) -> Path:
    """Exchange a database that cannot be read; its log goes with it."""
    former = primary.with_name(f"{primary.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    os.link(primary, former)
    log = primary.with_name(f"{primary.name}-wal")
    if log.exists():
        log.replace(former.with_name(f"{former.name}-wal"))
    primary.with_name(f"{primary.name}-shm").unlink(missing_ok=True)
    prepared.replace(primary)
    sync_folder(primary.parent)
    return former


class _Files:
    """Writes the files of a backup into a home, where no other file is in their place."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.restored: list[str] = []
        self.differing: list[str] = []

    def keep(self, path: str, content: bytes) -> None:
        """Write a file, unless the home has one.

        Raises:
            CorruptDatabase: The path leads out of the folders of such files.
        """
        parts = PurePosixPath(path).parts
        if len(parts) < 2 or parts[0] not in FOLDERS or {"..", "/"} & set(parts):  # noqa: PLR2004
            raise CorruptDatabase("The backup holds a file that does not belong into a home.")
        target = self._home.path.joinpath(*parts)
        if target.exists():
            if target.is_dir() or target.read_bytes() != content:
                self.differing.append(path)
            return
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(target, content)
        self.restored.append(path)


def _result(
    home: Home,
    done: Rebuilt,
    files: _Files,
    *,
    key_file: Path | None = None,
    replaced: Path | None = None,
    warning: str = "",
) -> Restored:
    return Restored(
        home=str(home.path),
        made_at=done.heading.made_at,
        rows=done.rows,
        files=tuple(files.restored),
        differing=tuple(files.differing),
        key_file=None if key_file is None else str(key_file),
        replaced=None if replaced is None else str(replaced),
        warning=warning,
    )
