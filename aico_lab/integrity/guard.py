"""Keep the seal of the primary database, and stop a sync before it copies damage."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aico_lab.adapters.libsql import NOW
from aico_lab.adapters.libsql_errors import on_one_line
from aico_lab.adapters.libsql_seal import ACCEPT, FRESH, INTERIOR, PageSeal, older
from aico_lab.errors import CorruptDatabase, DatabaseLocked
from aico_lab.schema.core import CORE

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection
    from aico_lab.adapters.libsql_seal import Seal
    from aico_lab.storage import Storage

SAMPLE: Final = 512
"""Pages that a sync checks beside those that it needs: 2 MB."""

SMALL_SAMPLE: Final = 16
"""Pages that a sync without work checks."""

UNCOMPARED: Final = "nothing to compare with"
"""The beginning of the part of a record about what could not be reviewed."""

TOLD: Final = "a deep check told it, and found no damage"
"""The record that ends the repetition of what could not be compared."""

OUTSIDE: Final = (
    "aico.db was changed outside aico_lab (by another program, a killed one, or on the disk)"
)
"""The beginning of a sentence about pages that a review did not find damaged."""

ADVICE: Final = (
    "If you know the program, do nothing (`DatabaseManager` ends such warnings); else compare "
    "with a backup."
)
"""The end of what a sync tells about such pages."""


def begin(connection: Connection, key: str | None) -> None:
    """Check that a database is not older than its seal; seal it if it was never sealed.

    Args:
        connection: A connection that can write, with the schema up to date.
        key: The key of the file; without one there is no seal.

    Raises:
        CorruptDatabase: The seal is missing or damaged, or changes that were sealed are lost.
    """
    if key is None:
        return
    seal = connection.seal or PageSeal(connection.path, key)
    if not seal.exists:
        if connection.fetch_one("SELECT 1 FROM integrity_log LIMIT 1"):
            seal.read()  # raises, since it is missing
        seal_anew(connection, seal, "the first seal of this home")
    elif lost := seal.settle(connection):
        connection.seal = None  # what is left of the log must not be sealed
        raise older(lost)


def reseal(storage: Storage, reason: str) -> None:
    """Seal the primary database as it is now, whatever was changed in it.

    Only a person's decision justifies it, such as to restore a backup, or a new key: every former
    change becomes the right state.

    Args:
        storage: The databases.
        reason: Why, for the record in the table `integrity_log`.

    Raises:
        CorruptDatabase: The file is unsound, whatever its seal says.
    """
    with storage.open_primary() as connection:
        reseal_file(connection, storage.keys.libsql(), reason)


def reseal_file(connection: Connection, key: str | None, reason: str) -> None:
    """Seal a primary database as it is now; see `reseal`.

    Args:
        connection: A connection that can write.
        key: The key of the file; without one there is no seal.
        reason: Why, for the record in the table `integrity_log`.

    Raises:
        CorruptDatabase: The file is unsound, whatever its seal says.
    """
    if key is None:
        return
    from aico_lab.integrity.review import find_unsoundness  # after the fast imports of a start

    CORE.apply_core_schemas(connection)  # an older file may lack the table of the record
    if unsound := find_unsoundness(connection):
        raise CorruptDatabase(f"aico.db is damaged ({unsound}): restore a backup.")
    seal_anew(connection, PageSeal(connection.path, key), reason)


def seal_news(connection: Connection) -> None:
    """Seal what was committed since the seal was written, also where that is only a few pages.

    Args:
        connection: A connection that can write, and is in no transaction.

    Raises:
        CorruptDatabase: Something is missing in the file.
        DatabaseLocked: Another connection writes for too long.
    """
    if connection.seal is not None:
        connection.seal.renew(connection, patience=connection.busy_timeout)


def seal_anew(connection: Connection, seal: PageSeal, reason: str) -> None:
    """Seal every page of a database as it is now, and record why; see `reseal`."""
    (pages,) = connection.fetch_one("PRAGMA page_count") or (0,)
    _record(connection, "sealed", reason, pages)
    seal.make_anew(connection)
    connection.keep_sealed(seal)


def _record(connection: Connection, event: str, reason: str, pages: int) -> None:
    connection.execute(f"INSERT INTO integrity_log VALUES ({NOW}, ?, ?, ?)", [event, reason, pages])


def last_uncompared(connection: Connection) -> str:
    """Return a clause about the last change outside this package that nothing was compared with.

    It is empty once the database was sealed as a whole, or a deep check has told the change.
    """
    found = connection.fetch_one(
        "SELECT substr(at, 1, 10), reason FROM integrity_log WHERE event = 'reviewed' "
        f"AND instr(reason, '{UNCOMPARED}') AND rowid > "
        "(SELECT coalesce(max(rowid), 0) FROM integrity_log WHERE event = 'sealed' OR reason = ?) "
        "ORDER BY rowid DESC LIMIT 1",
        [TOLD],
    )
    if not found:
        return ""
    return f"; on {found[0]}, it was changed outside aico_lab ({on_one_line(found[1])})"


def end_warning(connection: Connection, pages: int) -> None:
    """Record that a deep check found no damage, and told what nothing could be compared with."""
    if last_uncompared(connection):
        _record(connection, "reviewed", TOLD, pages)


def _raise_if_lost(lost: str | None) -> None:
    if lost is not None:
        raise older(lost)


def check_pages(storage: Storage) -> None:
    """Check every page of the primary database, before something is made of all of them.

    Args:
        storage: The databases.

    Raises:
        CorruptDatabase: A page is not as it was sealed, and no program with the key wrote it.
    """
    SyncGuard(storage).before(full=True)


def examine_unwritable(storage: Storage) -> int:
    """Compare every page of a primary database that cannot be written, and return their number.

    Raises:
        CorruptDatabase: The database is older than its seal, or a page is not as it was sealed.
    """
    seal = PageSeal(storage.primary.path, storage.keys.libsql() or "")
    lost, changed = seal.look(storage.primary)
    _raise_if_lost(lost)
    if changed:
        pages = "1 page is" if len(changed) == 1 else f"{len(changed):,} pages are"
        raise CorruptDatabase(
            f"{pages} not as sealed in aico.db: where the home can be written, `aico-lab verify "
            "--deep` tells damage from what another program wrote."
        )
    return seal.read().pages


class SyncGuard:
    """The checks of one sync."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._seal = storage.primary.seal
        self._has_all = False

    def before(self, *, full: bool) -> None:
        """Check the pages that a sync will read, and a sample of the others.

        Args:
            full: Check every page.

        Raises:
            CorruptDatabase: A page is not as it was sealed, and no program with the key wrote it.
        """
        primary = self._storage.primary
        if self._seal is None:
            self._check_unwritable()
            return
        _raise_if_lost(self._seal.settle(primary))
        with suppress(DatabaseLocked):  # its own connection seals what a writer is writing
            if not self._seal.is_foreign:
                self._seal.suspect_log(primary)
        if full or self._seal.is_foreign:
            with suppress(DatabaseLocked):  # a page that a commit has changed is not reviewed
                self._seal.renew(primary)
            self.all()
            return
        seal, has_news = self._seal.read(), self._seal.has_news()
        needed = {1, *(seal.flagged(FRESH | INTERIOR) if has_news else ())}
        if 2 * len(needed) > seal.pages:  # as before the first sync, which reads all of them
            self.all()
            return
        sample = SAMPLE if has_news else SMALL_SAMPLE
        start = random.randrange(seal.pages)  # noqa: S311 - any page will do
        chosen = {(start + number) % seal.pages + 1 for number in range(min(sample, seal.pages))}
        # The pages that lead to rows, too: if one is damaged, a row seems to be deleted.
        self._examine(chosen | needed)

    def _check_unwritable(self) -> None:
        key = self._storage.keys.libsql()
        seal = PageSeal(self._storage.primary.path, key) if key is not None else None
        if seal is not None and seal.exists:
            _raise_if_lost(seal.look(self._storage.primary)[0])

    def all(self) -> None:
        """Check every page once.

        Raises:
            CorruptDatabase: A page is not as it was sealed, and no program with the key wrote it.
        """
        if self._seal is not None and not self._has_all:
            self._examine(None)
            self._has_all = True

    def after(self) -> None:
        """Seal what the sync has written, and note that everything is copied."""
        if self._seal is not None:
            with suppress(DatabaseLocked):  # then the next sync checks more pages than it needs
                self._seal.renew(self._storage.primary, synced=True)

    def reports(self) -> list[str]:
        """Return what was changed outside this package, and was not told by a sync yet."""
        if self._seal is None:
            return []
        with suppress(DatabaseLocked):  # then the next sync tells it
            return [*self._seal.take_reports(self._storage.primary)]
        return []

    def _examine(self, numbers: set[int] | None) -> None:
        if self._seal is None:
            return
        before = self._seal.read()
        primary = self._storage.primary
        changed = self._seal.examine(primary, numbers)
        if changed and numbers is not None:
            changed = self._seal.examine(primary)  # all of them, for one review
        if changed or (numbers is None and before.foreign):
            accept_if_sound(self._storage, self._seal, changed, before)


def damaged(found: str) -> CorruptDatabase:
    """Return the error for a primary database with a damage that a check found."""
    return CorruptDatabase(f"aico.db was damaged or altered ({found}): {ACCEPT}.")


def accept_if_sound(
    storage: Storage, seal: PageSeal, changed: dict[int, bytes], before: Seal
) -> str | None:
    """Seal pages that another program wrote, or raise if they may be damaged.

    Args:
        storage: The databases.
        seal: The seal of the primary database.
        changed: The entries of the pages.
        before: What the seal was before they were found.

    Returns:
        What was changed; None if nothing was.

    Raises:
        CorruptDatabase: At least one page is damaged, or may be.
    """
    from aico_lab.integrity.review import review

    # Another connection than the sync's own, whose snapshot is open.
    with storage.open_primary() as connection:
        if not changed:
            seal.accept(connection, changed, before, None)
            return None
        found = review(connection, storage.reader, seal, changed)
        if found.damage:
            raise damaged(found.describe())
        said = found.describe()
        seal.accept(connection, changed, before, f"{OUTSIDE}: {said}. {ADVICE}")
        _record(connection, "reviewed", said, len(changed))
        return said
