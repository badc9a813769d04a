"""Measure how much two models, or two periods, differ in what passages are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.embeddings.exploration.neighbours import nearest
from aico_lab.embeddings.exploration.space import reproducible
from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.intervals import FEWEST

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

_FLIPS: Final = 1_000
"""The number of random choices of people whose contributions are flipped, or periods swapped."""


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
        low: The low end of the interval of the change, after minus before. If nothing changes, one
            of them excludes 0 in 5 % of homes; where much changes, they hold the true changes less
            often than in 95 %. NaN with fewer than `FEWEST` people.
        high: The high end.
        without: The change without the person who contributes most to it; NaN if nobody is left in
            one of the periods.
        people_of: The number of people with a passage in each theme.
        shift: The cosine distance of the mean vectors of both periods, 0 to 2.
        by_chance: The 95th percentile of that distance without a change; NaN with fewer than
            `FEWEST` people.
        people: The number of people of both periods together.
    """

    before: Numbers
    after: Numbers
    low: Numbers
    high: Numbers
    without: Numbers
    people_of: NDArray[np.int64]
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
    writers: Sequence[Sequence[str]],
    *,
    seed: int = 0,
) -> PeriodDrift:
    """Compare the themes and the mean vectors of two periods.

    Each change of a share is a sum of contributions of people, whose passages resemble each other.
    Without a change, a contribution is as likely as its opposite. So chance is what flipping the
    signs of random people's contributions makes of the change. A change that one person makes has
    the same size after every flip, and so is never clear. The distance of the mean vectors, which
    has no sign, is compared with that after swapping the periods of random people.

    Args:
        themes: The theme of each passage, from 0.
        number: The number of themes.
        vectors: The vector of each passage, of shape (passages, dimensions).
        is_later: Whether each passage is of the later period.
        writers: The people who wrote in each passage; for several it counts in equal parts.
        seed: The seed of the random flips and swaps.

    Raises:
        InvalidValue: One of the periods has no passages.
    """
    if is_later.all() or not is_later.any():
        raise InvalidValue(NO_PERIOD)
    ranks: dict[str | None, int] = {None: 0}  # nobody wrote
    entries = [
        (at, ranks.setdefault(one, len(ranks)), 1 / max(len(people), 1))
        for at, people in enumerate(writers)
        for one in (people or (None,))
    ]
    at, person = (np.array(column, np.int64) for column in list(zip(*entries, strict=True))[:2])
    weight = np.array([one for *_, one in entries])[:, None]
    is_theme = np.zeros((len(themes), number))
    is_theme[np.arange(len(themes)), themes] = 1
    exact = vectors.astype(np.float64)
    sides = [
        [
            _by_person(person[of], weight[of] * values[at[of]], len(ranks))
            for of in (~is_later[at], is_later[at])
        ]
        for values in (is_theme, exact)
    ]
    (before, after), (earlier, later) = sides
    people = len(ranks) - 1
    low = high = np.full(number, np.nan)
    by_chance = float("nan")
    if people >= FEWEST:
        random = np.random.default_rng([seed, 6])
        signs = random.choice([-1.0, 1.0], (_FLIPS, len(ranks)))
        reach = _reach(_contributions(before, after), signs)
        change = _change(before.sum(axis=0), after.sum(axis=0))
        low, high = change - reach, change + reach
        by_chance = _by_chance(earlier, later, before, after, signs < 0)
    return PeriodDrift(
        before.sum(axis=0) / before.sum(),
        after.sum(axis=0) / after.sum(),
        low,
        high,
        _without_one(before, after),
        np.count_nonzero((before + after)[1:], axis=0),
        _distance(earlier.sum(axis=0), later.sum(axis=0)),
        by_chance,
        people,
    )


def _by_person(people: NDArray[np.int64], values: Numbers, number: int) -> Numbers:
    """Return the sums of values for each person, of shape (people, values)."""
    sums = np.zeros((number, values.shape[1]))
    np.add.at(sums, people, values)
    return sums


def _change(before: Numbers, after: Numbers) -> Numbers:
    """Return the changes of shares, for sums whose last axis is the themes; NaN for no passages."""
    with np.errstate(invalid="ignore", divide="ignore"):
        changes: Numbers = after / after.sum(-1, keepdims=True) - before / before.sum(
            -1, keepdims=True
        )
    return changes


def _contributions(before: Numbers, after: Numbers) -> Numbers:
    """Return each person's contribution to the change of each theme's share.

    Args:
        before: The numbers of each person's earlier passages, of shape (people, themes).
        after: The numbers of the later ones.
    """
    mean = (before + after).sum(axis=0) / (before + after).sum()
    first, second = (
        (side - mean * side.sum(axis=1, keepdims=True)) / side.sum() for side in (before, after)
    )
    contributions: Numbers = second - first
    return contributions


def _reach(contributions: Numbers, signs: Numbers) -> Numbers:
    """Return half the widths of intervals of which all hold 0 with 95 % if nothing changes.

    Each change by chance is taken in units of its spread. The 95th percentile of the largest of all
    themes is the half width in these units (Westfall and Young, "Resampling-Based Multiple
    Testing", 1993).
    """
    spread = np.sqrt((contributions**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        largest = np.nan_to_num(np.abs(signs @ contributions) / spread).max(axis=1)
    reach: Numbers = np.quantile(largest, 0.95) * spread
    return reach


def _without_one(before: Numbers, after: Numbers) -> Numbers:
    """Return the change of each theme without the person who contributes most to it."""
    change = _change(before.sum(axis=0), after.sum(axis=0))
    without = _change(before.sum(axis=0) - before, after.sum(axis=0) - after)
    without = without[np.isfinite(without).all(axis=1)]
    if not len(without):
        return np.full(len(change), np.nan)
    most = (without * np.sign(change)).argmin(axis=0)
    least: Numbers = without[most, np.arange(len(change))]
    return least


def _distance(one: Numbers, other: Numbers) -> float:
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return float(1 - one @ other / lengths) if lengths > 0 else float("nan")


def _by_chance(
    earlier: Numbers, later: Numbers, before: Numbers, after: Numbers, swapped: NDArray[np.bool_]
) -> float:
    """Return the 95th percentile of the distance if the periods of random people are swapped.

    Later passages are weighted so that those who wrote in both periods wrote equally much in both.
    This leaves the mean vectors' directions as they are; without it, a swap would also exchange the
    weights of people who differ, where everybody writes more than before.

    Args:
        earlier: The sums of vectors of each person's earlier passages, of shape (people, values).
        later: The sums of those of the later passages.
        before: The numbers of each person's earlier passages, of shape (people, themes).
        after: The numbers of the later ones.
        swapped: Whether the periods of each person are swapped, of shape (swaps, people).
    """
    counts = [side.sum(axis=1) for side in (before, after)]
    in_both = (counts[0] > 0) & (counts[1] > 0)
    if in_both.any():
        later = later * (counts[0][in_both].sum() / counts[1][in_both].sum())
    one = swapped @ later + ~swapped @ earlier
    other = earlier.sum(axis=0) + later.sum(axis=0) - one
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    # Rounding leaves a length where all people are on one side.
    apart = lengths > 1e-9 * lengths.max()
    distances = 1 - (one * other).sum(axis=1)[apart] / lengths[apart]
    return float(np.quantile(distances, 0.95)) if len(distances) else float("nan")
