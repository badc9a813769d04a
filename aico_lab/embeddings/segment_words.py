"""Keep the full-text index of segments up to date.

The index has the words of each segment, but no text. It follows the change feed, so that it is
right after changes by any program. It is updated when vectors are, and right before a search. A
changed segment gets a new, higher id, so one number marks the indexed ones; the next update
continues one that was killed. The words of its former id stay in the index, which would have to
know the former text to remove them: whoever reads the index leaves out ids that are not in
`segments_search_ids`. As soon as many are former ones, the index is made anew.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Final

from aico_lab.embeddings import texts
from aico_lab.errors import CorruptDatabase, DatabaseLocked, NotPermitted
from aico_lab.schema import feed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.adapters.libsql import Connection

REMEDY: Final = "run `aico-lab sync --only vectors --full`"
"""The end of a sentence about an index that must be made anew."""

BATCH: Final = 5_000
"""The number of segments in one transaction; others can write between two transactions."""

FORMER: Final = 0.05
"""The index is made anew when more than this share of its segments are former ones."""

_STATE: Final = "SELECT seq, anchor FROM segments_search_state"
_PENDING: Final = (
    "FROM segments_search_ids WHERE id > (SELECT indexed_through FROM segments_search_state)"
)
_SEGMENTS: Final = "SELECT segment_id FROM conversation_segments WHERE typeof(segment_id) = 'text'"
_ADD: Final = """
    INSERT INTO segments_search (rowid, content)
    SELECT i.id, (
        SELECT group_concat(CAST(m.content AS TEXT), char(10)) FROM segment_messages AS sm
        CROSS JOIN messages AS m ON m.message_id = sm.message_id
        WHERE sm.segment_id = i.segment_id
    )
    FROM segments_search_ids AS i
    WHERE i.id > (SELECT indexed_through FROM segments_search_state) AND i.id <= ?"""
_HELD: Final = """
    SELECT count(d.id), coalesce(max(d.id), 0), s.indexed_through, s.former + (
        SELECT count(*) FROM segments_search_ids WHERE id <= s.indexed_through
    )
    FROM segments_search_state AS s LEFT JOIN segments_search_docsize AS d"""
_OTHERS: Final = f"""
    SELECT EXISTS ({_SEGMENTS} EXCEPT SELECT segment_id FROM segments_search_ids)
    OR EXISTS (SELECT segment_id FROM segments_search_ids EXCEPT {_SEGMENTS})"""
# The averages and the structure of an index without words, which FTS5 needs even to empty it.
_OPENABLE: Final = "INSERT OR IGNORE INTO segments_search_data VALUES (1, x''), (10, zeroblob(7))"
_CHANGED: Final = "segment_id IN (SELECT value FROM json_each(?))"


def refresh(primary: Connection, *, full: bool = False) -> None:
    """Bring the index up to date with the segments and their messages.

    If the database is read-only, or another connection writes for longer than `feed.PATIENCE`, the
    rest stays as it is: a search reads what the index lacks.

    Args:
        primary: The primary database.
        full: Make the index anew.

    Raises:
        CorruptDatabase: Another program damaged the index, or the database.
    """
    patience, primary.busy_timeout = primary.busy_timeout, feed.PATIENCE
    try:
        with contextlib.suppress(NotPermitted, DatabaseLocked), naming_the_remedy():
            if full or _cursor(primary) != feed.head(primary):
                with primary.transaction():
                    _follow(primary, full=full)
            while primary.fetch_one(f"SELECT 1 {_PENDING} LIMIT 1"):
                with primary.transaction():
                    _add(primary)
    finally:
        primary.busy_timeout = patience


@contextlib.contextmanager
def naming_the_remedy() -> Iterator[None]:
    """Let an error of a damaged index name what makes it anew."""
    try:
        yield
    except CorruptDatabase as damage:
        raise CorruptDatabase(
            f"The words of segments cannot be read: {REMEDY}. If that does not help: {damage}"
        ) from damage


def is_damaged(primary: Connection) -> bool:
    """Return whether another program changed the index, so that words are not found in segments.

    Words are not read: segments whose ids were exchanged are not noticed.
    """
    with primary.snapshot():
        cursor = _cursor(primary)
        if cursor is None:
            return False  # the next search makes the index anew
        entries, last, through, expected = primary.fetch_all(_HELD)[0]
        is_followed = cursor == feed.head(primary)
        return (
            entries != expected
            or last != through
            or (is_followed and bool(primary.fetch_all(_OTHERS)[0][0]))
        )


def has_former(primary: Connection) -> bool:
    """Return whether the index has words of former segments."""
    return bool(primary.fetch_all("SELECT 1 FROM segments_search_state WHERE former > 0"))


def _add(primary: Connection) -> None:
    """Add the words of some segments that the index lacks."""
    (reached,) = primary.fetch_all(
        f"SELECT max(id) FROM (SELECT id {_PENDING} ORDER BY id LIMIT {BATCH})"
    )[0]
    if reached is not None:  # otherwise another process has added them meanwhile
        primary.execute(_ADD, [reached])
        primary.execute("UPDATE segments_search_state SET indexed_through = ?", [reached])


def read_behind(primary: Connection) -> set[str]:
    """Return the ids of segments whose words the index lacks, or has from before a change."""
    cursor = _cursor(primary)
    if cursor is None or not feed.continues(primary, cursor):
        return texts.read_ids(primary, texts.SEGMENTS)
    pending = primary.fetch_all(f"SELECT CAST(segment_id AS BLOB) {_PENDING}")
    head = feed.head(primary)
    changed = (
        set() if head == cursor else texts.changed(primary, texts.SEGMENTS, cursor.seq, head.seq)
    )
    return changed | {key.decode(errors="replace") for (key,) in pending}


def _cursor(primary: Connection) -> feed.Cursor | None:
    # Another program may have deleted the row.
    seq, anchor = next(iter(primary.fetch_all(_STATE)), (0, None))
    return None if anchor is None else feed.Cursor(feed.head(primary).database_id, seq, anchor)


def _follow(primary: Connection, *, full: bool) -> None:
    """Make new ids for the segments that changed, or for all."""
    cursor, head = _cursor(primary), feed.head(primary)
    if (
        full
        or cursor is None
        or not feed.continues(primary, cursor)
        or not _renew(primary, cursor, head)
    ):
        primary.execute(_OPENABLE)
        primary.execute("INSERT INTO segments_search (segments_search) VALUES ('delete-all')")
        primary.execute("DELETE FROM segments_search_ids")
        primary.execute(f"INSERT INTO segments_search_ids (segment_id) {_SEGMENTS}")
        primary.execute(
            "INSERT OR REPLACE INTO segments_search_state VALUES (1, 0, 0, ?, ?)",
            [head.seq, head.anchor],
        )
    primary.execute("UPDATE segments_search_state SET seq = ?, anchor = ?", [head.seq, head.anchor])


def _renew(primary: Connection, cursor: feed.Cursor, head: feed.Cursor) -> bool:
    """Make new ids for the segments that changed; return False if too many ids are former ones."""
    ids = texts.changed(primary, texts.SEGMENTS, cursor.seq, head.seq)
    if ids:
        changed = json.dumps(sorted(ids))
        primary.execute(
            "UPDATE segments_search_state SET former = former + (SELECT count(*) FROM "
            f"segments_search_ids WHERE id <= indexed_through AND {_CHANGED})",
            [changed],
        )
        primary.execute(f"DELETE FROM segments_search_ids WHERE {_CHANGED}", [changed])
        primary.execute(
            f"INSERT INTO segments_search_ids (segment_id) {_SEGMENTS} AND {_CHANGED}", [changed]
        )
    former = primary.fetch_all("SELECT former FROM segments_search_state")[0][0]
    count = primary.fetch_all("SELECT count(*) FROM segments_search_ids")[0][0]
    return bool(former <= FORMER * (former + count))
