"""Read messages in no segment yet as passages, so that a search finds all that is committed."""

from __future__ import annotations

import bisect
import itertools
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from aico_lab.embeddings.segmenting import SegmentParameters
from aico_lab.search import passages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from aico_lab.adapters.libsql import Connection, Row
    from aico_lab.search.filters import SearchFilters

MOST: Final = 5_000
"""The maximum number of messages in no segment that a search compares, the newest ones of passages
that pass the filters."""

LENGTH: Final = 12
"""The maximum number of messages of a passage."""


class TailPassage(NamedTuple):
    """Consecutive messages of a conversation.

    Attributes:
        rows: The messages, as rows for `passages.of_messages`.
        text: The text of all messages.
        passing: The text of the messages that pass the filters.
    """

    rows: tuple[Row, ...]
    text: str
    passing: str


_LATE: Final = """
    FROM (
        SELECT id FROM messages WHERE id > (SELECT segmented_through FROM segmenting_state)
        UNION SELECT id FROM segmenting_changes
    ) AS late
    CROSS JOIN messages AS m ON m.id = late.id {who}
    WHERE NOT EXISTS (SELECT 1 FROM segment_messages AS sm WHERE sm.message_id = m.message_id)"""
_PLACES: Final = """NULL, NULL, NULL, NULL, CAST(m.timestamp AS BLOB), NULL, m.id,
    CAST(m.channel_id AS BLOB), CAST(m.conversation_id AS BLOB)"""
"""The columns of a message that make passages, in the places of `passages.columns`."""


def read(primary: Connection, filters: SearchFilters) -> tuple[list[TailPassage], int]:
    """Return passages of messages in no segment; one message of each passes the filters.

    Returns:
        The passages of the newest messages, and the number of older messages in such passages that
        were left out.
    """
    columns, who = passages.columns()
    condition, parameters = filters.messages()
    late = _LATE.format(who=who)
    rows = primary.fetch_all(
        f"SELECT {columns}, {condition} {late} ORDER BY m.id DESC LIMIT ?", [*parameters, MOST + 1]
    )
    left_out = 0
    if len(rows) > MOST and filters:
        wanted, left_out = _newest(primary, condition, parameters)
        rows = primary.fetch_all(
            f"SELECT {columns}, {condition} {late} AND m.id IN (SELECT value FROM json_each(?))",
            [*parameters, json.dumps(wanted)],
        )
    elif len(rows) > MOST:
        rows.pop()
        left_out = primary.fetch_all(f"SELECT count(*) {_LATE.format(who='')}")[0][0] - MOST
    found = []
    for part in _passing(rows):
        if text := _text(part):
            passing = _text(row for row in part if row[9])
            found.append(TailPassage(tuple(row[:9] for row in part), text, passing))
    return found, left_out


def _newest(
    primary: Connection, condition: str, parameters: Sequence[str]
) -> tuple[list[int], int]:
    """Return the ids of the messages of the newest passages, and the number of all others."""
    places = primary.fetch_all(
        f"SELECT {_PLACES}, {condition} {_LATE.format(who='')}", list(parameters)
    )
    parts = [[row[6] for row in part] for part in _passing(places)]
    parts.sort(key=max, reverse=True)
    ends = list(itertools.accumulate(map(len, parts)))
    count = bisect.bisect_right(ends, MOST)
    return [id_ for part in parts[:count] for id_ in part], sum(map(len, parts[count:]))


def _passing(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yield the rows of each passage that has a message that passes the filters."""
    ordered = sorted(rows, key=lambda row: (row[8], row[4], row[6]))
    for _, conversation in itertools.groupby(ordered, key=lambda row: (row[7], row[8])):
        yield from (part for part in _parts(conversation) if any(row[9] for row in part))


def _text(rows: Iterable[Row]) -> str:
    said = [row[5].decode(errors="replace") for row in rows]
    return "\n".join(one for one in said if one.strip())


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows of a conversation in parts of at most `LENGTH`, which end at pauses."""
    part: list[Row] = []
    before: datetime | None = None
    for row in rows:
        try:
            now = datetime.fromisoformat(row[4].decode())
        except ValueError:  # another program wrote it
            now = before or datetime.min.replace(tzinfo=UTC)
        far = before is not None and (now - before).total_seconds() > SegmentParameters().pause
        if part and (far or len(part) == LENGTH):
            yield part
            part = []
        part.append(row)
        before = now
    if part:
        yield part
