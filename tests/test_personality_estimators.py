"""Estimates of policies against the Open Bandit Pipeline, plain loops, and scikit-learn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from aico_lab.errors import InvalidValue
from aico_lab.personality import targets
from aico_lab.personality.estimators import ESTIMATORS, estimate_value
from aico_lab.personality.evaluation import evaluate
from aico_lab.personality.log import Log
from aico_lab.personality.outcomes import OUTCOMES
from aico_lab.personality.reward_model import CrossFitted, folds
from aico_lab.personality.sequences import widening
from aico_lab.personality.simulate import Simulation, World

# The Open Bandit Pipeline 0.5.7 on `made_up()` (with numpy 1.23, Python 3.9): each class of
# `obp.ope` with `pscore=propensity`, `action_dist=target` and
# `estimated_rewards_by_reg_model=predictions`, `SwitchDoublyRobust(lambda_=1.5)` and
# `DoublyRobustWithShrinkage(lambda_=2.0)`, printed by `repr`.
OBP = {
    "DM": 0.44762596962252993,
    "IPW": 0.40004587110467366,
    "SNIPW": 0.4016193296859434,
    "DR": 0.4041299273900319,
    "SNDR": 0.4039588489566687,
    "Switch-DR": 0.42846358873560386,
    "DRos": 0.4266727748212198,
}
THRESHOLD, SHRINKAGE = 1.5, 2.0


def made_up(people=30):
    """A log of 600 decisions, a target policy, and predictions."""
    rng = np.random.default_rng(18)
    n, k = 600, 3
    logits = rng.random((n, k)) * 2
    p = np.exp(logits)
    p /= p.sum(1, keepdims=True)
    arm = (rng.random(n)[:, None] >= np.cumsum(p, 1)[:, :-1]).sum(1)
    reward = (rng.random(n) < 0.2 + 0.2 * arm).astype(float)
    target = rng.random((n, k))
    target /= target.sum(1, keepdims=True)
    predictions = 0.25 + 0.15 * np.arange(k) + 0.1 * rng.random((n, k))
    log = Log(
        person=np.arange(n) % people, time_ms=np.arange(n) * 3_600_000,
        context=np.arange(n) // 7 % 2, features=rng.standard_normal((n, 2)), arm=arm,
        propensity=p[np.arange(n), arm], reward=reward, probabilities=p,
        policy=np.zeros(n, np.int64), profile=np.zeros(n, np.int64),
        people=[f"p{number}" for number in range(people)], contexts=["day", "night"],
        arms=["a", "b", "c"], policies=["x"], profiles=["p"], names=["f", "g"],
        outcome=OUTCOMES["satisfaction"],
    )  # fmt: skip
    return log, target, predictions


def given(predictions):
    """A model with known predictions, which nobody fitted."""
    return SimpleNamespace(
        predictions=predictions, linear=True, influence=lambda target, _: np.zeros(len(target))
    )


def by_loops(log, target, predictions, people=None):
    """All estimates, decision by decision."""
    direct = w = wr = rest = switched = shrunk = n = 0.0
    for i in range(len(log)):
        if people is not None and log.person[i] not in people:
            continue
        n += 1
        weight = target[i, log.arm[i]] / log.propensity[i]
        residual = log.reward[i] - predictions[i, log.arm[i]]
        for arm in range(len(log.arms)):
            direct += target[i, arm] * predictions[i, arm]
        w += weight
        wr += weight * log.reward[i]
        rest += weight * residual
        switched += weight * residual if weight <= THRESHOLD else 0
        shrunk += SHRINKAGE * weight / (weight**2 + SHRINKAGE) * residual
    return {
        "DM": direct / n, "IPW": wr / n, "SNIPW": wr / w, "DR": (direct + rest) / n,
        "SNDR": direct / n + rest / w, "Switch-DR": (direct + switched) / n,
        "DRos": (direct + shrunk) / n,
    }  # fmt: skip


def test_estimates_equal_the_open_bandit_pipelines_and_plain_loops():
    log, target, predictions = made_up()
    found = estimate_value(
        log, target, given(predictions), threshold=THRESHOLD, shrinkage=SHRINKAGE
    )
    values = {one.estimator: one.value for one in found.estimates}
    assert tuple(values) == ESTIMATORS
    assert values == pytest.approx(OBP, rel=1e-12)
    assert values == pytest.approx(by_loops(log, target, predictions), rel=1e-12)


def test_an_interval_leaves_out_each_person_in_turn():
    log, target, predictions = made_up()
    found = estimate_value(
        log, target, given(predictions), threshold=THRESHOLD, shrinkage=SHRINKAGE
    )
    everybody = set(range(30))
    left_out = [by_loops(log, target, predictions, everybody - {one}) for one in range(30)]
    for one in found.estimates:
        apart = np.array([without[one.estimator] for without in left_out]) - one.value
        error = np.sqrt(29 / 30 * np.sum(apart**2))
        # Between the quantiles of the normal and of a t distribution with few degrees of freedom.
        assert 1.95 < (one.high - one.low) / 2 / error < 2.6
        assert one.high + one.low == pytest.approx(2 * one.value)
        ratio = (one.high_anytime - one.low_anytime) / (one.high - one.low)
        assert ratio == pytest.approx(widening(30, 50) / 1.959964, rel=1e-6)


def test_a_gain_over_another_policy_is_the_difference_of_both_values():
    log, target, _ = made_up()
    other = np.roll(target, 1, axis=1)
    model = CrossFitted(log)
    kw = {"threshold": THRESHOLD, "shrinkage": SHRINKAGE}
    found = estimate_value(log, target, model, over=other, **kw)
    of_other = estimate_value(log, other, model, **kw)
    for one, two in zip(found.estimates, of_other.estimates, strict=True):
        assert one.gain == pytest.approx(one.value - two.value)
    assert found.baseline.value == pytest.approx(of_other.estimates[3].value)
    # Compared with itself there is no gain, and no interval around it.
    same = estimate_value(log, target, model, over=target, **kw).estimates[3]
    assert (same.gain, same.gain_low) == (pytest.approx(0), None)


def test_the_rewards_of_a_person_do_not_change_the_predictions_for_that_person():
    log, _, _ = made_up()
    other = log.with_reward(np.where(log.person == 3, 1 - log.reward, log.reward), log.outcome)
    one, two = (CrossFitted(each).predictions for each in (log, other))
    mine = log.person == 3
    np.testing.assert_allclose(one[mine], two[mine], rtol=1e-12)
    others = folds(log.person, 30) != folds(log.person, 30)[3]
    assert np.all(np.abs(one[others] - two[others]).max(axis=0) > 1e-6)


def test_folds_keep_people_together_and_are_equally_large():
    person = np.repeat(np.arange(23), np.arange(23) * 3 + 1)
    found = folds(person, 23)
    assert all(len(set(found[person == one].tolist())) == 1 for one in range(23))
    sizes = np.bincount(found)
    assert len(sizes) == 5
    assert sizes.max() - sizes.min() < 70
    assert set(folds(np.zeros(4, np.int64), 1).tolist()) == {0}


@pytest.mark.slow  # the import of scikit-learn
def test_the_ridge_regression_equals_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model")
    log, _, _ = made_up()
    model = CrossFitted(log)
    fold = folds(log.person, 30)
    train, test = fold != 2, fold == 2
    middle = log.reward[train].mean()
    everything = model.features(np.arange(len(log)))
    for arm in range(3):
        rows = train & (log.arm == arm)
        ridge = linear_model.Ridge(alpha=1.0, fit_intercept=False)
        ridge.fit(everything[rows], log.reward[rows] - middle)
        np.testing.assert_allclose(
            model.predictions[test, arm], middle + ridge.predict(everything[test]), rtol=1e-9
        )


class Nearest:
    """A regressor with scikit-learn's methods: the mean of the arm."""

    def fit(self, features, rewards):
        self.means = [rewards[features[:, -3 + arm] == 1].mean() for arm in range(3)]

    def predict(self, features):
        return np.array(self.means)[features[:, -3:].argmax(axis=1)]


def test_another_regressor_can_predict_rewards_and_then_dm_has_no_interval():
    log, _, _ = made_up()
    found = {
        one.estimator: one
        for one in evaluate(log, targets.uniform(), regressor=Nearest()).estimates
    }
    assert found["DM"].value == pytest.approx(0.39, abs=0.05)
    assert (found["DM"].low, found["DM"].gain_low) == (None, None)
    assert found["DR"].low < found["DR"].value < found["DR"].high


def test_the_influence_of_the_model_is_what_a_person_moves():
    """Leaving a person out of the model changes the direct estimate as the influence says."""
    log = Simulation(World(people=40, weekly=20), 5).log()
    log = log.choose(log.observed)
    target = targets.fixed("warmer").probabilities(log)
    model = CrossFitted(log)
    moved = np.bincount(log.person, model.influence(target, np.zeros(len(log))), 40)
    direct = np.einsum("ij,ij->i", target, model.predictions)
    fold = folds(log.person, 40)
    for person in (1, 2, 3):
        mine = log.person == person
        # The predictions for people of the other folds, without this person.
        rest = CrossFitted(log.choose(~mine))
        others = fold[~mine] != fold[mine][0]
        without = np.einsum("ij,ij->i", target[~mine], rest.predictions)
        if not np.array_equal(folds(log.person[~mine], 40), fold[~mine]):
            continue  # the folds of the others changed, too
        apart = direct[~mine][others].sum() - without[others].sum()
        assert apart == pytest.approx(moved[person], rel=0.25, abs=0.02)


@pytest.mark.parametrize("people", [1, 2, 9])
def test_few_people_have_values_without_intervals(people):
    log, target, _ = made_up(people)
    for one in estimate_value(log, target, CrossFitted(log)).estimates:
        assert np.isfinite(one.value)
        assert (one.low, one.high, one.gain_low, one.low_anytime) == (None, None, None, None)


def test_targets_are_probabilities_of_arms_that_exist():
    log, target, _ = made_up()
    by_context = targets.per_context({"night": "c"}, otherwise="a").probabilities(log)
    assert by_context.argmax(axis=1).tolist() == (log.context * 2).tolist()
    mixed = targets.mixed(targets.fixed("b"), 0.3).probabilities(log)
    np.testing.assert_allclose(mixed[0], [0.1, 0.8, 0.1])
    np.testing.assert_array_equal(targets.logged().probabilities(log), log.probabilities)
    with pytest.raises(InvalidValue, match="no arm 'z'; its arms are: a, b, c"):
        targets.fixed("z").probabilities(log)
    with pytest.raises(InvalidValue, match="epsilon must be from 0 to 1, not nan"):
        targets.mixed(targets.uniform(), float("nan"))
    for wrong in (target * 2, -target, target * np.nan, target[:5]):
        with pytest.raises(InvalidValue, match="The p"):
            targets.Target("mine", lambda _, wrong=wrong: wrong).probabilities(log)


def test_a_confidence_sequence_is_wider_than_an_interval_and_holds_at_every_look():
    assert 2.9 < widening(50, 50) < 3.2
    assert widening(0, 50) == np.inf
    rng = np.random.default_rng(1)
    steps = rng.standard_normal((400, 1000)).cumsum(axis=1)
    looks = np.arange(10, 1001)
    wide = np.array([widening(n, 50) * np.sqrt(n) for n in looks])
    missed = np.any(np.abs(steps[:, 9:]) > wide, axis=1).mean()
    assert missed < 0.05
    assert np.any(np.abs(steps[:, 9:]) > 1.96 * np.sqrt(looks), axis=1).mean() > 0.3
