"""Proposals on simulated decisions: the better arm, why there is none, and the commands."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from aico_lab.domain import PersonalityChange, Profile, User
from aico_lab.errors import ChangeRefused, InvalidEntity, InvalidValue, UnknownName
from aico_lab.personality import change_log, change_views, lab_personality
from aico_lab.personality.outcomes import OUTCOMES, outcome_of
from aico_lab.personality.proposals import draft
from aico_lab.personality.simulate import ARMS, START_MS, WEEK_MS, Simulation, World

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "personality_adaptation.ipynb"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TRAITS = {"warmth": 0.5, "verbosity": 0.5, "extraversion": 0.5}
PROFILE = Profile(TRAITS, id="p1")
WORLD = World(
    people=120, ideal=(0.9, 0.5), by_context=0.0, apart=0.05, strength=3.0, happiness=0.85
)


@pytest.fixture(scope="module")
def log():
    return Simulation(WORLD, 3).log()


def worsened(log, arm):
    """Return the log with an outcome that is worse after an arm."""
    luck = np.random.default_rng(2).normal(size=len(log))
    reward = luck - (log.arm == log.arms.index(arm))
    return log.with_reward(reward, OUTCOMES["sentiment_change"])


def test_the_better_arm_is_proposed_with_its_expected_effect(log):
    """It is favourable on the whole confidence sequence, which holds the truth."""
    found = draft(log, [], ARMS, PROFILE, 0.1)
    assert (found.best.arm, found.best.steps, found.needed) == ("warmer", {"warmth": 0.1}, None)
    truth = Simulation(WORLD)
    gain = truth.value("warmer") - truth.value("as now")
    assert found.best.effect.low < gain < found.best.effect.high
    assert found.best.effect.worst > 0
    assert {one.arm for one in found.candidates} == {"warmer", "cooler", "terser", "wordier"}
    (cooler,) = [one for one in found.candidates if one.arm == "cooler"]
    assert cooler.sentence.startswith("cooler is worse: satisfaction -")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"max_step": 0.05}, "more than the asked 0.05"),
        ({"profile": Profile({"warmth": 0.95, "verbosity": 0.5})}, "outside 0 to 1"),
        ({"profile": Profile({"verbosity": 0.5})}, "states no warmth"),
        ({"profile": Profile(TRAITS, stability=0.95)}, "take a smaller step"),
        ({"arms": {"as now": {}, "cooler": {"warmth": -0.1}}}, "cooler is worse"),
        ({"arms": {"as now": {}}}, "no policy states"),
        ({"arms": {"funnier": {"humour": 0.1}}}, "no logged arm moves a trait"),
    ],
)
def test_nothing_is_proposed_without_a_possible_better_arm(log, changed, named):
    """The sentence says why; a larger log would not help, so none is advised."""
    given = {"arms": {a: ARMS[a] for a in ("as now", "warmer")}, "profile": PROFILE,
             "max_step": 0.1} | changed  # fmt: skip
    found = draft(log, [], **given)
    assert (found.best, named in found.sentence) == (None, True), found.sentence
    assert found.needed is None


def test_a_larger_log_is_advised_only_if_this_one_is_not_as_large():
    """An undecided log of that size says so, instead of advising less than there is."""
    arms = {a: ARMS[a] for a in ("as now", "warmer")}
    alike = World(people=120, strength=0.0)
    few = draft(Simulation(alike, 3).log(2), [], arms, PROFILE, 0.1)
    assert "may be no better" in few.sentence
    assert "weeks in all" in few.needed
    assert "people over 2 weeks." in few.needed
    many = draft(Simulation(alike, 3).log(20), [], arms, PROFILE, 0.1)
    assert "may be no better" in many.sentence
    assert "the log is large enough" in many.needed


@pytest.mark.parametrize("days", [15, 20])
def test_nothing_is_proposed_whose_change_could_not_be_watched(days):
    log = Simulation(replace(WORLD, people=600), 3).log(3)
    log = log.choose(log.time_ms < START_MS + days * WEEK_MS / 7)
    found = draft(log, [], ARMS, PROFILE, 0.1)
    if days == 20:
        assert found.best.arm == "warmer"
        return
    assert found.best is None
    assert found.sentence.startswith("Nothing is proposed yet: warmer is better: satisfaction +")
    assert found.sentence.endswith(
        "; but a change could not be watched: the decisions before the change span 14 days since "
        "most of the people were there, and 17 are needed."
    )
    assert found.needed == "Log for 3 more days, and propose again."


def test_the_changes_of_a_person_are_those_that_reach_them(tuned):
    """The page of one person shows them, as `status --user` does."""
    tuner = tuned.personality
    tuned.primary.execute(
        "INSERT INTO users (user_id, created_at) VALUES ('ada', '2024'), ('bo', '2024')"
    )
    made = PersonalityChange({"steps": {"warmth": 0.1}}, tuner.profile().id, "ada")
    tuner.work(lambda uow: uow.personality_changes.save(made), commit=True)
    assert [len(tuner.changes(user)) for user in (None, "ada", "bo")] == [1, 1, 0]
    assert "lab.personality.changes(person)" in NOTEBOOK.read_text(encoding="utf-8")


def test_an_arm_that_worsens_a_guardrail_is_not_proposed(log):
    found = draft(log, [worsened(log, "warmer")], ARMS, PROFILE, 0.1)
    assert found.best is None or found.best.arm != "warmer"
    (warmer,) = [one for one in found.candidates if one.arm == "warmer"]
    assert "guardrail worsens: sentiment_change" in warmer.sentence
    only = draft(log, [worsened(log, "warmer")], {a: ARMS[a] for a in ("as now", "warmer")},
                 PROFILE, 0.1)  # fmt: skip
    assert (only.best, only.needed) == (None, None)  # all is decided: more log would not help
    better = draft(log, [worsened(log, "cooler")], ARMS, PROFILE, 0.1)
    assert better.best.arm == "warmer"
    assert [one.outcome for one in better.best.guardrails] == ["sentiment_change"]


def test_a_guardrail_must_be_known_not_to_worsen_or_be_named(log):
    """An interval that holds 0 is no proof: its worse end must be within the margin."""
    luck = np.random.default_rng(3).normal(size=len(log))
    rare = np.where(np.arange(len(log)) % 9 == 0, luck, np.nan)
    unclear = draft(log, [log.with_reward(rare, OUTCOMES["sentiment_change"])], ARMS, PROFILE, 0.1)
    assert "guardrail may worsen: sentiment_change" in unclear.sentence
    assert unclear.needed.startswith("To rule out that sentiment_change worsens by")
    known = draft(log, [log.with_reward(luck, OUTCOMES["sentiment_change"])], ARMS, PROFILE, 0.1)
    assert known.best.arm == "warmer"
    assert known.best.guardrails[0].worst > -known.best.guardrails[0].margin
    never = log.with_reward(np.full(len(log), np.nan), OUTCOMES["returns_within_week"])
    unknown = draft(log, [never], ARMS, PROFILE, 0.1)
    assert unknown.sentence.endswith("Whether it worsens returns_within_week is not known.")


def test_a_log_that_supports_no_answer_leads_to_no_proposal(log):
    """As that of AICO's own decisions, which have no propensities."""
    missing = replace(log, propensity=np.full(len(log), np.nan), probabilities=None)
    found = draft(missing, [], ARMS, PROFILE, 0.1)
    assert "have no propensity" in found.sentence
    assert "log the probability" in found.needed
    empty = draft(log.choose(np.zeros(len(log), bool)), [], ARMS, PROFILE, 0.1)
    assert "no decision" in empty.sentence


@pytest.fixture
def tuned(lab, log, monkeypatch):
    """A lab with a profile and a policy, whose decisions are simulated."""
    profile = lab.personality.add_profile(TRAITS, reason="a first one", active_from=LONG_AGO)
    lab.personality.add_policy("style", "thompson", ARMS)
    decisions = {"now": replace(log, profiles=[profile.id], policies=["style"])}

    def read(_reader, outcome, filters):
        wanted, found = outcome_of(outcome), decisions["now"]
        if filters.users:
            found = found.choose(np.isin(np.array(found.people)[found.person], filters.users))
        if wanted.name == "satisfaction":
            return found
        return found.with_reward(np.full(len(found), np.nan), wanted)

    for module in (lab_personality, change_log):
        monkeypatch.setattr(module, "read_log", read)
    lab.decisions = decisions
    return lab


def test_what_could_not_be_watched_any_more_is_not_applied(tuned):
    """Since the proposal a launch made most of the people new, or most have left."""
    tuner, log = tuned.personality, tuned.decisions["now"]
    change_id = tuner.propose().change_id
    last = log.time_ms >= log.time_ms.max() - 6 * 86_400_000
    days = "decisions before the change span 5 days since most of the people were there"
    for kept, why in ((last, days), (log.person < 5, "people have it in the time before")):
        tuned.decisions["now"] = log.choose(kept)
        with pytest.raises(ChangeRefused, match=f"^Nothing was applied, as .* watched: .*{why}"):
            tuner.apply(change_id)
    (still,) = tuner.status().proposed
    assert (still.id, tuner.profile().traits["warmth"]) == (change_id, 0.5)


def test_a_proposal_for_one_person_is_applied_though_it_is_never_decided(tuned):
    tuner, person = tuned.personality, tuned.decisions["now"].people[0]
    tuner.work(lambda uow: uow.users.save(User("Ada", id=person)), commit=True)
    made = tuner.propose(user=person)
    tuner.apply(made.change_id)
    (watched,) = tuner.status().watched
    assert watched.recommendation == "wait"


def test_a_proposal_is_stored_applied_watched_and_rolled_back(tuned):
    """The watch compares the same people before and after."""
    tuner = tuned.personality
    dry = tuner.propose(dry_run=True)
    assert (dry.arm, dry.change_id, tuner.changes()) == ("warmer", None, [])
    made = tuner.propose()
    assert (made.before, made.after) == ({"warmth": 0.5}, {"warmth": 0.6})
    assert made.sentence.startswith("Simulated data: warmer is better: satisfaction +")
    (stored,) = tuner.status().proposed
    assert (stored.id, stored.steps) == (made.change_id, {"warmth": 0.1})
    assert tuner.apply(made.change_id, dry_run=True).status == "applied"
    assert tuner.profile().traits["warmth"] == 0.5
    done = tuner.apply(made.change_id)
    assert tuner.profile().traits["warmth"] == 0.6
    with pytest.raises(ChangeRefused, match="is watched"):
        tuner.propose()
    with pytest.raises(ChangeRefused, match="is watched"):
        tuner.add_profile(TRAITS, reason="by hand")
    (watched,) = tuner.status().watched
    assert watched.recommendation == "wait"

    applied_ms = int(done.applied_at.timestamp() * 1000)
    before = tuned.decisions["now"]
    times = before.time_ms - START_MS - 28 * 86_400_000 + applied_ms
    late = times >= applied_ms
    # The same people, much less satisfied under the new version; some have their own version.
    tuned.decisions["now"] = replace(
        before, time_ms=times, reward=np.where(late, before.reward * 0.5, before.reward),
        profile=np.where(before.person < 20, 2, late),
        profiles=[done.old_profile_id, done.new_profile_id, "their own"],
    )  # fmt: skip
    (watched,) = tuner.status().watched
    assert (watched.recommendation, watched.watch.goal.outcome) == ("roll back", "satisfaction")
    page = change_views.after_change(tuned.storage.reader, tuner.changes()).pl()
    assert page["people"][0] == watched.watch.goal.people <= 100
    assert page["value"][0] == watched.watch.goal.value
    assert tuner.rollback(dry_run=True).status == "rolled back"
    assert tuner.profile().traits["warmth"] == 0.6
    tuner.rollback()
    assert tuner.profile().traits == pytest.approx(TRAITS)
    for again in (partial(tuner.rollback, done.id), partial(tuner.apply, done.id), tuner.rollback):
        with pytest.raises(ChangeRefused):
            again()


def test_a_change_is_judged_by_decisions_under_its_two_versions_until_a_rollback(log):
    """Not by those of an earlier change, nor by those of a version that applies again."""
    middle, end = (START_MS + weeks * WEEK_MS for weeks in (3, 6))
    change = PersonalityChange(
        {}, "old", None, None, "rolled back", "new", applied_at=datetime.fromtimestamp(1, UTC),
        ended_at=datetime.fromtimestamp(end / 1000, UTC),
    )  # fmt: skip
    part = np.digitize(log.time_ms, [START_MS + WEEK_MS, middle, end]) % 3
    several = replace(log, profile=part, profiles=["old", "earlier", "new"])
    found = change_log.of_change(several, change)
    assert found.time_ms.max() < end
    assert set(found.profile.tolist()) == {0, 2}
    kept = change_log.of_change(several, replace(change, status="kept"))
    assert len(kept) == (part != 1).sum()


def test_of_tuners_in_several_threads_one_wins(tuned):
    """The others get a sentence, and one version is made."""
    tuner = tuned.personality
    made = PersonalityChange({"steps": {"warmth": 0.1}}, tuner.profile().id)
    tuner.work(lambda uow: uow.personality_changes.save(made), commit=True)
    with ThreadPoolExecutor(4) as pool:
        tried = [pool.submit(tuner.apply, made.id) for _ in range(4)]
        errors = [one.exception() for one in tried]
    assert sorted(type(one).__name__ for one in errors) == ["ChangeRefused"] * 3 + ["NoneType"]
    assert all("was applied on" in str(one) for one in errors if one)
    assert [one.version for one in tuner.profiles()] == [1, 2]


def test_an_arm_belongs_to_its_policy(tuned):
    """Another policy may have an arm of the same name, and make decisions of its own."""
    tuner = tuned.personality
    tuner.add_policy("skills", "thompson", {"warmer": {"warmth": 0.2}, "joke": {}})
    tuned.primary.execute(
        "INSERT INTO personality_policies VALUES ('broken', NULL, 'fixed', 'nope', '{}', 0, '')"
    )
    made = tuner.propose(max_step=0.2, dry_run=True)
    assert (made.policy, made.arm, made.steps) == ("style", "warmer", {"warmth": 0.1})
    other = tuner.propose(policy="skills", dry_run=True)
    assert (other.policy, other.arm, other.decisions) == ("skills", None, 0)
    assert "each of the 2 arms" in other.needed

    log = tuned.decisions["now"]
    of_skills = np.arange(len(log)) % 3 == 0
    chances = np.column_stack([log.probabilities, np.zeros(len(log))])
    chances[of_skills] = [0] * len(log.arms) + [1]
    tuned.decisions["now"] = replace(
        log, arms=[*log.arms, "joke"], arm=np.where(of_skills, len(log.arms), log.arm),
        propensity=np.where(of_skills, 1.0, log.propensity), probabilities=chances,
        policy=of_skills.astype(np.int64), policies=["style", "skills"],
    )  # fmt: skip
    mixed = tuner.propose(dry_run=True)
    assert (mixed.policy, mixed.decisions) == ("style", int((~of_skills).sum()))
    assert "propensities are wrong" not in mixed.sentence
    assert tuner.propose(policy="skills", dry_run=True).decisions == of_skills.sum()
    for given in ({"policy": "skils"}, {"context": "evning"}):
        with pytest.raises(UnknownName, match="did you mean"):
            tuner.propose(**given)


def test_policies_of_several_people_with_the_same_arms_are_one_question(tuned):
    tuner, log = tuned.personality, tuned.decisions["now"]
    names = [f"style-{one}" for one in range(4)]
    for name in names:
        tuned.primary.execute(
            "INSERT INTO users (user_id, created_at) VALUES (?, '2024')", [f"of {name}"]
        )
        tuner.add_policy(name, "thompson", ARMS, user=f"of {name}")
    tuned.decisions["now"] = replace(log, policy=log.person % 4, policies=names)
    found = tuner.propose(dry_run=True)
    assert (found.arm, found.decisions, found.people) == ("warmer", len(log), 120)
    assert found.policy.endswith(" and 3 others with the same arms")
    assert tuner.propose(policy="style-1", dry_run=True).people == 30
    tuned.primary.execute("UPDATE personality_policies SET user_id = NULL")
    assert tuner.propose(dry_run=True).people == 30


def test_one_proposal_is_open_for_a_person_and_a_context(tuned):
    """A new one replaces it, and a new version of the profile refuses it."""
    tuner = tuned.personality
    first, second = tuner.propose(), tuner.propose()
    assert [one.id for one in tuner.status().proposed] == [second.change_id]
    assert tuner.show(first.change_id).status == "refused"
    tuner.add_profile(TRAITS, reason="by hand")
    assert tuner.show(second.change_id).status == "refused"
    stale = PersonalityChange({"steps": {"warmth": 0.1}}, "an older version")
    tuner.work(lambda uow: uow.personality_changes.save(stale), commit=True)
    assert tuner.status().proposed == ()
    assert "began on" in tuner.propose().sentence


def test_bad_questions_are_refused(tuned):
    for call in (
        partial(tuned.personality.propose, user=5),
        partial(tuned.personality.propose, context=5),
        partial(tuned.personality.status, context="\ud800"),
        partial(tuned.personality.show, 5),
    ):
        with pytest.raises(InvalidEntity):
            call()
    for step in (0, -0.1, 1.5, float("nan"), None, "a", True):
        with pytest.raises(InvalidValue):
            tuned.personality.propose(max_step=step)
    with pytest.raises(UnknownName):
        tuned.personality.propose("happiness")
    with pytest.raises(UnknownName):
        tuned.personality.propose(user="nobody")
    with pytest.raises(UnknownName):
        tuned.personality.apply("unknown")


@pytest.mark.slow
def test_the_commands_propose_apply_and_roll_back(tuned, in_process, home):
    at = ("--home", str(home))
    proposed = in_process("personality", "propose", *at)
    assert proposed.returncode == 0
    assert "warmth +0.1, from 0.5 to 0.6" in proposed.stdout
    assert "guardrail session_continues: unknown" in proposed.stdout
    (change,) = tuned.personality.changes()
    assert f"personality apply {change.id[:8]}" in proposed.stdout
    assert "proposed on" in in_process("personality", "show", change.id[:8], *at).stdout
    dry = in_process("personality", "apply", change.id[:8], "--dry-run", *at)
    assert "Nothing was changed" in dry.stdout
    applied = json.loads(in_process("personality", "apply", change.id[:8], "--json", *at).stdout)
    assert (applied["status"], applied["id"]) == ("applied", change.id)
    status = in_process("personality", "status", *at).stdout
    assert "warmth 0.6" in status
    assert "wait. " in status
    assert json.loads(in_process("personality", "status", "--json", *at).stdout)["watched"]
    assert in_process("personality", "rollback", *at).returncode == 0
    twice = in_process("personality", "rollback", *at)
    assert (twice.returncode, "No change is watched" in twice.stderr) == (1, True)
    none = in_process("personality", "propose", "--max-step", "0.01", *at)
    assert (none.returncode, "Nothing is proposed" in none.stdout) == (1, True)


def test_a_home_without_a_profile_says_what_to_do(lab, in_process, home):
    lab.sync(only="warehouse")
    at = ("--home", str(home))
    assert "no profile yet" in in_process("personality", "status", *at).stdout
    refused = in_process("personality", "propose", *at)
    assert (refused.returncode, "no profile" in refused.stderr) == (1, True)
    lab.personality.add_profile(TRAITS, reason="a first one")
    none = in_process("personality", "propose", *at)
    assert none.returncode == 1
    assert "no decision on a style was logged" in none.stdout, none.stderr
