"""Watch a change: keep it, roll it back, or wait, by a test that is valid however often one looks.

The time since the change, in whole weeks, is compared with an equally long time before it. In both,
each person has one vote: those who leave soon after a change count as much as those who stay, and
those who left in the time before count there. There is no control group, so a change of the season
or of the companion's model counts as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from aico_lab.constants import MS_PER_DAY
from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.intervals import FEWEST, NORMAL_95
from aico_lab.personality.outcomes import WEEK_MS
from aico_lab.personality.period import begin_of_period
from aico_lab.personality.sequences import widening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from aico_lab.personality.log import Codes, Floats, Log

_POWER: Final = 2.8
"""The margin in standard errors at which 80 % of the tests decide: 1.96 + 0.84."""

_MARGIN: Final = 0.1
"""The usual margin, in standard deviations of the outcome before the change."""

_KNOWN_BY: Final = 0.25
"""The least share of the time before in which people become known; of its rest whole weeks are
compared."""

_STRETCHES: Final = 20
"""The most stretches of the time since that are compared with the time before."""

_FEWEST_ON_A_SIDE: Final = 5
"""The fewest people on each side of a stretch: of fewer the error is hardly known."""

ALONE: Final = "One person alone does not tell a change from chance: this is never decided."

Recommendation = Literal["keep", "roll back", "wait"]


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one outcome since a moment.

    Attributes:
        outcome: The name of the outcome.
        better: Whether more of it is better, or less.
        people: The number of people with known outcomes in both times that are compared.
        value: The mean over people of their means after minus that before; None without people.
        low: The low end of its 95 % confidence sequence, valid however often one looks.
        high: The high end.
        margin: The largest worsening that is accepted.
        weeks: The number of whole weeks since the moment that are compared.
        lacks: Why it can never be compared; None if it can, or may yet.
    """

    outcome: str
    better: str
    people: int
    value: float | None
    low: float | None
    high: float | None
    margin: float
    weeks: int
    lacks: str | None

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
    times = [_time_before(one, since_ms) for one in (log, *guardrails)]
    for week, look_ms in enumerate(range(since_ms + WEEK_MS, end_ms, WEEK_MS), start=1):
        if told == "roll back":
            break
        earlier = [
            _change(one, since_ms, margin if one is log else None, look_ms, time)
            for one, time in zip((log, *guardrails), times, strict=True)
        ]
        if (before := _recommend(earlier[0], earlier[1:]))[0] == "roll back":
            told, reason = "roll back", f"{before[1]} This was clear after week {week}."
    if told == "wait" and len(np.unique(log.person)) == 1:
        reason = ALONE
    elif told != "roll back":
        reason += _silence(log, since_ms, end_ms) + _unused(goal, log, since_ms, end_ms)
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
        until_ms: The time of the look: decisions count whose windows were over. None for all.
    """
    before = _time_before(log, since_ms)
    change = _change(log, since_ms, margin, until_ms, before)
    lacks = None
    if change.people < FEWEST and len(log) and (change.weeks or not before.weeks):
        lacks = why_never(log, since_ms)
        if lacks is None and change.weeks == _STRETCHES * before.weeks:
            lacks = _too_few(change.people, "both times that are compared")
    return replace(change, lacks=lacks)


def _change(
    log: Log, since_ms: int, margin: float | None, until_ms: int | None, before: _TimeBefore
) -> Change:
    """Return the change of an outcome, without why it can never be compared."""
    from scipy import special

    until_ms = None if until_ms is None else until_ms - log.outcome.window_ms
    known = log.observed if until_ms is None else log.observed & (log.time_ms <= until_ms)
    earlier = known & (log.time_ms < since_ms)
    margin = margin or _usual_margin(log.person[earlier], log.reward[earlier])
    weeks = min(_weeks_since(log, known, since_ms, until_ms), _STRETCHES * before.weeks)
    value, parts, people = _contrast(log, known, since_ms, weeks, before)
    low = high = None
    if value is not None and people >= FEWEST and margin > 0 and float(np.ptp(parts)) > 0:
        student = float(special.stdtrit(people - 1, 0.975)) / NORMAL_95
        error = student * float(np.sum(parts**2)) ** 0.5
        half = error * widening(error**-2, (_POWER / margin) ** 2)
        low, high = value - half, value + half
    outcome = log.outcome
    return Change(outcome.name, outcome.better, people, value, low, high, margin, weeks, None)


def why_never(log: Log, since_ms: int) -> str | None:
    """Return why a change at a moment could never be judged by what was before; None if it could.

    Too few days or people there stay too few, whatever comes after.
    """
    if (why := too_short(log, since_ms)) is not None:
        return why
    first_ms, last_ms, longest = _time_before(log, since_ms)
    seen = np.zeros(len(log.people), bool)
    for weeks in range(1, longest + 1):
        start_ms = last_ms - weeks * WEEK_MS
        known = log.observed & _seen(log, first_ms, start_ms)
        seen |= _votes(log, known, start_ms, last_ms)[0] > 0
        if seen.sum() >= FEWEST:
            return None
    return _too_few(int(seen.sum()), "the time before the change")


def too_short(log: Log, since_ms: int) -> str | None:
    """Return that the time before a moment is too short to be compared; None if it is not."""
    days, needed = days_before(log, since_ms)
    if days >= needed:
        return None
    return (
        f"the decisions before the change span {days} day{'' if days == 1 else 's'} since most of "
        f"the people were there, and {needed} are needed"
    )


def _too_few(people: int, where: str) -> str:
    some = "person has" if people == 1 else "people have"
    return f"only {people} {some} it in {where}, and {FEWEST} are needed"


def days_before(log: Log, since_ms: int) -> tuple[int, int]:
    """Return the whole days in the time before a moment, and how many are needed to compare it."""
    needed = math.ceil((log.outcome.window_ms + WEEK_MS / (1 - _KNOWN_BY)) / MS_PER_DAY)
    return (since_ms - _time_before(log, since_ms)[0]) // MS_PER_DAY, needed


class _TimeBefore(NamedTuple):
    """The time before a moment: its begin, its end, and the weeks of it to compare."""

    first_ms: int
    last_ms: int
    weeks: int


def _time_before(log: Log, since_ms: int) -> _TimeBefore:
    """Return the time before a moment.

    Outcomes whose window reaches beyond the moment are left out.
    """
    last_ms = since_ms - log.outcome.window_ms
    first_ms = begin_of_period(log.person, log.time_ms, since_ms)
    return _TimeBefore(
        first_ms, last_ms, max(int((1 - _KNOWN_BY) * (last_ms - first_ms) / WEEK_MS), 0)
    )


def _weeks_since(
    log: Log, known: NDArray[np.bool_], since_ms: int, until_ms: int | None = None
) -> int:
    """Return the whole weeks since a moment whose outcomes are known.

    On a part of a week other weekdays would be compared than before.
    """
    end_ms = until_ms
    if end_ms is None:
        over_ms = int(log.time_ms.max(initial=since_ms)) - log.outcome.window_ms
        end_ms = max(over_ms, int(log.time_ms[known].max(initial=since_ms)) + 1)
    return max(end_ms - since_ms, 0) // WEEK_MS


def _contrast(
    log: Log, known: NDArray[np.bool_], since_ms: int, weeks: int, before: _TimeBefore
) -> tuple[float | None, Floats, int]:
    """Return the difference of people's means since a moment to those before, and its parts.

    The mean of a person's first session differs from that of many, and fewer people leave in a week
    than in a year, so only times of equal length are alike. If the time since is longer than that
    before, it is cut into stretches. Of each, people count who were seen in some time before it
    began, so that newcomers do not change the mean. This time is as long on both sides: in a longer
    one more of the people who are rarely there become known. A stretch with few people on a side is
    left out.

    Args:
        log: Decisions from before and after.
        known: Those whose outcomes count.
        since_ms: The moment.
        weeks: The number of weeks since that are compared.
        before: The time before it.

    Returns:
        The difference, None without people; what each person contributes to its error; and the
        number of people in both times, or without a difference the most in those of a stretch.
    """
    size, most = len(log.people), 0
    parts, seen = np.zeros(size), np.zeros((2, size), bool)
    first_ms, last_ms, longest = before
    total = weight = 0.0
    for begun in range(0, weeks, max(longest, 1)):
        length = min(longest, weeks - begun) * WEEK_MS
        sides = [
            _votes(log, known & _seen(log, start - (last_ms - length - first_ms), start), start,
                   start + length)
            for start in (since_ms + begun * WEEK_MS, last_ms - length)
        ]  # fmt: skip
        if min(np.count_nonzero(times) for times, _ in sides) < _FEWEST_ON_A_SIDE:
            most = max(most, int(np.count_nonzero(sides[0][0] * sides[1][0])))
            continue
        weight += length
        for side, sign in ((0, 1), (1, -1)):
            times, means = sides[side]
            there = times > 0
            seen[side] |= there
            middle = float(means[there].mean())
            total += sign * length * middle
            few = (there.sum() * (there.sum() - 1)) ** 0.5  # for the error of a mean of few
            parts += sign * length * np.where(there, means - middle, 0.0) / few
    people = int((seen[0] & seen[1]).sum())
    return (total / weight, parts / weight, people) if people else (None, parts, most)


def _seen(log: Log, start_ms: int, end_ms: int) -> NDArray[np.bool_]:
    """Return which decisions are of people about whom some were made in a time."""
    rows = (log.time_ms >= start_ms) & (log.time_ms < end_ms)
    return (np.bincount(log.person[rows], minlength=len(log.people)) > 0)[log.person]


def _votes(log: Log, known: NDArray[np.bool_], start_ms: int, end_ms: int) -> tuple[Codes, Floats]:
    """Return each person's number of known outcomes in a time, and their mean."""
    rows = known & (log.time_ms >= start_ms) & (log.time_ms < end_ms)
    times = np.bincount(log.person[rows], minlength=len(log.people))
    total = np.bincount(log.person[rows], log.reward[rows], len(log.people))
    return times, total / np.maximum(times, 1)


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


def _unused(goal: Change, log: Log, since_ms: int, end_ms: int) -> str:
    """Return that the last weeks are not compared, if the time before is too short for them."""
    weeks = _STRETCHES * _time_before(log, since_ms)[2]
    if not weeks or goal.weeks < weeks or end_ms - since_ms < (weeks + 1) * WEEK_MS:
        return ""
    return f" Only the first {weeks} weeks since are compared, as the time before is short."


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
            if change.lacks is not None:
                return "wait", f"{change.outcome} is never judged: {change.lacks}."
            if not change.weeks:
                few = "no whole week since the change is known yet"
            elif change.people < FEWEST:
                few = _too_few(change.people, "both times that are compared")
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
