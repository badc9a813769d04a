"""Watch a change: keep it, roll it back, or wait, by a test that is valid however often one looks.

Each person is compared with the time before the change, and has one vote: those who leave soon
after a change count as much as those who stay. There is no control group, so a change of the season
or of the companion's model counts as well, and so does who would have left anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from aico_lab.constants import MS_PER_DAY
from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.intervals import FEWEST, NORMAL_95
from aico_lab.personality.sequences import widening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.personality.log import Codes, Floats, Log

_POWER: Final = 2.8
"""The margin in standard errors at which 80 % of the tests decide: 1.96 + 0.84."""

_MARGIN: Final = 0.1
"""The usual margin, in standard deviations of the outcome before the change."""

_LOOK_MS: Final = 7 * MS_PER_DAY
"""The time between two looks that are made up for."""

Recommendation = Literal["keep", "roll back", "wait"]


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one outcome since a moment, within people.

    Attributes:
        outcome: The name of the outcome.
        better: Whether more of it is better, or less.
        people: The number of people with known outcomes before and after.
        value: The mean over people of their mean after minus that before; None without people.
        low: The low end of its 95 % confidence sequence, valid however often one looks.
        high: The high end.
        margin: The largest worsening that is accepted.
    """

    outcome: str
    better: str
    people: int
    value: float | None
    low: float | None
    high: float | None
    margin: float

    @property
    def improvement(self) -> tuple[float, float, float] | None:
        """The value and both ends, so that more is better; None without an interval."""
        if self.value is None or self.low is None or self.high is None:
            return None
        if self.better == "lower":
            return -self.value, -self.high, -self.low
        return self.value, self.low, self.high


@dataclass(frozen=True, slots=True)
class Watch:
    """The state of a watched change.

    Attributes:
        recommendation: What to do: keep the change, roll it back, or wait.
        reason: Why, in one sentence.
        goal: The change of the outcome that it is meant to improve.
        guardrails: The changes of outcomes that must not worsen beyond their margins.
    """

    recommendation: Recommendation
    reason: str
    goal: Change
    guardrails: tuple[Change, ...]


def watch(
    log: Log, since_ms: int, *, margin: float | None = None, guardrails: Sequence[Log] = ()
) -> Watch:
    """Compare outcomes since a change with those before it.

    A change is rolled back if the goal got worse, or a guardrail got worse beyond its margin. It is
    kept if no outcome can have worsened beyond its margin. Both hold with 95 % confidence, at every
    look. Otherwise wait. A change that was to be rolled back in an earlier week, whether somebody
    looked or not, stays so.

    Args:
        log: Decisions of the affected people from before and after, with the outcome to improve.
        since_ms: The time of the change in UTC milliseconds.
        margin: The largest worsening of the goal that is accepted; by default a tenth of the
            standard deviation before the change.
        guardrails: The same decisions with other outcomes, whose margin is always the default.

    Raises:
        InvalidValue: The margin is not above 0.
    """
    if margin is not None and not margin > 0:
        raise InvalidValue(f"A margin must be above 0, not {margin!r}.")
    goal = change_since(log, since_ms, margin)
    others = tuple(change_since(other, since_ms) for other in guardrails)
    told, reason = _recommend(goal, others)
    end_ms = int(log.time_ms.max(initial=since_ms))
    for week, look_ms in enumerate(range(since_ms + _LOOK_MS, end_ms, _LOOK_MS), start=1):
        if told == "roll back":
            break
        earlier = (change_since(log, since_ms, margin, look_ms), *(
            change_since(other, since_ms, until_ms=look_ms) for other in guardrails
        ))  # fmt: skip
        if (before := _recommend(earlier[0], earlier[1:]))[0] == "roll back":
            told, reason = "roll back", f"{before[1]} This was clear after week {week}."
    if told != "roll back":
        reason += _silence(log, since_ms, end_ms)
    return Watch(told, reason, goal, others)


def change_since(
    log: Log, since_ms: int, margin: float | None = None, until_ms: int | None = None
) -> Change:
    """Return the change of an outcome since a moment, with its confidence sequence.

    Args:
        log: Decisions from before and after.
        since_ms: The moment in UTC milliseconds.
        margin: The largest worsening that is accepted; by default a tenth of the standard deviation
            before.
        until_ms: The time of the look; None for the end of the log.
    """
    from scipy import special

    known = log.observed if until_ms is None else log.observed & (log.time_ms <= until_ms)
    after, before = known & (log.time_ms >= since_ms), known & (log.time_ms < since_ms)
    margin = margin or _usual_margin(log.person[before], log.reward[before])
    means, times = [], []
    for part in (after, before):
        times.append(np.bincount(log.person[part], minlength=len(log.people)))
        total = np.bincount(log.person[part], log.reward[part], len(log.people))
        means.append(total / np.maximum(times[-1], 1))
    both = (times[0] > 0) & (times[1] > 0)
    apart = (means[0] - means[1])[both]
    people = len(apart)
    value = low = high = None
    if people:
        value = float(apart.mean())
        if people >= FEWEST and margin > 0 and float(np.ptp(apart)) > 0:
            student = float(special.stdtrit(people - 1, 0.975)) / NORMAL_95
            error = student * float(np.std(apart, ddof=1)) / people**0.5
            half = error * widening(error**-2, (_POWER / margin) ** 2)
            low, high = value - half, value + half
    outcome = log.outcome
    return Change(outcome.name, outcome.better, people, value, low, high, margin)


def _usual_margin(person: Codes, reward: Floats) -> float:
    """Return the largest worsening that is accepted if nothing else is said.

    As in the change, each person counts alike in the standard deviation.
    """
    if not len(reward):
        return 0.0
    times = np.bincount(person)
    share = 1 / times[person] / np.count_nonzero(times)
    middle = float(share @ reward)
    return _MARGIN * float(np.sqrt(share @ (reward - middle) ** 2))


def _silence(log: Log, since_ms: int, end_ms: int) -> str:
    """Return how many of the people from before were not seen in the later half of the time."""
    before = np.unique(log.person[log.time_ms < since_ms])
    seen = np.unique(log.person[log.time_ms >= (since_ms + end_ms) // 2])
    silent = len(np.setdiff1d(before, seen))
    if end_ms <= since_ms or not silent:
        return ""
    return f" In the later half of the time since, {silent} of {len(before)} people were not there."


def _recommend(goal: Change, guardrails: Sequence[Change]) -> tuple[Recommendation, str]:
    everything = (goal, *guardrails)
    for change in everything:
        found = change.improvement
        if found is None:
            continue
        value, _, high = found
        if high < 0 and (change is goal or value < -change.margin):
            return "roll back", (
                f"{change.outcome} got worse by {abs(change.value or 0):.3g}, "
                "which chance does not explain."
            )
    for change in everything:
        found = change.improvement
        if found is None:
            if change.people < FEWEST:
                few = f"only {change.people} people have it before and after the change"
            else:
                few = "it does not vary"
            return "wait", f"{change.outcome} cannot be judged yet: {few}."
        if found[1] <= -change.margin:
            return "wait", (
                f"{change.outcome} may still have worsened by more than {change.margin:.2g}."
            )
    return "keep", (
        "No outcome has worsened by more than its margin, and "
        f"{goal.outcome} changed by {goal.value or 0:+.2g}."
    )
