"""Erase from every store, so that a process that is killed at any point leaves what can be resumed.

The rows of the primary database go first, in one transaction with the record of the erasure; what
the other stores are to be searched for is written to the sealed file right before its commit. All
later steps can be repeated. An erasure in the sealed file that the database does not have was lost
with the database, which was replaced by an older one: it is carried out again.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.libsql import NOW
from aico_lab.backup.writing import refuse_rotation
from aico_lab.domain import values
from aico_lab.errors import DatabaseLocked, ErasureIncomplete, UnknownName
from aico_lab.federation.syncing import Federation
from aico_lab.home.receipts import (
    NOTHING_KNOWN,
    KeptErasure,
    SealedErasures,
    erasing_alone,
    new_erasure_id,
    receipt_key,
    signed,
)
from aico_lab.integrity.guard import check_pages, seal_news
from aico_lab.privacy.asked import asked_of, tell_devices
from aico_lab.privacy.deleting import (
    count_keys,
    count_keys_of_people,
    delete,
    forget_keys,
    joined,
)
from aico_lab.privacy.patterns import Patterns
from aico_lab.privacy.scanning import Scan, rows_left, scan, scan_backups, scan_files
from aico_lab.privacy.scope import Scope, found
from aico_lab.privacy.stores import (
    NOTEBOOK,
    clear_outputs,
    erase_cache,
    erase_reports,
    erase_vectors,
    erase_warehouse,
    own_files,
    remove_restored,
)
from aico_lab.results import json_text
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.privacy.deleting import Deleted
    from aico_lab.storage import Storage

STEPS: Final = ("aico.db", "warehouse", "vectors", "cache", "reports", "pages", "search")
"""The steps of an erasure, for progress."""


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """The result of an erasure.

    Attributes:
        erasure_id: Its id; None for a dry run.
        rows: The rows that were deleted from the primary database, or would be, by table.
        stores: What was removed from the other stores, by store.
        found: The number of ids and texts that a search still found, by store: 0 everywhere.
        mentioned: Ids and texts that rows of others have in their own texts, which stay.
        left: A sentence for each place outside of what an erasure reaches.
        receipt: The signed receipt; None for a dry run.
    """

    erasure_id: str | None
    rows: dict[str, int]
    stores: dict[str, dict[str, int]] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    mentioned: int = 0
    left: list[str] = field(default_factory=list)
    receipt: dict[str, Any] | None = None


class Forgetting:
    """Erases from one opened home."""

    def __init__(
        self,
        storage: Storage,
        release_cache: Callable[[], None],
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        """Use a home.

        Args:
            storage: The opened home.
            release_cache: Closes the cache if this process has it open.
            progress: Called with a step, the number of steps done, and their total.
        """
        self._storage = storage
        self._release_cache = release_cache
        self._progress = progress or (lambda _step, _done, _all: None)
        self._kept = SealedErasures(storage.home, storage.keys)
        self._key = receipt_key(storage.home, storage.keys)

    def forget(self, scope: Scope, *, reports: bool = False) -> ErasureResult:
        """Erase a scope, after finishing what an earlier process began.

        Args:
            scope: What to erase.
            reports: Remove also the outputs of notebooks in the home that name it.

        Raises:
            UnknownName: The home has nothing with this id.
            ErasureBusy: Another process is erasing.
            ErasureIncomplete: A search still found something; another call goes on.
            CorruptDatabase: The database is damaged; nothing is erased.
            InvalidValue: A change of the key is unfinished, whose copies have what is erased.
        """
        refuse_rotation(self._storage.home.read_marker())
        primary = self._storage.primary
        with erasing_alone(self._storage.home):
            remove_restored(self._storage.home)
            wanted = scope.hashed(self._key)
            begun = self._unfinished(primary)
            done, incomplete = self._finish_all(begun, reports_of=wanted if reports else None)
            for one, error in incomplete:
                if one.scope == wanted:
                    raise error
            finished = next(
                (one for one in done if one.receipt and one.receipt["scope"] == wanted), None
            )
            try:
                scope.check(primary)
                # What others wrote meanwhile is new: whoever asks now means that, too.
                if finished and not _rehearsed(primary, scope).rows:
                    return finished
            except UnknownName:
                if finished:
                    return finished
                for one in begun:
                    if one.scope == wanted and one.receipt:  # only its record was to be finished
                        return _result(one.receipt)
                raise
            check_pages(self._storage)
            erasure = self._new(primary, scope)
            self._delete(primary, erasure, scope)
            result = self._finish(erasure, reports=reports)
            result.left.extend(
                f"An earlier erasure is not finished: {one}" for _, one in incomplete
            )
            return result

    def _new(self, primary: Connection, scope: Scope) -> KeptErasure:
        """Return a new erasure, with the id that it has on the device that asked for it."""
        wanted, federation = scope.hashed(self._key), Federation.existing(self._storage)
        asked = asked_of(federation.replica, scope) if federation else []
        if not asked:
            return KeptErasure(new_erasure_id(), wanted)
        first = asked[0].erasure_id
        if primary.fetch_one("SELECT 1 FROM erasures WHERE erasure_id = ?", [first]):
            return KeptErasure(new_erasure_id(), wanted, repeats=first)
        return KeptErasure(first, wanted)

    def rehearse(self, scope: Scope) -> ErasureResult:
        """Return the rows that an erasure would delete, and the places it would leave.

        Raises:
            UnknownName: The home has nothing with this id.
            InvalidValue: A change of the key is unfinished.
        """
        refuse_rotation(self._storage.home.read_marker())
        primary = self._storage.primary
        scope.check(primary)
        deleted = _rehearsed(primary, scope)
        patterns = Patterns.of(deleted.wanted())
        left = Scan()
        scan_files(self._storage, patterns, left)
        scan_backups(self._storage, primary, patterns, left)
        return ErasureResult(None, deleted.rows, left=left.left)

    def unfinished(self) -> list[str]:
        """Return the ids of the erasures that another call has to finish or to carry out again."""
        return [one.erasure_id for one in self._unfinished(self._storage.primary)]

    def resume(self) -> list[ErasureResult]:
        """Finish what an earlier process began, and erase again from a restored database.

        What a killed restoration left, which may have what was erased since, is removed.

        Raises:
            ErasureBusy: Another process is erasing.
            ErasureIncomplete: A search still found something; the others are finished.
            InvalidValue: A change of the key is unfinished.
        """
        primary = self._storage.primary
        with contextlib.suppress(DatabaseLocked):  # by who is restoring, and removes it
            remove_restored(self._storage.home)
        if not self._unfinished(primary):
            return []
        refuse_rotation(self._storage.home.read_marker())
        with erasing_alone(self._storage.home):
            done, incomplete = self._finish_all(self._unfinished(primary))
        for _, error in incomplete:
            raise error
        return done

    def _finish_all(
        self, unfinished: list[KeptErasure], reports_of: dict[str, str] | None = None
    ) -> tuple[list[ErasureResult], list[tuple[KeptErasure, ErasureIncomplete]]]:
        """Finish every erasure, even if a search still finds something of another one.

        Args:
            unfinished: The erasures.
            reports_of: The scope of the erasure that also removes outputs of notebooks.
        """
        done: list[ErasureResult] = []
        incomplete: list[tuple[KeptErasure, ErasureIncomplete]] = []
        primary = self._storage.primary
        begun = [self._prepare(primary, one) for one in unfinished]
        for one in filter(None, begun):
            try:
                done.append(self._finish(one, reports=one.scope == reports_of))
            except ErasureIncomplete as error:
                incomplete.append((one, error))
        return done, incomplete

    def erase_again(self) -> None:
        """Delete the rows of erasures that the database does not have; `resume` does the rest.

        What the sealed file lacks of the receipts of the database is added to it.
        """
        primary = self._storage.primary
        receipts: dict[str, str | None] = dict(
            primary.fetch_all("SELECT erasure_id, receipt FROM erasures")
        )
        lost = self._kept.lacking(receipts.values(), self._key)
        if not lost and {one.erasure_id for one in self._kept.read()} <= receipts.keys():
            return
        with erasing_alone(self._storage.home):
            for one in lost:
                self._kept.keep(one)
            for one in self._unfinished(primary):
                if one.erasure_id not in receipts:
                    self._prepare(primary, one)

    def _unfinished(self, primary: Connection) -> list[KeptErasure]:
        finished = {
            erasure_id
            for (erasure_id,) in primary.fetch_all(
                "SELECT erasure_id FROM erasures WHERE finished_at IS NOT NULL"
            )
        }
        kept = self._kept.read()
        # Without its entry in the sealed file, nothing is known of an erasure but its beginning.
        lost = [
            KeptErasure(
                erasure_id,
                json.loads(begun or "{}").get("scope", {"kind": "unknown"}),
                NOTHING_KNOWN,
                repeats=json.loads(begun or "{}").get("repeats"),
            )
            for erasure_id, begun in primary.fetch_all(
                "SELECT erasure_id, receipt FROM erasures WHERE finished_at IS NULL"
            )
            if all(erasure_id != one.erasure_id for one in kept)
        ]
        return [
            *(one for one in kept if one.erasure_id not in finished or one.wanted is not None),
            *lost,
        ]

    def _prepare(self, primary: Connection, erasure: KeptErasure) -> KeptErasure | None:
        """Delete rows that an erasure has not deleted; return what is to be finished then.

        If a finished one is carried out again, that is another erasure, with its own receipt. A
        database that has the receipt of the first one, or of a repetition, only gets the missing
        receipts: its rows were written later.
        """
        row = primary.fetch_one(
            "SELECT finished_at, since_seq, receipt, until_seq FROM erasures WHERE erasure_id = ?",
            [erasure.erasure_id],
        )
        if row is not None and row[0] is not None:  # killed after the last commit
            self._keep_finished(erasure, json.loads(row[2] or "null"))
            return None
        if row is not None and erasure.wanted is not None:
            again, patterns = self._scope_of(erasure), Patterns.of(erasure.wanted)
            people = patterns.of_column("user_id")
            if again is not None and (
                "lost" in erasure.wanted
                or again.kind == "before"  # whatever is that old, also with new ids and texts
                or rows_left(primary, patterns)
                or count_keys_of_people(primary, people, row[3])
            ):
                self._delete(primary, erasure, again, since=row[1])  # as written meanwhile
            return erasure
        is_later = row is None and self._has_receipt(primary, erasure)
        scope = None if is_later else found(primary, erasure.scope, self._key)
        if scope is not None and erasure.receipt is None:
            self._delete(primary, erasure, scope)
            return erasure
        if scope is not None and all(
            one.wanted is None or one.scope != erasure.scope for one in self._kept.read()
        ):
            first = erasure.repeats or erasure.erasure_id
            anew = KeptErasure(new_erasure_id(), erasure.scope, repeats=first, asked=erasure.asked)
            with primary.transaction():
                self._delete(primary, anew, scope)
                self._record_finished(primary, erasure, erasure.receipt)
            return anew
        # This database has nothing of it; other stores may, if it was not finished.
        receipt = erasure.receipt
        if erasure.wanted is None or is_later:
            receipt = receipt or self._of_nothing(erasure)
        with primary.transaction():
            self._record_finished(primary, erasure, receipt)
        if receipt is None:
            return erasure
        self._keep_finished(erasure, receipt)
        return None

    def _has_receipt(self, primary: Connection, erasure: KeptErasure) -> bool:
        """Return whether a database has the receipt of the first erasure, or of a repetition."""
        return (
            primary.fetch_one(
                "SELECT 1 FROM erasures WHERE finished_at IS NOT NULL AND (erasure_id = ?1 "
                "OR iif(json_valid(receipt), receipt ->> '$.repeats', NULL) = ?1)",
                [erasure.repeats or erasure.erasure_id],
            )
            is not None
        )

    def _record_finished(
        self, primary: Connection, erasure: KeptErasure, receipt: dict[str, Any] | None
    ) -> None:
        """Write the receipt of an erasure, or that it began, into a database that lacks it."""
        primary.execute(
            "INSERT OR REPLACE INTO erasures (erasure_id, begun_at, finished_at, since_seq, "
            f"until_seq, receipt) VALUES (?1, coalesce(?2, {NOW}), ?3, ?4, ?4, ?5)",
            [
                erasure.erasure_id,
                receipt and receipt["begun_at"],
                receipt and receipt["finished_at"],
                feed.head(primary).seq,
                json_text(receipt or self._beginning(erasure, {})),
            ],
        )

    def _beginning(
        self, erasure: KeptErasure, rows: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """Return what the database has of an unfinished erasure, if the sealed file is lost.

        Args:
            erasure: The erasure.
            rows: The numbers of rows, which count only with the transaction that deletes them.
        """
        counted = {} if rows is None else {"rows": rows}
        return signed({**_identity(erasure), **counted}, self._key)

    def _counted(self, primary: Connection, erasure: KeptErasure) -> dict[str, int]:
        """Return the numbers of rows that an unfinished erasure has deleted."""
        assert erasure.wanted is not None  # noqa: S101 - else it is finished
        row = primary.fetch_one(
            "SELECT receipt FROM erasures WHERE erasure_id = ?", [erasure.erasure_id]
        )
        begun: dict[str, Any] = json.loads((row and row[0]) or "{}")
        # An earlier version kept them in the sealed file only.
        rows: dict[str, int] = begun.get("rows", erasure.wanted["rows"])
        return rows

    def _of_nothing(self, erasure: KeptErasure) -> dict[str, Any]:
        """Return a receipt which says that a restored database had nothing to erase."""
        now = values.to_timestamp(datetime.now(UTC))
        return signed(
            {
                **_identity(erasure),
                "begun_at": now,
                "finished_at": now,
                "erased": {"aico.db": {}},
                "searched": {"ids": 0, "sentences": 0},
                "found": {},
                "mentioned": 0,
                "left": {},
            },
            self._key,
        )

    def _keep_finished(self, erasure: KeptErasure, receipt: dict[str, Any]) -> None:
        erasure.wanted, erasure.receipt = None, receipt
        self._kept.keep(erasure)

    def _scope_of(self, erasure: KeptErasure) -> Scope | None:
        """Return the scope of an unfinished erasure; None if it is not known."""
        kind = erasure.scope["kind"]
        if kind in ("before", "import"):
            return Scope(kind, erasure.scope["value"])  # type: ignore[arg-type]
        assert erasure.wanted is not None  # noqa: S101 - else it is finished
        ids = erasure.wanted["ids"].get(f"{kind}_id", ())
        scopes = (Scope(kind, one) for one in ids)  # type: ignore[arg-type]
        known = next((one for one in scopes if one.hashed(self._key) == erasure.scope), None)
        return known or found(self._storage.primary, erasure.scope, self._key)

    def _delete(
        self, primary: Connection, erasure: KeptErasure, scope: Scope, *, since: int | None = None
    ) -> None:
        """Delete the rows of an erasure.

        Args:
            primary: The primary database.
            erasure: The erasure.
            scope: What it erases.
            since: The last change before it, if it has deleted rows before.
        """
        self._progress(STEPS[0], 0, len(STEPS))
        primary.fetch_all("PRAGMA secure_delete = ON")
        before = erasure.wanted  # also of a database that was replaced by this one
        if since is None and "lost" in (before or ()):
            before = None
        if since is None and before:  # numbers of another database tell nothing of this one
            before = {**before, "last_id": 0}
        with primary.transaction():
            counted = Counter({} if since is None else self._counted(primary, erasure))
            deleted = delete(primary, scope, Patterns.of(before) if before else None)
            if federation := Federation.existing(self._storage):
                if scope.kind == "import":
                    federation.note_undone(scope.value, deleted.since)
                tell_devices(federation.replica, erasure, scope, deleted)
                federation.note_changes()
            primary.execute(
                "INSERT OR REPLACE INTO erasures "
                "(erasure_id, begun_at, since_seq, until_seq, receipt) "
                f"VALUES (?, {NOW}, ?, ?, ?)",
                [
                    erasure.erasure_id,
                    deleted.since if since is None else since,
                    deleted.until,
                    json_text(self._beginning(erasure, dict(counted + Counter(deleted.rows)))),
                ],
            )
            wanted = deleted.wanted()
            erasure.wanted = joined(before, wanted) if before else wanted
            self._kept.keep(erasure)

    def _finish(self, erasure: KeptErasure, *, reports: bool = False) -> ErasureResult:
        """Erase from all other stores, search them, and write the receipt."""
        storage, home = self._storage, self._storage.home
        primary, keys = storage.primary, storage.keys
        assert erasure.wanted is not None  # noqa: S101 - else it is finished
        patterns = Patterns.of(erasure.wanted)
        ((begun, since, until),) = primary.fetch_all(
            "SELECT begun_at, since_seq, until_seq FROM erasures WHERE erasure_id = ?",
            [erasure.erasure_id],
        )
        steps: dict[str, Callable[[], dict[str, int]]] = {
            "warehouse": lambda: erase_warehouse(primary, home, keys),
            "vectors": lambda: erase_vectors(home, keys),
            "cache": lambda: erase_cache(home, keys, self._release_cache),
            "reports": lambda: erase_reports(primary, home, patterns),
        }
        stores: dict[str, dict[str, int]] = {}
        for number, (name, step) in enumerate(steps.items(), 1):
            self._progress(name, number, len(STEPS))
            if removed := step():
                stores[name] = removed
        # The other devices learn of it with the next exchange.
        if federation := Federation.existing(storage):
            if erasure.scope["kind"] == "import":
                federation.seal_undone(erasure.scope["value"])
            federation.seal()
        if reports:
            stores["notebooks"] = {"cleared": self._clear_notebooks(patterns)}
        self._progress("pages", 5, len(STEPS))
        # Else the seal could name a change whose key goes now.
        seal_news(primary)
        forget_keys(primary, since, until, patterns.of_column("user_id"))
        primary.fetch_all("PRAGMA secure_delete = ON")
        primary.execute("VACUUM")
        seal_news(primary)  # before it reaches the file
        _truncate_log(primary)
        self._progress("search", 6, len(STEPS))
        result = scan(storage, primary, patterns)
        people = patterns.of_column("user_id")
        result.found["aico.db"] += count_keys(primary, since, until)
        result.found["aico.db"] += count_keys_of_people(primary, people)
        if any(result.found.values()):
            where = ", ".join(name for name, count in result.found.items() if count)
            raise ErasureIncomplete(
                f"Something of what was erased is still in {where}, as another program may have "
                "written it meanwhile: end that program, and run the command again."
            )
        receipt = signed(
            {
                **_identity(erasure),
                "begun_at": begun,
                "finished_at": values.to_timestamp(datetime.now(UTC)),
                "erased": {"aico.db": self._counted(primary, erasure), **stores},
                "searched": {"ids": len(patterns.some_ids), "sentences": len(patterns.sentences)},
                "found": result.found,
                "mentioned": result.mentioned,
                "left": result.counts,
                **({"lost": True} if "lost" in erasure.wanted else {}),
            },
            self._key,
        )
        with primary.transaction():
            primary.execute(
                "UPDATE erasures SET finished_at = ?, receipt = ? WHERE erasure_id = ?",
                [receipt["finished_at"], json_text(receipt), erasure.erasure_id],
            )
        self._keep_finished(erasure, receipt)
        self._progress("search", len(STEPS), len(STEPS))
        return _result(receipt, result.left)

    def _clear_notebooks(self, patterns: Patterns) -> int:
        home = self._storage.home
        named = [
            path
            for path in own_files(home)
            if path.suffix == NOTEBOOK
            and path.is_relative_to(home.path / "notebooks")
            and patterns.named_by(path)
        ]
        for path in named:
            clear_outputs(path)
        return len(named)


def _rehearsed(primary: Connection, scope: Scope) -> Deleted:
    """Return what an erasure would delete, and delete nothing."""
    undone = _UndoneError()
    try:
        with primary.transaction():
            deleted = delete(primary, scope)
            raise undone
    except _UndoneError:
        return deleted


def _result(receipt: dict[str, Any], left: Sequence[str] = ()) -> ErasureResult:
    """Return the result of a finished erasure."""
    stores = dict(receipt["erased"])
    return ErasureResult(
        receipt["erasure_id"],
        stores.pop("aico.db"),
        stores,
        receipt["found"],
        receipt["mentioned"],
        list(left),
        receipt,
    )


def _identity(erasure: KeptErasure) -> dict[str, Any]:
    """Return the part of a receipt that is known from the beginning."""
    repeats = {"repeats": erasure.repeats} if erasure.repeats else {}
    return {"erasure_id": erasure.erasure_id, "scope": erasure.scope, **repeats}


def _truncate_log(primary: Connection) -> None:
    """Write the log of the database into its file, and truncate it.

    Raises:
        DatabaseLocked: Another program reads an older state for too long.
    """
    if primary.fetch_all("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]:
        raise DatabaseLocked(
            f"Another program reads an older state of {primary.path.name}: end it, and run the "
            "command again to finish the erasure."
        )


class _UndoneError(Exception):
    """Rolls a rehearsal back."""
