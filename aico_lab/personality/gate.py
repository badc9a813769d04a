"""Whether a log can support a question at all, before any number is computed from its outcomes.

Estimates from logs are wrong without a sign of it if a propensity is wrong, if an arm was hardly
tried, or if something else changed meanwhile. Each check names one of these, in one sentence.
What made the companion choose, but is nowhere in the log, cannot be seen in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.constants import MS_PER_DAY
from aico_lab.personality.check import Check, counted
from aico_lab.personality.period import begin_of_period
from aico_lab.personality.power import ESS_SHARE, FEWEST_PEOPLE, MOST_ARMS, SHARE, Power, needed_log
from aico_lab.personality.propensity_checks import (
    check_frequencies,
    check_independence,
    check_possible,
)
from aico_lab.personality.reward_model import CrossFitted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from aico_lab.personality.log import Floats, Log

_MISSING: Final = 0.01
"""The largest share of decisions without a propensity; they are left out."""

_TRIED_BY: Final = 10
"""The fewest people with whom each arm of the target policy was tried."""

_RARE: Final = 0.01
"""An arm that had a smaller probability could hardly be chosen."""

_OBSERVED: Final = 0.1
"""The least share of decisions with a known outcome."""

_UNEVEN: Final = 0.05
"""The largest difference of that share between an arm and all."""

_DRIFT: Final = 0.1
"""The largest change of the outcome over the period, in its standard deviations."""

_DRIFT_ALARM: Final = 0.005
"""The probability with which a log without drift fails that check, for each of two measures."""

_STRAY: Final = 0.02
"""The share of decisions that may lie long after all others."""

_COMPARED: Final = FEWEST_PEOPLE // 2
"""The fewest people in both halves of the period of whom a drift is told."""

_MOST: Final = 0.5
"""The least share of the decisions of each half that is from people of whom a drift is told."""

_CHANGED: Final = 0.05
"""The largest share of decisions under another version than is usual for person and context."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a log can support a question.

    Attributes:
        supported: Whether it can.
        reason: Why not, in one sentence; or that it can, and what is not known.
        checks: All checks in order; those that a failed one makes meaningless are left out.
        needed: The log that would answer the question; None if this one can.
    """

    supported: bool
    reason: str
    checks: tuple[Check, ...]
    needed: Power | None


class Support:
    """The checks of one log and one target policy.

    Attributes:
        kept: The decisions with a known outcome and a propensity.
        target: The target's probabilities for these.
    """

    def __init__(self, log: Log, target: Floats) -> None:
        """Prepare the checks.

        Args:
            log: All decisions.
            target: The target policy's probabilities of all arms, N x K.
        """
        self._log, self._target = log, target
        usable = ~np.isnan(log.propensity)
        self._usable = log.choose(usable)
        self._usable_target = target[usable]
        rows = usable & log.observed
        self.kept: Log = log.choose(rows)
        self.target: Floats = target[rows]

    def verdict(self) -> Verdict:
        """Run the checks, in order, until one makes the next meaningless."""
        checks = tuple(self._checks())
        failed = [check for check in checks if not check.ok]
        if not failed:
            n, people = len(self.kept), self._people(self.kept)
            reason = f"The log supports the question: {n:,} decisions about {people:,} people."
            reason += "".join(f" {check.sentence}" for check in checks if not check.known)
            return Verdict(True, reason, checks, None)
        return Verdict(False, failed[0].sentence, checks, needed_log(self._log))

    @cached_property
    def model(self) -> CrossFitted:
        """The reward model of the kept decisions."""
        return CrossFitted(self.kept)

    @cached_property
    def weights(self) -> Floats:
        """The importance weights of the kept decisions."""
        return _weights(self.kept, self.target)

    def _checks(self) -> Iterator[Check]:
        for done in (self._logged(), check_possible(self._usable)):
            yield done
            if not done.ok:
                return
        yield check_frequencies(self._usable)
        yield check_independence(self._usable)
        yield self._overlap()
        yield self._observed()
        yield self._evenly()
        yield self._varies()
        enough = self._enough()
        yield enough
        yield self._one_change()
        if len(self.kept) and enough.ok:
            yield self._ess()
            yield self._steady()

    def _logged(self) -> Check:
        log = self._log
        missing = float(np.mean(np.isnan(log.propensity))) if len(log) else 1.0
        sentence = f"Propensities are logged for {1 - missing:.1%} of the decisions."
        if not len(log):
            sentence = "No decision is logged."
        elif missing > _MISSING:
            sentence = (
                f"{missing:.0%} of the decisions have no propensity: without the probability of "
                "the choice, a better arm cannot be told from better moments."
            )
        if log.ahead:
            sentence += (
                f" {counted(log.ahead, 'decision of the home is', 'decisions of the home are')} "
                "left out, as the time is in the future."
            )
        return Check("propensities logged", missing <= _MISSING, missing, _MISSING, sentence)

    def _overlap(self) -> Check:
        """Check that every arm of the target could be chosen, and was, also late in the period."""
        log, target = self._usable, self._usable_target
        times = np.quantile(log.time_ms, [0, 0.5, 1]) if len(log) else np.zeros(3)
        late = log.time_ms > times[1]
        fewest, rarest = None, 0
        for arm in np.flatnonzero(target.sum(axis=0) > 0):
            wanted = target[:, arm] > 0
            tried = wanted & (log.arm == arm)
            halves = (tried & ~late, tried & late) if late.any() and (~late).any() else (tried,)
            people = min(len(np.unique(log.person[half])) for half in halves)
            if fewest is None or people < fewest:
                fewest, rarest = people, int(arm)
        fewest = fewest or 0
        if log.probabilities is None:
            lost = 0.0
        else:
            with np.errstate(invalid="ignore"):
                lost = float(np.sum(target * (log.probabilities < _RARE)) / max(len(log), 1))
        ok = fewest >= _TRIED_BY and lost <= 1 - ESS_SHARE
        sentence = f"Every arm in question was tried with at least {fewest} people in each half."
        if fewest < _TRIED_BY:
            name = log.arms[rarest] if len(log.arms) else "an arm"
            sentence = (
                f"{name} was tried with {counted(fewest, 'person', 'people')} in a half of the "
                f"period where {_TRIED_BY} are needed."
            )
        elif not ok:
            sentence = (
                f"In {lost:.0%} of the decisions the arm in question had a probability below "
                f"{_RARE:.0%}."
            )
        return Check("overlap", ok, float(fewest), float(_TRIED_BY), sentence)

    def _observed(self) -> Check:
        due = self._due()
        share = float(np.mean(self._log.observed[due])) if due.any() else 0.0
        ok = share >= _OBSERVED
        sentence = f"The outcome is known for {share:.0%} of the decisions whose window is over."
        if not ok:
            sentence = (
                f"The outcome is known for only {share:.1%} of the decisions whose window is over; "
                f"{_OBSERVED:.0%} are needed."
            )
        if self._log.unscaled:
            sentence += (
                f" {counted(self._log.unscaled, 'rating is', 'ratings are')} left out, because "
                "no valid scale is declared."
            )
        return Check("outcome observed", ok, share, _OBSERVED, sentence)

    def _evenly(self) -> Check:
        """Check that the outcome is known as often after each arm: else an arm selects moods."""
        log, due = self._log, self._due()
        worst, name = 0.0, ""
        for arm in range(len(log.arms)):
            after, other = due & (log.arm == arm), due & (log.arm != arm)
            if after.sum() < _TRIED_BY or other.sum() < _TRIED_BY:
                continue
            apart, error = _difference(log.observed.astype(float), log.person, after, other)
            if abs(apart) > max(3.3 * error, _UNEVEN) and abs(apart) > worst:
                worst, name = abs(apart), log.arms[arm]
        sentence = "The outcome is known about as often after each arm."
        if name:
            sentence = (
                f"The outcome is known more or less often after {name} than after other arms, by "
                f"{worst:.0%} of the decisions: who answers depends on the arm."
            )
        return Check("outcome observed evenly", not name, worst, _UNEVEN, sentence)

    def _varies(self) -> Check:
        spread = float(np.ptp(self.kept.reward)) if len(self.kept) else 0.0
        ok = spread > 0
        sentence = "The outcome varies."
        if not ok:
            sentence = (
                "No outcome is known." if not len(self.kept) else "The outcome is always the same."
            )
        return Check("outcome varies", ok, spread, None, sentence)

    def _enough(self) -> Check:
        """Check the number of people, and that the estimate does not rest on a few of them."""
        people = self._people(self.kept)
        sums = np.bincount(self.kept.person, weights=self.weights) if people else np.zeros(0)
        effective = float(sums.sum() ** 2 / np.sum(sums**2)) if np.any(sums) else 0.0
        ok = people >= FEWEST_PEOPLE and effective >= FEWEST_PEOPLE / 2
        sentence = f"There are {people:,} people with known outcomes."
        if people < FEWEST_PEOPLE:
            sentence = (
                f"Only {counted(people, 'person has', 'people have')} a known outcome; "
                f"{FEWEST_PEOPLE} are needed."
            )
        elif not ok:
            sentence = (
                f"The estimate rests on few people: their weights are those of {effective:.0f} "
                f"equal ones, and {FEWEST_PEOPLE // 2} are needed."
            )
        return Check("enough people", ok, float(people), float(FEWEST_PEOPLE), sentence)

    def _one_change(self) -> Check:
        """Check that each person had one version of the personality in each context."""
        log = self._log
        place = log.person * len(log.contexts) + log.context
        other = _apart_from_the_usual(place, log.profile, len(log.profiles))
        share = float(np.mean(other)) if len(log) else 0.0
        ok = share <= _CHANGED
        sentence = "The version of the personality did not change meanwhile."
        if not ok:
            policies = _apart_from_the_usual(place, log.policy, len(log.policies)).mean()
            also = " and the policy" if policies > _CHANGED else ""
            sentence = (
                f"Two things changed at once: the version of the personality{also}, in {share:.0%} "
                "of the decisions, and the arm; use only the decisions since the last change."
            )
        return Check("one change at a time", ok, share, _CHANGED, sentence)

    def _ess(self) -> Check:
        share = effective_size(self.weights) / max(len(self.kept), 1)
        ok = share >= ESS_SHARE
        sentence = f"The effective sample size is {share:.0%} of the decisions."
        if not ok:
            sentence = (
                f"The log says little about this policy: the effective sample size is {share:.1%} "
                f"of the decisions, and {ESS_SHARE:.0%} are needed; let the companion choose among "
                f"at most {MOST_ARMS} arms, each with a probability of at least {SHARE:.0%}."
            )
        return Check("effective sample size", ok, share, ESS_SHARE, sentence)

    def _steady(self) -> Check:
        """Compare the halves of the log within each person: the outcome, and the gain.

        Those of all decisions are compared, and those of the period, which testers do not hide. The
        halves hold as many whole weeks, so that weekends count alike in both; an odd week between
        them is left out. Only less than two weeks are cut in the middle, where a weekend looks like
        a drift.
        """
        log = self.kept
        residual = log.reward - self.model.predictions[np.arange(len(log)), log.arm]
        direct = np.einsum("ij,ij->i", self.target, self.model.predictions)
        gain = direct + self.weights * residual - log.reward
        spread = float(np.std(log.reward)) or 1.0
        halves = _halves(log)
        worst, drifts, in_whole_weeks = 0.0, "", True
        for early, late, whole in halves:
            for what, values in (("outcome", residual), ("gain of the policy", gain)):
                apart, significant = _paired(
                    values, log.person, early, late, alarm=_DRIFT_ALARM / len(halves)
                )
                size = abs(apart) / spread
                worst = max(worst, size if significant else 0.0)
                if significant and size > _DRIFT and not drifts:
                    drifts, in_whole_weeks = what, whole
        # Those of the period suffice if only testers were there before it.
        before = log.person[log.time_ms < log.time_ms[halves[-1][0]].min()]
        asked = halves if len(np.unique(before)) >= _COMPARED else halves[-1:]
        people, share = min(
            (_in_both(log.person, early, late) for early, late, _ in asked),
            key=lambda one: (one[0] >= _COMPARED, one[1]),
        )
        known = bool(drifts) or (people >= _COMPARED and share >= _MOST)
        sentence = "The outcome does not drift over the period."
        if not known:
            sentence = (
                "Whether the outcome drifts over the period is not known: "
                f"{counted(people, 'person was', 'people were')} there in both halves of it, who "
                f"made {int(100 * share)}% of the decisions of a half; {_COMPARED} people and "
                f"{_MOST:.0%} are needed."
            )
        elif drifts and not in_whole_weeks:
            sentence = (
                f"The {drifts} differs between the halves of the period by {worst:.2f} standard "
                "deviations, which may be the days of the week: log at least two whole weeks."
            )
        elif drifts:
            sentence = (
                f"The {drifts} drifts: it differs between the halves of the period by {worst:.2f} "
                "standard deviations, so that one number does not describe it."
            )
        return Check("no drift", not drifts, worst, _DRIFT, sentence, known)

    def _due(self) -> NDArray[np.bool_]:
        """Return the decisions whose window is over."""
        times = self._log.time_ms
        if not len(times):
            return np.zeros(0, bool)
        return times <= max(int(times.max()) - self._log.outcome.window_ms, int(times.min()))

    @staticmethod
    def _people(log: Log) -> int:
        return len(np.unique(log.person))


def effective_size(weights: Floats) -> float:
    """Return the effective sample size of weights (Kish 1965): (sum w)^2 / sum w^2."""
    squares = float(np.sum(weights**2))
    return float(np.sum(weights)) ** 2 / squares if squares > 0 else 0.0


def _weights(log: Log, target: Floats) -> Floats:
    return target[np.arange(len(log)), log.arm] / log.propensity


def _difference(
    values: Floats, person: NDArray[np.int64], one: NDArray[np.bool_], other: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return the difference of two groups' means, and its standard error over people."""
    middle_one, middle_other = values[one].mean(), values[other].mean()
    apart = np.where(one, (values - middle_one) / one.sum(), 0.0)
    apart -= np.where(other, (values - middle_other) / other.sum(), 0.0)
    by_person = np.bincount(person, weights=apart)
    return float(middle_one - middle_other), float(np.sqrt(np.sum(by_person**2)))


def _halves(log: Log) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_], bool]]:
    """Return the halves of all decisions, and those of the period where it begins later."""
    begin_ms = begin_of_period(log.person, log.time_ms, int(log.time_ms.max()) + 1)
    within = log.time_ms >= begin_ms
    found = [_cut(log.time_ms, np.ones(len(log), bool))]
    return found if within.all() else [*found, _cut(log.time_ms, within)]


def _in_both(
    person: NDArray[np.int64], early: NDArray[np.bool_], late: NDArray[np.bool_]
) -> tuple[int, float]:
    """Return the people in both halves, and the least share that they have of one."""
    both = np.intersect1d(person[early], person[late])
    of_them = np.isin(person, both)
    return len(both), float(min(np.mean(of_them[half]) for half in (early, late)))


def _cut(
    time_ms: NDArray[np.int64], within: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], bool]:
    """Return which decisions are early, which are late, and whether both have as many whole weeks.

    The few that lie far from all others are neither: they would leave a half almost empty.
    """
    low, high = np.quantile(time_ms[within], [_STRAY, 1 - _STRAY])
    around = 2 * _STRAY / (1 - 2 * _STRAY) * (high - low)
    usual = within & (time_ms >= low - around) & (time_ms <= high + around)
    first_ms, last_ms = int(time_ms[usual].min()), int(time_ms[usual].max())
    days = (last_ms - first_ms) // MS_PER_DAY + 1
    half_ms = days // 14 * 7 * MS_PER_DAY
    if not half_ms:
        late = time_ms > np.median(time_ms[usual])
        return usual & ~late, usual & late, False
    early = time_ms < first_ms + half_ms
    return usual & early, usual & (time_ms > last_ms - half_ms) & ~early, True


def _paired(
    values: Floats,
    person: NDArray[np.int64],
    early: NDArray[np.bool_],
    late: NDArray[np.bool_],
    *,
    alarm: float,
) -> tuple[float, bool]:
    """Return the mean change from early to late within people, and whether it is significant.

    Student's t test, with an alarm's probability, over the people with decisions in both halves.
    """
    from scipy import special

    people = int(person.max(initial=-1)) + 1
    sums = [np.bincount(person[half], values[half], people) for half in (late, early)]
    times = [np.bincount(person[half], minlength=people) for half in (late, early)]
    both = (times[0] > 0) & (times[1] > 0)
    n = int(both.sum())
    if n < _COMPARED:
        return 0.0, False
    apart = sums[0][both] / times[0][both] - sums[1][both] / times[1][both]
    # A person counts by the decisions of the smaller half, so that one decision does not decide.
    weight = np.minimum(times[0][both], times[1][both]).astype(float)
    middle = float(np.sum(weight * apart) / np.sum(weight))
    error = float(np.sqrt(np.sum((weight * (apart - middle)) ** 2))) / float(np.sum(weight))
    quantile = special.stdtrit(n - 1, 1 - alarm / 2)
    return middle, abs(middle) > quantile * error * np.sqrt(n / (n - 1))


def _apart_from_the_usual(
    place: NDArray[np.int64], value: NDArray[np.int64], values: int
) -> NDArray[np.bool_]:
    """Return which rows have another value than most rows of their place."""
    if not len(place):
        return np.zeros(0, bool)
    pairs, index, times = np.unique(place * values + value, return_inverse=True, return_counts=True)
    places = pairs // values
    order = np.lexsort((-times, places))
    firsts = order[np.unique(places[order], return_index=True)[1]]
    usual = np.zeros(len(pairs), bool)
    usual[firsts] = True
    return ~usual[index]
