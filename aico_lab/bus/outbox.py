"""What became of events: what was given up, and who is not waited for any more."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aico_lab.dal import DataAccessLayer

REASON_LENGTH = 200  # characters
_KEYLIKE = re.compile(r"[A-Za-z0-9_=-]{32,}")  # every key of ours is at least this long


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that a consumer could not handle, however often it was tried.

    Attributes:
        consumer: Who could not.
        seq: The message's number in the outbox.
        topic: Its topic.
        attempts: How often it was tried.
        error: The class of the last error.
        reason: The first line of its text; whatever looks like a key is masked.
        died_at: When it was given up, UTC.
    """

    consumer: str
    seq: int
    topic: str
    attempts: int
    error: str
    reason: str
    died_at: str


async def dead_letters(dal: DataAccessLayer) -> list[DeadLetter]:
    """Give what was given up, oldest first; `Relay.redeliver` tries one again."""
    rows = await dal.fetch_all(
        "SELECT consumer, seq, topic, attempts, error, reason, died_at FROM dead_letters "
        "ORDER BY died_at, seq"
    )
    return [DeadLetter(**row) for row in rows]


async def forget(dal: DataAccessLayer, consumer: str) -> None:
    """Stop keeping messages for a consumer that will not come back; else they are kept for ever."""
    await dal.execute("DELETE FROM bus_consumers WHERE consumer = ?", [consumer])


def reason_of(error: BaseException) -> str:
    """Give the first line of an error's text, short, with whatever looks like a key masked."""
    first = next(iter(str(error).splitlines()), "")
    return _KEYLIKE.sub("•••", first)[:REASON_LENGTH]
