"""Vectors of messages in libSQL itself, for looking up what resembles a message.

Every lookup compares with every vector that is asked for. libSQL's index is not used: it finds the
nearest of all messages and can not be told of which channel, so that of ten that were asked for of
one channel in fifty it gave 1.5 (recall 0.15, of a hundred candidates); filling it took 150 seconds
for 6,500 vectors, and 330 MB. Comparing with 20,000 takes 36 ms and with one channel's 400 takes
2 ms, is exact, and filling takes a third of a second.
"""

from __future__ import annotations

import math
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aico_lab.adapters.libsql import NOW
from aico_lab.channel_memory.messages import to_id
from aico_lab.embeddings import DIMENSIONS
from aico_lab.errors import ConstraintViolated, InvalidEntity, InvalidValue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aico_lab.channel_memory.database import DatabaseManager
    from aico_lab.channel_memory.messages import Id

_PACKED = struct.Struct(f"<{DIMENSIONS}f")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A message that a lookup found.

    Attributes:
        message_id: The message.
        distance: 1 minus the cosine of the angle: 0 the same direction, 2 the opposite one.
    """

    message_id: str
    distance: float


class MessageVectors:
    """Stores and compares vectors of the messages of a channel memory."""

    def __init__(self, database: DatabaseManager) -> None:
        self._database = database

    def store(
        self,
        vectors: Mapping[str, Sequence[float]] | Mapping[int, Sequence[float]],
        *,
        model: str,
    ) -> None:
        """Keep all of these vectors, or none; a message has one of each model, the latest.

        They are kept at unit length: a cosine does not depend on it.

        Args:
            vectors: 256 numbers for each message id.
            model: What made them; vectors of two models can not be compared.

        Raises:
            InvalidEntity: A vector has another number of dimensions, a number that is not finite,
                or no direction; or there is no such message.
        """
        packed = {to_id(message_id): _pack(vector) for message_id, vector in vectors.items()}
        with self._database.get_connection() as connection:
            connection.execute_many(
                "DELETE FROM embeddings WHERE message_id = ? AND model = ?",
                [(message_id, model) for message_id in packed],
            )
            try:
                connection.execute_many(
                    "INSERT INTO embeddings (embedding_id, message_id, model, vector, created_at) "
                    f"VALUES (?, ?, ?, ?, {NOW})",
                    [
                        (uuid.uuid4().hex, message_id, model, vector)
                        for message_id, vector in packed.items()
                    ],
                )
            except ConstraintViolated as unknown:
                raise InvalidEntity(
                    "There is no message for one of the vectors, so none was stored: store the "
                    "messages first."
                ) from unknown

    def nearest(
        self,
        vector: Sequence[float],
        *,
        model: str,
        k: int = 10,
        channel_id: Id | None = None,
    ) -> list[Neighbour]:
        """Find the messages whose vectors point most nearly the same way, the nearest first.

        Of equally near ones the message that arrived first comes first. Vectors that another
        program wrote in another form are passed over.

        Args:
            vector: 256 numbers.
            model: Which vectors to compare with.
            k: How many messages at most.
            channel_id: Only of this channel.

        Raises:
            InvalidEntity: The vector has another number of dimensions, a number that is not finite,
                or no direction.
            InvalidValue: `k` is not positive.
        """
        if k < 1:
            raise InvalidValue("Ask for at least one neighbour.")
        of_channel = "" if channel_id is None else "AND m.channel_id = ?"
        rows = self._database.read(
            f"""SELECT e.message_id, CASE WHEN length(e.vector) = {_PACKED.size}
                    THEN vector_distance_cos(e.vector, ?) END AS distance
                FROM embeddings AS e JOIN messages AS m USING (message_id)
                WHERE e.model = ? {of_channel}
                ORDER BY distance NULLS LAST, m.id LIMIT ?""",
            [_pack(vector), model, *([] if channel_id is None else [to_id(channel_id)]), k],
        )
        return [Neighbour(message_id, far) for message_id, far in rows if far is not None]


def _pack(vector: Sequence[float]) -> bytes:
    """Scale a vector to unit length: libSQL adds squares in 32 bits, which over- and underflow."""
    try:
        values = [float(value) for value in vector]
        length = math.hypot(*values)
    except (TypeError, ValueError, OverflowError) as odd:
        raise InvalidEntity("A vector is a sequence of numbers.") from odd
    if len(values) != DIMENSIONS:
        raise InvalidEntity(f"A vector has {DIMENSIONS} dimensions, and not {len(values)}.")
    if not math.isfinite(length) or not length:
        raise InvalidEntity("A vector's numbers must be finite, and not all zero.")
    return _PACKED.pack(*(value / length for value in values))
