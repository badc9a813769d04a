"""The full-text index over messages, updated before a search and not on each write.

Messages arrive in large batches and are searched seldom, and an index maintained by triggers makes
writing five times slower. Ids of messages increase and are never reused, so one number marks the
indexed messages; later ones are added right before a search. Only updates and deletions, which are
rare, reach the index at once, by triggers (schema `search`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aico_lab.dal import DataAccessLayer

BATCH: Final = 20_000  # messages in one transaction; others can write between two transactions

_BEHIND = "SELECT 1 FROM messages WHERE id > (SELECT indexed_through FROM search_state) LIMIT 1"
_REACH = """
    SELECT max(id) AS id FROM (
        SELECT id FROM messages WHERE id > (SELECT indexed_through FROM search_state)
        ORDER BY id LIMIT ?
    )
"""
_ADD = """
    INSERT INTO messages_search (rowid, content)
    SELECT id, content FROM messages
    WHERE id > (SELECT indexed_through FROM search_state) AND id <= ?
"""


async def index_new_messages(dal: DataAccessLayer) -> None:
    """Add all new messages to the index, each batch in one transaction with the new position.

    Args:
        dal: The primary database.
    """
    while await dal.fetch_one(_BEHIND):  # the usual case needs no write lock
        async with dal.transaction():
            reached = await dal.fetch_one(_REACH, [BATCH])
            if reached is None or reached["id"] is None:
                return  # another search has indexed them meanwhile
            await dal.execute(_ADD, [reached["id"]])
            await dal.execute("UPDATE search_state SET indexed_through = ?", [reached["id"]])


async def empty_index(dal: DataAccessLayer) -> None:
    """Remove everything from the indexes of messages and segments; a search fills them again.

    A deleted message is not found any more, but its words stay in the (encrypted) pages of an
    index until the pages are merged. To erase messages, delete them and empty the indexes.

    Args:
        dal: The primary database.
    """
    async with dal.transaction():
        await dal.execute("INSERT INTO messages_search (messages_search) VALUES ('delete-all')")
        await dal.execute("UPDATE search_state SET indexed_through = 0")
        await dal.execute("INSERT INTO segments_search (segments_search) VALUES ('delete-all')")
        await dal.execute("DELETE FROM segments_search_ids")
        await dal.execute("UPDATE segments_search_state SET seq = 0, anchor = NULL")
