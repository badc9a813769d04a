"""Watching a change: keep it, roll it back, or wait, at every look."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aico_lab.bench.personality_evidence import joined
from aico_lab.errors import InvalidValue
from aico_lab.personality.outcomes import OUTCOMES
from aico_lab.personality.simulate import AS_NOW, START_MS, WEEK_MS, Simulation, World
from aico_lab.personality.watching import watch

SINCE = START_MS + 8 * WEEK_MS


def logs(after, weeks=12, people=60):
    home = Simulation(World(ideal=(0.8, 0.5), by_context=0.0, people=people), 2)
    before = home.log(8, profile=(0.5, 0.5))
    later = home.log(weeks, first_week=8, profile=after)
    return home, joined([before, later])


def test_a_better_profile_is_kept_and_a_worse_one_is_rolled_back():
    home, better = logs((0.8, 0.5))
    found = watch(better, SINCE)
    assert found.recommendation == "keep"
    truth = home.value(AS_NOW, (0.8, 0.5)) - home.value(AS_NOW, (0.5, 0.5))
    assert found.goal.low < truth < found.goal.high
    worse = watch(logs((0.2, 0.5))[1], SINCE)
    assert worse.recommendation == "roll back"
    assert worse.reason.startswith("satisfaction got worse by 0.")


def test_a_guardrail_that_worsens_rolls_back_also_if_less_is_better():
    _, better = logs((0.8, 0.5))
    hours = better.with_reward(24 * better.reward, OUTCOMES["reply_latency"])
    found = watch(better, SINCE, guardrails=[hours])
    assert found.recommendation == "roll back"
    assert found.reason.startswith("reply_latency got worse by")
    assert found.guardrails[0].improvement[2] < 0


def test_it_waits_while_there_is_little_to_see():
    _, short = logs((0.5, 0.5), weeks=0.2)
    assert watch(short, SINCE).recommendation == "wait"
    _, before = logs((0.5, 0.5))
    nothing = watch(before.choose(before.time_ms < SINCE), SINCE)
    assert (nothing.recommendation, nothing.goal.people, nothing.goal.value) == ("wait", 0, None)
    few = watch(logs((0.5, 0.5), people=5)[1], SINCE)
    assert few.reason.endswith("only 5 people have it before and after the change.")
    constant = replace(before, reward=np.ones(len(before)))
    assert watch(constant, SINCE).reason.endswith("it does not vary.")


@pytest.mark.parametrize("margin", [0, -1, float("nan")])
def test_a_margin_is_above_0(margin):
    with pytest.raises(InvalidValue, match="A margin must be above 0"):
        watch(logs((0.5, 0.5))[1], SINCE, margin=margin)
