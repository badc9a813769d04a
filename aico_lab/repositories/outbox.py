"""The outbox: events that commit with what they tell of; the bus delivers them afterwards.

The queue lies in libSQL and not in a store of its own because only there an event and its cause
commit together: there is no moment at which one is kept and the other is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aico_lab.adapters.libsql import NOW
from aico_lab.domain import values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.dal import DataAccessLayer


INSERT: Final = f"INSERT INTO outbox (topic, payload, created_at) VALUES (?, ?, {NOW})"


async def enqueue(dal: DataAccessLayer, topic: str, payload: Mapping[str, Any]) -> None:
    """Write an event to the outbox, in the caller's transaction where one is open.

    Args:
        dal: The primary database.
        topic: What happened.
        payload: What is to be known about it, as JSON can say it.

    Raises:
        InvalidTopic: The topic is malformed.
        InvalidEntity: The payload is no JSON object.
    """
    await dal.execute(INSERT, event(topic, payload))


def event(topic: str, payload: Mapping[str, Any]) -> tuple[str, str]:
    """Give topic and payload as they are written.

    Raises:
        InvalidTopic: The topic is malformed.
        InvalidEntity: The payload is no JSON object.
    """
    written = values.to_json("payload", values.json_object("payload", payload))
    return values.topic(topic), written
