"""Measure how much two models, or two periods, differ in what passages are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.embeddings.exploration.neighbours import nearest
from aico_lab.embeddings.exploration.resampling import by_person, interval
from aico_lab.embeddings.exploration.space import reproducible
from aico_lab.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from aico_lab.embeddings.exploration.clusters import Labels, Vectors

    Numbers = NDArray[np.float64]

NEIGHBOURS: Final = 10
"""The number of nearest passages that are compared."""

QUERIES: Final = 2_000
"""The maximum number of passages whose neighbours are compared."""

NO_PERIOD: Final = "Each of the two periods must have passages: choose another beginning with `at`."

_SWAPS: Final = 1_000
"""The number of random swaps of people's periods."""


@dataclass(frozen=True, slots=True)
class ModelDrift:
    """The difference of two models on the same passages.

    Attributes:
        passages: The number of passages.
        neighbours: The number of nearest passages of a passage that are compared.
        overlap: The mean share of a passage's nearest passages that are the same in both models, 0
            to 1.
        by_chance: The overlap of unrelated models.
        procrustes: The share of the variance of one model's vectors that the best rotation and
            scaling of the other's does not explain: 0 if they differ by that alone, at most 1.
    """

    passages: int
    neighbours: int
    overlap: float
    by_chance: float
    procrustes: float


@dataclass(frozen=True, eq=False)
class PeriodDrift:
    """The difference of two periods.

    Attributes:
        before: The share of each theme in the passages of the earlier period, 0 to 1.
        after: The share in the later period.
        low: The low end of the 95 % interval of the change, after minus before; NaN without one.
        high: The high end.
        shift: The cosine distance of the mean vectors of both periods, 0 to 2.
        by_chance: The 95th percentile of that distance if the two periods of random people are
            swapped.
        people: The number of people of both periods together.
    """

    before: Numbers
    after: Numbers
    low: Numbers
    high: Numbers
    shift: float
    by_chance: float
    people: int


@reproducible
def between_models(
    one: Vectors, other: Vectors, *, neighbours: int = NEIGHBOURS, seed: int = 0
) -> ModelDrift:
    """Compare the vectors of two models.

    Args:
        one: Unit vectors of one model, of shape (passages, dimensions).
        other: Unit vectors of the other model for the same passages; its dimensions may differ.
        neighbours: The number of nearest passages.
        seed: The seed of the sample of passages whose neighbours are compared.

    Raises:
        InvalidValue: The numbers of passages differ, or there are fewer than two.
    """
    number = len(one)
    if len(other) != number or number < 2:  # noqa: PLR2004 - a pair
        raise InvalidValue("Compare two models on the same passages, at least two.")
    neighbours = min(neighbours, number - 1)
    random = np.random.default_rng([seed, 5])
    asked = np.sort(random.choice(number, min(QUERIES, number), replace=False))
    first, _ = nearest(one[asked], one, neighbours, own=asked)
    second, _ = nearest(other[asked], other, neighbours, own=asked)
    both = (first[:, :, None] == second[:, None, :]).any(axis=2)
    return ModelDrift(
        passages=number,
        neighbours=neighbours,
        overlap=float(both.mean()),
        by_chance=neighbours / (number - 1),
        procrustes=_procrustes(one, other),
    )


def _procrustes(one: Vectors, other: Vectors) -> float:
    """Return the disparity after the best shift, rotation and scaling (Gower, 1975)."""
    centred = []
    for vectors in (one, other):
        exact = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
        length = np.linalg.norm(exact)
        if length < 1e-9:  # noqa: PLR2004 - rounding
            return 1.0
        centred.append(exact / length)
    common = np.linalg.svd(centred[0].T @ centred[1], compute_uv=False).sum()
    return float(np.clip(1 - common**2, 0, 1))


@reproducible
def between_periods(
    themes: Labels,
    number: int,
    vectors: Vectors,
    is_later: NDArray[np.bool_],
    people: Sequence[object],
    *,
    seed: int = 0,
) -> PeriodDrift:
    """Compare the themes and the mean vectors of two periods.

    Args:
        themes: The theme of each passage, from 0.
        number: The number of themes.
        vectors: The vector of each passage, of shape (passages, dimensions).
        is_later: Whether each passage is of the later period.
        people: The person of each passage.
        seed: The seed of the random draws.

    Raises:
        InvalidValue: One of the periods has no passages.
    """
    if is_later.all() or not is_later.any():
        raise InvalidValue(NO_PERIOD)
    ranks = {person: place for place, person in enumerate(dict.fromkeys(people))}
    person = np.array([ranks[one] for one in people], np.int64)
    column = themes + number * is_later
    counts = np.zeros((len(themes), 2 * number))
    counts[np.arange(len(themes)), column] = 1
    sums = by_person(person, counts, len(ranks))

    def change(totals: Numbers) -> Numbers:
        before, after = _shares(totals, number)
        return after - before

    low, high = interval(sums, change, seed=seed)
    before, after = _shares(sums.sum(axis=0, keepdims=True), number)
    exact = vectors.astype(np.float64)
    earlier, later = (by_person(person[of], exact[of], len(ranks)) for of in (~is_later, is_later))
    counted = np.array(
        [np.bincount(person[of], minlength=len(ranks)) for of in (~is_later, is_later)]
    )
    shift = _distance(earlier.sum(axis=0), later.sum(axis=0))
    chance = _by_chance(earlier, later, counted, seed)
    return PeriodDrift(before[0], after[0], low, high, shift, chance, len(ranks))


def _shares(totals: Numbers, number: int) -> tuple[Numbers, Numbers]:
    with np.errstate(invalid="ignore", divide="ignore"):
        before, after = totals[:, :number], totals[:, number:]
        return (
            before / before.sum(axis=1, keepdims=True),
            after / after.sum(axis=1, keepdims=True),
        )


def _distance(one: Numbers, other: Numbers) -> float:
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return float(1 - one @ other / lengths) if lengths > 0 else float("nan")


def _by_chance(earlier: Numbers, later: Numbers, counted: NDArray[np.int64], seed: int) -> float:
    """Return the 95th percentile of the distance if the periods of random people are swapped."""
    random = np.random.default_rng([seed, 6])
    swapped = random.random((_SWAPS, len(earlier))) < 0.5  # noqa: PLR2004 - a coin
    one = swapped @ later + ~swapped @ earlier
    other = earlier.sum(axis=0) + later.sum(axis=0) - one
    passages = swapped @ counted[1] + ~swapped @ counted[0]
    both = (passages > 0) & (passages < counted.sum())
    if not both.any():
        return float("nan")
    distances = [_distance(*pair) for pair in zip(one[both], other[both], strict=True)]
    return float(np.nanquantile(distances, 0.95))
