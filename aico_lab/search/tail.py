"""Messages that are in no segment yet, as passages, so that a search finds what is committed."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

from aico_lab.search import passages

if TYPE_CHECKING:
    from aico_lab.adapters.libsql import Connection, Row
    from aico_lab.search.filters import Filters

MOST: Final = 5_000
"""The newest messages in no segment that a search compares."""

LENGTH: Final = 12
"""The messages of a passage."""


class TailPassage(NamedTuple):
    """Consecutive messages of a conversation, as rows that `passages.of_messages` reads."""

    rows: tuple[Row, ...]
    text: str


def read(primary: Connection, filters: Filters) -> tuple[list[TailPassage], int]:
    """Return the passages of the newest messages in no segment, one of which passes the filters.

    Returns:
        The passages, and the number of older messages that were left out.
    """
    columns, who = passages.columns()
    condition, parameters = filters.messages()
    later = (
        "FROM messages AS m {} WHERE (m.id > (SELECT segmented_through FROM segmenting_state) "
        "OR m.id IN (SELECT id FROM segmenting_changes)) AND NOT EXISTS "
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
        remaining = iter(conversation)
        while part := list(itertools.islice(remaining, LENGTH)):
            said = [row[5].decode(errors="replace") for row in part]
            text = "\n".join(one for one in said if one.strip())
            if text and any(row[9] for row in part):
                found.append(TailPassage(tuple(row[:9] for row in part), text))
    return found, left_out
