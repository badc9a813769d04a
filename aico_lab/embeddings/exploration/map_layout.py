"""Coordinates of passages on a map, on which near passages are about similar things.

The layout is UMAP's: McInnes, Healy and Melville, "UMAP: Uniform Manifold Approximation and
Projection" (2018), begun with the first two principal components and run in one thread, so that
the same passages have the same map. On the demo's 26,000 passages, neighbours on this map share a
theme as often as on the maps of umap-learn and openTSNE, which take several times as long and need
scikit-learn; umap-learn also compiles for half a minute in every new process. A projection on two
principal components mixes all themes.

At most `LAID_OUT` passages, chosen at equal distances, are laid out. The others are placed among
the nearest of these, and later passages among the nearest of all, which moves none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aico_lab.embeddings.exploration.neighbours import nearest
from aico_lab.errors import InvalidValue
from aico_lab.runtime.machine_code import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from aico_lab.embeddings.exploration.clusters import Vectors

LAID_OUT: Final = 15_000
"""The maximum number of passages that are laid out; the others are placed among them."""

NEIGHBOURS: Final = 15
"""The number of nearest passages that attract a passage."""

EPOCHS: Final = 200
"""The number of rounds in which every pair of neighbours may move."""

_REPELLED: Final = 5  # random passages that a passage is pushed away from, for each pull
_SPREAD, _STEEP = 1.5769, 0.8951  # of the curve for UMAP's min_dist of 0.1
_EXTENT: Final = 10.0
_AMONG: Final = 5
"""The number of nearest stored passages among which another one is placed."""
_NEAR: Final = 0.05
"""The weight of a neighbour is divided by e for each such step of its cosine below the nearest."""


def lay_out(points: Vectors, *, seed: int = 0) -> Vectors:
    """Return coordinates of passages, of shape (passages, 2); those laid out have the mean 0.

    Args:
        points: Unit vectors in a space (`aico_lab.embeddings.exploration.space`), whose first two
            components vary most.
        seed: The seed of the random numbers.

    Raises:
        InvalidValue: There are no points.
    """
    number = len(points)
    if points.ndim != 2 or not number:  # noqa: PLR2004 - rows and columns
        raise InvalidValue("There are no passages to lay out.")
    chosen = np.unique(np.linspace(0, number - 1, min(number, LAID_OUT)).round().astype(np.int64))
    coordinates = _umap(points[chosen], seed)
    result = np.empty((number, 2), np.float32)
    others = np.setdiff1d(np.arange(number), chosen)
    result[chosen] = coordinates
    result[others] = place_among(points[others], points[chosen], coordinates)
    return result


def place_among(points: Vectors, stored: Vectors, coordinates: Vectors) -> Vectors:
    """Return coordinates of further passages: weighted means of those of the nearest stored ones.

    Args:
        points: Unit vectors of the further passages.
        stored: Unit vectors of the stored passages, in the same space.
        coordinates: The coordinates of the stored passages.
    """
    places, cosines = nearest(points, stored, _AMONG)
    if not places.size:
        return np.zeros((len(points), 2), np.float32)
    weights = np.exp((cosines - cosines[:, :1]) / _NEAR)
    weights /= weights.sum(axis=1, keepdims=True)
    found: Vectors = np.einsum("ij,ijk->ik", weights, coordinates[places]).astype(np.float32)
    return found


def _umap(points: Vectors, seed: int) -> Vectors:
    random = np.random.default_rng([seed, 3])
    begin = np.zeros((len(points), 2))
    begin[:, : min(points.shape[1], 2)] = points[:, :2]
    begin *= _EXTENT / max(float(np.abs(begin).max()), 1e-9)
    begin += random.normal(scale=1e-3, size=begin.shape)  # parts equal passages
    places, cosines = nearest(points, points, NEIGHBOURS, own=np.arange(len(points)))
    if not places.size:
        return np.zeros((len(points), 2), np.float32)
    head, tail, weight = _graph(places, np.sqrt(np.maximum(2 - 2 * cosines.astype(np.float64), 0)))
    state = int(random.integers(1, 2**31))
    compiled(_descend)(
        begin, head, tail, weight / weight.max(), EPOCHS, state, _SPREAD, _STEEP, _REPELLED
    )
    coordinates: Vectors = (begin - begin.mean(axis=0)).astype(np.float32)
    return coordinates


def _graph(places: NDArray[np.int64], distance: NDArray[np.float64]) -> tuple[Any, Any, Any]:
    """Return the heads, tails and weights of the edges of UMAP's graph of neighbours."""
    from scipy import sparse

    number, degree = places.shape
    beyond = distance - distance[:, :1]
    low, high = np.zeros(number), np.full(number, np.inf)
    scale = np.ones(number)
    for _ in range(64):  # bisection, so that the weights of a passage have the wanted sum
        total = np.exp(-beyond / scale[:, None]).sum(axis=1)
        more = total < np.log2(degree + 1)
        low, high = np.where(more, scale, low), np.where(more, high, scale)
        scale = np.where(np.isinf(high), 2 * low, (low + high) / 2)
        scale = np.maximum(scale, 1e-6)
    rows = np.repeat(np.arange(number), degree)
    weights = np.exp(-beyond / scale[:, None]).ravel()
    one_way = sparse.csr_array((weights, (rows, places.ravel())), shape=(number, number))
    both = one_way + one_way.T - one_way * one_way.T
    edges = both.tocoo()
    order = np.lexsort((edges.col, edges.row))
    kept = order[edges.data[order] > edges.data.max() / EPOCHS]  # others would never be drawn
    return (
        edges.row[kept].astype(np.int64),
        edges.col[kept].astype(np.int64),
        edges.data[kept].astype(np.float64),
    )


def _descend(  # noqa: PLR0917 - compiled functions take positional arguments
    coordinates: Any,
    head: Any,
    tail: Any,
    weight: Any,
    epochs: int,
    seed: int,
    spread: float,
    steep: float,
    repelled: int,
) -> None:
    """Move coordinates, in place, by UMAP's stochastic gradient descent."""
    number = coordinates.shape[0]
    due = 1.0 / weight
    state = seed
    for epoch in range(epochs):
        rate = 1.0 - epoch / epochs
        for edge in range(len(head)):
            if due[edge] > epoch + 1:
                continue
            due[edge] += 1.0 / weight[edge]
            i, j = head[edge], tail[edge]
            dx, dy = coordinates[i, 0] - coordinates[j, 0], coordinates[i, 1] - coordinates[j, 1]
            square = dx * dx + dy * dy
            if square > 0:
                power = square**steep
                pull = -2.0 * spread * steep * power / square / (spread * power + 1.0)
                mx = min(max(pull * dx, -4.0), 4.0) * rate
                my = min(max(pull * dy, -4.0), 4.0) * rate
                coordinates[i, 0] += mx
                coordinates[i, 1] += my
                coordinates[j, 0] -= mx
                coordinates[j, 1] -= my
            for _ in range(repelled):
                state = (state * 1103515245 + 12345) & 0x7FFFFFFF
                k = (state >> 8) * number >> 23
                dx, dy = (
                    coordinates[i, 0] - coordinates[k, 0],
                    coordinates[i, 1] - coordinates[k, 1],
                )
                square = dx * dx + dy * dy
                if k == i or square == 0:
                    continue
                push = 2.0 * steep / ((0.001 + square) * (spread * square**steep + 1.0))
                coordinates[i, 0] += min(max(push * dx, -4.0), 4.0) * rate
                coordinates[i, 1] += min(max(push * dy, -4.0), 4.0) * rate
