"""The gate: whether a log can support a question, with bad input of all kinds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aico_lab.bench import personality_evidence as evidence
from aico_lab.personality import targets
from aico_lab.personality.evaluation import evaluate
from aico_lab.personality.simulate import Simulation, World

WARMER = targets.fixed("warmer")


@pytest.fixture(scope="module")
def log():
    return Simulation(World(), 3).log()


def refused(log, target=WARMER):
    """The names of the failed checks, of an evaluation without any number."""
    found = evaluate(log, target)
    assert not found.verdict.supported
    assert (found.estimates, found.baseline, found.diagnostics, found.main) == (
        (),
        None,
        None,
        None,
    )
    assert found.table.height == 0
    failed = [check for check in found.verdict.checks if not check.ok]
    assert found.verdict.reason == failed[0].sentence
    assert found.verdict.needed.sentence.startswith("To ")
    return [check.name for check in failed]


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("propensities missing", "propensities logged"),
        ("propensities impossible", "propensities possible"),
        ("propensities wrong", "propensities correct"),
        ("an arm never tried", "overlap"),
        ("an arm hardly tried", "effective sample size"),
        ("constant outcomes", "outcome varies"),
        ("two changes at once", "one change at a time"),
        ("one person", "enough people"),
    ],
)
def test_a_spoiled_log_is_refused_by_its_check(log, kind, check):
    spoiled = evidence._SPOILED[kind](log, np.random.default_rng(1))
    assert check in refused(spoiled)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("few people", "enough people"),
        ("few outcomes", "outcome observed"),
        ("biased feedback", "outcome observed evenly"),
        ("drift", "no drift"),
        ("novelty", "no drift"),
    ],
)
def test_an_unsuited_home_is_refused_by_its_check(kind, check):
    assert check in refused(Simulation(evidence._UNSUITED[kind], 3).log())


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.5, np.inf])
def test_an_impossible_propensity_is_named(log, wrong):
    propensity = log.propensity.copy()
    propensity[7] = wrong
    bad = replace(log, propensity=propensity)
    if np.isfinite(wrong):
        assert refused(bad) == ["propensities possible"]
        assert "1 decision" in evaluate(bad, WARMER).verdict.reason
    else:  # infinity is no number, so this decision has none
        assert evaluate(bad, WARMER).diagnostics.decisions <= log.observed.sum()


def test_wrong_propensities_are_found_without_those_of_the_other_arms(log):
    wrong = evidence._wrong(log, np.random.default_rng(1))
    assert refused(replace(wrong, probabilities=None))[0] == "propensities correct"
    assert evaluate(replace(log, probabilities=None), WARMER).verdict.supported


def test_an_empty_log_and_one_without_outcomes_are_refused(log):
    nothing = log.choose(np.zeros(len(log), bool))
    assert refused(nothing)[0] == "propensities logged"
    assert evaluate(nothing, WARMER).verdict.reason == "No decision is logged."
    assert "outcome observed" in refused(replace(log, reward=np.full(len(log), np.nan)))


def test_the_policy_that_is_compared_with_must_be_supported_too(log):
    fewer = evidence._rare(log, np.random.default_rng(1))
    as_now = targets.fixed("as now")
    assert evaluate(fewer, as_now).verdict.supported
    assert not evaluate(fewer, as_now, over=WARMER).verdict.supported


def test_a_log_that_supports_the_question_has_estimates_and_diagnostics(log):
    found = evaluate(log, WARMER, over=targets.fixed("as now"))
    assert found.verdict.supported
    assert found.verdict.needed is None
    assert all(check.ok for check in found.verdict.checks)
    assert found.simulated
    assert found.table["estimator"].to_list()[3] == found.main.estimator == "DR"
    about = found.diagnostics
    assert about.decisions == log.observed.sum()
    assert about.largest_weight == pytest.approx(5)
    assert about.effective_size == pytest.approx(about.decisions / 5, rel=0.15)
    assert about.effective_people <= about.people == 60
    assert about.overlap["share"].sum() == pytest.approx(1)
    assert about.balance["difference"].abs().max() < 0.2
    assert about.calibration["decisions"].sum() == about.decisions


def test_missing_features_and_one_missing_propensity_do_no_harm(log):
    features, propensity = log.features.copy(), log.propensity.copy()
    features[::3] = np.nan
    propensity[np.flatnonzero(log.observed)[0]] = np.nan
    found = evaluate(replace(log, features=features, propensity=propensity), WARMER)
    assert found.diagnostics.decisions == log.observed.sum() - 1
    assert all(np.isfinite(one.value) for one in found.estimates)


def test_a_log_of_the_needed_size_has_the_standard_error_that_finds_the_effect():
    """With 80 % power the effect is 2.8 standard errors."""
    world = World(answered=0.3)
    few = evidence._rare(Simulation(world, 1).log(3), np.random.default_rng(1))
    needed = evaluate(few, WARMER).verdict.needed
    errors = []
    for seed in range(8):
        log = Simulation(replace(world, people=needed.people), seed).log(needed.weeks)
        if (main := evaluate(log, WARMER).main) is not None:
            errors.append((main.gain_high - main.gain_low) / 2 / 1.96)
    assert len(errors) >= 6
    assert np.mean(errors) == pytest.approx(needed.effect / 2.8, rel=0.2)
