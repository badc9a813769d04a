"""Evaluate a policy on a log: the gate's verdict first, then estimates and diagnostics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from aico_lab.personality.estimators import MAIN, Estimate, estimate_value
from aico_lab.personality.gate import Support, Verdict, effective_size
from aico_lab.personality.reward_model import CrossFitted, Regressor

if TYPE_CHECKING:
    from aico_lab.personality.log import Floats, Log
    from aico_lab.personality.targets import Target

_PARTS: Final = 10


@dataclass(frozen=True, slots=True, eq=False)
class Diagnostics:
    """How well a log supports an estimate.

    Attributes:
        decisions: The number of decisions with a known outcome and a propensity.
        people: The number of their people.
        effective_size: Kish's effective sample size of the weights.
        effective_people: The same of people's sums of weights.
        largest_weight: The largest importance weight.
        mean_weight: Their mean, which is 1 apart from chance if propensities are correct.
        threshold: The largest weight that Switch-DR uses.
        clipped: The share of decisions with a larger weight.
        overlap: For each arm its decisions, people, stated and target probability.
        balance: For each thing that the reward model knows, the difference of its means with and
            without weights, in standard deviations; near 0 if propensities are correct.
        calibration: Tenths of the decisions by predicted reward: mean prediction and reward.
        slope: The slope of rewards over predictions; 1 for a calibrated model.
    """

    decisions: int
    people: int
    effective_size: float
    effective_people: float
    largest_weight: float
    mean_weight: float
    threshold: float
    clipped: float
    overlap: pl.DataFrame
    balance: pl.DataFrame
    calibration: pl.DataFrame
    slope: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The value of a policy on a log, or why the log does not tell it.

    Attributes:
        policy: The name of the policy.
        outcome: The name of the outcome.
        better: Whether more of the outcome is better, or less.
        verdict: Whether the log supports the question.
        estimates: The value by each estimator; empty if the log does not support the question.
        baseline: The value of the policy that it is compared with; None in that case.
        diagnostics: How well the log supports the estimates; None in that case.
        simulated: Whether the data are simulated.
        generation: The generation of the snapshot.
    """

    policy: str
    outcome: str
    better: str
    verdict: Verdict
    estimates: tuple[Estimate, ...]
    baseline: Estimate | None
    diagnostics: Diagnostics | None
    simulated: bool
    generation: int | None

    @property
    def main(self) -> Estimate | None:
        """The estimate on which proposals rest: doubly robust."""
        return next((one for one in self.estimates if one.estimator == MAIN), None)

    @property
    def table(self) -> pl.DataFrame:
        """The estimates, one in each row."""
        empty = dict.fromkeys(Estimate.__slots__, pl.Float64()) | {"estimator": pl.String()}
        return pl.DataFrame([asdict(one) for one in self.estimates], schema=empty)


def evaluate(
    log: Log,
    target: Target,
    *,
    over: Target | None = None,
    regressor: Regressor | None = None,
) -> Evaluation:
    """Evaluate a policy on a log.

    Args:
        log: The decisions, with their outcomes.
        target: The policy, of `aico_lab.personality.targets`.
        over: The policy that it is compared with; the log must support this one, too. None means
            the policy that made the log.
        regressor: An unfitted model of rewards with scikit-learn's `fit` and `predict`; None means
            a ridge regression.

    Raises:
        InvalidValue: A policy names an arm that the log does not have.
    """
    support = Support(log, target.probabilities(log))
    verdict = support.verdict()
    other = None
    if over is not None and verdict.supported:
        of_other = Support(log, over.probabilities(log))
        verdict, other = of_other.verdict(), of_other.target
    estimates: tuple[Estimate, ...] = ()
    baseline = diagnostics = None
    if verdict.supported:
        kept = support.kept
        model = support.model if regressor is None else CrossFitted(kept, regressor)
        made = estimate_value(kept, support.target, model, over=other)
        estimates, baseline = made.estimates, made.baseline
        diagnostics = _diagnose(kept, support.target, support.weights, model, made.threshold)
    return Evaluation(
        policy=target.name,
        outcome=log.outcome.name,
        better=log.outcome.better,
        verdict=verdict,
        estimates=estimates,
        baseline=baseline,
        diagnostics=diagnostics,
        simulated=log.simulated,
        generation=log.generation,
    )


def _diagnose(
    log: Log, target: Floats, weights: Floats, model: CrossFitted, threshold: float
) -> Diagnostics:
    by_person = np.bincount(log.person, weights=weights).astype(np.float64)
    slope, calibration = _calibration(log, model)
    return Diagnostics(
        decisions=len(log),
        people=len(np.unique(log.person)),
        effective_size=effective_size(weights),
        effective_people=effective_size(by_person),
        largest_weight=float(weights.max()),
        mean_weight=float(weights.mean()),
        threshold=threshold,
        clipped=float(np.mean(weights > threshold)),
        overlap=_overlap(log, target),
        balance=_balance(log, weights, model),
        calibration=calibration,
        slope=slope,
    )


def _overlap(log: Log, target: Floats) -> pl.DataFrame:
    rows = []
    for arm, name in enumerate(log.arms):
        mine = log.arm == arm
        rows.append(
            {
                "arm": name,
                "decisions": int(mine.sum()),
                "people": len(np.unique(log.person[mine])),
                "share": float(mine.mean()),
                "target": float(target[:, arm].mean()),
                "least_propensity": float(log.propensity[mine].min()) if mine.any() else None,
            }
        )
    return pl.DataFrame(rows)


def _balance(log: Log, weights: Floats, model: CrossFitted) -> pl.DataFrame:
    contexts = list(log.contexts) if len(log.contexts) > 1 else []
    names = [*(f"context: {one}" for one in contexts), *log.names]
    total = float(weights.sum())
    sums = np.zeros((3, len(names)))
    for start in range(0, len(log), 100_000):
        rows = np.arange(start, min(start + 100_000, len(log)))
        known = model.features(rows)[:, 1:]
        sums += np.stack([weights[rows] @ known, known.sum(axis=0), (known**2).sum(axis=0)])
    middle = sums[1] / len(log)
    spread = np.sqrt(np.maximum(sums[2] / len(log) - middle**2, 0))
    apart = (sums[0] / total if total else middle) - middle
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(spread > 0, apart / spread, 0.0)
    return pl.DataFrame({"name": names, "difference": found}, schema_overrides={"name": pl.String})


def _calibration(log: Log, model: CrossFitted) -> tuple[float | None, pl.DataFrame]:
    predicted = model.predictions[np.arange(len(log)), log.arm]
    spread = float(np.var(predicted))
    covariance = float(np.mean((predicted - predicted.mean()) * (log.reward - log.reward.mean())))
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, _PARTS + 1)[1:-1]))
    place = np.searchsorted(edges, predicted)
    times = np.bincount(place)
    used = times > 0
    table = pl.DataFrame(
        {
            "decisions": times[used],
            "predicted": np.bincount(place, predicted)[used] / times[used],
            "reward": np.bincount(place, log.reward)[used] / times[used],
        }
    )
    return (covariance / spread if spread > 0 else None), table
