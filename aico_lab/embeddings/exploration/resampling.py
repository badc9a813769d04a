"""95 % intervals of statistics of passages, by resampling people (the cluster bootstrap).

Passages of one person resemble each other, so whole people are drawn, with all their passages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

FEWEST: Final = 10
"""The minimum number of people for an interval, as in the metrics."""

DRAWS: Final = 1_000

_AT_ONCE: Final = 2**22
"""The maximum number of weights in memory at a time: 32 MB."""


def interval(
    sums: Numbers, statistic: Callable[[Numbers], Numbers], *, seed: int = 0, draws: int = DRAWS
) -> tuple[Numbers, Numbers]:
    """Return the ends of the 95 % interval of a statistic of sums over people.

    Args:
        sums: The sums of each person, of shape (people, sums).
        statistic: Maps sums of shape (draws, sums) to values of shape (draws, values).
        seed: The seed of the draws.
        draws: The number of draws.

    Returns:
        The low and the high ends, of shape (values,); NaN with fewer than `FEWEST` people, or where
        the statistic is undefined in most draws.
    """
    people = len(sums)
    values = statistic(sums.sum(axis=0, keepdims=True))
    if people < FEWEST:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    random = np.random.default_rng([seed, 4])
    chances = np.full(people, 1 / people)
    part = max(_AT_ONCE // people, 1)
    drawn = np.vstack(
        [
            statistic(random.multinomial(people, chances, min(part, draws - start)) @ sums)
            for start in range(0, draws, part)
        ]
    )
    defined = np.isfinite(drawn).mean(axis=0) > 0.5  # noqa: PLR2004 - most
    drawn = np.where(np.isfinite(drawn) & defined, drawn, 0.0 if not defined.all() else np.nan)
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    return np.where(defined, low, np.nan), np.where(defined, high, np.nan)


def by_person(people: NDArray[np.int64], values: Numbers, number: int) -> Numbers:
    """Return the sums of values for each person, of shape (people, values).

    Args:
        people: The number of the person of each row, from 0.
        values: An array of shape (rows, values).
        number: The number of people.
    """
    sums = np.zeros((number, values.shape[1]))
    np.add.at(sums, people, values)
    return sums
