"""Find clusters of unit vectors by spherical k-means, reproducibly for a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.embeddings.exploration.space import reproducible, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Labels = NDArray[np.int64]

RESTARTS: Final = 5
"""The number of random initialisations."""

_FIRST_ROUNDS: Final = 5
_ROUNDS: Final = 100
_ENOUGH: Final = 3e-4
"""The relative improvement of the mean similarity below which a round is the last one."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of points.

    Attributes:
        centres: Unit vectors of shape (clusters, dimensions).
        labels: The cluster of each point, the one with the nearest centre.
        similarity: The cosine of each point with the centre of its cluster.
    """

    centres: Vectors
    labels: Labels
    similarity: Vectors


@reproducible
def cluster(points: Vectors, number: int, *, seed: int, restarts: int = RESTARTS) -> Clusters:
    """Return clusters with a high mean similarity.

    Of several random initialisations, the one that is best after a few rounds is continued.

    Args:
        points: Unit vectors of shape (points, dimensions).
        number: The number of clusters, at most the number of points.
        seed: The seed of the random numbers.
        restarts: The number of random initialisations.
    """
    random = np.random.default_rng(seed)
    begun = (
        _improve(points, assign(points, _first_centres(points, number, random)), _FIRST_ROUNDS)
        for _ in range(restarts)
    )
    return _improve(points, max(begun, key=_mean), _ROUNDS)


@reproducible
def assign(points: Vectors, centres: Vectors) -> Clusters:
    """Assign each point to the cluster with the nearest centre."""
    scores = points @ centres.T
    labels = scores.argmax(axis=1)
    return Clusters(centres, labels, np.take_along_axis(scores, labels[:, None], axis=1)[:, 0])


def _improve(points: Vectors, found: Clusters, rounds: int) -> Clusters:
    """Alternate between moving the centres and assigning the points, until little changes."""
    before = -np.inf
    for _ in range(rounds):
        mean = _mean(found)
        if mean - before <= _ENOUGH * abs(mean):
            break
        before = mean
        found = assign(points, _centres(points, found, len(found.centres)))
    return found


def _mean(found: Clusters) -> float:
    return float(found.similarity.mean(dtype=np.float64))


def _centres(points: Vectors, found: Clusters, number: int) -> Vectors:
    """Return the directions of the clusters' sums; an empty cluster moves to the farthest point."""
    member = np.zeros((len(points), number), np.float32)
    member[np.arange(len(points)), found.labels] = 1
    centres = unit(member.T @ points)
    empty = np.flatnonzero(~member.any(axis=0))
    if len(empty):
        centres[empty] = points[np.argsort(found.similarity, kind="stable")[: len(empty)]]
    return centres


def _first_centres(points: Vectors, number: int, random: np.random.Generator) -> Vectors:
    """Choose centres by greedy k-means++ (Arthur and Vassilvitskii 2007): far from each other."""
    tries = 2 + int(np.log(number))
    centres = np.empty((number, points.shape[1]), np.float32)
    centres[0] = points[random.integers(len(points))]
    far = np.maximum(1 - points @ centres[0], 0)
    for place in range(1, number):
        sums = np.cumsum(far, dtype=np.float64)
        drawn = np.searchsorted(sums, random.random(tries) * sums[-1])
        candidates = points[np.minimum(drawn, len(points) - 1)]
        left = np.minimum(far[:, None], np.maximum(1 - points @ candidates.T, 0))
        best = int(left.sum(axis=0, dtype=np.float64).argmin())
        centres[place], far = candidates[best], left[:, best]
    return centres
