"""The records of a home's backups: their recipients, and when each one was checked."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from aico_lab.adapters.age import new_identity, read_recipients
from aico_lab.adapters.libsql import NOW

if TYPE_CHECKING:
    from pathlib import Path

    from aico_lab.adapters.libsql import Connection
    from aico_lab.backup.rebuilding import Rebuilt

Kind = Literal["whole", "changes"]

_RECORDS: Final = "backups"
_RECIPIENTS: Final = "backup_recipients"
_KEPT: Final = 50  # records


@dataclass(frozen=True, slots=True)
class BackupRecord:
    """A backup that was made or checked.

    Attributes:
        path: The file.
        kind: 'whole', or 'changes' since the whole one in the same folder.
        made_at: When it was made: ISO 8601, UTC.
        bytes: The size of the file.
        rows: The number of rows of all tables.
        database_id: The id of the database.
        seq: The number of the last change that it holds.
        checked_at: When it was last opened and compared.
        problem: The sentence about what that found; '' if it was sound.
    """

    path: str
    kind: Kind
    made_at: str
    bytes: int
    rows: int
    database_id: str
    seq: int
    checked_at: str
    problem: str = ""


def record_of(path: Path, found: Rebuilt) -> BackupRecord:
    """Return the record of a backup that was just compared."""
    return BackupRecord(
        path=str(path),
        kind="whole" if found.facts["base"] is None else "changes",
        made_at=found.heading.made_at,
        bytes=path.stat().st_size,
        rows=found.rows,
        database_id=found.facts["database_id"],
        seq=found.facts["seq"],
        checked_at=datetime.now(UTC).isoformat(),
    )


def known_backups(connection: Connection) -> list[BackupRecord]:
    """Return the recorded backups, the oldest first."""
    return [BackupRecord(**one) for one in json.loads(_stored(connection, _RECORDS) or "[]")]


def record(connection: Connection, backup: BackupRecord) -> None:
    """Store a backup that was made or checked, in the place of its former record."""
    with connection.transaction():
        _record(connection, [backup])


def _record(connection: Connection, backups: list[BackupRecord]) -> None:
    known = {(one.path, one.made_at): one for one in [*known_backups(connection), *backups]}
    # An old one that was restored just now is kept.
    kept = sorted(known.values(), key=lambda one: one.checked_at)[-_KEPT:]
    kept.sort(key=lambda one: one.made_at)
    _store(connection, _RECORDS, json.dumps([asdict(one) for one in kept]))


def failed(connection: Connection, path: str, at: str, problem: str) -> None:
    """Record that a backup, if it is known, was found to be damaged."""
    for one in known_backups(connection):
        if one.path == path:
            record(connection, replace(one, checked_at=at, problem=problem))


def recipients(connection: Connection) -> list[str]:
    """Return the age recipients for whom backups are encrypted, besides the home's own key."""
    found: list[str] = json.loads(_stored(connection, _RECIPIENTS) or "[]")
    return found


def add_recipient(connection: Connection, recipient: str) -> str | None:
    """Encrypt further backups for a recipient, too.

    Args:
        connection: The primary database.
        recipient: A recipient of age, or 'new' for one whose identity is made now.

    Returns:
        The new identity, which is stored nowhere; None if the recipient was given.

    Raises:
        InvalidValue: The text is no recipient.
    """
    identity = None
    if recipient == "new":
        identity, recipient = new_identity()
    read_recipients([recipient])
    with connection.transaction():
        known = recipients(connection)
        if recipient not in known:
            _store(connection, _RECIPIENTS, json.dumps([*known, recipient.strip()]))
    return identity


def carry_over(former: Connection, restored: Connection) -> None:
    """Add what a restored database lacks of recipients, records of backups, and keys of studies.

    Nothing in the feed shows them; without them, later backups and exports would be other ones.

    Args:
        former: The database that is replaced.
        restored: The one that takes its place.
    """
    with restored.transaction():
        known = dict.fromkeys([*recipients(restored), *recipients(former)])
        _store(restored, _RECIPIENTS, json.dumps(list(known)))
        _record(restored, known_backups(former))
        for key, value in former.fetch_all(
            "SELECT key, value FROM system_state WHERE key GLOB 'study:*'"
        ):
            _store(restored, key, value)


def _stored(connection: Connection, key: str) -> str | None:
    row = connection.fetch_one("SELECT value FROM system_state WHERE key = ?", [key])
    return None if row is None else str(row[0])


def _store(connection: Connection, key: str, value: str) -> None:
    connection.execute(
        f"INSERT INTO system_state VALUES (?, ?, {NOW}) ON CONFLICT (key) "
        "DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        [key, value],
    )
