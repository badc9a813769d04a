"""The change feed as messages: `data.<table>.<op>` for every change of a tracked table.

Changes are moved from the log to the outbox, in order, and delivered from there like every other
event. The outbox and the cursor are in one database and are written in one transaction, so each
change is moved exactly once. The cursor is the position acknowledged to the feed.

A message names the changed row and never contains its values. If changes are missing from the log,
`data.resync` names every tracked table instead, and consumers rebuild what they derived from them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aico_lab.adapters.sql_text import folded
from aico_lab.bus.topics import matches
from aico_lab.repositories import outbox
from aico_lab.schema import feed, feed_keys

if TYPE_CHECKING:
    from aico_lab.dal import DataAccessLayer

CONSUMER = "bus"
RESYNC = "data.resync"
BATCH = 1000  # changes that are moved in one transaction

_STATE = """
    SELECT
        coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'change_log'), 0) AS head,
        (SELECT min(seq) FROM change_log) AS oldest,
        (SELECT acknowledged FROM feed_consumers WHERE consumer = ?) AS moved
"""


async def move_changes(dal: DataAccessLayer) -> int:
    """Move at most `BATCH` changes to the outbox, leaving out those without a subscriber.

    The first call begins with the oldest change in the log, or with `data.resync` if the log was
    pruned before. While there is no subscriber, the log keeps no changes for the bus.

    Args:
        dal: The primary database.

    Returns:
        The number of changes by which the cursor moved; 0 when nothing is left to do.
    """
    patterns = await _patterns(dal)
    state = await dal.fetch_one(_STATE, [CONSUMER])
    if not patterns:
        if state and state["moved"] is not None:
            await dal.execute("DELETE FROM feed_consumers WHERE consumer = ?", [CONSUMER])
        return 0
    if state and state["moved"] == state["head"]:  # the usual case needs no write lock
        return 0
    async with dal.transaction():
        return await _move(dal, patterns)


async def _patterns(dal: DataAccessLayer) -> set[str]:
    """Return the feed patterns of all consumers, including those of other processes."""
    rows = await dal.fetch_all("SELECT patterns FROM bus_consumers")
    patterns = {pattern for row in rows for pattern in json.loads(row["patterns"])}
    return {pattern for pattern in patterns if pattern.split(".")[0] in ("data", "*", "#")}


async def _move(dal: DataAccessLayer, patterns: set[str]) -> int:
    state = await dal.fetch_one(_STATE, [CONSUMER])
    assert state is not None  # noqa: S101 - the query has exactly one row
    head: int = state["head"]
    moved: int = state["moved"] or 0
    oldest = head + 1 if state["oldest"] is None else state["oldest"]
    if oldest <= moved + 1 <= head + 1:  # sequence numbers have no gaps, so no change is missing
        rows = await dal.fetch_all(
            "SELECT seq, table_name, CAST(row_key AS BLOB) AS row_key, "
            "typeof(row_key) = 'blob' AS is_blob, op, at, "
            "table_name IN (SELECT table_name FROM feed_tables) AS tracked "
            "FROM change_log WHERE seq > ? ORDER BY seq LIMIT ?",
            [moved, BATCH],
        )
        messages = [
            (
                f"data.{folded(row['table_name'])}.{row['op']}",
                {
                    "table": row["table_name"],
                    "key": feed_keys.shown(row["row_key"], is_blob=row["is_blob"]),
                    "seq": row["seq"],
                    "at": row["at"],
                },
            )
            for row in rows
            if row["tracked"]  # else a marker of the feed, or a table of a removed plugin
        ]
        reached: int = rows[-1]["seq"] if rows else moved
    else:
        tables = await dal.fetch_all("SELECT table_name FROM feed_tables ORDER BY table_name")
        messages = [(RESYNC, {"tables": [row["table_name"] for row in tables]})]
        reached = head
    await dal.execute_many(
        outbox.INSERT,
        [
            (topic, json.dumps(payload))
            for topic, payload in messages
            if any(matches(pattern, topic) for pattern in patterns)
        ],
    )
    # Unlike `feed.acknowledge`: after a resync the cursor may have to go back.
    await dal.execute(
        "INSERT INTO feed_consumers VALUES (?, ?) ON CONFLICT (consumer) "
        "DO UPDATE SET acknowledged = excluded.acknowledged",
        [CONSUMER, reached],
    )
    await dal.execute(feed.PRUNE)
    return max(1, abs(reached - moved))
