"""The notebook on the tuning of a personality, and the demo of simulated conversations."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from aico_lab.cli.demo import run_personality_demo
from aico_lab.domain import Profile
from aico_lab.errors import InvalidValue, WrongUse
from aico_lab.health import describe
from aico_lab.messages.simulated import SENTENCE
from aico_lab.personality import candidates, simulated_home, views
from aico_lab.personality.evaluation import evaluate
from aico_lab.personality.log import Log, read_log
from aico_lab.personality.outcomes import OUTCOMES
from aico_lab.personality.simulate import Simulation, World
from aico_lab.personality.targets import fixed, uniform
from aico_lab.reports.parameters import bind, read_parameters
from tests.browser import visit
from tests.executed import execute_here
from tests.messages import add, message
from tests.notebooks import html
from tests.test_report_in_browser import A4, DRAWN

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "personality_adaptation.ipynb"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory, homes):
    """A small simulated home with its report, made by the demo."""
    folder = tmp_path_factory.mktemp("simulated") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated_home, "PEOPLE", 26)
        patch.setattr(simulated_home, "WEEKS", 8)
        with homes.open(folder, protection="none") as lab:
            run_personality_demo(lab, json=True)
            yield lab


def test_an_outcome_that_there_is_not_is_refused_before_the_notebook_starts():
    declared = read_parameters(NOTEBOOK)
    for name in OUTCOMES:
        assert bind(declared, {"outcome": name})["outcome"] == name
    with pytest.raises(InvalidValue, match="must be one of satisfaction, sentiment_change, "):
        bind(declared, {"outcome": "nope"})


def test_decisions_count_under_the_version_that_applies_now():
    """As plain Python chooses them, for everybody's version and for one's own."""
    rng = np.random.default_rng(0)
    n = 400
    log = Log(
        person=rng.integers(0, 3, n), time_ms=np.arange(n), context=rng.integers(0, 2, n),
        features=np.zeros((n, 0)), arm=rng.integers(0, 4, n), propensity=np.full(n, 0.5),
        reward=np.ones(n), probabilities=None, policy=np.zeros(n, np.int64),
        profile=rng.integers(0, 4, n), people=["ada", "bo", "cy"],
        contexts=["evening/opening", "morning"], arms=["a", "b", "c", "d"],
        policies=["skills", "style"], profiles=["hers", "late", "none", "now"], names=[],
        outcome=OUTCOMES["satisfaction"],
    )  # fmt: skip
    everybody, before = Profile({}, id="now"), datetime(2020, 1, 1, tzinfo=UTC)
    hers = Profile({}, "ada", active_from=before, id="hers")
    known = [
        Profile({}, active_from=before, active_until=everybody.active_from, id="gone"), hers,
        everybody, Profile({}, context="evening", active_from=before, id="late"),
    ]  # fmt: skip
    now = datetime.now(UTC)

    def active(row):
        if log.person[row] == 0:
            return "hers"
        return "late" if log.context[row] == 0 else "now"

    def times(profile):
        return candidates.of_version(log, profile, known, now).time_ms.tolist()

    named = [log.profiles[code] for code in log.profile]
    assert times(everybody) == [row for row in range(n) if named[row] == "now"]
    assert times(hers) == [row for row in range(n) if named[row] == active(row)]
    assert times(None) == [row for row in range(n) if named[row] == "none"]
    assert len(candidates.of_version(log.choose(np.zeros(n, np.bool_)), hers, known, now)) == 0


def test_a_policy_has_the_decisions_and_the_arms_among_which_it_chose():
    """Of a policy without decisions the arms are those that it states."""
    log = Simulation(World(people=8), 1).log(2)
    style = np.arange(len(log)) % 2
    chances = np.column_stack([log.probabilities, np.full(len(log), np.nan)])
    chances[style == 0] = np.nan
    chances[style == 0, -1] = 1
    mixed = replace(
        log, arm=np.where(style, log.arm, len(log.arms)), arms=[*log.arms, "z joke"],
        propensity=np.where(style, log.propensity, 1), probabilities=chances, policy=style,
        policies=["skills", "style"],
    )  # fmt: skip
    found = candidates.of_policy(mixed, "style")
    assert (found.arms, found.policies) == (list(log.arms), ["style"])
    assert found.arm.tolist() == log.arm[style == 1].tolist()
    assert np.array_equal(found.probabilities, log.probabilities[style == 1])
    assert candidates.of_policy(mixed, "skills").arms == ["z joke"]
    new = candidates.of_policy(mixed, "new", ["b", "a"])
    assert (len(new), new.arms) == (0, ["a", "b"])
    said = evaluate(mixed, uniform()).verdict
    (check,) = [one for one in said.checks if one.name == "propensities correct"]
    assert "are of 2 policies" in check.sentence
    assert "ask about one of skills, style." in check.sentence


def test_a_log_that_supports_nothing_shows_no_number():
    """The verdict names the reason, and what to log."""
    log = Simulation(World(people=8), 1).log(2)
    found = candidates.evaluate_candidates(log)
    assert all(one.main is None for one in found)
    values = views.policy_values(found)
    assert values.finding == ("Simulated data: The log supports an estimate of none of 6 policies")
    assert values.plot() is None
    assert values.pl()["value"].null_count() == 6
    assert "people" in values._repr_html_()
    assert "<th" in values._repr_html_()
    assert "gain" not in values._repr_html_()
    checks = views.gate_checks(found[0])
    assert checks.finding.startswith("Simulated data: The log supports no estimate: ")
    assert "log the probability" in checks.caption
    assert views.diagnostics(found[0]) == ()
    assert views.outcomes_by_arm(log).finding.startswith("Simulated data: Too little data")


def test_an_empty_log_says_that_there_is_nothing_to_tune():
    log = Simulation(World(people=8), 1).log(2)
    empty = log.choose(np.zeros(len(log), np.bool_))
    (found,) = [evaluate(empty, uniform())]
    assert "No decision is logged." in views.gate_checks(found).finding
    assert views.outcomes_by_arm(empty).plot() is None


@pytest.mark.slow
def test_views_of_a_log_that_can_be_used():
    log = Simulation(World(), 3).log(8)
    found = candidates.evaluate_candidates(log)
    assert [one.main.value for one in found] == sorted(
        (one.main.value for one in found), reverse=True
    )
    values = views.policy_values(found)
    assert values.finding.startswith(f"Simulated data: {found[0].policy} has the best estimate of")
    shown = [
        values, views.outcomes_by_arm(log), views.gate_checks(found[0]),
        views.estimators(found[0]), *views.diagnostics(found[0]),
    ]  # fmt: skip
    for one in shown:
        assert one.finding.startswith("Simulated data: ")
        assert one.finding in repr(one)
        if (chart := one.plot()) is not None:
            chart.to_dict()
    known = log.observed & (log.arm == log.arms.index("warmer")) & (log.context == 1)
    row = views.outcomes_by_arm(log).pl().row(
        by_predicate=(pl.col("arm") == "warmer") & (pl.col("context") == log.contexts[1]),
        named=True,
    )  # fmt: skip
    assert row["n"] == known.sum()
    assert row["people"] == len(np.unique(log.person[known]))
    assert row["value"] == pytest.approx(log.reward[known].mean())


def test_only_policies_with_an_estimate_are_compared():
    log = Simulation(World(people=40), 3).log(4)
    found = [evaluate(log, fixed(arm)) for arm in ("warmer", "cooler")]
    none = evaluate(replace(log, propensity=log.propensity * np.nan), fixed("terser"))
    one = views.policy_values([found[0], none])
    assert "always warmer is the only policy with an estimate" in one.finding
    assert one.finding.endswith("; 1 of 2 have no estimate")
    two = views.policy_values([*found, none])
    assert "has the best estimate of 2 policies" in two.finding
    words = log.with_reward(log.reward, OUTCOMES["disclosure_length"])
    assert "too narrow" in views.policy_values([evaluate(words, fixed("warmer"))]).caption
    assert "too narrow" not in two.caption


def test_a_reward_model_of_the_wrong_sign_lets_outcomes_fall():
    found = evaluate(Simulation(World(people=40), 3).log(4), fixed("warmer"))
    wrong = replace(found, diagnostics=replace(found.diagnostics, slope=-0.25))
    assert "Outcomes fall by 0.25 for each 1" in views.diagnostics(wrong)[2].finding


@pytest.mark.slow
def test_the_simulated_home_holds_the_simulation(simulated, in_process):
    """Its decisions and ratings are those of the simulated log, but for the last week's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated_home, "PEOPLE", 26)
        patch.setattr(simulated_home, "WEEKS", 8)
        people = simulated_home.world()
        assert not simulated_home.write_simulated_home(simulated.primary)
    log = read_log(simulated.storage.reader)
    before = Simulation(people).log(8)
    first = log.choose(log.profile == 0)
    assert log.simulated
    assert log.names == ["session position"]
    assert [first.arms[arm] for arm in first.arm] == [before.arms[arm] for arm in before.arm]
    np.testing.assert_array_equal(first.reward, before.reward)
    np.testing.assert_allclose(first.propensity, 0.2)
    answer = simulated.metrics.overview()
    assert answer.caption.startswith("simulated data, ")
    assert simulated.metrics.overview().caption == answer.caption  # the kept one
    assert describe(simulated)["home"]["simulated"] == "yes"
    assert simulated.search("hello", mode="keyword").notes[-1] == SENTENCE
    queried = in_process("sql", "SELECT 1 AS one", "--home", str(simulated.home.path))
    assert (queried.returncode, queried.stderr) == (0, f"{SENTENCE}\n")
    told = views.profiles_over_time(simulated.storage.reader)
    assert told.finding == "Simulated data: 2 versions; the last one moved warmth from 0.5 to 0.6"


@pytest.mark.slow
def test_simulated_and_real_messages_are_never_mixed(simulated, lab, tmp_path):
    """In neither direction; nothing is written."""
    lines = tmp_path / "in.jsonl"
    lines.write_text(json.dumps({"content": "hi", "timestamp": "2026-01-01T00:00:00Z"}))
    with pytest.raises(WrongUse, match="are simulated"):
        simulated.import_from("jsonl", lines)
    add(lab.primary, message(0))
    with pytest.raises(WrongUse, match="never mixed"):
        simulated_home.write_simulated_home(lab.primary)
    assert not lab.primary.fetch_all("SELECT 1 FROM system_state WHERE key = 'simulated'")


def test_a_demo_of_simulated_people_has_no_limit(cli):
    done = cli("demo", "--personality", "--limit", "3")
    assert done.returncode == 2
    assert "--limit is for real conversations" in done.stderr


@pytest.mark.slow
def test_the_demos_report(simulated):
    """Every finding and caption says that the data are simulated; and nothing is cut."""
    (run,) = simulated.reports.list("personality_adaptation")
    report = simulated.reports.page(run)
    text = report.read_text(encoding="utf-8")
    assert "All data of this home are simulated." in text
    assert "The log supports the question" in text
    with visit(report.as_uri(), width=1280) as seen:
        seen.page.locator(DRAWN).nth(5).wait_for()
        for figure in seen.page.locator("figure.aico-lab-chart").all():
            assert "imulated data" in figure.text_content()
        for width, media in ((1280, "screen"), (390, "screen"), (A4, "print")):
            seen.page.set_viewport_size({"width": width, "height": 900})
            seen.page.emulate_media(media=media)
            seen.page.wait_for_timeout(400)
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    assert seen.errors == seen.requests == []


@pytest.mark.slow
def test_the_notebook_on_a_home_with_nothing_to_tune(lab, home, tmp_path, monkeypatch):
    """One person, no decision, no feedback: it says so, and draws what there is."""
    monkeypatch.setenv("AICO_LAB_HOME", str(home))
    add(lab.primary, *(message(number) for number in range(20)))
    lab.sync()
    executed = tmp_path / "out.ipynb"
    execute_here(NOTEBOOK, executed)
    shown = " ".join(html(executed))
    assert "The log supports no estimate: No decision is logged." in shown
    assert "No version of the personality is stored" in shown
    assert "imulated" not in shown
    assert "doubly robust" not in shown.lower()
