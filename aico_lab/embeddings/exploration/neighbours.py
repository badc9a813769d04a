"""Find the nearest passages exactly, by comparing all of them, without an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.embeddings.exploration.space import reproducible

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aico_lab.embeddings.exploration.clusters import Labels, Vectors

_AT_ONCE: Final = 2**24
"""The maximum number of similarities in memory at a time: 64 MB."""


@reproducible
def nearest(
    queries: Vectors, points: Vectors, number: int, *, own: NDArray[np.int64] | None = None
) -> tuple[Labels, Vectors]:
    """Return the points with the highest cosine for each query.

    Args:
        queries: Unit vectors, of shape (queries, dimensions).
        points: Unit vectors, of shape (points, dimensions).
        number: The number of neighbours; fewer if there are fewer points.
        own: The place of each query among the points, which is left out; None if the queries are
            not among them.

    Returns:
        The places of the neighbours, nearest first, and their cosines, both of shape (queries,
        neighbours). Equally near points are in the order of their places.
    """
    number = max(min(number, len(points) - (own is not None)), 0)
    places = np.empty((len(queries), number), np.int64)
    cosines = np.empty((len(queries), number), np.float32)
    if not number:
        return places, cosines
    block = max(_AT_ONCE // len(points), 1)
    for start in range(0, len(queries), block):
        part = slice(start, start + block)
        scores = queries[part] @ points.T
        rows = np.arange(len(scores))
        if own is not None:
            scores[rows, own[part]] = -np.inf
        found = np.argpartition(scores, len(points) - number, axis=1)[:, len(points) - number :]
        found.sort(axis=1)
        of_found = np.take_along_axis(scores, found, axis=1)
        order = np.argsort(-of_found, axis=1, kind="stable")
        places[part] = np.take_along_axis(found, order, axis=1)
        cosines[part] = np.take_along_axis(of_found, order, axis=1)
    return places, cosines
