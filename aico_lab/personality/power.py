"""How many people, and for how long, a log needs before it can answer a question."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.constants import MS_PER_DAY

if TYPE_CHECKING:
    from aico_lab.personality.log import Log

FEWEST_PEOPLE: Final = 20
"""The fewest people about whom an estimate is printed."""

_EFFECT: Final = 0.2
"""The effect that a log should find, in standard deviations of the outcome: a small one by Cohen's
(1988) convention."""

_QUANTILES: Final = 1.959964 + 0.841621
"""The quantiles of the normal distribution for 95 % confidence and 80 % power."""

_LONGEST: Final = 52
"""Beyond this number of weeks more people are needed instead."""


@dataclass(frozen=True, slots=True)
class Power:
    """The log that would find an effect of a given size with a probability of 80 %.

    Attributes:
        effect: The effect, in units of the outcome.
        people: The number of people.
        weeks: The number of weeks.
        decisions: The number of a person's decisions with a known outcome per week.
        sentence: These numbers, and what to log, in one sentence.
    """

    effect: float | None
    people: int
    weeks: int | None
    decisions: float | None
    sentence: str


def needed_log(log: Log) -> Power:
    """Return the log that is needed to compare one arm with all, if arms are chosen uniformly.

    A person's mean outcome varies with the person and with chance. With K arms, an estimate for one
    of them rests on every K-th decision, so that chance counts K-fold; the effect itself is taken
    to vary between people by half as much as their means do.

    Args:
        log: The decisions so far; their outcomes tell the variances.
    """
    arms = max(len(log.arms), 2)
    kept = log.choose(log.observed)
    what = (
        f"log the probability of each of the {arms} arms with every decision, give each at least "
        f"{1 / (2 * arms):.0%}, and ask for the outcome in the same way after all of them"
    )
    weeks_so_far = (
        max((int(log.time_ms.max()) - int(log.time_ms.min())) / (7 * MS_PER_DAY), 1 / 7)
        if len(log)
        else 1.0
    )
    spread = float(np.std(kept.reward)) if len(kept) else 0.0
    people = int(np.count_nonzero(np.bincount(kept.person))) if len(kept) else 0
    if people <= 1 or spread <= 0 or len(kept) < 2 * people:
        return Power(
            None, FEWEST_PEOPLE, None, None,
            f"To answer it, {what}, for at least {FEWEST_PEOPLE} people; the outcomes so far do "
            "not tell for how long.",
        )  # fmt: skip
    effect = _EFFECT * spread
    between, within = _variances(kept)
    weekly = len(kept) / people / weeks_so_far
    target = (effect / _QUANTILES) ** 2
    between_effects = between / 4
    chance = within * arms / weekly  # per person and week
    enough = max(people, FEWEST_PEOPLE)
    left = target - between_effects / enough
    weeks = math.inf if left <= 0 else chance / enough / left
    if weeks > _LONGEST:
        weeks = min(max(weeks_so_far, 8.0), float(_LONGEST))
        enough = max(math.ceil((between_effects + chance / weeks) / target), FEWEST_PEOPLE)
    whole = max(math.ceil(weeks), 1)
    return Power(
        effect, enough, whole, weekly,
        f"To find an effect of {effect:.2g} with a probability of 80 %, {what}, for {enough} "
        f"people over {whole} week{'s' if whole > 1 else ''}, at {weekly:.2g} known outcomes per "
        "person and week as now.",
    )  # fmt: skip


def _variances(log: Log) -> tuple[float, float]:
    """Return the variance between people's means, and that of outcomes within a person.

    This is the analysis of variance for groups of unequal size (Searle, Casella and McCulloch,
    "Variance components", 1992, section 3.6).
    """
    times = np.bincount(log.person, minlength=len(log.people)).astype(float)
    means = np.bincount(log.person, weights=log.reward, minlength=len(log.people)) / np.maximum(
        times, 1
    )
    n, groups = float(times.sum()), int(np.count_nonzero(times))
    within = float(np.sum((log.reward - means[log.person]) ** 2)) / max(n - groups, 1)
    apart = float(np.sum(times * (means - log.reward.mean()) ** 2)) / max(groups - 1, 1)
    usual = (n - np.sum(times**2) / n) / max(groups - 1, 1)
    return max((apart - within) / usual, 0.0) if usual > 0 else 0.0, within
