"""Notice pages of an encrypted libSQL file that no program with its key has written.

libSQL's cipher has no authentication, so a changed byte decrypts to other values. Beside the file,
its *seal* therefore keeps a code of every page: keyed BLAKE2b of the page's number and its
decrypted content. Pages reach the file only in a checkpoint, so the connections of this program
make none before they have sealed the pages of the write-ahead log. A page of the log is *suspect*
if the page that it replaces is not the sealed one, since a change of a damaged page vouches for
nothing; and if its commit was not noted: SQLite's checksums have no key, so that anybody can write
a log. A suspect page keeps its former code until a review.

The seal also names the last entry of the change feed, and the last sealed frame of the log; a note
beside the log names the last commit (see `aico_lab.adapters.libsql_log`). A code over all of it
authenticates the seal. Its key is derived from that of the file, so that whoever can write the file
rightly can also seal it.

Whatever these disagree about is decided while no other connection can commit, since a commit, its
note and its seal are three steps. Of the file without its log (F), the feed as a connection reads
it (H), the seal (S) and the note (N), these states are told apart:

- *sealed*: no frame of the log is behind S. N is absent, or not behind S.
- *written*: the log has frames behind S, and holds what N names, if there is one. They may be
  followed by commits of a program that does not seal, or was killed before it wrote its note.
- *foreign*: a page is suspect; or F has a change that S does not name, since another program wrote
  it, or moved the log of a killed one into the file; or N names frames of a log that is gone, and
  pages of F changed. S then keeps that, until a review has decided about all pages that differ.
- *lost*: H ends before S or N, or begins otherwise; or the log lacks what N names, and F has not
  got it. S keeps that, until a person accepts it.

The last transaction of a log may be that of a writer that was killed while it committed; the next
one writes over it. So S names the frames before it, too, and the checksum of the last one.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from aico_lab.adapters.libsql_log import WriteAheadLog
from aico_lab.errors import CorruptDatabase, DatabaseLocked, StorageError
from aico_lab.home.files import os_errors, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.adapters.libsql_log import Frames, Note

ENTRY: Final = 16
"""Bytes of a page's entry: one of flags, 15 of its code."""

FRESH: Final = 1
"""The flag of a page that was sealed since the last sync."""

INTERIOR: Final = 2
"""The flag of a page that leads to other pages of a table or an index."""

SUSPECT: Final = 4
"""The flag of a page whose content nobody vouches for; it keeps its former code."""

REPORTS: Final = 5
"""The maximum number of reviews that wait for being told by a sync."""

_NOTING: Final = 0.25  # seconds between a commit and its note, at most, on a busy machine
_TAG: Final = 32
_BATCH: Final = 256  # pages read at a time: 1 MB
_IMMUTABLE: Final = "?mode=ro&immutable=1"
_NOT_FRESH: Final = bytes(flags & ~FRESH for flags in range(256))

ACCEPT: Final = (
    "restore a backup, or put the right aico.db and aico.db-wal back; if this is the state that "
    "you want, run `aico-lab verify --deep --accept`"
)
"""The end of a sentence about a database that differs from its seal."""

LAST_CHANGE: Final = "SELECT seq FROM sqlite_sequence WHERE name = 'change_log'"
"""SQL for the sequence number of the last change, which deletions in the feed do not lower."""

_DATABASE_ID: Final = "SELECT value FROM system_state WHERE key = 'database_id'"
_ENTRY_AT: Final = "SELECT json_array(table_name, op, at), at FROM change_log WHERE seq = ?"


@dataclass(frozen=True, slots=True)
class FeedHead:
    """The end of the change feed.

    Attributes:
        database_id: The id of the database.
        seq: The sequence number of the last change; 0 if there is none.
        at: The time of that change, in milliseconds since 1970.
        anchor: A keyed hash of that change.
    """

    database_id: str
    seq: int
    at: int
    anchor: str


class SealedFrames(NamedTuple):
    """The frames of the log that are sealed.

    Attributes:
        salts: The salts of the log.
        frames: Their number.
        before: Their number without the last transaction.
        checksum: The checksum of the last one, in hexadecimal digits.
    """

    salts: tuple[int, int]
    frames: int
    before: int
    checksum: str

    @classmethod
    def of(cls, log: Frames) -> SealedFrames:
        """Return those of a log that is sealed as it is."""
        *_, before, frames = 0, 0, *log.ends
        return cls(log.salts, frames, before, log.ends.get(frames, b"").hex())

    def has(self, note: Note) -> bool:
        """Return whether what was noted is sealed."""
        return note.salts == self.salts and (
            note.frames <= self.before or note.checksum.hex() == self.checksum
        )

    def within(self, log: Frames) -> int:
        """Return how many frames of a log are sealed."""
        if log.salts != self.salts:
            return 0
        kept = log.ends_with(self.frames, bytes.fromhex(self.checksum))
        return self.frames if kept else self.before

    def split(self, log: Frames) -> tuple[set[int], set[int]]:
        """Return the pages of sealed frames of a log, and of its frames that are not sealed."""
        known = self.within(log)
        return set(log.pages[:known]), set(log.pages[known:])


@dataclass(frozen=True, slots=True)
class Seal:
    """The content of a seal.

    Attributes:
        head: The end of the change feed.
        schema: A keyed hash of the definitions of all tables, indexes, triggers and views.
        log: The sealed frames of the write-ahead log.
        number: A number that grows whenever frames are sealed.
        deep_at: When the last deep check ended, in seconds since 1970; None if there was none.
        deep_ok: Whether that check found everything sound.
        foreign: How often something was found since the last review that nobody of this program
            vouches for; 0 if nothing.
        lost: What was found missing in a database that is older than its seal; None if nothing.
        entries: The entries of all pages in order, each of `ENTRY` bytes.
        reports: What reviews found that no sync has told yet.
    """

    head: FeedHead
    schema: str
    log: SealedFrames
    number: int
    deep_at: float | None
    deep_ok: bool
    foreign: int
    lost: str | None
    entries: bytes
    reports: tuple[str, ...] = ()

    @property
    def pages(self) -> int:
        """The number of pages."""
        return len(self.entries) // ENTRY

    def code(self, number: int) -> bytes:
        """Return the code of a page; empty if the page is not sealed."""
        return self.entries[(number - 1) * ENTRY + 1 : number * ENTRY]

    def suspected(self, number: int) -> bytes:
        """Return the entry of a page that becomes suspect."""
        former = self.entries[(number - 1) * ENTRY : number * ENTRY] or bytes(ENTRY)
        return bytes([former[0] | FRESH | SUSPECT]) + former[1:]

    @property
    def has_fresh(self) -> bool:
        """Whether pages were sealed since the last sync."""
        flags = self.entries[::ENTRY]
        return flags != flags.translate(_NOT_FRESH)

    def flagged(self, flags: int) -> list[int]:
        """Return the numbers of pages that have one of these flags."""
        return [number for number, has in enumerate(self.entries[::ENTRY], 1) if has & flags]


class PageSeal:
    """The seal of one encrypted file; any number of processes may use it.

    Attributes:
        path: The file of the seal.
        log: The write-ahead log of the sealed file.
    """

    def __init__(self, database: Path, key: str) -> None:
        """Name the seal; nothing is opened.

        Args:
            database: The file.
            key: The key of the file.
        """
        self.path = database.with_name(f"{database.name}.seal")
        self._database = database
        self._key = key
        self._code_key = _derived(key)
        self._was_read: tuple[tuple[int, int, int], Seal] | None = None
        self.log = WriteAheadLog(database, self._code_key)

    @property
    def exists(self) -> bool:
        """Whether the file is sealed."""
        return self.path.exists()

    def read(self) -> Seal:
        """Read the seal.

        Raises:
            CorruptDatabase: It is missing or damaged, or belongs to another key.
        """
        try:
            status = self.path.stat()
            # It is only ever replaced by another file.
            same = (status.st_ino, status.st_mtime_ns, status.st_size)
            if self._was_read is not None and self._was_read[0] == same:
                return self._was_read[1]
            content = self.path.read_bytes()
            body, tag = content[:-_TAG], content[-_TAG:]
            if not hmac.compare_digest(self._tag(body), tag):
                raise ValueError(self.path.name)
        except (OSError, ValueError) as damage:
            raise CorruptDatabase(
                f"{self.path.name}, by which damage of {self._database.name} is noticed, is "
                "missing or damaged: restore it from a backup, or run `aico-lab verify --deep "
                "--accept` if the database is as it should be."
            ) from damage
        header, _, entries = body.partition(b"\n")
        read = json.loads(header)
        salts, *frames = read["log"]
        read["head"], read["log"] = FeedHead(**read["head"]), SealedFrames(tuple(salts), *frames)
        if read.pop("sealed_at", None) is not None:  # before it had a number
            read["number"] = 0
        read["reports"] = tuple(read.get("reports", ()))
        seal = Seal(**read, entries=entries)
        self._was_read = same, seal
        return seal

    def settle(self, through: Connection, *, patience: float = 1.0) -> str | None:
        """Find out what happened since the seal was written, and store it in the seal.

        Args:
            through: A connection that is in no transaction.
            patience: Seconds to wait for a writer; if it writes for longer, nothing is found out.

        Returns:
            What is missing in a database that is older than its seal; None if nothing is.

        Raises:
            CorruptDatabase: The seal is missing or damaged.
        """
        seal = self.read()
        note = self._newer_note(seal)
        if (
            seal.lost is None
            and (note is None or self.log.holds(note))
            and self._lost_changes(seal, note, through) is None
            and not self._is_moved(seal, through)
            and not self._not_noted(seal, self.log.read())
        ):
            return None
        with suppress(DatabaseLocked), self._locked(patience) as own:
            seal = self._settled(own, self.log.holds)
            # At once: when this program commits next, its note covers the whole log.
            if seal.lost is None and self._not_noted(seal, self.log.read(), patience=_NOTING):
                self._seal_log(own, seal)
            return seal.lost
        return None

    def note(self, seq: int) -> None:
        """Note the position of a commit that was just made.

        Args:
            seq: The sequence number of the last change in the feed.
        """
        with suppress(CorruptDatabase):  # which stops whoever opens the file next
            self.log.note(seq, lambda: self.read().number)

    def _not_noted(self, seal: Seal, log: Frames, *, patience: float = 0.0) -> list[int]:
        """Return the pages of frames that are neither sealed nor noted.

        Args:
            seal: The seal.
            log: The log.
            patience: Seconds to wait for a program that has just committed, and notes that next.
        """
        until = time.monotonic() + patience
        while True:
            vouched, note = seal.log.within(log), self._newer_note(seal)
            if (
                note is not None
                and note.salts == log.salts
                and log.ends_with(note.frames, note.checksum)
            ):
                vouched = max(vouched, note.frames)
            if vouched == len(log.pages) or time.monotonic() >= until:
                return log.pages[vouched:]
            time.sleep(_NOTING / 50)

    def look(self, through: Connection) -> tuple[str | None, dict[int, bytes]]:
        """Return what is missing, and the pages that differ, in a home that cannot be written.

        Args:
            through: A connection that is in no transaction.
        """
        seal = self.read()
        note = self._newer_note(seal)
        lost = seal.lost or self._lost_changes(seal, note, through)
        changed = {} if lost else self._differing(through, None)
        changed |= dict.fromkeys(self._not_noted(seal, self.log.read(), patience=_NOTING), b"")
        if note is not None and not (lost or changed or self.log.holds(note)):
            lost = f"what was committed until {_minute(note.at)} is damaged or gone"
        return lost, changed

    def _settled(self, own: Connection, holds: Callable[[Note], bool]) -> Seal:
        """Return the seal with what happened since it was written, while nobody can write.

        Args:
            own: The connection that keeps writers out.
            holds: Returns whether the log has what was noted.
        """
        seal = self.read()
        if seal.lost is not None:
            return seal
        note = self._newer_note(seal)
        lost, is_moved = self._lost_changes(seal, note, own), self._is_moved(seal, own)
        if note is not None and lost is None and not holds(note):
            # Another program may have written the log into the file, which changes its pages.
            is_gone = self.log.read().salts != note.salts
            if is_gone and (is_moved or self._differing(own, None)):
                is_moved = True
                self.log.forget()
            else:
                lost = f"what was committed until {_minute(note.at)} is damaged or gone"
        if lost is not None:
            seal = replace(seal, lost=lost)
        elif is_moved:
            seal = replace(seal, foreign=seal.foreign + 1, head=self._head(own))
        else:
            return seal
        self._write(seal)
        return seal

    def _is_moved(self, seal: Seal, connection: Connection) -> bool:
        """Return whether the file, without its log, has changes that were never sealed."""
        (last,) = connection.fetch_one(LAST_CHANGE) or (0,)
        if last <= seal.head.seq:
            return False
        try:
            with self._connect(_IMMUTABLE) as base:
                (last,) = base.fetch_one(LAST_CHANGE) or (0,)
        except StorageError:  # as while another program moves the log into it
            return True
        return bool(last > seal.head.seq)

    def _lost_changes(self, seal: Seal, note: Note | None, connection: Connection) -> str | None:
        """Return what is missing according to the change feed; None if nothing is."""
        sealed, now = seal.head, self._head(connection)
        if sealed.database_id != now.database_id:
            return "it is another database than the one that was sealed"
        if note is not None and now.seq < note.seq:
            return _gone(note.seq - now.seq, note.at)
        if now.seq < sealed.seq:
            return _gone(sealed.seq - now.seq, sealed.at)
        entry = connection.fetch_one(_ENTRY_AT, [sealed.seq])  # None once it is pruned
        if entry is not None and sealed.anchor not in ("", self._anchor(entry[0])):
            return "its changes are not those that were sealed"
        return None

    @property
    def is_foreign(self) -> bool:
        """Whether something was not reviewed yet that nobody of this program vouches for."""
        return bool(self.read().foreign)

    def has_schema_of(self, connection: Connection) -> bool:
        """Return whether the definitions of all tables are those that were sealed."""
        return self.read().schema == self._schema(connection)

    def _schema(self, connection: Connection) -> str:
        found = connection.fetch_all(
            "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
        )
        return self._anchor(repr(found))

    def _reaches(self, note: Note) -> bool:
        log = self.log.read()
        return log.salts == note.salts and log.ends_with(note.frames, note.checksum)

    def _newer_note(self, seal: Seal) -> Note | None:
        """Return the note of the last commit if that is not sealed yet.

        An older one, which was put back together with an older log, vouches for nothing.
        """
        note = self.log.noted()
        if note is None or seal.log.has(note) or note.sealing < seal.number:
            return None
        return note

    def renew(
        self,
        through: Connection,
        *,
        synced: bool = False,
        deep: bool | None = None,
        patience: float = 1.0,
    ) -> None:
        """Seal the pages of the write-ahead log that are not sealed yet, and make a checkpoint.

        Args:
            through: A connection that is in no transaction; it makes the checkpoint.
            synced: A sync has copied everything that is sealed now.
            deep: The outcome of a deep check that has just ended.
            patience: Seconds to wait for a writer.

        Raises:
            CorruptDatabase: Something is missing in the file.
            DatabaseLocked: Another connection wrote for longer than `patience`.
            StorageError: The file or its seal cannot be read.
        """
        required = synced or deep is not None
        if not required and not self.read().log.split(self.log.read())[1]:
            return
        with self._locked(patience) as own:
            # That the log has each of its frames undamaged is checked by whoever opens it.
            seal = self._settled(own, self._reaches)
            if seal.lost is not None:
                raise older(seal.lost)
            if not required and not seal.log.split(self.log.read())[1]:
                return
            self._seal_log(own, seal, synced=synced, deep=deep)
            # Nobody can commit now, so that no frame is copied into the file that is not sealed.
            through.fetch_all("PRAGMA wal_checkpoint(PASSIVE)")

    def _seal_log(
        self, own: Connection, seal: Seal, *, synced: bool = False, deep: bool | None = None
    ) -> None:
        """Seal the pages of the log that are not suspect, while nobody can write; see `renew`."""
        log = self.log.read()
        sealed, unsealed = seal.log.split(log)
        news = self._entries(own, unsealed)
        former = {*seal.flagged(SUSPECT)}
        suspect = {*self._changed_before(seal, news, sealed)}
        suspect |= news.keys() & self._not_noted(seal, log, patience=_NOTING)
        is_new = bool(suspect - former)
        suspect |= former
        news |= {number: seal.suspected(number) for number in suspect & news.keys()}
        (pages,) = own.fetch_one("PRAGMA page_count") or (0,)
        entries = _updated(seal.entries, news, pages)
        if synced and not suspect:
            entries[::ENTRY] = entries[::ENTRY].translate(_NOT_FRESH)
        seal = replace(
            seal, entries=bytes(entries), log=SealedFrames.of(log), number=seal.number + 1,
            head=self._head(own), foreign=seal.foreign + is_new,
            schema=self._schema(own) if 1 in unsealed - suspect else seal.schema,
        )  # fmt: skip
        if deep is not None:
            seal = replace(seal, deep_at=time.time(), deep_ok=deep and not suspect)
        self._write(seal)
        self.log.forget()  # what was noted is sealed

    def has_news(self) -> bool:
        """Return whether pages were written since the last sync."""
        seal = self.read()
        return seal.has_fresh or bool(seal.log.split(self.log.read())[1])

    def suspect_log(self, through: Connection) -> None:
        """Seal the log if it replaces a page that is not the sealed one, which is then suspect.

        Args:
            through: A connection that is in no transaction.
        """
        seal = self.read()
        sealed, unsealed = seal.log.split(self.log.read())
        if self._changed_before(seal, self._entries(through, unsealed), sealed):
            self.renew(through)  # looks again, while nobody can write

    def make_anew(self, through: Connection) -> None:
        """Seal every page as it is now, whatever it was.

        Args:
            through: A connection that is in no transaction.
        """
        with self._locked(through.busy_timeout) as own:
            log = self.log.read()
            (pages,) = own.fetch_one("PRAGMA page_count") or (0,)
            entries = bytes(_updated(b"", self._entries(own, None), pages))
            number = int(time.time())  # more than any former seal was renewed
            with suppress(CorruptDatabase):
                number = max(number, self.read().number + 1)
            self._write(
                Seal(
                    head=self._head(own),
                    schema=self._schema(own),
                    log=SealedFrames.of(log),
                    number=number,
                    deep_at=None,
                    deep_ok=False,
                    foreign=0,
                    lost=None,
                    entries=entries,
                )
            )
            self.log.forget()
            through.fetch_all("PRAGMA wal_checkpoint(PASSIVE)")

    def accept(
        self, through: Connection, reviewed: Mapping[int, bytes], before: Seal, report: str | None
    ) -> None:
        """Seal pages that were reviewed, unless they have changed since.

        Args:
            through: A connection that is in no transaction.
            reviewed: The entries of the pages, by number, as they were before the review.
            before: The seal, as it was before that.
            report: What the next sync tells of it.
        """
        with self._locked(through.busy_timeout) as own:
            seal = self.read()
            as_before = [number for number in seal.flagged(SUSPECT) if number not in reviewed]
            now = self._entries(own, {*reviewed, *as_before})
            same = {
                number: entry
                for number, entry in now.items()
                if entry[1:] == reviewed.get(number, b"\0" + seal.code(number))[1:]
            }
            (pages,) = own.fetch_one("PRAGMA page_count") or (0,)
            seal = replace(seal, entries=bytes(_updated(seal.entries, same, pages)))
            is_open = (
                seal.foreign != before.foreign
                or len(same) < len([number for number in reviewed if number <= pages])
                or bool(seal.flagged(SUSPECT))
                or self._is_moved(seal, own)
            )
            reports = (*seal.reports, *filter(None, [report]))[-REPORTS:]
            foreign = max(seal.foreign, 1) if is_open else 0
            schema = self._schema(own) if report else seal.schema
            self._write(replace(seal, foreign=foreign, reports=reports, schema=schema))

    def take_reports(self, through: Connection) -> tuple[str, ...]:
        """Return what reviews found since the last call.

        Args:
            through: A connection that is in no transaction.
        """
        if not self.read().reports:
            return ()
        with self._locked(through.busy_timeout):
            seal = self.read()
            self._write(replace(seal, reports=()))
        return seal.reports

    def examine(
        self, through: Connection, numbers: Collection[int] | None = None
    ) -> dict[int, bytes]:
        """Return the entries of pages that are not as they were sealed; empty ones if missing.

        Args:
            through: A connection, possibly in a snapshot.
            numbers: The pages; None means all.

        Raises:
            StorageError: The file or its seal cannot be read.
        """
        if through.in_transaction:
            found = self._differing(through, numbers)
        else:
            with through.snapshot():
                found = self._differing(through, numbers)
        if not found:
            return {}
        # Another process may have sealed pages since the snapshot was taken.
        with self._locked(through.busy_timeout) as own:
            return self._differing(own, found)

    def _differing(
        self, connection: Connection, numbers: Collection[int] | None
    ) -> dict[int, bytes]:
        seal = self.read()
        _, unsealed = seal.log.split(self.log.read())
        (pages,) = connection.fetch_one("PRAGMA page_count") or (0,)
        wanted = range(1, max(pages, seal.pages) + 1) if numbers is None else numbers
        whole = numbers is None
        found = {
            number: entry
            for number, entry in self._entries(connection, None if whole else wanted).items()
            if number not in unsealed and entry[1:] != seal.code(number)
        }
        # The file may have shrunk in a transaction that is not sealed yet; that wrote page 1.
        least = pages if 1 in unsealed else seal.pages
        missing = {number: b"" for number in wanted if pages < number <= least}
        return found | missing

    def _changed_before(
        self, seal: Seal, news: Mapping[int, bytes], sealed: Collection[int]
    ) -> tuple[int, ...]:
        """Return the pages whose content in the file, before the log, is not the sealed one.

        A page with sealed frames in the log is left out: the file may have any earlier state of it.
        """
        numbers = [n for n in news if n <= seal.pages and n not in sealed]
        if not numbers:
            return ()
        before: dict[int, bytes] = {}
        with suppress(StorageError), self._connect(_IMMUTABLE) as base:
            before = self._entries(base, numbers)
        return tuple(
            number
            for number in numbers
            # It is in the file already if another program has made a checkpoint.
            if before.get(number, b"")[1:] not in (seal.code(number), news[number][1:])
        )

    def _entries(self, connection: Connection, numbers: Iterable[int] | None) -> dict[int, bytes]:
        """Return the entries of pages as the connection reads them; missing pages are left out."""
        if numbers is None:
            query, parameters = "SELECT pgno, data FROM sqlite_dbpage", []
        else:
            query = (
                "SELECT pgno, data FROM json_each(?) AS wanted "
                "CROSS JOIN sqlite_dbpage AS page ON page.pgno = wanted.value"
            )
            parameters = [json.dumps(sorted(numbers))]
        return {
            number: self._entry(number, data)
            for batch in connection.fetch_batches(query, parameters, size=_BATCH)
            for number, data in batch
        }

    def _entry(self, number: int, data: bytes) -> bytes:
        kind = data[100 if number == 1 else 0]  # page 1 begins with the header of the file
        flags = FRESH | (INTERIOR if kind in (2, 5) else 0)
        code = hashlib.blake2b(
            data, digest_size=ENTRY - 1, key=self._code_key, salt=number.to_bytes(8, "big")
        )
        return bytes([flags]) + code.digest()

    def _head(self, connection: Connection) -> FeedHead:
        (database_id,) = connection.fetch_one(_DATABASE_ID) or ("",)
        (seq,) = connection.fetch_one(LAST_CHANGE) or (0,)
        entry, at = connection.fetch_one(_ENTRY_AT, [seq]) or ("", 0)
        return FeedHead(database_id, seq, at, self._anchor(entry) if entry else "")

    def _anchor(self, entry: str) -> str:
        return hashlib.blake2b(entry.encode(), digest_size=16, key=self._code_key).hexdigest()

    def _tag(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, digest_size=_TAG, key=self._code_key, person=b"seal").digest()

    def _write(self, seal: Seal) -> None:
        header = asdict(seal)
        del header["entries"]
        body = json.dumps(header).encode() + b"\n" + seal.entries
        with os_errors(self.path.parent):
            for partial in self.path.parent.glob(f".{self.path.name}.*"):  # of a killed process
                partial.unlink(missing_ok=True)
            write_atomically(self.path, body + self._tag(body))

    @contextmanager
    def _locked(self, patience: float) -> Iterator[Connection]:
        """Keep all writers of the file, and other sealing processes, waiting for the block."""
        with self._connect("?mode=rw") as own:
            own.busy_timeout = patience
            with own.transaction():
                yield own

    def _connect(self, how: str) -> Connection:
        from aico_lab.adapters.libsql import BUSY_TIMEOUT, Connection

        uri = f"{self._database.absolute().as_uri()}{how}"
        own = Connection(self._database, self._key, busy_timeout=BUSY_TIMEOUT, uri=uri)
        own.fetch_all("PRAGMA wal_autocheckpoint = 0")
        return own


def _updated(entries: bytes, news: Mapping[int, bytes], pages: int) -> bytearray:
    """Return entries with those of changed pages replaced, for a file of so many pages."""
    size = pages * ENTRY
    changed = bytearray(entries[:size].ljust(size, b"\0"))
    for number, entry in news.items():
        changed[(number - 1) * ENTRY : number * ENTRY] = entry
    return changed


def older(lost: str) -> CorruptDatabase:
    """Return the error for a database that is older than its seal."""
    return CorruptDatabase(f"aico.db is older than its seal ({lost}): {ACCEPT}.")


def _gone(changes: int, at: int) -> str:
    what = "change of a row" if changes == 1 else f"{changes:,} changes of rows"
    return f"the last {what}, committed until {_minute(at)}, {'is' if changes == 1 else 'are'} gone"


def _minute(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at / 1_000))


@functools.lru_cache(maxsize=8)
def _derived(key: str) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    derive = HKDF(SHA256(), length=32, salt=None, info=b"aico-lab/integrity/v1")
    return derive.derive(key.encode())
