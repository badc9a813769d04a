"""Cross-fitted models of the outcome: the expected reward of every arm for each decision.

People are split into folds; the reward of a person is predicted by a model that was fitted to the
other folds, so that a model's errors are independent of that person's rewards (Chernozhukov et al.,
"Double/debiased machine learning", 2018; for clusters: Chiang et al. 2022).

The usual model is a ridge regression for each arm on the context and the features. It is computed
from sums over the folds, so that five fits cost as much as one. Its sums also tell how much a
person's rewards move the predictions for others, without which the intervals of the direct method
would be far too narrow.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.personality.log import Codes, Floats, Log

FOLDS: Final = 5

PENALTY: Final = 1.0
"""The ridge penalty on standardised features, as much as one further decision."""

_FEW: Final = 4_000_000
"""The most values of features that are kept in memory."""

_AT_ONCE: Final = 100_000
"""Rows whose features are built at a time, which bounds the memory."""


class Regressor(Protocol):
    """A model with scikit-learn's methods."""

    def fit(self, features: Floats, rewards: Floats) -> object:
        """Fit the model."""

    def predict(self, features: Floats) -> Floats:
        """Return predictions."""


class CrossFitted:
    """Predictions of the reward of every arm, by models that have not seen the person.

    Attributes:
        predictions: The expected reward of each arm for each decision, N x K.
        linear: Whether the model is the ridge regression, whose influence is known.
    """

    def __init__(self, log: Log, regressor: Regressor | None = None) -> None:
        """Fit the models.

        Args:
            log: Decisions whose rewards are all known.
            regressor: An unfitted model with scikit-learn's `fit` and `predict`, which is copied
                for each fold; None means a ridge regression for each arm.
        """
        self._log = log
        self._arms = len(log.arms)
        self._fold = folds(log.person, len(log.people))
        self._folds = int(self._fold.max(initial=0)) + 1
        self._centre, self._scale = _standard(log.features)
        group = self._fold * self._arms + log.arm
        self._order = np.argsort(group, kind="stable")
        self._bounds = np.searchsorted(group[self._order], np.arange(self._folds * self._arms + 1))
        wide = self.features(self._order[:0]).shape[1]
        # Several passes read the features, so they are built once if they are few.
        self._built = self.features(self._order) if wide * len(log) <= _FEW else None
        self.linear = regressor is None
        self.predictions = self._ridge() if regressor is None else self._other(regressor)

    def influence(self, target: Floats, weights: Floats) -> Floats:
        """Return what each decision adds to an estimate through the fitted models.

        The estimate is the sum of `target` times predictions, plus `weights` times the rewards less
        their predictions. The influences add up to 0.

        Args:
            target: The probabilities of the target policy, N x K.
            weights: The weight of each decision; 0 for the direct method.
        """
        log, arms = self._log, self._arms
        moved = np.zeros(len(log))
        if not self.linear:
            return moved
        wide = self._gram.shape[-1]
        needed = np.zeros((self._folds, arms, wide))
        for fold, arm, rows, features in self._slices():
            amounts = target[rows]
            amounts[:, arm] -= weights[rows]
            needed[fold] += amounts.T @ features
        pull = np.linalg.solve(self._train, needed[..., None])[..., 0]
        others = pull if self._folds == 1 else pull.sum(axis=0) - pull
        for fold, arm, rows, features in self._slices():
            residual = log.reward[rows] - self.predictions[rows, arm]
            moved[rows] = (features @ others[fold, arm]) * residual
        moved -= moved.mean()
        return moved

    def features(self, rows: Codes) -> Floats:
        """Return what the model knows of some decisions: a constant, the context, the features."""
        log = self._log
        buckets = len(log.contexts) if len(log.contexts) > 1 else 0
        found = np.zeros((len(rows), 1 + buckets + log.features.shape[1]))
        found[:, 0] = 1
        if buckets:
            found[np.arange(len(rows)), 1 + log.context[rows]] = 1
        if log.features.shape[1]:
            given = (log.features[rows] - self._centre) / self._scale
            found[:, 1 + buckets :] = np.where(np.isfinite(given), given, 0)
        return found

    def _slices(self) -> Iterator[tuple[int, int, Codes, Floats]]:
        """Yield fold and arm, with the rows and features of the decisions that share both."""
        for group in range(self._folds * self._arms):
            for start in range(self._bounds[group], self._bounds[group + 1], _AT_ONCE):
                part = slice(start, min(start + _AT_ONCE, self._bounds[group + 1]))
                rows = self._order[part]
                built = self.features(rows) if self._built is None else self._built[part]
                yield *divmod(group, self._arms), rows, built

    def _ridge(self) -> Floats:
        log, arms = self._log, self._arms
        wide = self.features(self._order[:0]).shape[1]
        self._gram = np.zeros((self._folds, arms, wide, wide))
        cross = np.zeros((self._folds, arms, wide))
        for fold, arm, rows, features in self._slices():
            self._gram[fold, arm] += features.T @ features
            cross[fold, arm] += features.T @ log.reward[rows]
        gram = self._without(self._gram)
        cross = self._without(cross)
        # The first feature is 1, so these are the number of decisions, and the sum of rewards.
        known = gram[:, :, 0, 0].sum(axis=1)
        middle = cross[:, :, 0].sum(axis=1) / np.maximum(known, 1)
        cross = cross - middle[:, None, None] * gram[:, :, 0, :]
        self._train = gram + PENALTY * np.eye(wide)
        fitted = np.linalg.solve(self._train, cross[..., None])[..., 0]
        predictions = np.empty((len(log), arms))
        for fold, _, rows, features in self._slices():
            predictions[rows] = middle[fold] + features @ fitted[fold].T
        return predictions

    def _without(self, sums: Floats) -> Floats:
        """Return, for each fold, the sums of all other folds; of a single fold its own."""
        return sums if self._folds == 1 else sums.sum(axis=0) - sums

    def _other(self, regressor: Regressor) -> Floats:
        log, arms = self._log, self._arms
        chosen = np.eye(arms)
        everything = np.arange(len(log))
        known = self.features(everything)
        predictions = np.empty((len(log), arms))
        for fold in range(self._folds):
            inside = self._fold == fold
            train = everything if self._folds == 1 else np.flatnonzero(~inside)
            model = copy.deepcopy(regressor)
            model.fit(np.hstack([known[train], chosen[log.arm[train]]]), log.reward[train])
            for arm in range(arms):
                of_arm = np.broadcast_to(chosen[arm], (int(inside.sum()), arms))
                predictions[inside, arm] = model.predict(np.hstack([known[inside], of_arm]))
        return predictions


def folds(person: Codes, people: int) -> Codes:
    """Return the fold of each decision: all of a person's are in one, and folds are equally large.

    Args:
        person: The person of each decision.
        people: The number of people.
    """
    amounts = np.bincount(person, minlength=people)
    by_size = np.argsort(-amounts, kind="stable")
    several = max(min(FOLDS, int(np.count_nonzero(amounts))), 1)
    place = np.empty(people, np.int64)
    # Back and forth, so that no fold gets the largest of every round.
    there = np.arange(people) % (2 * several)
    place[by_size] = np.minimum(there, 2 * several - 1 - there)
    found: Codes = place[person]
    return found


def _standard(features: Floats) -> tuple[Floats, Floats]:
    """Return the mean and the standard deviation of each feature; 0 and 1 where there is none."""
    known = np.isfinite(features)
    times = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, features, 0).sum(axis=0) / times
    spread = np.sqrt(np.where(known, (features - centre) ** 2, 0).sum(axis=0) / times)
    return centre, np.where(spread > 0, spread, 1)
