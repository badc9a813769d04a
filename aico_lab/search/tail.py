"""Read messages in no segment yet as passages, so that a search finds all that is committed."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from aico_lab.embeddings.segmenting import SegmentParameters
from aico_lab.search import passages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aico_lab.adapters.libsql import Connection, Row
    from aico_lab.search.filters import SearchFilters

MOST: Final = 5_000
"""The maximum number of messages in no segment that a search compares, the newest ones."""

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


def read(primary: Connection, filters: SearchFilters) -> tuple[list[TailPassage], int]:
    """Return passages of messages in no segment; one message of each passes the filters.

    Returns:
        The passages of the newest messages, and the number of older messages that were left out.
    """
    columns, who = passages.columns()
    condition, parameters = filters.messages()
    later = (
        "FROM (SELECT id FROM messages "
        "WHERE id > (SELECT segmented_through FROM segmenting_state) "
        "UNION SELECT id FROM segmenting_changes) AS late "
        "CROSS JOIN messages AS m ON m.id = late.id {} WHERE NOT EXISTS "
        "(SELECT 1 FROM segment_messages AS sm WHERE sm.message_id = m.message_id)"
    )
    rows = primary.fetch_all(
        f"SELECT {columns}, {condition} {later.format(who)} ORDER BY m.id DESC LIMIT ?",
        [*parameters, MOST + 1],
    )
    left_out = 0
    if len(rows) > MOST:
        rows.pop()
        left_out = primary.fetch_all(f"SELECT count(*) {later.format('')}")[0][0] - MOST
    rows.sort(key=lambda row: (row[8], row[4], row[6]))
    found = []
    for _, conversation in itertools.groupby(rows, key=lambda row: (row[7], row[8])):
        for part in _parts(conversation):
            passing = [row for row in part if row[9]]
            if passing and (text := _text(part)):
                rows_ = tuple(row[:9] for row in part)
                found.append(TailPassage(rows_, text, _text(passing)))
    return found, left_out


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
