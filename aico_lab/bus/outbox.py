"""Events that must not be lost: written to libSQL in the transaction of what they tell of.

The queue lies in libSQL and not in a store of its own because only there an event and its cause
commit together: there is no moment at which one is kept and the other is not. `Relay` delivers it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aico_lab.repositories.outbox import enqueue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.dal import DataAccessLayer

REASON_LENGTH = 200  # characters
_KEYLIKE = re.compile(r"[A-Za-z0-9_=-]{32,}")  # every key of ours is at least this long


class Outbox:
    """The outbox as the domain's `Publisher`: takes the place of the bus in a transaction."""

    def __init__(self, dal: DataAccessLayer) -> None:
        self._dal = dal

    async def publish(self, topic: str, payload: Mapping[str, Any]) -> None:
        """Write an event to the outbox; see `enqueue`."""
        await enqueue(self._dal, topic, payload)


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
