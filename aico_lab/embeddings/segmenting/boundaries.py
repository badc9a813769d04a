"""Find where segments begin: after pauses, and where the coherence of messages drops.

Coherence is measured as in TextTiling (Hearst 1997), with vectors of messages instead of counts of
words: the messages right before and right after each gap are compared. A gap whose similarity is
far below the mean of its block is a boundary. Comparing with the mean separates conversations
better than comparing with the peaks on both sides of the gap, as TextTiling does.
"""

from __future__ import annotations

import bisect
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from aico_lab.embeddings.segmenting.parameters import SegmentParameters

    Vectors = NDArray[np.float32]

CHUNK: Final = 4_096
"""The number of gaps that are compared at a time, so that a long block needs little memory."""


def starts_of_blocks(seconds: Sequence[float], pause: float) -> list[int]:
    """Return the positions of the first message and of each message after a pause.

    Args:
        seconds: The times of the messages, in order.
        pause: The longest silence inside a block, in seconds.
    """
    later = (at for at, (one, next_) in enumerate(pairwise(seconds), 1) if next_ - one > pause)
    return [0, *later] if seconds else []


def weigh(vectors: Vectors, texts: Sequence[str]) -> Vectors:
    """Return vectors of messages, each multiplied by the logarithm of the length of its text.

    A long message says more about the subject than "ok" does, but not in proportion to its length.
    """
    weights = np.log1p(np.fromiter(map(len, texts), np.float32, len(texts)))
    weighed: Vectors = vectors * weights[:, None]
    return weighed


def starts_of_segments(vectors: Vectors, parameters: SegmentParameters) -> list[int]:
    """Return the positions of the first messages of the segments of one block.

    Drops in coherence are tried from the deepest on. One is a boundary if it is deep enough, or if
    it splits a part that is too large, and if neither side becomes too small.

    Args:
        vectors: The weighed vectors of the block's messages, of shape (messages, dimensions).
        parameters: The sizes of segments, and the minimum depth of a drop.
    """
    count = len(vectors)
    if count < 2 * parameters.smallest:
        return [0] if count else []
    depths = depths_of_gaps(vectors, parameters.window)
    bounds = [0, count]
    for place in np.argsort(-depths, kind="stable").tolist():
        gap = place + 1
        at = bisect.bisect(bounds, gap)
        before, after = gap - bounds[at - 1], bounds[at] - gap
        is_wanted = depths[place] >= parameters.depth or before + after > parameters.largest
        if is_wanted and min(before, after) >= parameters.smallest:
            bounds.insert(at, gap)
    return bounds[:-1]


def depths_of_gaps(vectors: Vectors, window: int) -> NDArray[np.float64]:
    """Return for each gap between messages the mean similarity of the block minus that of the gap.

    Args:
        vectors: The weighed vectors of the block's messages, of shape (messages, dimensions).
        window: The number of messages on each side that are compared.
    """
    alike = similarities(vectors, window)
    depths: NDArray[np.float64] = alike.mean() - alike
    return depths


def similarities(vectors: Vectors, window: int) -> NDArray[np.float64]:
    """Return for each gap the cosine of the sums of vectors before and after it.

    The mean of all messages of the block is subtracted first, because it hides their differences.

    Args:
        vectors: As for `depths_of_gaps`.
        window: As for `depths_of_gaps`.
    """
    count, common = len(vectors), vectors.mean(axis=0, dtype=np.float64)
    found = np.zeros(max(0, count - 1))
    for start in range(1, count, CHUNK):
        gaps = np.arange(start, min(start + CHUNK, count))
        first = max(0, start - window)
        centred = vectors[first : gaps[-1] + window] - common
        sums = np.vstack([np.zeros((1, len(common))), np.cumsum(centred, axis=0)])
        here, last = gaps - first, len(centred)
        before = sums[here] - sums[np.maximum(here - window, 0)]
        after = sums[np.minimum(here + window, last)] - sums[here]
        products = np.einsum("ij,ij->i", before, after)
        squares = np.einsum("ij,ij->i", before, before) * np.einsum("ij,ij->i", after, after)
        np.divide(products, np.sqrt(squares), out=found[start - 1 : gaps[-1]], where=squares > 0)
    return found
