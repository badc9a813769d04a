"""Summarise a segment by its most typical message, or the most typical sentence of a long one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from aico_lab.embeddings.encoders import Encoder

    Vectors = NDArray[np.float32]

LONGEST: Final = 200
"""The maximum number of characters of a summary."""

_SPACE: Final = re.compile(r"\s+")
_SENTENCE: Final = re.compile(r"(?<=[.!?…\u3002\uff01\uff1f])\s+|\n+")


def most_typical(vectors: Vectors, centre: NDArray[np.float64]) -> int | None:
    """Return the position of the vector nearest to a centre; None if no vector has a direction.

    Args:
        vectors: Vectors of length 1, or 0 where there is none, of shape (messages, dimensions).
        centre: The sum of the vectors, each times its weight.
    """
    nearness = np.einsum("ij,j->i", vectors.astype(np.float64), centre)
    written = np.einsum("ij,ij->i", vectors, vectors) > 0
    if not written.any():
        return None
    return int(np.argmax(np.where(written, nearness, -np.inf)))


def shorten(
    messages: Sequence[str], centres: Sequence[NDArray[np.float64]], encoder: Encoder
) -> list[str]:
    """Return the summaries of segments, each made of one message.

    A message that is too long is replaced by its sentence nearest to the centre of its segment; a
    sentence that is too long is cut.

    Args:
        messages: The most typical message of each segment.
        centres: The centre of each segment.
        encoder: Encodes the sentences of long messages.
    """
    plain = [_SPACE.sub(" ", text).strip() for text in messages]
    long = {at: _sentences(messages[at]) for at, text in enumerate(plain) if len(text) > LONGEST}
    vectors, usable = encoder.encode_usable([one for found in long.values() for one in found])
    rows, uses = iter(vectors), iter(usable)
    for at, sentences in long.items():
        nearness = [float(next(rows) @ centres[at]) if next(uses) else -np.inf for _ in sentences]
        plain[at] = _cut(sentences[int(np.argmax(nearness))])
    return plain


def _sentences(text: str) -> list[str]:
    return [one for part in _SENTENCE.split(text) if (one := _SPACE.sub(" ", part).strip())]


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    whole = text[: LONGEST - 1].rsplit(" ", 1)[0].rstrip()
    return f"{whole}…"
