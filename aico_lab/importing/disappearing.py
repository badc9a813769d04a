"""Mark stored messages that a later export of their conversation no longer has on its path.

A marked message stays stored, with `missing_since` in its metadata; metrics leave it out. An import
that has the message again removes the mark.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from array import array
from bisect import bisect_left
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from aico_lab.messages.metadata import MISSING_SINCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.importing.import_log import ImportLog
    from aico_lab.messages.records import MessageRecord

_ROWS: Final = 10_000  # per transaction

_STORED: Final = f"""
    SELECT id, CAST(conversation_id AS BLOB), CAST(message_id AS BLOB), CAST(timestamp AS BLOB)
    FROM messages
    WHERE conversation_id IN (SELECT value FROM json_each(?))
        AND instr(coalesce(metadata, ''), '"{MISSING_SINCE}"') = 0"""

_OFF_PATH: Final = f"""
    SELECT id FROM messages
    WHERE message_id IN (SELECT value FROM json_each(?))
        AND instr(coalesce(metadata, ''), '"{MISSING_SINCE}"') = 0"""

_MARK: Final = f"""
    UPDATE messages SET metadata = json_set(coalesce(metadata, '{{}}'), '$.{MISSING_SINCE}', ?)
    WHERE id IN (SELECT value FROM json_each(?))
        AND iif(json_valid(coalesce(metadata, '{{}}')),
            json_type(coalesce(metadata, '{{}}')) = 'object', 0)"""

_UNMARK: Final = f"""
    UPDATE messages SET metadata = nullif(json_remove(metadata, '$.{MISSING_SINCE}'), '{{}}')
    WHERE message_id IN (SELECT value FROM json_each(?)) AND json_valid(metadata)"""


class Present:
    """The messages of an export by conversation, in 8 bytes each."""

    def __init__(self) -> None:
        self._digests: dict[str, array[int]] = {}
        self._times: dict[str, tuple[str, str]] = {}

    def note(self, messages: Iterable[MessageRecord], stored_ids: Iterable[str]) -> None:
        """Note messages of the export, with the ids under which they are stored."""
        for message, stored_id in zip(messages, stored_ids, strict=True):
            name, time = message.conversation_id, message.timestamp
            self._digests.setdefault(name, array("Q")).append(_digest(stored_id.encode()))
            first, last = self._times.get(name, (time, time))
            self._times[name] = min(first, time), max(last, time)

    def note_unread(self, conversation: str, message_ids: Iterable[str]) -> None:
        """Note messages that the export has in a form that cannot be read."""
        if conversation in self._digests:  # else it is not compared
            digests = (_digest(one.encode()) for one in message_ids)
            self._digests[conversation].extend(digests)

    def mark_others(
        self,
        connection: Connection,
        conversations: Iterable[str],
        *,
        ends_known: bool,
        log: ImportLog,
        dry_run: bool,
    ) -> int:
        """Mark the stored messages of whole conversations that the export does not have.

        Args:
            connection: The primary database, outside a transaction.
            conversations: The conversations that the export has whole.
            ends_known: Whether messages before the first and after the last one of the export are
                missing, too; otherwise the export may be of a part of the time.
            log: The record of the import.
            dry_run: Only count.

        Returns:
            The number of messages that are missing.
        """
        whole = [name for name in conversations if name in self._digests]
        for name in whole:  # sorted, since sets would be ten times larger
            self._digests[name] = array("Q", sorted(self._digests[name]))
        compared = frozenset(whole)
        missing: list[int] = []
        for row_id, conversation, message_id, time in itertools.chain.from_iterable(
            connection.fetch_batches(_STORED, [json.dumps(whole)], size=_ROWS)
        ):
            name = conversation.decode(errors="replace")
            if name not in compared or self._has(name, _digest(message_id)):
                continue
            first, last = self._times[name]
            if ends_known or first <= time.decode(errors="replace") <= last:
                missing.append(row_id)
        if not dry_run:
            _mark(connection, missing, log)
        return len(missing)

    def _has(self, conversation: str, digest: int) -> bool:
        """Return whether the export has a message; the digests of its conversation are sorted."""
        digests = self._digests[conversation]
        place = bisect_left(digests, digest)
        return place < len(digests) and digests[place] == digest


def mark_off_path(
    connection: Connection, message_ids: Iterable[str], *, log: ImportLog, dry_run: bool
) -> int:
    """Mark stored messages that an export has in a branch that their conversation left.

    Args:
        connection: The primary database, outside a transaction.
        message_ids: The messages of all other branches; most of them were never stored.
        log: The record of the import.
        dry_run: Only count.

    Returns:
        The number of messages that were marked.
    """
    rows = connection.fetch_all(_OFF_PATH, [json.dumps(sorted(message_ids))])
    if not dry_run:
        _mark(connection, [row_id for (row_id,) in rows], log)
    return len(rows)


def _mark(connection: Connection, row_ids: Sequence[int], log: ImportLog) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for begin in range(0, len(row_ids), _ROWS):
        some = row_ids[begin : begin + _ROWS]
        with connection.transaction():
            log.changing(some, column="id")
            connection.execute(_MARK, [now, json.dumps(some)])


def unmark(connection: Connection, message_ids: Iterable[str]) -> None:
    """Remove the mark of messages that an export has again."""
    connection.execute(_UNMARK, [json.dumps(sorted(message_ids))])


def _digest(stored_id: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(stored_id, digest_size=8).digest())
