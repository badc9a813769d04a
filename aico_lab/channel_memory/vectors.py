"""Vectors of messages in libSQL itself, to find similar messages.

Every search compares with all vectors of the model and channel. libSQL's index is not used: it
finds the nearest of all messages and cannot filter by channel, so that a search for ten messages of
one channel in fifty found 1.5 of them (recall 0.15, with a hundred candidates); building it took
150 seconds and 330 MB for 6,500 vectors. Comparing with 20,000 vectors takes 36 ms, with 400 of one
channel 2 ms, and is exact; storing them takes a third of a second.
"""

from __future__ import annotations

import math
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aico_lab.adapters.libsql import NOW
from aico_lab.channel_memory.messages import to_id
from aico_lab.domain import values
from aico_lab.errors import ConstraintViolated, InvalidEntity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aico_lab.adapters.libsql import Row
    from aico_lab.channel_memory.database import DatabaseManager
    from aico_lab.channel_memory.messages import Id

_FLOAT = struct.calcsize("<f")
_FIRST = f"""
    SELECT length(vector) / {_FLOAT} FROM embeddings
    WHERE model = ? AND length(vector) % {_FLOAT} = 0 AND length(vector) > 0
    ORDER BY rowid LIMIT 1"""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A message found by a search.

    Attributes:
        message_id: The message.
        distance: 1 minus the cosine of the angle: 0 for the same direction, 2 for the opposite.
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
        """Store vectors atomically, replacing older ones of the same message and model.

        The vectors are scaled to unit length, which does not change cosines.

        Args:
            vectors: The numbers for each message id; all vectors of a model have equally many.
            model: The name of the model; vectors of different models cannot be compared.

        Raises:
            InvalidEntity: A vector does not have as many numbers as the model's first, has a number
                that is not finite, or is zero; or there is no such message.
        """
        packed = {to_id(message_id): _pack(vector) for message_id, vector in vectors.items()}
        with self._database.get_connection() as connection:
            connection.execute_many(
                "DELETE FROM embeddings WHERE message_id = ? AND model = ?",
                [(message_id, model) for message_id in packed],
            )
            _check_dimensions(connection.fetch_all(_FIRST, [model]), model, packed.values())
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
        """Return the messages with the smallest cosine distance to a vector, the nearest first.

        Equally near messages are in order of arrival. Malformed vectors, written by another
        program, are ignored.

        Args:
            vector: As many numbers as the model's vectors have.
            model: The model whose vectors are compared.
            k: The maximum number of messages.
            channel_id: Only messages of this channel; None for all channels.

        Raises:
            InvalidEntity: The vector does not have as many numbers as the model's first, has a
                number that is not finite, or is zero.
            InvalidValue: `k` is not a whole number, or is below 1.
        """
        values.whole_number("k", k, 1)
        of_channel = "" if channel_id is None else "AND m.channel_id = ?"
        packed = _pack(vector)
        _check_dimensions(self._database.read(_FIRST, [model]), model, [packed])
        rows = self._database.read(
            f"""SELECT e.message_id, CASE WHEN length(e.vector) = {len(packed)}
                    THEN vector_distance_cos(e.vector, ?) END AS distance
                FROM embeddings AS e JOIN messages AS m USING (message_id)
                WHERE e.model = ? {of_channel}
                ORDER BY distance NULLS LAST, m.id LIMIT ?""",
            [packed, model, *([] if channel_id is None else [to_id(channel_id)]), k],
        )
        return [Neighbour(message_id, far) for message_id, far in rows if far is not None]


def _check_dimensions(first: Sequence[Row], model: str, packed: Iterable[bytes]) -> None:
    """Raise InvalidEntity if vectors differ in dimensions from each other or the model's first.

    Args:
        first: The result of `_FIRST`.
        model: The name of the model.
        packed: The vectors.
    """
    expected = first[0][0] if first else None
    for vector in packed:
        found = len(vector) // _FLOAT
        if expected not in (None, found):
            raise InvalidEntity(
                f"A vector of the model {model} must have {expected} dimensions, not {found}."
            )
        expected = found


def _pack(vector: Sequence[float]) -> bytes:
    """Pack a vector at unit length, because libSQL's 32-bit squares can over- and underflow."""
    try:
        numbers = [float(value) for value in vector]
        length = math.hypot(*numbers)
    except (TypeError, ValueError, OverflowError) as odd:
        raise InvalidEntity("A vector is a sequence of numbers.") from odd
    if not math.isfinite(length) or not length:
        raise InvalidEntity("A vector's numbers must be finite, and not all zero.")
    return struct.pack(f"<{len(numbers)}f", *(value / length for value in numbers))
