"""The outbox: events that commit together with the rows they are about, for later delivery.

The queue is a table in libSQL and not a separate store, because an event and its rows can commit
in one transaction only there.
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
        topic: The topic of the event.
        payload: The data of the event, a JSON object.

    Raises:
        InvalidTopic: The topic is malformed.
        InvalidEntity: The payload is not a JSON object.
    """
    await dal.execute(INSERT, event(topic, payload))


def event(topic: str, payload: Mapping[str, Any]) -> tuple[str, str]:
    """Return the topic and the payload's JSON text, validated.

    Raises:
        InvalidTopic: The topic is malformed.
        InvalidEntity: The payload is not a JSON object.
    """
    written = values.to_json("payload", values.json_object("payload", payload))
    return values.topic(topic), written
