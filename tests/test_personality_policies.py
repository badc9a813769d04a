"""Policies: the probabilities with which they choose, and their state in the primary database."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pytest
from scipy.special import betaln

from aico_lab.domain import Profile
from aico_lab.errors import (
    ChangeRefused,
    CorruptDatabase,
    DuplicateId,
    InvalidEntity,
    InvalidValue,
    UnknownName,
    WrongUse,
)
from aico_lab.messages.simulated import SIMULATED
from aico_lab.personality.policies import Choice, best_probabilities, policy_of
from aico_lab.personality.stored_policies import StoredPolicy
from tests.messages import add, at, message

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
ARMS = {"warmer": {"warmth": 0.1}, "terser": {"verbosity": -0.1}, "as is": {}}


def rng(seed=1):
    return np.random.default_rng(seed)


def better(a, b, c, d):
    """Return P(X > Y) of X ~ Beta(a, b) and Y ~ Beta(c, d), by the sum for a whole `a`."""
    return sum(
        math.exp(betaln(c + i, b + d) - math.log(b + i) - betaln(1 + i, b) - betaln(c, d))
        for i in range(a)
    )


@pytest.mark.parametrize(
    "pair",
    [(1, 1, 1, 1), (3, 5, 2, 9), (40, 60, 41, 60), (500, 500, 2, 2), (900, 100, 100, 900)],
)
def test_the_probability_to_be_the_best_of_two_is_that_of_the_closed_form(pair):
    a, b, c, d = pair
    expected = better(a, b, c, d)
    found = best_probabilities(np.array([a, c]), np.array([b, d]))
    assert found == pytest.approx([expected, 1 - expected], abs=1e-6)


def test_the_probabilities_of_several_arms_are_those_of_draws():
    """Also for rows of contexts at once, and of parameters below 1."""
    alpha = np.array([[1, 2, 3, 8], [1, 1, 1, 1], [0.2, 30, 1, 0]])
    beta = np.array([[1, 2, 9, 8], [1, 1, 1, 1], [0.5, 300, 1, 0]])
    found = best_probabilities(alpha, beta)
    assert found.sum(axis=1) == pytest.approx(np.ones(3))
    assert found[1] == pytest.approx(np.full(4, 0.25))
    for a, b, row in zip(alpha, beta, found, strict=True):
        drawn = rng().beta(np.maximum(a, 1e-3), np.maximum(b, 1e-3), size=(200_000, 4))
        shares = np.bincount(drawn.argmax(axis=1), minlength=4) / len(drawn)
        assert row == pytest.approx(shares, abs=0.006)


def test_arms_that_are_equal_share_what_epsilon_leaves():
    """Arms that were never tried go first."""
    policy = policy_of("epsilon-greedy", {"arms": ARMS, "epsilon": 0.3})
    p, kind = policy.probabilities({}, rng())
    assert (list(p), kind) == ([pytest.approx(1 / 3)] * 3, "exact")
    state = policy.learned({}, "warmer", 1.0, context="evening")
    p, _ = policy.probabilities(state, rng(), context="evening")
    assert list(p) == pytest.approx([0.1, 0.45, 0.45])
    for arm, outcome in (("terser", 1.0), ("as is", 0.0)):
        state = policy.learned(state, arm, outcome, context="evening")
    p, _ = policy.probabilities(state, rng(), context="evening")
    assert list(p) == pytest.approx([0.45, 0.45, 0.1])
    p, _ = policy.probabilities(state, rng(), context="morning")
    assert list(p) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("kind", ["fixed", "epsilon-greedy", "thompson", "linear-thompson"])
def test_every_arm_keeps_the_floor_and_is_chosen_as_often_as_stated(kind):
    """The seed makes choices repeatable."""
    own = {"fixed": {"arm": "as is"}, "linear-thompson": {"features": ["hour"]}}.get(kind, {})
    policy = policy_of(kind, {"arms": ARMS, "floor": 0.1, **own})
    assert policy_of(kind, json.loads(json.dumps(policy.stored()))).stored() == policy.stored()
    state = {}
    for arm, outcome in [("warmer", 1), ("warmer", 0.9), ("terser", 0), ("as is", 0)] * 40:
        state = policy.learned(state, arm, outcome, context="x", features={"hour": 0.5})
    assert json.loads(json.dumps(state)) == state
    where = {"context": "x", "features": {"hour": 0.5}}
    choices = [policy.choose(state, rng(seed), **where) for seed in range(400)]
    stated = choices[0].probabilities
    assert min(stated.values()) >= 0.1 - 1e-12
    assert sum(stated.values()) == pytest.approx(1)
    counts = Counter(one.arm for one in choices)
    for arm, p in stated.items():
        assert counts[arm] / 400 == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 400) + 0.01)
    assert all(one.propensity == one.probabilities[one.arm] > 0 for one in choices)
    assert choices[3] == policy.choose(state, rng(3), **where)
    assert {one.kind for one in choices} == {
        "monte-carlo" if kind == "linear-thompson" else "exact"
    }


def test_no_arm_of_linear_thompson_sampling_has_probability_0():
    """An arm that is the best in no draw gets 1 / (draws + arms)."""
    policy = policy_of("linear-thompson", {"arms": ["a", "b"], "scale": 1e-6, "draws": 98})
    state = policy.learned(policy.learned({}, "a", 1.0), "b", 0.0)
    p, kind = policy.probabilities(state, rng())
    assert (list(p), kind) == ([pytest.approx(0.99), pytest.approx(0.01)], "monte-carlo")


@pytest.mark.parametrize(
    ("kind", "stored", "error"),
    [
        ("thomson", {"arms": ["a"]}, UnknownName),
        ("thompson", {}, InvalidValue),
        ("thompson", {"arms": []}, InvalidValue),
        ("thompson", {"arms": ["a", "b"], "floor": 0.6}, InvalidValue),
        ("thompson", {"arms": ["a"], "epsilon": 0.1}, InvalidValue),
        ("thompson", {"arms": {"a": {"warmth": math.nan}}}, InvalidEntity),
        ("thompson", {"arms": {"a": {"wramth": 0.1}}}, InvalidEntity),
        ("epsilon-greedy", {"arms": ["a"], "epsilon": 1.5}, InvalidValue),
        ("epsilon-greedy", {"arms": ["a"], "epsilon": math.nan}, InvalidValue),
        ("fixed", {"arms": ["a"], "arm": "b"}, InvalidValue),
        ("linear-thompson", {"arms": ["a"], "features": "hour"}, InvalidValue),
        ("linear-thompson", {"arms": ["a"], "draws": 0}, InvalidValue),
        ("linear-thompson", {"arms": ["a"], "draws": 10**7}, InvalidValue),
        ("linear-thompson", {"arms": ["a"], "features": None}, InvalidValue),
        ("linear-thompson", {"arms": ["a"], "features": ["x", "x"]}, InvalidValue),
        ("fixed", {"arms": ["a"], "arm": ["a"]}, InvalidValue),
        ("thompson", {"arms": ["a", "a"]}, InvalidValue),
        ("thompson", {"arms": {"a": None}}, InvalidValue),
        ("thompson", {"arms": None}, InvalidValue),
        ([], {"arms": ["a"]}, UnknownName),
    ],
)
def test_a_policy_of_invalid_parameters_is_refused(kind, stored, error):
    with pytest.raises(error):
        policy_of(kind, stored)


@pytest.mark.parametrize(
    "given",
    [
        {"propensity": -3}, {"propensity": 0.4}, {"arm": "c"}, {"arm": ["a"]}, {"kind": "guess"},
        {"probabilities": {"a": 0.5}}, {"probabilities": None}, {"features": {"x": math.nan}},
        {"features": {"x": "a"}}, {"features": {"x": 10**400}}, {"context": 5},
        {"context": "\ud800"}, {"probabilities": {"a": 0.5, "b": math.nan}},
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_logged_is_refused(given):
    """One impossible propensity would make the whole log useless."""
    usual = {"arm": "a", "propensity": 0.5, "kind": "exact", "probabilities": {"a": 0.5, "b": 0.5}}
    Choice(**usual)
    with pytest.raises((InvalidValue, InvalidEntity)):
        Choice(**(usual | given))
    policy = policy_of("thompson", {"arms": ["a", "b"]})
    if given.keys() & {"features", "context"}:
        with pytest.raises((InvalidValue, InvalidEntity)):
            policy.choose({}, rng(), **given)


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("thompson", {"contexts": []}),
        ("thompson", {"contexts": {"any": {"warmer": "x"}}}),
        ("thompson", {"contexts": {"any": {"warmer": [1, 2, 3]}}}),
        ("epsilon-greedy", {"contexts": {"any": {"warmer": [math.nan, 1]}}}),
        ("epsilon-greedy", {"contexts": {"any": {"warmer": [-5, 1]}}}),
        ("linear-thompson", {"models": []}),
        ("linear-thompson", {"models": {"warmer": {"precision": [[1]]}}}),
        ("linear-thompson", {"models": {"warmer": {"precision": [[1, 2]], "weighted": [1]}}}),
        ("linear-thompson", {"models": {"warmer": {"precision": [[math.nan]], "weighted": [1]}}}),
    ],
)
def test_a_damaged_state_is_named(kind, state):
    policy = policy_of(kind, {"arms": ARMS})
    for use in (policy.choose, lambda state, _: policy.learned(state, "warmer", 1.0)):
        with pytest.raises(CorruptDatabase, match="damaged"):
            use(state, rng())


def test_a_policy_takes_only_its_own_choices_on_the_companions_messages(lab):
    """Nothing is written otherwise."""
    add(lab.primary, message(0), message(1))
    style = lab.personality.add_policy("style", "thompson", ARMS)
    other = lab.personality.add_policy("other", "thompson", ARMS)
    skills = lab.personality.add_policy("skills", "thompson", ["joke"])
    with pytest.raises(InvalidValue, match="not the companion's"):
        style.record("m0", style.choose())
    for choice in (other.choose(), replace(skills.choose(), policy=None), "warmer"):
        for use in (partial(style.record, "m1"), partial(style.learn, 1)):
            with pytest.raises(InvalidValue):
                use(choice=choice)
    assert style.rounds == 0
    assert not lab.primary.fetch_all("SELECT 1 FROM personality_decisions")
    for seed in (-1, 1.5, "a"):
        with pytest.raises(InvalidValue):
            lab.personality.policy("style", seed=seed)
    for name in ("", 5):
        with pytest.raises(InvalidEntity):
            lab.personality.add_policy(name, "thompson", ARMS)
    for parameters in ("nope", '{"arms": {}, "bogus": 1}', '{"arms": {"a": {"zz": 1}}}'):
        lab.primary.execute(
            "UPDATE personality_policies SET parameters = ? WHERE policy_id = 'other'",
            [parameters],
        )
        with pytest.raises(CorruptDatabase, match="'other'"):
            lab.personality.policy("other")


@pytest.mark.slow
def test_a_companion_chooses_records_and_learns(lab):
    """The decision has the version of the profile, and the state is stored after each outcome."""
    add(lab.primary, message(0), message(1))
    lab.personality.add_profile({"warmth": 0.5}, reason="a first one", active_from=LONG_AGO)
    lab.personality.add_policy("style", "thompson", ARMS, floor=0.05)
    policy = lab.personality.policy("style", seed=1)
    with pytest.raises(UnknownName, match="chosen"):
        policy.learn(1.0)
    context = lab.personality.context_of("m1")
    choice = policy.choose(context)
    policy.record("m1")
    for outcome in (1.0, 0.25):
        policy.learn(outcome)
    for outcome in (math.nan, -1, 2, "good", True):
        with pytest.raises(InvalidValue):
            policy.learn(outcome)
    assert policy.rounds == 2
    assert policy.state == {"contexts": {context: {choice.arm: [2.25, 1.75]}}}
    assert (
        StoredPolicy(lab.primary, "style", seed=1).choose(context).probabilities[choice.arm]
        > choice.propensity
    )
    lab.sync(only="warehouse")
    (row,) = lab.sql(
        "SELECT message_id, user_id, profile_id, policy, context, arm, propensity, "
        "propensity_kind, arms, simulated, ts_ms FROM mart.decisions"
    ).fetchall()
    profile = lab.personality.profile()
    assert row[:8] == (
        "m1", "u", profile.id, "style", context, choice.arm, choice.propensity, "exact",
    )  # fmt: skip
    assert json.loads(row[8]) == pytest.approx(dict(choice.probabilities))
    assert row[9:] == (False, 1_709_294_401_000)
    with pytest.raises(DuplicateId):
        policy.record("m1")
    with pytest.raises(UnknownName):
        policy.record("unknown")
    with pytest.raises(DuplicateId):
        lab.personality.add_policy("style", "thompson", ARMS)
    with pytest.raises(UnknownName):
        lab.personality.add_policy("hers", "thompson", ARMS, user="nobody")
    with pytest.raises(UnknownName, match="did you mean style"):
        lab.personality.policy("stile")


def test_a_policy_that_several_learn_from_at_once_loses_no_outcome(lab):
    """Each on a connection of its own."""
    lab.personality.add_policy("style", "thompson", ARMS)

    def learn(number):
        with lab.storage.adapter.connect() as connection:
            policy = StoredPolicy(connection, "style", seed=number)
            for _ in range(10):
                policy.learn(1.0, policy.choose("evening"))

    threads = [threading.Thread(target=learn, args=(n,)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    stored = lab.personality.policy("style")
    assert stored.rounds == 40
    arms = stored.state["contexts"]["evening"].values()
    assert sum(alpha - 1 for alpha, _ in arms) == 40


def test_a_context_is_the_hour_in_the_persons_zone_and_the_place_in_the_session(lab):
    """The zone is the person's preference, or else the lab's."""
    add(lab.primary, message(0), message(1), message(2, timestamp=at(4000)))
    of = lab.personality.context_of
    assert [of(f"m{n}") for n in range(3)] == [
        "afternoon/opening", "afternoon/ongoing", "afternoon/opening",
    ]  # fmt: skip
    lab.primary.execute(
        "INSERT INTO preferences VALUES ('u', 'timezone', '\"Asia/Tokyo\"', ?)", [at(0)]
    )
    assert of("m0") == "evening/opening"
    with pytest.raises(UnknownName):
        of("unknown")


def test_a_profile_that_violates_a_rule_is_not_added(lab):
    with pytest.raises(InvalidEntity, match="curious openness"):
        lab.personality.add_profile({"openness": 1.0, "curiosity": 0.0}, reason="a test")
    assert lab.personality.profile() is None
    assert isinstance(lab.personality.add_profile({"warmth": 1}, reason="a test"), Profile)
    for traits in (None, 5, "warmth", {}):
        with pytest.raises(InvalidEntity):
            lab.personality.add_profile(traits, reason="a test")
    for reason in ("", None):
        with pytest.raises(InvalidEntity, match="reason"):
            lab.personality.add_profile({"warmth": 1}, reason=reason)


def test_a_version_begins_after_the_one_before_and_not_in_the_future(lab):
    """Versions would overlap, or end before they began."""
    state = partial(lab.personality.add_profile, {"warmth": 0.5}, reason="a test")
    state(active_from=LONG_AGO)
    with pytest.raises(ChangeRefused, match="began on 2020-01-01"):
        state(active_from=LONG_AGO - timedelta(days=1))
    with pytest.raises(InvalidEntity, match="future"):
        state(active_from=datetime(2999, 1, 1, tzinfo=UTC))
    state(active_from=LONG_AGO - timedelta(days=1), context="evening")
    first, second = lab.personality.profiles(), state()
    assert [one.context for one in first] == ["evening", None]
    ends = [one.active_until for one in lab.personality.profiles() if one.context is None]
    assert ends == [second.active_from, None]


def test_a_version_of_another_program_is_named_and_can_be_ended(lab):
    """One that would begin later disturbs nothing, and never begins."""
    lab.personality.add_profile({"warmth": 0.4}, reason="a first one", active_from=LONG_AGO)
    lab.primary.execute_many(
        "INSERT INTO personality_profiles (profile_id, version, traits, active_from, active_until) "
        'VALUES (?, ?, \'{"warmth": 0.5, "odd": 3}\', ?, NULL)',
        [["later", 9, "2999-01-01T00:00:00.000000Z"]],
    )
    lab.primary.execute(
        "UPDATE personality_profiles SET active_until = '2999-01-01T00:00:00.000000Z' "
        "WHERE version = 1"
    )
    assert lab.personality.status().profile.traits == {"warmth": 0.4}
    lab.primary.execute_many(
        "INSERT INTO personality_profiles (profile_id, version, traits, active_from, active_until) "
        'VALUES (?, ?, \'{"warmth": 0.5, "odd": 3}\', ?, NULL)',
        [["present", 2, "2021-01-01T00:00:00.000000Z"]],
    )
    with pytest.raises(InvalidEntity, match=r"Version 2 .* of everybody, 'present', .*add_profile"):
        lab.personality.status()
    new = lab.personality.add_profile({"warmth": 0.5}, reason="ours")
    assert (new.version, new.based_on) == (10, "present")
    assert lab.personality.profile() == new
    assert lab.personality.profile(at=datetime(3000, 1, 1, tzinfo=UTC)) == new
    assert not lab.primary.fetch_all(
        "SELECT 1 FROM personality_profiles WHERE active_until > max(active_from, ?)", ["2998"]
    )


def test_a_simulated_home_takes_no_documents_and_marks_its_profiles(lab, tmp_path):
    lab.primary.execute("INSERT INTO system_state VALUES (?, 'personality', ?)", [SIMULATED, at(0)])
    document = tmp_path / "note.md"
    document.write_text("A note.")
    with pytest.raises(WrongUse, match="simulated"):
        lab.knowledge.add(document)
    assert lab.personality.add_profile({"warmth": 0.5}, reason="a test").simulated


def test_the_status_of_a_person_counts_their_decisions(lab):
    add(lab.primary, message(0), message(1))
    lab.primary.execute("INSERT INTO users (user_id, created_at) VALUES ('v', ?)", [at(0)])
    style = lab.personality.add_policy("style", "thompson", ARMS)
    style.record("m1", style.choose())
    counts = [lab.personality.status(user).decisions for user in (None, "u", "v")]
    assert counts == [1, 1, 0]
