"""Estimates of a policy's value from a log of another policy, with intervals over people.

Each estimate is a mean over decisions of

    q(target) + v (r - q(chosen)),

with the reward r, the prediction q of a reward model, and a weight v made from the importance
weight w = target / propensity:

- DM, the direct method: v = 0 (Beygelzimer and Langford, "The offset tree", 2009);
- IPW, inverse propensity weighting: q = 0 and v = w (Horvitz and Thompson 1952);
- SNIPW, its self-normalised form: divided by the mean of w (Swaminathan and Joachims 2015);
- DR, doubly robust: v = w (Dudik, Langford and Li 2011);
- SNDR: v = w / the mean of w (Robins et al. 2007; Thomas and Brunskill 2016);
- Switch-DR: v = w where w is at most a threshold, else 0 (Wang, Agarwal and Dudik 2017);
- DRos, optimistic shrinkage: v = s w / (w^2 + s) (Su, Dimakopoulou, Krishnamurthy and Dudik 2020).

Names and definitions are those of the Open Bandit Pipeline (Saito et al. 2021). The threshold and
the shrinkage s are chosen as in section 5 of Su et al.: the least sum of the variance and the
square of a bound of the bias, among candidates.

The interval leaves out each person in turn, as those of the metrics do
(`aico_lab.metrics.engine.intervals`). Estimates that use a model include how much a person moves
the model; for another model than the ridge regression this is unknown, so that DM has no interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from aico_lab.metrics.engine.intervals import NORMAL_95, Statistic, estimate
from aico_lab.personality.sequences import PLANNED, widening

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from aico_lab.metrics.engine.intervals import Sums
    from aico_lab.personality.log import Codes, Floats, Log
    from aico_lab.personality.reward_model import CrossFitted

    _Ends: TypeAlias = tuple[float | None, float | None, float | None, float | None, float | None]

ESTIMATORS: Final = ("DM", "IPW", "SNIPW", "DR", "SNDR", "Switch-DR", "DRos")

MAIN: Final = "DR"
"""The estimator that proposals use: unbiased with correct propensities, whatever the model."""

_BASELINE: Final = "baseline"
_OVER: Final = "over "
"""The prefix of the sums of the policy that is compared with."""

_CANDIDATES: Final = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
"""Quantiles of the weights that are tried as thresholds."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The value of a policy by one estimator, and its gain over another policy.

    Attributes:
        estimator: The name of the estimator.
        value: The expected outcome of a decision.
        low: The low end of its 95 % interval; None with fewer than 10 people, or if all are equal.
        high: The high end.
        low_anytime: The low end of its 95 % confidence sequence, valid however often one looks.
        high_anytime: The high end.
        gain: The value minus that of the policy that it is compared with.
        gain_low: The low end of the gain's 95 % interval.
        gain_high: The high end.
        gain_low_anytime: The low end of the gain's confidence sequence.
        gain_high_anytime: The high end.
    """

    estimator: str
    value: float | None
    low: float | None
    high: float | None
    low_anytime: float | None
    high_anytime: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    gain_low_anytime: float | None
    gain_high_anytime: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """All estimates of a policy.

    Attributes:
        estimates: One for each estimator.
        baseline: The value of the policy that it is compared with, by the main estimator, or else
            the mean outcome in the log; its gain is 0.
        threshold: The largest weight that Switch-DR uses.
        shrinkage: The parameter s of DRos.
    """

    estimates: tuple[Estimate, ...]
    baseline: Estimate
    threshold: float
    shrinkage: float


def estimate_value(
    log: Log,
    target: Floats,
    model: CrossFitted,
    *,
    over: Floats | None = None,
    threshold: float | None = None,
    shrinkage: float | None = None,
) -> Estimates:
    """Estimate the value of a policy by all estimators.

    Args:
        log: Decisions with known rewards and propensities above 0.
        target: The target policy's probabilities of all arms, N x K.
        model: The reward model of these decisions.
        over: The probabilities of the policy that it is compared with; None means the policy that
            made the log, whose value is the mean reward.
        threshold: The largest weight that Switch-DR uses; None chooses it.
        shrinkage: The parameter s of DRos; None chooses it.
    """
    people = _PerPerson(log.person, len(log.people))
    of_target = _Parts(log, target, model)
    rule = _Rule(people, of_target)
    threshold = rule.best(switched) if threshold is None else threshold
    shrinkage = rule.best(shrunk) if shrinkage is None else shrinkage
    sums = {"n": people.sum(np.ones(len(log))), "reward": people.sum(log.reward)}
    sums |= of_target.sums(people, threshold, shrinkage, "")
    if over is not None:
        sums |= _Parts(log, over, model).sums(people, threshold, shrinkage, _OVER)
    found = _intervals(sums, compared=over is not None, linear=model.linear)
    baseline = found.pop(_BASELINE)
    return Estimates(tuple(found.values()), baseline, threshold, shrinkage)


def switched(weights: Floats, threshold: float) -> Floats:
    """Return weights without those above a threshold, as Switch-DR uses them."""
    return np.where(weights <= threshold, weights, 0.0)


def shrunk(weights: Floats, shrinkage: float) -> Floats:
    """Return shrunk weights, as DRos uses them."""
    if not np.isfinite(shrinkage):
        return weights
    with np.errstate(invalid="ignore"):
        found = shrinkage * weights / (weights**2 + shrinkage)
    return np.where(weights > 0, found, 0.0)


class _Parts:
    """The parts of every decision's score for one policy."""

    def __init__(self, log: Log, target: Floats, model: CrossFitted) -> None:
        chosen = np.arange(len(log)), log.arm
        self.weights = target[chosen] / log.propensity
        self.direct: Floats = np.einsum("ij,ij->i", target, model.predictions)
        self.residual = log.reward - model.predictions[chosen]
        self._log, self._target, self._model = log, target, model

    def sums(
        self, people: _PerPerson, threshold: float, shrinkage: float, prefix: str
    ) -> dict[str, Floats]:
        """Return each person's sums, their names with a prefix."""
        weights = self.weights
        found = {
            "w": people.sum(weights),
            "wr": people.sum(weights * self._log.reward),
            "direct": people.sum(self.direct),
            "rest": people.sum(weights * self.residual),
        }
        for name, used in (
            ("DR", weights),
            ("DM", np.zeros(len(weights))),
            ("Switch-DR", switched(weights, threshold)),
            ("DRos", shrunk(weights, shrinkage)),
        ):
            # Without a weight that is too large, Switch-DR and DRos are DR.
            same = name != "DR" and np.array_equal(used, weights)
            moved = (
                found["DR moved"] if same else people.sum(self._model.influence(self._target, used))
            )
            found |= {name: people.sum(self.direct + used * self.residual), f"{name} moved": moved}
        return {f"{prefix}{name}": values for name, values in found.items()}


class _PerPerson:
    """Sums over each person's decisions."""

    def __init__(self, person: Codes, people: int) -> None:
        self._person = person
        self._people = people
        self._times = self.sum(np.ones(len(person)))
        self._known = self._times > 0

    def sum(self, values: Floats) -> Floats:
        return np.bincount(self._person, weights=values, minlength=self._people).astype(float)

    def variance(self, values: Floats) -> float:
        """Return the variance of the mean of some values, over people."""
        n, total = int(self._known.sum()), self._times.sum()
        if n <= 1:
            return float("inf")
        apart = self.sum(values) - self._times * (values.mean() if total else 0)
        return float(n / (n - 1) * np.sum(apart**2) / total**2)


class _Rule:
    """The choice of a threshold or a shrinkage: least variance plus squared bound of the bias."""

    def __init__(self, people: _PerPerson, parts: _Parts) -> None:
        self._people = people
        self._parts = parts
        positive = parts.weights[parts.weights > 0]
        found = np.quantile(positive, _CANDIDATES) if len(positive) else np.empty(0)
        self._thresholds = sorted({float(one) for one in found})

    def best(self, weigh: Callable[[Floats, float], Floats]) -> float:
        """Return the best parameter; infinity leaves the weights as they are."""
        candidates = [*self._thresholds, float("inf")]
        if weigh is shrunk:
            # At w^2 = s half of the weight is left.
            candidates = [*(10 * one**2 for one in self._thresholds), float("inf")]
        return min(candidates, key=lambda one: self._error(weigh(self._parts.weights, one)))

    def _error(self, used: Floats) -> float:
        parts = self._parts
        variance = self._people.variance(parts.direct + used * parts.residual)
        lost = (parts.weights - used) * parts.residual
        if not np.any(lost):
            return variance
        bias = abs(float(lost.mean())) + float(np.sqrt(self._people.variance(lost)))
        return variance + bias**2


def _value(name: str, prefix: str = "") -> Callable[[Sums], Floats]:
    """Return the function of sums that is the value of a policy by an estimator."""

    def part(sums: Sums, column: str) -> Floats:
        return sums[f"{prefix}{column}"]

    match name:
        case "IPW":
            return lambda sums: part(sums, "wr") / sums["n"]
        case "SNIPW":
            return lambda sums: part(sums, "wr") / part(sums, "w")
        case "SNDR":
            return lambda sums: (
                (part(sums, "direct") + part(sums, "DR moved")) / sums["n"]
                + part(sums, "rest") / part(sums, "w")
            )
    return lambda sums: (part(sums, name) + part(sums, f"{name} moved")) / sums["n"]


def _gain(name: str, *, compared: bool) -> Callable[[Sums], Floats]:
    value = _value(name)
    other = _value(name, _OVER) if compared else _mean_reward
    return lambda sums: value(sums) - other(sums)


def _mean_reward(sums: Sums) -> Floats:
    return sums["reward"] / sums["n"]


def _intervals(sums: dict[str, Floats], *, compared: bool, linear: bool) -> dict[str, Estimate]:
    """Return an estimate by each estimator, and of the baseline."""
    known = sums["n"] > 0
    rows = pl.DataFrame({name: column[known] for name, column in sums.items()})
    before = _value(MAIN, _OVER) if compared else _mean_reward
    statistics = {
        _BASELINE: Statistic(before, ("n",)),
        **{name: Statistic(_value(name), ("n",)) for name in ESTIMATORS},
        **{
            f"{name} gain": Statistic(_gain(name, compared=compared), ("n",)) for name in ESTIMATORS
        },
    }
    found = estimate(rows.with_columns(known=True), by=[], unit="people", statistics=statistics)
    row = found.row(0, named=True) if found.height else {}
    wider = widening(rows.height, PLANNED) / NORMAL_95

    def ends(name: str) -> _Ends:
        value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
        if low is None or high is None or (name.startswith("DM") and not linear):
            return value, None, None, None, None
        half = wider * (high - low) / 2
        return value, low, high, value - half, value + half

    none: _Ends = (0.0, None, None, None, None)
    return {
        _BASELINE: Estimate(_BASELINE, *ends(_BASELINE), *none),
        **{name: Estimate(name, *ends(name), *ends(f"{name} gain")) for name in ESTIMATORS},
    }
