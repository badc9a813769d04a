"""Administration of the outbox: list and discard dead letters, remove consumers that are gone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aico_lab.dal import DataAccessLayer

REASON_LENGTH = 200  # characters
_KEYLIKE = re.compile(r"[A-Za-z0-9_=-]{32,}")  # every encryption key is at least this long


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that a consumer failed to handle in every attempt.

    Attributes:
        consumer: The name of the consumer.
        seq: The message's number in the outbox.
        topic: The message's topic.
        attempts: The number of attempts.
        error: The class of the last exception.
        reason: The first line of the exception's text, with anything that looks like a key masked.
        died_at: When the last attempt failed, UTC.
    """

    consumer: str
    seq: int
    topic: str
    attempts: int
    error: str
    reason: str
    died_at: str


async def dead_letters(dal: DataAccessLayer) -> list[DeadLetter]:
    """Return all dead letters, oldest first; `Relay.redeliver` tries one again."""
    rows = await dal.fetch_all(
        "SELECT consumer, seq, topic, attempts, error, reason, died_at FROM dead_letters "
        "ORDER BY died_at, seq"
    )
    return [DeadLetter(**row) for row in rows]


async def discard(dal: DataAccessLayer, consumer: str, seq: int) -> None:
    """Remove a dead letter with its payload; an unknown one is ignored.

    Args:
        dal: The primary database.
        consumer: The consumer that failed to handle it.
        seq: The message's number in the outbox.
    """
    await dal.execute("DELETE FROM dead_letters WHERE consumer = ? AND seq = ?", [consumer, seq])


async def forget(dal: DataAccessLayer, consumer: str) -> None:
    """Remove a consumer that will not come back; otherwise its messages are kept for ever."""
    await dal.execute("DELETE FROM bus_consumers WHERE consumer = ?", [consumer])


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's text, cut to `REASON_LENGTH`, with keys masked."""
    first = next(iter(str(error).splitlines()), "")
    return _KEYLIKE.sub("•••", first)[:REASON_LENGTH]
