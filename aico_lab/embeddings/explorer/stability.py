"""Choose the number of themes by how well themes of different seeds and samples agree."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.embeddings.explorer.clusters import assign, cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from aico_lab.embeddings.explorer.clusters import Labels, Vectors

RUNS: Final = 5
"""Times that themes are searched for each number, each in another sample with another seed."""

SAMPLE: Final = 0.8
"""The share of the passages in a sample, and `LARGEST` the most of them: a sample must leave out
some, or similar themes would show only that the passages are the same."""
LARGEST: Final = 8_000

ENOUGH: Final = 0.85
"""The share of the best agreement that the chosen number of themes has at least."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of themes between samples, for one number of themes.

    Attributes:
        themes: The number of themes.
        mean: The mean adjusted Rand index of all pairs of runs: 1 if they put the same passages
            together, about 0 for random themes; NaN with a single run.
        spread: The standard deviation of the index over the pairs.
    """

    themes: int
    mean: float
    spread: float


def agreement(points: Vectors, number: int, *, seed: int, runs: int = RUNS) -> Agreement:
    """Return how well themes of several samples agree on all points.

    Args:
        points: Unit vectors of shape (points, dimensions).
        number: The number of themes.
        seed: The seed of the first run; the others have the next ones.
        runs: The number of runs.
    """
    size = max(number, min(LARGEST, round(SAMPLE * len(points))))
    found = []
    for run in range(runs):
        # The stream of a sample is another one than that of the search with the same seed.
        random = np.random.default_rng([seed + run, 1])
        sample = np.sort(random.choice(len(points), size, replace=False))
        centres = cluster(points[sample], number, seed=seed + run).centres
        found.append(assign(points, centres).labels)
    indices = [adjusted_rand_index(one, other) for one, other in combinations(found, 2)]
    if not indices:
        return Agreement(number, float("nan"), float("nan"))
    return Agreement(number, float(np.mean(indices)), float(np.std(indices)))


def choose(agreements: Sequence[Agreement]) -> Agreement:
    """Return the agreement of the number to use, the largest that agrees about as well as the best.

    About as well means at least `ENOUGH` of the best mean. More themes say more, and the index of a
    few large themes is high more easily.
    """
    best = max(one.mean for one in agreements)
    enough = [one for one in agreements if not one.mean < ENOUGH * best]
    return max(enough, key=lambda one: one.themes)


def adjusted_rand_index(one: Labels, other: Labels) -> float:
    """Return the agreement of two partitions, corrected for chance (Hubert and Arabie, 1985)."""
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    together = _pairs(table)
    first, second = _pairs(table.sum(axis=1)), _pairs(table.sum(axis=0))
    expected = first * second / max(len(one) * (len(one) - 1) / 2, 1)
    most = (first + second) / 2
    return 1.0 if most == expected else float((together - expected) / (most - expected))


def _pairs(counts: NDArray[np.float64]) -> float:
    return float((counts * (counts - 1) / 2).sum())
