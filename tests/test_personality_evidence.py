"""Evidence on simulated homes with known truth; `aico-lab bench personality` uses more of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aico_lab.bench import personality_evidence as evidence
from aico_lab.bench import personality_jobs
from aico_lab.personality.simulate import AS_NOW, Simulation, World
from tests.effort import examples


def test_the_simulator_knows_its_truth_and_repeats_itself():
    home = Simulation(World(people=400, weekly=20, answered=1.0), 1)
    log = home.log()
    for place, arm in enumerate(log.arms):
        mine = log.arm == place
        apart = log.reward[mine] - home.value(arm)
        by_person = np.bincount(log.person[mine], apart)
        error = np.sqrt(np.sum(by_person**2)) / mine.sum()
        assert abs(apart.mean()) < 3.5 * error
    assert log.simulated
    again = Simulation(World(people=400, weekly=20, answered=1.0), 1).log()
    np.testing.assert_array_equal(log.reward, again.reward)


@pytest.mark.slow
def test_intervals_cover_the_truth_and_estimates_are_unbiased():
    homes = examples(100)
    figures = evidence.coverage(homes)
    # Twice the standard error of a share of 95 % in so many homes.
    chance = 2 * 100 * np.sqrt(0.05 * 0.95 / homes)
    for name, value in figures.items():
        if "bias" in name:
            assert abs(value) < 0.012, name
        else:
            assert value >= 95 - 1.5 - chance, name


@pytest.mark.slow
def test_the_gate_refuses_what_it_should_and_passes_the_rest():
    assert min(evidence.refusals(10).values()) >= 90
    assert min(evidence.passes(20).values()) >= 90


@pytest.mark.slow
def test_following_proposals_for_a_year_helps_and_does_no_harm():
    found = evidence.years(3)
    assert found["homes with something to gain that improved in %"] >= 66
    assert found["homes that worsened beyond the guardrail in %"] == 0


@pytest.mark.slow
def test_looking_every_week_leads_to_few_mistakes():
    found = evidence.peeking(100)
    assert found["wrongly rolled back in %, no effect"] <= 10
    assert found["wrongly kept in %, harm of twice the margin"] <= 10
    assert found["decided rightly within a year in %, harm of twice the margin"] >= 80


def test_the_jobs_of_the_benchmark_do_the_same_work(tmp_path, monkeypatch, capsys):
    for job in ("simulate", "evaluate", "pandas"):
        monkeypatch.setattr("sys.argv", ["", job, str(tmp_path), "6000"])
        personality_jobs.run_job(personality_jobs.SETUP | personality_jobs.JOBS)
        assert json.loads(capsys.readouterr().out)["seconds"] >= 0
    assert AS_NOW in evidence.ARMS
