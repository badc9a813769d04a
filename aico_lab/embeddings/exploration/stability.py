"""Choose the number of themes by how well themes of different seeds and samples agree."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.embeddings.exploration.clusters import assign, cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from aico_lab.embeddings.exploration.clusters import Labels, Vectors

RUNS: Final = 5
"""The number of samples in which themes are found, each with a seed of its own."""

SAMPLE: Final = 0.8
"""The share of the passages in a sample. Samples of all passages would agree because their passages
are the same."""

LARGEST: Final = 8_000
"""The maximum number of passages in a sample."""

ENOUGH: Final = 0.85
"""The chosen number of themes has at least this share of the best mean agreement."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of themes between samples, for one number of themes.

    Attributes:
        themes: The number of themes.
        mean: The mean adjusted Rand index of all pairs of samples: 1 if their themes have the same
            passages, about 0 for random themes; NaN with a single sample.
        spread: The standard deviation of the index over the pairs.
    """

    themes: int
    mean: float
    spread: float


def agreement(points: Vectors, number: int, *, seed: int, runs: int = RUNS) -> Agreement:
    """Return the agreement of the themes of several samples on all points.

    Args:
        points: Unit vectors of shape (points, dimensions).
        number: The number of themes.
        seed: The seed of the first sample; the others have the numbers after it.
        runs: The number of samples.
    """
    size = max(number, min(LARGEST, round(SAMPLE * len(points))))
    found = []
    for run in range(runs):
        # A stream of random numbers of its own, apart from that of the clusters with this seed.
        random = np.random.default_rng([seed + run, 1])
        sample = np.sort(random.choice(len(points), size, replace=False))
        centres = cluster(points[sample], number, seed=seed + run).centres
        found.append(assign(points, centres).labels)
    indices = [adjusted_rand_index(one, other) for one, other in combinations(found, 2)]
    if not indices:
        return Agreement(number, float("nan"), float("nan"))
    return Agreement(number, float(np.mean(indices)), float(np.std(indices)))


def choose(agreements: Sequence[Agreement]) -> Agreement:
    """Return the agreement of the number to use: the largest with `ENOUGH` of the best mean.

    More themes say more, and few large themes get a high index more easily.
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
