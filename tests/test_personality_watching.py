"""Watching a change: keep it, roll it back, or wait, at every look."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aico_lab.bench.personality_evidence import joined
from aico_lab.errors import InvalidValue
from aico_lab.personality.outcomes import OUTCOMES
from aico_lab.personality.period import begin_of_period
from aico_lab.personality.simulate import AS_NOW, START_MS, WEEK_MS, Simulation, World
from aico_lab.personality.watching import change_since, watch

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
    assert "judged yet: no whole week since the change is known yet." in nothing.reason
    week = watch(before.choose(before.time_ms < SINCE + 0.9 * WEEK_MS), SINCE)
    assert "judged yet: no whole week since the change is known yet." in week.reason
    few = watch(logs((0.5, 0.5), people=5)[1], SINCE)
    assert few.reason.endswith(
        "is never judged: only 5 people have it in the time before the change, and 10 are needed."
    )
    constant = replace(before, reward=np.ones(len(before)))
    assert watch(constant, SINCE).reason.endswith("it does not vary.")


def leaving(log, share):
    """Return whether people return, of whom some are gone after 2 decisions since the change."""
    gone = log.person < share * len(log.people)
    since = log.time_ms >= SINCE
    place = np.zeros(len(log), np.int64)
    for person in range(len(log.people)):
        rows = np.flatnonzero(since & (log.person == person))
        place[rows] = np.arange(len(rows))
    left = gone & since
    luck = np.random.default_rng(1).random(len(log))
    reward = np.where(left, 0.0, (luck < 0.9).astype(float))
    kept = ~(left & (place >= 2))
    return log.with_reward(reward, OUTCOMES["returns_within_week"]).choose(kept), kept


def test_people_who_leave_count_at_every_look_and_the_advice_stays():
    """Those who stay make ever more decisions; those who left had one vote each at the start."""
    _, same = logs((0.5, 0.5), weeks=20)
    returns, kept = leaving(same, 0.4)
    goal = same.choose(kept)
    for weeks in (3, 10, 20):
        until = SINCE + weeks * WEEK_MS
        seen = [one.choose(one.time_ms < until) for one in (goal, returns)]
        found = watch(seen[0], SINCE, guardrails=seen[1:])
        assert found.recommendation == "roll back", weeks
        assert found.reason.startswith("returns_within_week got worse")
        assert found.guardrails[0].value < (-0.25 if weeks < 4 else -0.1)


def made(person, week, reward, outcome):
    """Return a log of decisions in the order of their times, of 400 people."""
    _, log = logs((0.5, 0.5), people=1, weeks=0.1)
    size = len(week)
    return replace(
        log.choose(np.zeros(len(log), bool)), person=person.astype(np.int64),
        time_ms=(START_MS + week * WEEK_MS).astype(np.int64), reward=reward.astype(float),
        context=np.zeros(size, np.int64), features=np.zeros((size, 1)), known_ms=None,
        arm=np.zeros(size, np.int64), propensity=np.ones(size), probabilities=None,
        policy=np.zeros(size, np.int64), profile=np.zeros(size, np.int64),
        people=[f"p{one}" for one in range(400)], outcome=OUTCOMES[outcome],
    )  # fmt: skip


def at_random(rng, people, weeks, often):
    """Return people and times of decisions; people differ in how often they are there."""
    times = rng.poisson(rng.gamma(2, often / 2, people) * weeks)
    week = rng.uniform(0, weeks, times.sum())
    order = np.argsort(week)
    return np.repeat(np.arange(people), times)[order], week[order]


def test_people_who_are_rarely_there_do_not_roll_back():
    """Ever more of them have become known, and who is rarely there returns within a week less."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        person, week = at_random(rng, 400, 20, 1.0)
        order = np.lexsort((week, person))
        gap = np.full(len(week), np.inf)
        same = np.diff(person[order]) == 0
        gap[order[:-1][same]] = np.diff(week[order])[same]
        returns = made(person, week, gap <= 1, "returns_within_week")
        found = watch(returns.choose(returns.time_ms <= SINCE + 12 * WEEK_MS), SINCE)
        assert found.recommendation != "roll back", found.reason
        assert abs(found.goal.value) < 0.025


@pytest.mark.parametrize("testers", [1, 10])
def test_testers_before_the_launch_are_no_side_of_a_comparison(testers):
    """Those are content, and all others less so, before the change as after it."""
    rng = np.random.default_rng(2)
    person, week = at_random(rng, 300, 20, 1.0)
    early, when = at_random(rng, testers, 24, 3.0)
    person, week = np.append(early, person + testers), np.append(when - 4, week)
    order = np.argsort(week)
    person, week = person[order], week[order]
    rated = np.where(person < testers, 0.9, 0.6) + rng.normal(0, 0.1, len(week))
    late = made(person, week, rated, "satisfaction")
    for weeks in (4, 9, 12):
        found = watch(late.choose(late.time_ms < SINCE + weeks * WEEK_MS), SINCE)
        assert found.recommendation != "roll back", (weeks, found.reason)
        assert found.goal.people > 100
        assert abs(found.goal.value) < 0.03
    worse = replace(late, reward=late.reward - 0.1 * (late.time_ms >= SINCE))
    assert watch(worse, SINCE).recommendation == "roll back"


def in_waves(rng, *waves):
    """Return people and weeks of decisions of waves: people, begin, end, and times a week."""
    parts, size = [], 0
    for people, begin, end, often in waves:
        person, week = at_random(rng, people, end - begin, often)
        parts.append((person + size, week + begin))
        size += people
    person, week = map(np.concatenate, zip(*parts, strict=True))
    order = np.argsort(week)
    return person[order], week[order]


@pytest.mark.parametrize("first", [0.3, 0.5])
def test_a_launch_in_two_waves_does_not_roll_back(first):
    """The second wave is less content, before the change as after it."""
    rng = np.random.default_rng(4)
    size = int(300 * first)
    person, week = in_waves(rng, (size, 0, 24, 3.0), (300 - size, 4, 24, 1.0))
    rated = np.where(person < size, 0.6, 0.5) + rng.normal(0, 0.1, len(week))
    log = made(person, week, rated, "satisfaction")
    for weeks in (4, 9, 15):
        found = watch(log.choose(log.time_ms < SINCE + weeks * WEEK_MS), SINCE)
        assert found.recommendation != "roll back", (weeks, found.reason)
        assert abs(found.goal.value) < 0.03
    worse = replace(log, reward=log.reward - 0.1 * (log.time_ms >= SINCE))
    assert watch(worse, SINCE).recommendation == "roll back"


def test_visitors_of_one_day_do_not_stop_the_watch():
    """Else nobody is known in an equally long time, which then reaches back to that day."""
    rng = np.random.default_rng(5)
    person, week = in_waves(rng, (200, 0, 20, 1.0), (100, -20, -19.9, 30.0))
    log = made(person, week, 0.6 + rng.normal(0, 0.1, len(week)), "satisfaction")
    found = watch(log, SINCE)
    assert found.goal.people > 100
    assert abs(found.goal.value) < 0.02


def test_the_period_begins_when_most_people_are_there():
    def begin(*waves, end=8.0):
        person, week = in_waves(np.random.default_rng(6), *waves)
        return begin_of_period(person, np.int64(week * WEEK_MS), int(end * WEEK_MS)) / WEEK_MS

    for wave in ((60, 0, 8, 0.5), (20, 0, 8, 1.0), (300, 0, 8, 3.0)):
        assert begin(wave) < 0.5  # also if only a third of the people come in the first week
        assert 0 <= begin((1, -30, 8, 3.0), wave) < 0.5
        assert 0 <= begin((wave[0] // 3, -8, 8, 3.0 * wave[3]), wave) < 1
    assert begin((150, 0, 8, 3.0), (150, 4, 8, 1.0)) == pytest.approx(4, abs=0.2)
    assert begin((60, 0, 8, 1.0), end=2.7) < 0.3  # a week of which only a part is in the log
    assert begin((60, 2, 8, 1.0), end=1) == 1
    on_and_off = [(100, week, week + 1, 1.0) for week in range(0, 8, 2)]
    assert begin(*on_and_off, end=7.0) < 0.5
    assert begin((100, 0, 8, 1.0), (100, 20, 22, 1.0), end=22.0) < 0.5
    term, both = [(0, 6), (10, 16)], (100, 10, 16, 1.0)  # a first wave, then a pause
    assert begin(*((100, *weeks, 3.0) for weeks in term), both, end=16.0) > 9.5


def test_growth_and_pauses_are_no_launch():
    """A home of 60 people grows by 5 % a week, and pauses in two weeks of four."""
    ages, wrong = np.arange(30)[::-1], 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        times = rng.poisson(60 * 0.95**ages * ((ages + seed) % 4 < 2))
        week = np.repeat(np.arange(30), times) + rng.random(times.sum())
        begun = begin_of_period(
            rng.integers(0, 60, len(week)), np.int64(week * WEEK_MS), int(30 * WEEK_MS)
        )
        wrong += begun >= 27 * WEEK_MS
    assert wrong <= 1


@pytest.mark.parametrize("seed", [4, 7])
def test_a_quiet_home_is_judged(seed):
    """Of each stretch there are few people on a side."""
    rng = np.random.default_rng(seed)
    person, week = at_random(rng, 40, 24, 0.7)
    log = made(person, week + 4, 0.6 + rng.normal(0, 0.1, len(week)), "satisfaction")
    assert change_since(log, SINCE).low is not None


def test_a_stretch_with_few_people_on_a_side_is_left_out():
    """One person's mean would add nothing to the error."""
    rng = np.random.default_rng(3)
    person, week = at_random(rng, 60, 26, 3.0)
    rated = 0.6 + rng.normal(0, 0.1, len(week))
    gone = (week > 18) & (person > 0)  # only one is left, who is less content
    rated -= 0.3 * (person == 0) * (week > 18)
    log = made(person, week, rated, "satisfaction").choose(~gone)
    assert abs(change_since(log, SINCE).value) < 0.03


def test_only_whole_weeks_are_compared():
    """After a Monday and a Tuesday nothing is told, as they would be compared with a weekend."""
    rng = np.random.default_rng(1)
    person, week = at_random(rng, 150, 12, 9.0)
    rated = 0.4 + 0.1 * (week % 1 > 5 / 7) + rng.normal(0, 0.1, len(week))
    for days in range(8, 25):
        log = made(person, week, rated, "satisfaction")
        log = log.choose(log.time_ms <= SINCE + (days - 7) * WEEK_MS / 7)
        found = watch(log, SINCE)
        assert found.goal.weeks == max((days - 7) // 7 - (days % 7 == 0), 0)
        assert found.recommendation != "roll back", (days, found.reason)
        assert found.goal.value is None or abs(found.goal.value) < 0.02


def test_too_short_a_time_before_is_told_of():
    """It never gets longer; and a short one does not serve for all weeks since."""
    _, log = logs((0.5, 0.5), weeks=30)
    few = (
        "is never judged: the decisions before the change span 5 days since most of the people "
        "were there, and 17 are needed."
    )
    short = "Only the first 20 weeks since are compared, as the time before is short."
    for days, told in ((6, few), (19, short)):
        cut = log.choose(log.time_ms >= SINCE - days * WEEK_MS / 7)
        found = watch(cut, SINCE, margin=1e-4)
        assert found.recommendation == "wait"
        assert told in found.reason


def test_a_week_is_named_by_when_its_outcomes_were_known():
    _, worse = logs((0.2, 0.5), weeks=8)
    late = worse.time_ms >= SINCE + 3 * WEEK_MS
    better = replace(worse, reward=np.where(late, 1.0, worse.reward))

    def told(until):
        return change_since(better, SINCE, until_ms=SINCE + until * WEEK_MS)

    first = next(week for week in range(1, 9) if (told(week).improvement or (0, 0, 1))[2] < 0)
    assert watch(better, SINCE).reason.endswith(f"This was clear after week {first}.")
    assert told(first).weeks == first - 1  # the window of satisfaction is a week


@pytest.mark.parametrize("stay", [None, 26])
def test_few_sessions_and_people_who_leave_as_before_do_not_roll_back(stay):
    """The mean of one session is below that of many, and who has left before is not there after.

    Of every session the last decision is a 0, so one of L decisions has the mean 1 - 1/L.
    """
    rng = np.random.default_rng(1)
    rows = []
    for person in range(400 if stay else 150):
        begin, end = 0.0, 14.0
        if stay:
            begin = rng.uniform(-26, 14)
            end = begin + rng.exponential(stay)
        times = np.sort(rng.uniform(begin, end, rng.poisson(2 * (end - begin))))
        for week in times[(times >= 0) & (times < 14)]:
            length = rng.geometric(1 / 3)
            rows += [(person, week + at * 1e-4, at + 1 < length) for at in range(length)]
    log = made(*np.array(sorted(rows, key=lambda row: row[1])).T, "session_continues")
    for weeks in (1.1, 6):
        seen = log.choose(log.time_ms < SINCE + weeks * WEEK_MS)
        found = watch(seen, SINCE)
        assert found.recommendation != "roll back", found.reason
        assert abs(found.goal.value) < 0.06


def test_one_person_is_told_that_it_is_never_decided():
    found = watch(logs((0.5, 0.5), people=1)[1], SINCE)
    assert found.recommendation == "wait"
    assert found.reason.endswith("this is never decided.")


def test_a_change_that_was_to_be_rolled_back_is_so_also_if_it_looks_better_later():
    _, worse = logs((0.2, 0.5), weeks=8)
    late = worse.time_ms >= SINCE + 3 * WEEK_MS
    better = replace(worse, reward=np.where(late, 1.0, worse.reward))
    found = watch(better, SINCE)
    assert change_since(better, SINCE).improvement[2] > 0
    assert found.recommendation == "roll back"
    assert "This was clear after week" in found.reason


def test_people_who_are_not_there_any_more_are_told_of():
    _, same = logs((0.5, 0.5), weeks=6)
    gone = (same.person < 5) & (same.time_ms >= SINCE)
    found = watch(same.choose(~gone), SINCE, margin=0.001)
    assert found.recommendation == "wait"
    assert found.reason.endswith("In the later half of the time since, 6 of 60 people were not "
                                 "there.")  # fmt: skip


@pytest.mark.parametrize("margin", [0, -1, float("nan")])
def test_a_margin_is_above_0(margin):
    with pytest.raises(InvalidValue, match="A margin must be above 0"):
        watch(logs((0.5, 0.5))[1], SINCE, margin=margin)
