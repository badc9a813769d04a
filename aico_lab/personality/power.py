"""How many people, and for how long, a log needs before it can answer a question."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.constants import MS_PER_DAY
from aico_lab.metrics.engine.intervals import NORMAL_95
from aico_lab.personality.period import begin_of_period
from aico_lab.personality.sequences import PLANNED, widening

if TYPE_CHECKING:
    from aico_lab.personality.log import Floats, Log

FEWEST_PEOPLE: Final = 20
"""The fewest people about whom an estimate is printed."""

ESS_SHARE: Final = 0.1
"""The least effective sample size of a policy, as a share of the decisions."""

SHARE: Final = 0.12
"""The probability that each arm should have: a little more than that share, which chance moves."""

MOST_ARMS: Final = int(1 / SHARE)
"""The most arms of which each can have it."""

SMALL: Final = 0.2
"""The effect that a log should find, and the worsening of a guardrail that it should rule out, in
standard deviations of the outcome: a small one by Cohen's (1988) convention."""

_POWER: Final = 0.841621
"""The quantile of the normal distribution for a power of 80 %."""

SHORTEST: Final = 3
"""The fewest weeks: in less than two the days of the week look like a drift, and a change that is
to be watched needs 17 days before it."""

_LONGEST: Final = 52
"""Beyond this number of weeks more people are needed instead."""


@dataclass(frozen=True, slots=True)
class Power:
    """The log with which a proposal of an effect of a given size has a probability of 80 %.

    Attributes:
        effect: The effect, in units of the outcome.
        people: The number of people.
        weeks: The number of weeks.
        decisions: The number of a person's decisions with a known outcome per week.
        reached: Whether the log is as large already.
        sentence: These numbers, and what to log, in one sentence.
    """

    effect: float | None
    people: int
    weeks: int | None
    decisions: float | None
    reached: bool
    sentence: str


def needed_log(log: Log, *, guardrail: bool = False) -> Power:
    """Return the log that is needed to find one arm better than another, chosen uniformly.

    Of more arms than can have the least share of the decisions each, fewer must do.

    An arm is proposed if its whole confidence sequence is favourable, so the standard error must be
    the effect divided by the sequence's half width and the quantile of the power. A guardrail needs
    a 95 % interval that is above its margin, where the arms are alike. With K arms, each
    of the two rests on every K-th decision, so the variance of an outcome counts 2 K-fold: also
    that between people, as the reward model has not seen the person. The effect is taken to vary
    between people by half as much as their means do, and people to be as unequally active as now.

    Args:
        log: The decisions so far; their outcomes tell the variances.
        guardrail: Whether the outcome is to be shown not to worsen, instead of to improve.
    """
    arms = min(max(len(log.arms), 2), MOST_ARMS)
    kept = log.choose(log.observed)
    which = f"each of the {arms} arms"
    if len(log.arms) > arms:
        which = f"each arm, of which there may be at most {arms} instead of {len(log.arms)},"
    what = (
        f"log the probability of {which} with every decision, give each at least "
        f"{max(SHARE, 1 / (2 * arms)):.0%}, and ask for the outcome in the same way after all of "
        "them"
    )
    end_ms = int(log.time_ms.max(initial=0)) + 1
    first_ms = begin_of_period(log.person, log.time_ms, end_ms)
    weeks_so_far = max((end_ms - 1 - first_ms) / (7 * MS_PER_DAY), 1 / 7) if len(log) else 1.0
    spread = float(np.std(kept.reward)) if len(kept) else 0.0
    times = np.bincount(kept.person).astype(float) if len(kept) else np.zeros(0)
    people = int(np.count_nonzero(times))
    if people <= 1 or spread <= 0 or len(kept) < 2 * people:
        return Power(
            None, FEWEST_PEOPLE, None, None, False,
            f"To answer it, {what}, for at least {FEWEST_PEOPLE} people; the outcomes so far do "
            "not tell for how long.",
        )  # fmt: skip
    effect = SMALL * spread
    between, within = _variances(kept)
    recent = kept.person[kept.time_ms >= first_ms]
    weekly = max(len(recent), 1) / max(len(np.unique(recent)), 1) / weeks_so_far
    uneven = people * float(np.sum(times**2)) / float(np.sum(times)) ** 2
    apart = between / 4 * uneven  # of effects, per person
    chance = 2 * arms * (within + between) / weekly  # per person and week
    enough = max(people, FEWEST_PEOPLE)
    weeks = _weeks(effect, enough, apart, chance, guardrail=guardrail)
    longest = min(max(weeks_so_far, 8.0), float(_LONGEST))
    while weeks > (_LONGEST if enough == people else longest):
        enough = math.ceil(1.05 * enough)
        weeks = _weeks(effect, enough, apart, chance, guardrail=guardrail)
    whole = max(math.ceil(weeks), SHORTEST)
    so_far = 2 * (within + between) * _inflation(kept) / len(kept) + apart / people
    precise = so_far <= _variance(effect, people, guardrail=guardrail)
    reached = people >= FEWEST_PEOPLE and precise and round(weeks_so_far) >= SHORTEST
    unit = f" {log.outcome.unit}" if log.outcome.unit else ""
    found = f"find an effect of {effect:.2g}{unit} on {log.outcome.name}"
    if guardrail:
        found = f"rule out that {log.outcome.name} worsens by {effect:.2g}{unit}"
    so_long = f"{weeks_so_far:.2g}"
    since = " since most of them were there" if (log.time_ms < first_ms).any() else ""
    if reached:
        sentence = (
            f"To {found} with a probability of 80 %, the log is large enough: more of the "
            "same does not help."
        )
        if _rarest(log) < SHARE:
            sentence += f" Instead, {what}."
    else:
        sentence = (
            f"To {found} with a probability of 80 %, {what}, for {enough} people over {whole} "
            f"weeks in all, at {weekly:.2g} known outcomes per person and "
            f"week as now; this log has {people} people over {so_long} "
            f"week{'' if so_long == '1' else 's'}{since}."
        )
        if people < FEWEST_PEOPLE // 2:
            sentence += f" The variances of {people} people tell this only roughly."
    return Power(effect, enough, whole, weekly, reached, sentence)


def _rarest(log: Log) -> float:
    """Return the least effective share of the decisions that an arm has; 1 without propensities."""
    shares = []
    for arm in range(len(log.arms)):
        stated = log.propensity[log.arm == arm]
        if not (stated > 0).all():
            return 1.0
        squares = float(np.sum(stated**-2.0))
        shares.append(float(np.sum(1 / stated)) ** 2 / squares / len(log) if len(stated) else 0.0)
    return min(shares, default=1.0)


def _variance(effect: float, people: int, *, guardrail: bool) -> float:
    """Return the variance of an estimate that finds an effect with a probability of 80 %."""
    from scipy import special

    student = float(special.stdtrit(people - 1, 0.975)) / NORMAL_95
    half = NORMAL_95 if guardrail else widening(people, PLANNED)
    return float((effect / (half * student + _POWER)) ** 2)


def _weeks(effect: float, people: int, apart: float, chance: float, *, guardrail: bool) -> float:
    """Return the weeks after which an estimate over some people has that variance."""
    left = _variance(effect, people, guardrail=guardrail) - apart / people
    return chance / people / left if left > 0 else math.inf


def _inflation(log: Log) -> float:
    """Return how much rarer than every decision an arm was: K if all were chosen uniformly.

    This is the mean over arms of the mean inverse probability; infinite if some are not known.
    """
    stated: Floats = log.propensity
    if not (stated > 0).all():
        return math.inf
    return float(np.mean(stated**-2.0)) / max(len(log.arms), 2)


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
