"""Watch a change: keep it, roll it back, or wait, by a test that is valid however often one looks.

Each person is compared with the time before the change. There is no control group, so a change of
the season or of the companion's model counts as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import polars as pl

from aico_lab.errors import InvalidValue
from aico_lab.metrics.engine.intervals import FEWEST, NORMAL_95, Statistic, estimate
from aico_lab.personality.sequences import widening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.metrics.engine.intervals import Numbers, Sums
    from aico_lab.personality.log import Log

_POWER: Final = 2.8
"""The margin in standard errors at which 80 % of the tests decide: 1.96 + 0.84."""

_MARGIN: Final = 0.1
"""The usual margin, in standard deviations of the outcome before the change."""

Recommendation = Literal["keep", "roll back", "wait"]


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one outcome since a moment, within people.

    Attributes:
        outcome: The name of the outcome.
        better: Whether more of it is better, or less.
        people: The number of people with known outcomes before and after.
        value: The mean after minus the mean before; None without such people.
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
    look. Otherwise wait.

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
    return Watch(*_recommend(goal, others), goal, others)


def change_since(log: Log, since_ms: int, margin: float | None = None) -> Change:
    """Return the change of an outcome since a moment, with its confidence sequence.

    Args:
        log: Decisions from before and after.
        since_ms: The moment in UTC milliseconds.
        margin: The largest worsening that is accepted; by default a tenth of the standard deviation
            before.
    """
    kept = log.choose(log.observed)
    after = kept.time_ms >= since_ms
    usual = float(np.std(kept.reward[~after])) if (~after).any() else 0.0
    margin = margin or _MARGIN * usual
    sums: dict[str, Numbers] = {}
    for name, part in (("after", after), ("before", ~after)):
        person = kept.person[part]
        sums[name] = np.bincount(person, kept.reward[part], len(kept.people)).astype(float)
        sums[f"n_{name}"] = np.bincount(person, minlength=len(kept.people)).astype(float)
    both = (sums["n_after"] > 0) & (sums["n_before"] > 0)
    people = int(both.sum())
    value = low = high = None
    if people:
        rows = pl.DataFrame({name: column[both] for name, column in sums.items()})
        found = estimate(
            rows.with_columns(known=True),
            by=[],
            unit="people",
            statistics={"change": Statistic(_change, ("n_after", "n_before"))},
        ).row(0, named=True)
        value = found["change"]
        if found["change_low"] is not None and margin > 0:
            error = (found["change_high"] - found["change_low"]) / 2 / NORMAL_95
            half = error * widening(error**-2, (_POWER / margin) ** 2)
            low, high = value - half, value + half
    outcome = log.outcome
    return Change(outcome.name, outcome.better, people, value, low, high, margin)


def _change(sums: Sums) -> Numbers:
    return sums["after"] / sums["n_after"] - sums["before"] / sums["n_before"]


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
