"""The gate: whether a log can support a question, with bad input of all kinds."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from aico_lab.bench import personality_evidence as evidence
from aico_lab.personality import targets
from aico_lab.personality.evaluation import evaluate
from aico_lab.personality.gate import Support
from aico_lab.personality.outcomes import OUTCOMES
from aico_lab.personality.power import needed_log
from aico_lab.personality.propensity_checks import check_frequencies, check_independence
from aico_lab.personality.simulate import Simulation, World
from aico_lab.personality.views import gate_checks

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
    assert refused(bad) == ["propensities possible"]
    assert evaluate(bad, WARMER).verdict.reason.startswith("1 decision has an impossible")


def test_wrong_propensities_are_found_without_those_of_the_other_arms(log):
    wrong = evidence._wrong(log, np.random.default_rng(1))
    assert refused(replace(wrong, probabilities=None))[0] == "propensities correct"
    assert evaluate(replace(log, probabilities=None), WARMER).verdict.supported


def depending(log, on):
    """Return decisions between two arms that depend on something, and all state 1/2."""
    rng = np.random.default_rng(5)
    score = {
        "person": rng.normal(size=len(log.people))[log.person],
        "context": log.context - 1.0,
        "part of the period": 3 * np.arange(len(log)) / len(log) - 1.5,
        "feature": log.features[:, 0] - log.features[:, 0].mean(),
        "last outcome": None,
        "last choice": None,
        "nothing": np.zeros(len(log)),
    }[on]
    luck, arm = rng.random(len(log)), np.zeros(len(log), np.int64)
    last = {}
    for row, person in enumerate(log.person):
        if on == "last outcome":
            lean = last.get(person, 0.5) - 0.5
        elif on == "last choice":  # in turn instead of by chance
            lean = 0.2 if row and not arm[row - 1] else -0.2
        else:
            lean = 0.2 * score[row]
        arm[row] = luck[row] < np.clip(0.5 + lean, 0.05, 0.95)
        if np.isfinite(log.reward[row]):
            last[person] = log.reward[row]
    half = np.full((len(log), 2), 0.5)
    return replace(log, arm=arm, arms=["as now", "warmer"], propensity=half[:, 0],
                   probabilities=half)  # fmt: skip


@pytest.mark.parametrize(
    ("on", "named"),
    [
        ("person", "the person"), ("context", "the context"), ("feature", "the feature"),
        ("part of the period", "the part of the period"),
        ("last outcome", "the person's last outcome"), ("last choice", "the last choice"),
    ],
)  # fmt: skip
def test_a_choice_that_depends_on_more_than_its_propensity_is_refused(log, on, named):
    """The frequencies of the arms may be right all the same."""
    wrong = depending(log, on)
    for one in (wrong, replace(wrong, probabilities=None)):
        assert "choices independent" in refused(one)
        checks = evaluate(one, WARMER).verdict.checks
        (sentence,) = [check.sentence for check in checks if check.name == "choices independent"]
        assert f"depends on {named}" in sentence


def test_choices_by_chance_pass_however_they_were_noted(log):
    right = depending(log, "nothing")
    for one in (right, replace(right, probabilities=None)):
        assert evaluate(one, WARMER).verdict.supported


@pytest.mark.parametrize("known", ["all", "hole", None])
def test_rare_arms_with_correct_propensities_pass(log, known):
    """A product of two rare surprises is large, and far from normal."""
    rng = np.random.default_rng(2)
    chances = np.tile([0.94, 0.03, 0.03], (len(log), 1))
    refused = 0
    for _ in range(20):
        arm = rng.choice(3, len(log), p=chances[0])
        given = chances.copy()
        given[0] = np.nan if known == "hole" else given[0]
        rare = replace(
            log, arm=arm, arms=["as now", "cooler", "warmer"], propensity=chances[0][arm],
            probabilities=given if known else None,
        )  # fmt: skip
        checks = evaluate(rare, targets.fixed("as now")).verdict.checks
        refused += not all(one.ok for one in checks if one.name == "choices independent")
    assert refused == 0


def test_a_choice_that_was_recorded_for_several_messages_is_told_of(log):
    right = depending(log, "nothing")
    order = np.lexsort((log.time_ms, log.person))
    arm = right.arm.copy()
    arm[order[1::2]] = arm[order[:-1:2]][: len(order[1::2])]
    assert "choices independent" in refused(replace(right, arm=arm))
    reason = evaluate(replace(right, arm=arm), WARMER).verdict.reason
    assert reason.endswith("or one choice was recorded several times.")


def test_an_outcome_that_the_next_choice_made_too_is_no_reason_for_it(log):
    """One impression of a whole session is given at its end, as the rating of each message."""
    rng = np.random.default_rng(2)
    arm = rng.integers(0, 2, len(log))
    order = np.lexsort((log.time_ms, log.person))
    later = np.append(arm[order][1:], 0)
    reward = np.empty(len(log))
    reward[order] = 0.4 + 0.2 * arm[order] + 0.2 * later + 0.1 * rng.random(len(log))
    half = np.full((len(log), 2), 0.5)
    rated = replace(
        log, arm=arm, arms=["as now", "warmer"], propensity=half[:, 0], probabilities=half,
        reward=reward,
    )  # fmt: skip

    def independent(one):
        checks = evaluate(one, WARMER).verdict.checks
        return all(check.ok for check in checks if check.name == "choices independent")

    assert not independent(rated)
    assert independent(replace(rated, known_ms=log.time_ms + 7 * 86_400_000))


MONDAY = 4 * 86_400_000
WEEK = 7 * 86_400_000


def made(log, rng, chances, n, *, people=40, weeks=8):
    """Return n decisions by some probabilities, with outcomes by chance."""
    arm = rng.choice(len(chances), n, p=chances)
    return replace(
        log.choose(np.zeros(len(log), bool)), person=rng.integers(0, people, n), arm=arm,
        time_ms=MONDAY + np.sort(rng.integers(0, weeks * WEEK, n)), reward=rng.random(n),
        context=np.zeros(n, np.int64), features=np.zeros((n, 0)), names=[], known_ms=None,
        propensity=np.array(chances)[arm], probabilities=np.tile(chances, (n, 1)),
        policy=np.zeros(n, np.int64), profile=np.zeros(n, np.int64),
        arms=[f"arm {one}" for one in range(len(chances))],
    )  # fmt: skip


def check(log, name):
    """Return one check of a log, alone."""
    support = Support(log, targets.fixed(log.arms[0]).probabilities(log))
    return getattr(support, f"_{name}")()


def test_the_latest_outcome_that_was_known_counts_if_the_previous_one_was_not_yet(log):
    """Of sessions of four decisions, each rated an hour later."""
    rng = np.random.default_rng(1)
    right = made(log, rng, [0.5, 0.5], 3000)
    person, start = np.repeat(right.person[::4], 4), np.repeat(right.time_ms[::4], 4)
    moment = start + np.tile(np.arange(4) * 300_000, 750)
    order = np.argsort(moment, kind="stable")
    person, moment = person[order], moment[order]
    mood = np.repeat(rng.normal(0.5, 0.2, 750), 4)[order]
    rated, arm, last = mood + rng.normal(0, 0.05, 3000), right.arm.copy(), {}
    for row in range(3000):
        known = [value for at, value in last.get(person[row], ()) if at < moment[row]]
        lean = 0.15 * np.sign(known[-1] - 0.5) if known else 0.0
        arm[row] = rng.random() < 0.5 + lean
        last.setdefault(person[row], []).append((moment[row] + 3_600_000, rated[row]))
    wrong = replace(right, person=person, time_ms=moment, arm=arm, reward=rated,
                    known_ms=moment + 3_600_000)  # fmt: skip
    assert "the person's last outcome" in check_independence(wrong).sentence
    assert check_independence(replace(wrong, arm=right.arm)).ok
    at_once = replace(wrong, arm=(rated > 0.5).astype(np.int64), known_ms=moment)
    assert "last outcome" not in check_independence(at_once).sentence  # its own one is none


@pytest.mark.parametrize("arms", [5, 10])
def test_an_arm_that_is_avoided_after_itself_is_found_among_many(log, arms):
    """Its share goes to the others, of which each comes little more often than stated."""
    rng = np.random.default_rng(3)
    right = made(log, rng, [1 / arms] * arms, 3000)
    assert check_independence(right).ok
    arm, last = right.arm.copy(), {}
    for row, person in enumerate(right.person.tolist()):
        if arm[row] == last.get(person):
            arm[row] = (arm[row] + rng.integers(1, arms)) % arms
        last[person] = arm[row]
    sentence = check_independence(replace(right, arm=arm)).sentence
    assert "the last choice for the person" in sentence


def test_choices_by_the_day_of_the_week_are_found(log):
    rng = np.random.default_rng(4)
    right = made(log, rng, [0.5, 0.5], 4000)
    weekend = (right.time_ms - MONDAY) % WEEK >= 5 * 86_400_000
    arm = (rng.random(4000) < np.where(weekend, 0.6, 0.46)).astype(np.int64)
    assert "depends on the weekend" in check_independence(replace(right, arm=arm)).sentence
    tuesday = (right.time_ms - MONDAY) % WEEK // 86_400_000 == 1
    arm = (rng.random(4000) < np.where(tuesday, 0.7, 0.47)).astype(np.int64)
    assert "the day of the week" in check_independence(replace(right, arm=arm)).sentence


@pytest.mark.parametrize("weeks", [3, 5, 8])
def test_weekends_are_no_drift(log, weeks):
    rng = np.random.default_rng(5)
    for _ in range(4):
        right = made(log, rng, [0.5, 0.5], 2000, people=60, weeks=weeks)
        weekend = (right.time_ms - MONDAY) % WEEK >= 5 * 86_400_000
        luck = rng.normal(0, 0.15, len(right))
        assert check(replace(right, reward=0.2 * weekend + luck), "steady").ok
        late = right.time_ms > MONDAY + (weeks + 1) // 2 * WEEK
        assert not check(replace(right, reward=0.1 * late + luck), "steady").ok


def test_frequencies_of_few_expected_choices_are_no_fault(log):
    """Where only the chosen arm's propensity is logged, and arms are rare or decisions few."""
    rng = np.random.default_rng(6)
    for chances, n in (([0.2] * 5, 24), ([0.93] + [0.01] * 7, 500), ([0.98, 0.01, 0.01], 500)):
        failed = 0
        for _ in range(40):
            own = replace(made(log, rng, chances, n), probabilities=None)
            failed += not check_frequencies(own).ok
        assert failed == 0, (chances, n)


def test_wrong_frequencies_are_told_in_their_own_unit(log):
    rng = np.random.default_rng(7)
    wrong = replace(made(log, rng, [0.4, 0.6], 2000), propensity=np.full(2000, 0.5))
    for other, times in ((None, r"0\.[78]\d?|1\.[12]\d?"), (np.full((2000, 2), 0.5), "")):
        sentence = check_frequencies(replace(wrong, probabilities=other)).sentence
        if times:
            assert re.search(rf"was chosen ({times}) times as often as they say", sentence)
        else:
            assert re.search(r"more or less often than they say, by \d+% of the dec", sentence)


def test_slightly_wrong_frequencies_are_told_to_three_digits(log):
    rng = np.random.default_rng(7)
    right = made(log, rng, [0.5, 0.5], 40_000)
    wrong = replace(right, propensity=0.97 * right.propensity, probabilities=None)
    assert re.search(r"was chosen 1\.0[2-4] times as often", check_frequencies(wrong).sentence)


@pytest.mark.parametrize("weeks", [10, 30])
def test_one_early_decision_does_not_hide_a_drift(log, weeks):
    """Nor may a home's growth: the halves are of the time in which nearly all decisions were."""
    rng = np.random.default_rng(5)
    steady = made(log, rng, [0.5, 0.5], 2000, people=60)
    reward = rng.normal(0, 0.15, 2000)
    drift = reward + 0.05 * (steady.time_ms > MONDAY + 4 * WEEK)
    times = steady.time_ms.copy()
    times[0] -= weeks * WEEK
    assert check(replace(steady, time_ms=times, reward=reward), "steady").ok
    assert not check(replace(steady, time_ms=times, reward=drift), "steady").ok


@pytest.mark.parametrize("share", [0.06, 0.12])
def test_a_tester_does_not_hide_a_drift(log, share):
    """Nor does it make the days before the launch count as weeks of the log."""
    rng = np.random.default_rng(5)
    alone = int(2000 * share)
    right = made(log, rng, [0.5, 0.5], 2000 + alone, people=60)
    times = right.time_ms.copy()
    times[:alone] -= 10 * WEEK
    person = np.where(np.arange(len(right)) < alone, 0, right.person)
    reward = rng.normal(0, 0.15, len(right)) + 0.1 * (times > MONDAY + 4 * WEEK)
    found = check(replace(right, time_ms=times, person=person, reward=reward), "steady")
    assert found.known
    assert not found.ok
    short = made(log, rng, [0.5, 0.5], 6000, people=60, weeks=9 / 7)
    times = short.time_ms.copy()
    times[0] -= 10 * WEEK
    assert "over 1.3 weeks" in needed_log(replace(short, time_ms=times)).sentence


@pytest.mark.parametrize("pause", [0, 10])
def test_neither_growth_nor_a_pause_hides_what_was_before_it(log, pause):
    """The estimate uses the decisions before, too."""
    rng = np.random.default_rng(7)
    right = made(log, rng, [0.5, 0.5], 3000, people=60, weeks=20)
    late = right.time_ms > MONDAY + 10 * WEEK
    size = 60 if pause else 120
    person = np.where(late, rng.integers(0, size, 3000), right.person)
    reward = rng.normal(0, 0.15, 3000) + 0.1 * late
    times = right.time_ms + pause * WEEK * late
    people = [f"p{one}" for one in range(size)]
    log = replace(right, time_ms=times, person=person, reward=reward, people=people)
    assert not check(log, "steady").ok


def test_a_first_wave_that_left_hides_no_drift(log):
    """Those of the second wave were in both halves of their time, but nobody in those of all."""
    right = made(log, np.random.default_rng(8), [0.5, 0.5], 4000, people=60, weeks=20)
    late = right.time_ms > MONDAY + 10 * WEEK
    person = np.where(late, right.person, 60 + right.person % 25)
    people = [f"p{one}" for one in range(85)]
    found = check(replace(right, person=person, people=people), "steady")
    assert not found.known
    assert "1 person was there in both halves of it, who made 0% of" in found.sentence
    later = np.where(right.time_ms > MONDAY + 12 * WEEK, right.person, 60 + right.person % 25)
    found = check(replace(right, person=later, people=people), "steady")
    assert not found.known  # though all of the first wave were in both halves


def test_a_drift_that_cannot_be_seen_is_said_not_to_be_known(log):
    right = made(log, np.random.default_rng(5), [0.5, 0.5], 2000, people=60)
    others = replace(right, person=right.person % 30 + np.where(np.arange(2000) < 1000, 0, 30))
    rows = np.abs(np.arange(2000) - 1000) > 50
    others = others.choose(rows)
    found = check(others, "steady")
    assert found.ok
    assert found.sentence == (
        "Whether the outcome drifts over the period is not known: 0 people were there in both "
        "halves of it, who made 0% of the decisions of a half; 10 people and 50% are needed."
    )
    assert not found.known
    evaluated = evaluate(others, targets.fixed(others.arms[0]))
    assert evaluated.verdict.supported
    assert evaluated.verdict.reason.endswith(f" people. {found.sentence}")
    assert gate_checks(evaluated).pl().filter(check="no drift")["ok"].item() == "not known"


def test_in_less_than_two_weeks_a_weekend_is_no_drift_but_too_short(log):
    rng = np.random.default_rng(5)
    for days, told in ((7, True), (10, True), (14, False)):
        right = made(log, rng, [0.5, 0.5], 6000, people=60, weeks=days / 7)
        weekend = (right.time_ms - MONDAY) % WEEK >= 5 * 86_400_000
        rated = replace(right, reward=0.1 * weekend + rng.normal(0, 0.15, 6000))
        found = check(rated, "steady")
        assert found.ok != told
        assert found.sentence.endswith("log at least two whole weeks.") == told
        if told:
            advised = needed_log(rated)
            assert not advised.reached
            assert "60 people over 3 weeks in all" in advised.sentence
            assert advised.sentence.endswith("over 1 week." if days == 7 else "over 1.4 weeks.")


@pytest.mark.parametrize(
    ("chances", "advised"),
    [
        ([0.1] * 10, "at most 8 instead of 10, with every decision, give each at least 12%"),
        ([7 / 12] + [1 / 12] * 5, "each of the 6 arms with every decision, give each at least 12%"),
        ([0.8, 0.1, 0.1], "each of the 3 arms with every decision, give each at least 17%"),
    ],
)
def test_a_large_log_of_too_rare_arms_is_told_the_remedy(log, chances, advised):
    rng = np.random.default_rng(8)
    rare = made(log, rng, chances, 20000)
    rare = replace(rare, arms=rare.arms[::-1], arm=len(chances) - 1 - rare.arm)
    assert needed_log(rare).reached
    assert advised in needed_log(rare).sentence
    few = rare.choose(np.arange(len(rare)) % 100 == 0)
    assert advised in needed_log(few).sentence
    thin = replace(rare, propensity=np.full(len(rare), 0.09))
    thin = thin.choose((thin.arm != 0) | (rng.random(len(thin)) < 0.8))
    refused = check(thin, "ess")
    assert not refused.ok
    assert refused.sentence.endswith("at most 8 arms, each with a probability of at least 12%.")


@pytest.mark.parametrize("arms", [3, 6, 8])
def test_an_advised_log_is_not_refused_for_its_size(log, arms):
    rng = np.random.default_rng(9)
    least = max(0.12, 1 / (2 * arms))
    for _ in range(5):
        advised = made(log, rng, [least] * (arms - 1) + [1 - least * (arms - 1)], 3000)
        assert check(advised, "ess").ok


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


@pytest.mark.slow
def test_a_log_of_the_needed_size_finds_the_effect():
    """The confidence sequence, on which proposals rest, needs more than 2.8 standard errors."""
    world = World(ideal=(0.6, 0.5), apart=0.0, by_context=0.0, answered=0.3)
    truth = Simulation(world).value("warmer") - Simulation(world).value("cooler")
    needed = needed_log(Simulation(world, 1).log(3))
    assert not needed.reached
    # As many more decisions as the effect there is smaller than the one that was asked for.
    weeks = needed.weeks * (needed.effect / truth) ** 2
    found = 0
    for seed in range(8):
        log = Simulation(replace(world, people=needed.people), seed).log(weeks)
        main = evaluate(log, WARMER, over=targets.fixed("cooler")).main
        found += main is not None and main.gain_low_anytime > 0
    assert 5 <= found <= 8


def test_the_needed_log_is_the_same_from_a_pilot_and_counts_what_there_is():
    world = World(people=120)
    pilot, whole = Simulation(world, 1).log(2), Simulation(world, 1).log(20)
    assert not needed_log(pilot).reached
    assert needed_log(whole).reached
    assert needed_log(whole).weeks == pytest.approx(needed_log(pilot).weeks, abs=3)
    # A cautious log tells less of the other arms, and one without propensities nothing.
    assert not needed_log(Simulation(world, 1).log(4, chooser="cautious")).reached
    assert not needed_log(evidence._without_propensities(whole, None)).reached


def test_the_variances_of_few_people_are_called_rough():
    few = needed_log(Simulation(World(people=4), 1).log())
    assert few.sentence.endswith("4 people tell this only roughly.")
    hours = Simulation(World(), 1).log()
    hours = hours.with_reward(24 * hours.reward, OUTCOMES["reply_latency"])
    assert " hours on reply_latency with a probability" in needed_log(hours).sentence
