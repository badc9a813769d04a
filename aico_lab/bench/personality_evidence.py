"""Evidence on simulated homes with known truth: bias, coverage, the gate's verdicts, and years.

Seeds are independent homes. The tests of personality use few of them, `aico-lab bench personality`
500.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aico_lab.domain import Profile
from aico_lab.personality import targets
from aico_lab.personality.evaluation import evaluate
from aico_lab.personality.gate import Support
from aico_lab.personality.proposals import draft
from aico_lab.personality.simulate import (
    ARMS,
    AS_NOW,
    PROFILE,
    START_MS,
    TRAITS,
    WEEK_MS,
    Simulation,
    World,
)
from aico_lab.personality.watching import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from aico_lab.personality.log import Log
    from aico_lab.personality.simulate import Chooser

_TARGET: Final = "warmer"


def coverage(
    seeds: int, world: World | None = None, chooser: Chooser = "uniform"
) -> dict[str, float]:
    """Return the bias of each estimator, and how often its intervals hold the truth, in percent.

    Args:
        seeds: The number of homes.
        world: The people; None means the usual ones.
        chooser: How the companion chose.
    """
    world = world or World()
    one = Simulation(world)
    truth = one.value(_TARGET)
    gain = truth - one.value(AS_NOW)
    hits: dict[str, list[tuple[float, bool, bool, bool]]] = {}
    for seed in range(seeds):
        log = Simulation(world, seed).log(8, chooser=chooser)
        found = evaluate(log, targets.fixed(_TARGET), over=targets.fixed(AS_NOW))
        for row in found.table.drop_nulls().iter_rows(named=True):
            hits.setdefault(row["estimator"], []).append(
                (
                    row["value"] - truth,
                    row["low"] <= truth <= row["high"],
                    row["gain_low"] <= gain <= row["gain_high"],
                    row["low_anytime"] <= truth <= row["high_anytime"],
                )
            )
    figures: dict[str, float] = {}
    for name, rows in hits.items():
        means = np.mean(np.array(rows, dtype=float), axis=0)
        figures |= {
            f"{name}, bias": float(means[0]),
            f"{name}, coverage of the value in %": 100 * float(means[1]),
            f"{name}, coverage of the gain in %": 100 * float(means[2]),
            f"{name}, coverage of the sequence in %": 100 * float(means[3]),
        }
    return figures


def _without_propensities(log: Log, _rng: np.random.Generator) -> Log:
    return replace(log, propensity=np.full(len(log), np.nan), probabilities=None)


def _impossible(log: Log, rng: np.random.Generator) -> Log:
    propensity = log.propensity.copy()
    propensity[rng.choice(len(log), 5, replace=False)] = 0
    return replace(log, propensity=propensity)


def _wrong(log: Log, rng: np.random.Generator) -> Log:
    """Return a log whose companion preferred some arms, but noted that it chose uniformly."""
    keep = rng.random(len(log)) < np.array([1.0, 1.0, 1.0, 0.6, 1.0])[log.arm]
    return log.choose(keep)


def _by_person(log: Log, rng: np.random.Generator) -> Log:
    """Return a log whose companion preferred an arm with half of the people, and noted no such."""
    return _leaning(log, log.person % 2 == 0, rng)


def _by_last_outcome(log: Log, rng: np.random.Generator) -> Log:
    """Return a log whose companion preferred an arm after a person's better rating."""
    middle = np.nanmedian(log.reward)
    liked: dict[int, bool] = {}
    after = np.zeros(len(log), np.bool_)
    for row, (person, reward) in enumerate(zip(log.person, log.reward, strict=True)):
        after[row] = liked.get(int(person), row % 2 == 0)
        if np.isfinite(reward):
            liked[int(person)] = bool(reward > middle)
    return _leaning(log, after, rng)


def _leaning(log: Log, rows: NDArray[np.bool_], rng: np.random.Generator) -> Log:
    """Return a log with half of the cooler choices in some rows made warmer, elsewhere reversed.

    The arms are as frequent as they were, and the propensities as they were noted.
    """
    warm, cool = log.arms.index(_TARGET), log.arms.index("cooler")
    moved = rng.integers(2, size=len(log)) == 0
    arm = np.where(rows & moved & (log.arm == cool), warm, log.arm)
    arm = np.where(~rows & moved & (log.arm == warm), cool, arm)
    return replace(log, arm=arm)


def _untried(log: Log, _rng: np.random.Generator) -> Log:
    rest = log.choose(log.arm != log.arms.index(_TARGET))
    chosen = np.full((len(rest), len(log.arms)), 1 / (len(log.arms) - 1))
    chosen[:, log.arms.index(_TARGET)] = 0
    return replace(
        rest, propensity=np.full(len(rest), 1 / (len(log.arms) - 1)), probabilities=chosen
    )


def _rare(log: Log, rng: np.random.Generator) -> Log:
    """Return a log in which the arm in question was chosen in 3 % of the decisions."""
    place, others, rare = log.arms.index(_TARGET), len(log.arms) - 1, 0.03
    # Of a uniform log so many of these decisions are left out that the shares are right.
    kept = log.choose((log.arm != place) | (rng.random(len(log)) < rare * others / (1 - rare)))
    chosen = np.full((len(kept), len(log.arms)), (1 - rare) / others)
    chosen[:, place] = rare
    return replace(kept, probabilities=chosen, propensity=chosen[np.arange(len(kept)), kept.arm])


def _constant(log: Log, _rng: np.random.Generator) -> Log:
    return replace(log, reward=np.where(log.observed, 1.0, np.nan))


def _two_changes(log: Log, _rng: np.random.Generator) -> Log:
    late = log.time_ms > np.median(log.time_ms)
    return replace(log, profile=late.astype(np.int64), profiles=["p1", "p2"])


def _one_person(log: Log, _rng: np.random.Generator) -> Log:
    return log.choose(log.person == np.bincount(log.person).argmax())


_SPOILED: Final[Mapping[str, Callable[[Log, np.random.Generator], Log]]] = {
    "propensities missing": _without_propensities,
    "propensities impossible": _impossible,
    "propensities wrong": _wrong,
    "choices by person": _by_person,
    "choices by the last outcome": _by_last_outcome,
    "an arm never tried": _untried,
    "an arm hardly tried": _rare,
    "constant outcomes": _constant,
    "two changes at once": _two_changes,
    "one person": _one_person,
}

_UNSUITED: Final[Mapping[str, World]] = {
    "few people": World(people=12),
    "few outcomes": World(answered=0.04),
    "biased feedback": World(bias=0.5),
    "drift": World(drift=-0.04),
    "novelty": World(people=240, novelty=0.4),
}


def refusals(seeds: int) -> dict[str, float]:
    """Return how often the gate refuses logs that cannot support the question, in percent.

    Args:
        seeds: The number of homes of each kind.
    """
    figures = {}
    for kind, spoil in _SPOILED.items():
        logs = (
            spoil(Simulation(World(), seed).log(), np.random.default_rng([seed, 2]))
            for seed in range(seeds)
        )
        figures[f"refused in %: {kind}"] = 100 - 100 * _passed(logs, seeds)
    for kind, world in _UNSUITED.items():
        logs = (Simulation(world, seed).log() for seed in range(seeds))
        figures[f"refused in %: {kind}"] = 100 - 100 * _passed(logs, seeds)
    return figures


_SUITED: Final[Mapping[str, tuple[World, Chooser]]] = {
    "uniform": (World(), "uniform"),
    "cautious": (World(), "cautious"),
    "few ratings": (World(answered=0.3), "uniform"),
    "many people": (World(people=200), "cautious"),
    "ratings late": (World(delay_days=3), "uniform"),
}


def passes(seeds: int) -> dict[str, float]:
    """Return how often the gate passes logs that can support the question, in percent.

    Args:
        seeds: The number of homes of each kind.
    """
    return {
        f"passed in %: {kind}": 100
        * _passed((Simulation(world, seed).log(chooser=how) for seed in range(seeds)), seeds)
        for kind, (world, how) in _SUITED.items()
    }


def _passed(logs: Any, seeds: int) -> float:
    target = targets.fixed(_TARGET)
    return sum(Support(log, target.probabilities(log)).verdict().supported for log in logs) / seeds


_BIG: Final = World(people=120, weekly=10.0)
_PERIOD: Final = 8
"""The weeks between two looks at the log."""

_RECENT: Final = 3
"""How many of these periods a look covers."""

_YEAR: Final = 52
_WORSE: Final = 0.02
"""The guardrail: the largest accepted loss of true satisfaction over a year."""


def years(seeds: int) -> dict[str, float]:
    """Return what following proposals for a year does to the true satisfaction.

    Half of the homes have something to gain: the companion's traits are far from people's ideals.
    In the other half they are at the ideals.

    Args:
        seeds: The number of homes of each half.
    """
    made = {"far": [0.0] * seeds, "at the ideal": [0.0] * seeds}
    for seed in range(seeds):
        made["far"][seed] = _year(Simulation(_BIG, seed), PROFILE)
        made["at the ideal"][seed] = _year(Simulation(_BIG, seeds + seed), _BIG.ideal)
    far, near = (np.array(values) for values in made.values())
    both = np.concatenate([far, near])
    return {
        "homes with something to gain that improved in %": 100 * float(np.mean(far > 0)),
        "mean gain of these homes": float(far.mean()),
        "homes that worsened beyond the guardrail in %": 100 * float(np.mean(both < -_WORSE)),
        "homes at the ideal that changed in %": 100 * float(np.mean(near != 0)),
    }


def _year(home: Simulation, start: Sequence[float]) -> float:
    """Follow the proposals for a year; return the change of the true satisfaction.

    Every few weeks the proposal, if there is one, is applied. The next one waits until the watched
    change may be kept.
    """
    profile = tuple(start)
    before: tuple[float, ...] | None = None
    logs: list[Log] = []
    old: list[Log] = []
    for number, week in enumerate(range(0, _YEAR - _PERIOD + 1, _PERIOD)):
        version = f"p{number}"
        logs.append(
            home.log(_PERIOD, first_week=week, profile=profile, version=version, chooser="cautious")
        )
        if before is not None:
            since = START_MS + (week - (len(logs) - 1) * _PERIOD) * WEEK_MS
            told = watch(joined([*old, *logs]), since).recommendation
            if told == "roll back":
                profile, before, logs, old = before, None, [], []
            elif told == "keep":
                before = None
            continue
        present = Profile(dict(zip(TRAITS, profile, strict=True)), simulated=True)
        proposed = draft(joined(logs[-_RECENT:]), (), ARMS, present, max_step=0.1).best
        if proposed is not None:
            before, old = profile, logs
            after = present.moved(proposed.steps)
            profile, logs = tuple(after[trait] for trait in TRAITS), []
    return home.value(AS_NOW, profile) - home.value(AS_NOW, tuple(start))


def joined(logs: Sequence[Log]) -> Log:
    """Return one log of the same people over several periods, as if under one profile."""
    first = logs[0]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(log, name) for log in logs])
        for name in (
            "person", "time_ms", "context", "features", "arm", "propensity", "reward",
            "probabilities", "policy", "profile", "known_ms",
        )
    }  # fmt: skip
    return replace(first, **arrays)


def peeking(seeds: int) -> dict[str, float]:
    """Return the errors of watching a change that is looked at every week of a year.

    A change of no effect should not be rolled back, and a harmful one not be kept.

    Args:
        seeds: The number of homes of each kind.
    """
    figures: dict[str, float] = {}
    home = Simulation(World(ideal=(0.6, 0.5), by_context=0.0))
    same, harmful = (0.5, 0.5), (0.3, 0.5)
    margin = (home.value(AS_NOW, same) - home.value(AS_NOW, harmful)) / 2
    for kind, profile, wrong in (
        ("no effect", same, "roll back"), ("harm of twice the margin", harmful, "keep"),
    ):  # fmt: skip
        mistakes, right, waited = 0, 0, 0
        for seed in range(seeds):
            one = Simulation(World(ideal=(0.6, 0.5), by_context=0.0), seed)
            parts = [one.log(8, profile=same)]
            for week in range(8, _YEAR):
                parts.append(one.log(1, first_week=week, profile=profile))
                told = watch(joined(parts), START_MS + 8 * WEEK_MS, margin=margin).recommendation
                if told != "wait":
                    mistakes += told == wrong
                    right += told != wrong
                    waited += week - 7
                    break
        figures |= {
            f"wrongly {'rolled back' if wrong == 'roll back' else 'kept'} in %, {kind}": 100
            * mistakes
            / seeds,
            f"decided rightly within a year in %, {kind}": 100 * right / seeds,
            f"weeks until then, {kind}": waited / max(mistakes + right, 1),
        }
    return figures
