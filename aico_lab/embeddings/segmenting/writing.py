"""Write segments of messages to the primary database, and update them after edits and deletions.

The messages to read are noted in the table `segmenting_changes`: new ones at the beginning of an
update, changed ones by triggers, which also mark segments as stale. Each batch is written with its
segments in one transaction, so the next update continues one that was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aico_lab.embeddings.segmenting.blocks import MessageChanges, Place, read_blocks
from aico_lab.embeddings.segmenting.boundaries import starts_of_segments, weigh
from aico_lab.embeddings.segmenting.parameters import SEGMENTER, SegmentParameters, from_json
from aico_lab.embeddings.segmenting.summary import most_typical, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aico_lab.adapters.libsql import Connection
    from aico_lab.embeddings.encoders import Encoder
    from aico_lab.embeddings.encoders.base import Vectors
    from aico_lab.embeddings.segmenting.blocks import SegmentedMessage

    Progress = Callable[[str, int, int | None], None]

BATCH: Final = 5_000
"""The number of changed messages in one transaction; others can write between transactions."""

_HOUR: Final = 3600.0
_DIGITS: Final = 6
_COLUMNS: Final = (
    "segment_id", "channel_id", "started_at", "ended_at", "summary", "conversation_id",
    "message_count", "coherence", "activity", "segmenter", "is_stale",
)  # fmt: skip

_NOTE_NEW: Final = """
    INSERT OR IGNORE INTO segmenting_changes
    SELECT id FROM messages WHERE id > (SELECT segmented_through FROM segmenting_state)"""
_MOVE: Final = """
    UPDATE segmenting_state SET segmented_through = max(segmented_through,
        (SELECT coalesce(max(id), 0) FROM messages))"""
_BEHIND: Final = """
    SELECT EXISTS (SELECT 1 FROM segmenting_changes)
        OR EXISTS (SELECT 1 FROM messages WHERE id > (SELECT segmented_through
            FROM segmenting_state))
        OR EXISTS (SELECT 1 FROM conversation_segments WHERE is_stale = 1 AND segmenter = ?)"""
_NOTED: Final = """
    SELECT n.id, CAST(m.channel_id AS BLOB), CAST(m.conversation_id AS BLOB),
        CAST(m.timestamp AS BLOB), typeof(m.channel_id) = 'text'
            AND typeof(m.conversation_id) = 'text' AND c.channel_id IS NOT NULL
    FROM (SELECT id FROM segmenting_changes ORDER BY id LIMIT ?) AS n
    LEFT JOIN messages AS m USING (id) LEFT JOIN channels AS c USING (channel_id)"""
_STALE: Final = """
    SELECT segment_id, channel_id, conversation_id, started_at, ended_at
    FROM conversation_segments WHERE is_stale = 1 AND segmenter IS NOT NULL"""
_HOLDING: Final = """
    SELECT s.segment_id, s.channel_id, s.conversation_id, s.started_at, s.ended_at, s.is_stale
    FROM conversation_segments AS s WHERE s.segmenter IS NOT NULL AND s.segment_id IN (
        SELECT sm.segment_id FROM json_each(?) AS m
        CROSS JOIN segment_messages AS sm WHERE sm.message_id = m.value)"""


@dataclass(frozen=True, slots=True)
class Segmented:
    """The counts of an update of the segments.

    Attributes:
        messages: The number of messages read, because they or messages near them changed.
        written: The number of segments added or changed.
        removed: The number of segments removed.
        segments: The number of segments after the update, without those of other programs.
    """

    messages: int
    written: int
    removed: int
    segments: int


def is_current(connection: Connection) -> bool:
    """Return whether the segments are up to date with the messages."""
    state = connection.fetch_one("SELECT segmenter FROM segmenting_state")
    return state == (SEGMENTER,) and connection.fetch_one(_BEHIND, [SEGMENTER]) == (0,)


def update_segments(
    connection: Connection,
    encoder: Encoder,
    parameters: SegmentParameters | None = None,
    *,
    progress: Progress | None = None,
) -> Segmented:
    """Bring the segments up to date with the messages.

    Afterwards every message with text, unless it is missing from its source, is in exactly one
    segment, and the segments are those that an update of all messages at once would make. Segments
    of other programs stay unchanged.

    Args:
        connection: The primary database, outside a transaction.
        encoder: Makes the vectors by which coherence is measured.
        parameters: Where segments end. If they differ from those of the update before, all segments
            are made again. None means the parameters of the update before, or the default ones.
        progress: Called with "messages", the number of changed messages done, and their total.
    """
    run = _Updating(connection, encoder)
    run.begin(parameters)
    with connection.bulk() if run.left() > BATCH else contextlib.nullcontext():
        while run.batch():
            if progress:
                progress("messages", run.done, run.done + run.left())
    run.remove_empty()
    (segments,) = connection.fetch_one(
        "SELECT count(*) FROM conversation_segments WHERE segmenter IS NOT NULL"
    ) or (0,)
    return Segmented(run.messages, run.written, run.removed, segments)


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment to be written, with its messages."""

    place: Place
    messages: Sequence[SegmentedMessage]
    vectors: Vectors
    weighed: Vectors

    @property
    def segment_id(self) -> str:
        digest = hashlib.sha256(SEGMENTER.encode())
        for message in self.messages:
            digest.update(b"\0" + message.message_id.encode())
        return digest.hexdigest()[:32]

    @property
    def coherence(self) -> float | None:
        """The mean cosine of adjacent messages that have a vector."""
        written = self.vectors[np.einsum("ij,ij->i", self.vectors, self.vectors) > 0]
        if len(written) < 2:  # noqa: PLR2004 - a pair
            return None
        cosines = np.einsum("ij,ij->i", written[1:], written[:-1])
        return round(float(cosines.mean(dtype=np.float64)), _DIGITS)

    @property
    def activity(self) -> float | None:
        """Messages per hour after the first one."""
        hours = (self.messages[-1].seconds - self.messages[0].seconds) / _HOUR
        return round((len(self.messages) - 1) / hours, _DIGITS) if hours > 0 else None

    def row(self, summary: str | None) -> tuple[Any, ...]:
        """Return the values of `_COLUMNS`."""
        return (
            self.segment_id, self.place.channel_id, self.messages[0].timestamp,
            self.messages[-1].timestamp, summary, self.place.conversation_id, len(self.messages),
            self.coherence, self.activity, SEGMENTER, 0,
        )  # fmt: skip


class _Updating:
    """One update."""

    def __init__(self, connection: Connection, encoder: Encoder) -> None:
        self._connection = connection
        self._encoder = encoder
        self._parameters = SegmentParameters()
        self.done = self.messages = self.written = self.removed = 0

    def begin(self, parameters: SegmentParameters | None) -> None:
        """Note the new messages; with other parameters than before, remove all segments first."""
        with self._connection.transaction():
            state = self._connection.fetch_one("SELECT segmenter, parameters FROM segmenting_state")
            segmenter, stored = state or (None, None)
            before = from_json(stored) if segmenter == SEGMENTER else None
            self._parameters = parameters or before or SegmentParameters()
            now = self._parameters.to_json(self._encoder.model)
            if (segmenter, stored) != (SEGMENTER, now):
                self.removed += len(
                    self._connection.fetch_all(
                        "SELECT 1 FROM conversation_segments WHERE segmenter IS NOT NULL"
                    )
                )
                self._connection.execute(  # first, so that triggers note none of the messages
                    "INSERT OR REPLACE INTO segmenting_state VALUES (1, 0, ?, ?)", [SEGMENTER, now]
                )
                self._connection.execute(
                    "DELETE FROM conversation_segments WHERE segmenter IS NOT NULL"
                )
                self._connection.execute("DELETE FROM segmenting_changes")
            self._connection.execute(_NOTE_NEW)
            self._connection.execute(_MOVE)

    def remove_empty(self) -> None:
        """Remove segments whose messages another program took away, if messages were read."""
        if self.messages:
            with self._connection.transaction():
                empty = self._connection.fetch_all(
                    "SELECT segment_id FROM conversation_segments AS s "
                    "WHERE segmenter IS NOT NULL AND NOT EXISTS "
                    "(SELECT 1 FROM segment_messages AS sm WHERE sm.segment_id = s.segment_id)"
                )
                self._connection.execute_many(
                    "DELETE FROM conversation_segments WHERE segment_id = ?", empty
                )
                self.removed += len(empty)

    def left(self) -> int:
        """Return the number of noted messages."""
        (count,) = self._connection.fetch_one("SELECT count(*) FROM segmenting_changes") or (0,)
        return int(count)

    def batch(self) -> bool:
        """Update the segments around some of the changes; return False if there are none."""
        with self._connection.transaction():
            noted, changes = self._noted()
            stale = self._connection.fetch_all(_STALE)
            if not noted and not stale:
                return False
            old = _add_ranges(changes, stale)
            blocks = self._read(changes, old)
            self._write(blocks, old)
            read = [m.row_id for _, block in blocks for m in block]
            self._connection.execute(
                "DELETE FROM segmenting_changes WHERE id IN (SELECT value FROM json_each(?))",
                [json.dumps([*noted, *read])],
            )
            self.messages += len(read)
            self.done += len(set(noted) | set(read))
        return True

    def _noted(self) -> tuple[list[int], dict[Place, MessageChanges]]:
        noted: list[int] = []
        changes: dict[Place, MessageChanges] = {}
        for row_id, channel, conversation, time, sound in self._connection.fetch_all(
            _NOTED, [BATCH]
        ):
            noted.append(row_id)
            if sound:
                place = Place(channel.decode(errors="replace"),
                              conversation.decode(errors="replace"))  # fmt: skip
                at = time.decode(errors="replace")
                changes.setdefault(place, MessageChanges()).ranges.append((at, at))
        return noted, changes

    def _read(
        self, changes: dict[Place, MessageChanges], old: dict[str, bool]
    ) -> list[tuple[Place, list[SegmentedMessage]]]:
        """Return the blocks around changes, and add the segments of their messages to `old`.

        If such a segment is stale, it had messages elsewhere, whose blocks are read as well.
        """
        while True:
            blocks = [
                (place, block)
                for place, of_place in changes.items()
                for block in read_blocks(self._connection, place, of_place, self._parameters.pause)
            ]
            ids = json.dumps([m.message_id for _, block in blocks for m in block])
            holding = self._connection.fetch_all(_HOLDING, [ids])
            more = [row[:5] for row in holding if row[5] and row[0] not in old]
            old.update((row[0], bool(row[5])) for row in holding)
            if not more:
                return blocks
            old |= _add_ranges(changes, more)

    def _write(
        self, blocks: list[tuple[Place, list[SegmentedMessage]]], old: dict[str, bool]
    ) -> None:
        """Write the segments of blocks that differ from the old ones, and remove the others."""
        made = self._segments(blocks)
        new = {row[0]: row for row in self._rows(made)}  # in the order of `made`
        gone = [name for name in old if name not in new]
        self._connection.execute_many(  # a trigger notes their messages
            "DELETE FROM conversation_segments WHERE segment_id = ?", [(name,) for name in gone]
        )
        there = {
            row[0]: row
            for row in self._connection.fetch_all(
                f"SELECT {', '.join(_COLUMNS)} FROM conversation_segments "
                "WHERE segment_id IN (SELECT value FROM json_each(?))",
                [json.dumps(list(new))],
            )
        }
        members = self._members(there)
        wanted = {
            name: [message.message_id for message in one.messages]
            for name, one in zip(new, made, strict=True)
        }
        other = [name for name in new if members.get(name) != wanted[name]]
        self._connection.insert_many(
            "conversation_segments",
            _COLUMNS,
            [row for name, row in new.items() if name not in there],
        )
        self._connection.execute_many(  # another program deleted some of these
            "DELETE FROM segment_messages WHERE segment_id = ?",
            [(name,) for name in other if name in there],
        )
        self._connection.execute_many(
            f"UPDATE conversation_segments SET {', '.join(f'{name} = ?' for name in _COLUMNS)} "
            "WHERE segment_id = ?",
            [
                (*row, name)
                for name, row in new.items()
                if name in there and (there[name] != row or members.get(name) != wanted[name])
            ],
        )
        self._connection.insert_many(
            "segment_messages",
            ("segment_id", "message_id", "position"),
            [
                (name, message_id, position)
                for name in other
                for position, message_id in enumerate(wanted[name])
            ],
        )
        self.removed += len(gone)
        self.written += sum(
            there.get(name) != row or members.get(name) != wanted[name] for name, row in new.items()
        )

    def _members(self, segments: Iterable[str]) -> dict[str, list[str]]:
        """Return the ids of the messages of each of some segments, in order."""
        found: dict[str, list[str]] = {}
        for segment_id, message_id in self._connection.fetch_all(
            "SELECT segment_id, CAST(message_id AS BLOB) FROM segment_messages "
            "WHERE segment_id IN (SELECT value FROM json_each(?)) ORDER BY segment_id, position",
            [json.dumps(list(segments))],
        ):
            found.setdefault(segment_id, []).append(message_id.decode(errors="replace"))
        return found

    def _segments(self, blocks: list[tuple[Place, list[SegmentedMessage]]]) -> list[_Segment]:
        texts = [message.content for _, block in blocks for message in block]
        row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}  # many are equal
        found, usable = self._encoder.encode_usable(list(row_of))
        distinct = np.zeros((len(row_of), self._encoder.dimensions), np.float32)
        distinct[np.array(usable, bool)] = found
        vectors = distinct[[row_of[text] for text in texts]]
        weighed = weigh(vectors, texts)
        made: list[_Segment] = []
        first = 0
        for place, block in blocks:
            last = first + len(block)
            starts = starts_of_segments(weighed[first:last], self._parameters)
            for start, stop in pairwise([*starts, len(block)]):
                rows = slice(first + start, first + stop)
                made.append(_Segment(place, block[start:stop], vectors[rows], weighed[rows]))
            first = last
        return made

    def _rows(self, made: list[_Segment]) -> list[tuple[Any, ...]]:
        centres = [one.weighed.sum(axis=0, dtype=np.float64) for one in made]
        typical = [
            most_typical(one.vectors, centre) for one, centre in zip(made, centres, strict=True)
        ]
        texts = [one.messages[at or 0].content for one, at in zip(made, typical, strict=True)]
        summaries = shorten(texts, centres, self._encoder)
        return [one.row(summary) for one, summary in zip(made, summaries, strict=True)]


def _add_ranges(
    changes: dict[Place, MessageChanges], segments: Iterable[Sequence[Any]]
) -> dict[str, bool]:
    """Add the times of stale segments to the changes, and return their ids."""
    for _, channel, conversation, begin, end in segments:
        changes.setdefault(Place(channel, conversation), MessageChanges()).ranges.append(
            (begin, end)
        )
    return {row[0]: True for row in segments}
