"""Simulated people with known preferences, to test estimates, and for demonstrations.

Everything made here is labelled as simulated. It must never be mixed with a real home.

A person has an ideal level of each trait, which depends on the context. Satisfaction falls with the
squared distance between the companion's traits and the ideal. Arms are small deviations from the
current profile, such as 'warmer'. Every rating is -1, 0 or 1, and its expectation is known exactly.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from aico_lab.constants import MS_PER_DAY
from aico_lab.errors import InvalidValue
from aico_lab.personality.log import Log
from aico_lab.personality.outcomes import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.random import Generator

    from aico_lab.personality.log import Codes, Floats

LABEL: Final = "Simulated data"
"""The label of every table and figure of simulated data."""

START_MS: Final = 1_767_225_600_000
"""2026-01-01 in UTC milliseconds, when every simulation begins."""

WEEK_MS: Final = 7 * MS_PER_DAY

CONTEXTS: Final = ("daytime", "evening", "morning")
_OFTEN: Final = (0.4, 0.4, 0.2)
"""How often the contexts occur."""

AS_NOW: Final = "as now"
"""The arm that does not deviate from the profile."""

ARMS: Final[Mapping[str, Mapping[str, float]]] = {
    AS_NOW: {},
    "cooler": {"warmth": -0.1},
    "terser": {"verbosity": -0.1},
    "warmer": {"warmth": 0.1},
    "wordier": {"verbosity": 0.1},
}
"""The deviations of the arms from the profile."""

TRAITS: Final = ("warmth", "verbosity")

Chooser = Literal["uniform", "cautious", "adaptive"]
"""How the companion chose: all arms alike; mostly as now; or by Thompson sampling, per context."""

_CAUTIOUS: Final = 0.4
_FLOOR: Final = 0.25
"""The share of an adaptive choice that is uniform, so that each arm keeps a probability."""

_DRAWS: Final = 200
_LEAST, _MOST = 0.02, 0.98


@dataclass(frozen=True)
class World:
    """People, their preferences and what disturbs the data; defaults are a home that can be tuned.

    Attributes:
        people: The number of people.
        weekly: The mean number of a person's decisions per week; people differ.
        ideal: The mean ideal level of each trait.
        apart: The standard deviation of people's ideals.
        by_context: How far the ideals in the evening are above, and in the morning below, others.
        strength: How much satisfaction falls with the squared distance.
        happiness: The satisfaction at the ideal.
        moods: The standard deviation of people's general satisfaction.
        answered: The share of decisions that are rated.
        bias: The share of ratings that are missing after arms other than `as now`.
        delay_days: How long after the decision a rating comes.
        drift: The change of satisfaction per week, whatever the arm.
        novelty: The additional satisfaction with new arms in the first week; it halves every week.
    """

    people: int = 60
    weekly: float = 6.0
    ideal: tuple[float, float] = (0.8, 0.35)
    apart: float = 0.15
    by_context: float = 0.1
    strength: float = 1.5
    happiness: float = 0.75
    moods: float = 0.1
    answered: float = 0.6
    bias: float = 0.0
    delay_days: float = 0.0
    drift: float = 0.0
    novelty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("answered", "bias"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidValue(f"{name} must be from 0 to 1, not {getattr(self, name)!r}.")
        if self.people <= 0 or not self.weekly > 0:
            raise InvalidValue("A simulation needs people and decisions.")


PROFILE: Final = (0.5, 0.5)
"""The usual profile: the levels of `TRAITS`."""


class Simulation:
    """A simulated home: the same people over time.

    Args:
        world: The people and disturbances.
        seed: The seed; the same seed makes the same home.
    """

    def __init__(self, world: World, seed: int = 0) -> None:
        self.world = world
        self.seed = seed
        self._people = _People(world, world.people, np.random.default_rng([seed, 0]))

    def log(
        self,
        weeks: float = 8,
        *,
        first_week: float = 0,
        profile: Sequence[float] = PROFILE,
        version: str = "p1",
        chooser: Chooser = "uniform",
    ) -> Log:
        """Return the log of some weeks.

        Args:
            weeks: The number of weeks.
            first_week: When they begin.
            profile: The companion's levels of `TRAITS`.
            version: The id of that profile.
            chooser: How the companion chose.
        """
        world, people = self.world, self._people
        rng = np.random.default_rng([self.seed, 1, round(first_week * 1000)])
        times = rng.poisson(world.weekly * weeks * people.activity)
        person = np.repeat(np.arange(world.people), times)
        week = first_week + weeks * rng.random(len(person))
        order = np.argsort(week, kind="stable")
        person, week = person[order], week[order]
        context = rng.choice(len(CONTEXTS), size=len(person), p=_OFTEN)
        position = rng.poisson(2.0, len(person)).astype(float)
        arms = sorted(ARMS)
        expected = people.expected(person, context, profile)
        new = np.array([arm != AS_NOW for arm in arms])
        expected = expected + world.drift * week[:, None]
        expected = expected + world.novelty * 0.5 ** week[:, None] * new
        # Late in a session people are a little less satisfied, by 0 on average.
        expected = np.clip(expected - 0.02 * (position[:, None] - 2), _LEAST, _MOST)
        answers = rng.random(len(person))
        luck = rng.random((2, len(person)))
        probabilities = np.empty((len(person), len(arms)))
        arm = np.empty(len(person), np.int64)
        reward = np.empty(len(person))
        learner = _Learner(rng, len(arms), chooser, arms.index(AS_NOW))
        days = np.floor(week * 7).astype(np.int64)
        edges = np.flatnonzero(np.diff(days, prepend=-1, append=days[-1] + 1 if len(days) else 0))
        spans = itertools.pairwise(edges) if chooser == "adaptive" else ()
        for start, end in spans or [(0, len(person))]:
            today = slice(start, end)
            probabilities[today] = learner.probabilities()[context[today]]
            arm[today] = _draw(probabilities[today], luck[0, today])
            mean = np.take_along_axis(expected[today], arm[today, None], axis=1)[:, 0]
            reward[today] = _rating(mean, luck[1, today])
            share = world.answered * np.where(new[arm[today]], 1 - world.bias, 1)
            reward[today][answers[today] >= share] = np.nan
            learner.learn(context[today], arm[today], reward[today])
        due = first_week + weeks - world.delay_days / 7
        reward[week > due] = np.nan
        time_ms = (START_MS + week * WEEK_MS).astype(np.int64)
        return Log(
            person=person,
            time_ms=time_ms,
            context=context.astype(np.int64),
            features=position[:, None],
            arm=arm,
            propensity=np.take_along_axis(probabilities, arm[:, None], axis=1)[:, 0],
            reward=reward,
            probabilities=probabilities,
            policy=np.zeros(len(person), np.int64),
            profile=np.zeros(len(person), np.int64),
            people=[f"sim-{number:04}" for number in range(world.people)],
            contexts=CONTEXTS,
            arms=arms,
            policies=[chooser],
            profiles=[version],
            names=["session position"],
            outcome=OUTCOMES["satisfaction"],
            simulated=True,
            known_ms=time_ms + round(world.delay_days * MS_PER_DAY),
        )

    def value(self, arm: str | Mapping[str, str], profile: Sequence[float] = PROFILE) -> float:
        """Return the true mean satisfaction of everybody whom the world could hold.

        Args:
            arm: The arm, or the arm by context.
            profile: The companion's levels of `TRAITS`.
        """
        arms = sorted(ARMS)
        total = 0.0
        for context, often in enumerate(_OFTEN):
            chosen = arm if isinstance(arm, str) else arm[CONTEXTS[context]]
            total += often * self._truth(tuple(profile))[context, arms.index(chosen)]
        return total

    def _truth(self, profile: tuple[float, ...]) -> Floats:
        """Return the mean satisfaction by context and arm, without drift and novelty."""
        many = self._everybody
        everyone = np.arange(len(many.activity))
        found = np.empty((len(CONTEXTS), len(ARMS)))
        for context in range(len(CONTEXTS)):
            expected = many.expected(everyone, np.full(len(everyone), context), profile)
            # The mean over the positions in a session, of which few matter.
            by_position = [
                (share, np.clip(expected - 0.02 * (at - 2), _LEAST, _MOST).mean(axis=0))
                for at, share in enumerate(_POSITIONS)
            ]
            found[context] = sum(share * part for share, part in by_position)
        return found

    @cached_property
    def _everybody(self) -> _People:
        return _People(self.world, 4_000, np.random.default_rng(1), regular=True)


_POSITIONS: Final = tuple(
    np.exp(-2.0) * 2.0**k / float(np.prod(range(1, k + 1))) for k in range(12)
)
"""The probabilities of positions in a session, those of a Poisson distribution."""


class _People:
    """People's preferences.

    Args:
        world: Their distribution.
        number: The number of people.
        rng: Draws them.
        regular: Whether to spread them evenly over the distribution, which needs fewer of them.
    """

    def __init__(self, world: World, number: int, rng: Generator, *, regular: bool = False) -> None:
        self._world = world
        wide = len(TRAITS) + 1
        if regular:
            from scipy import special
            from scipy.stats import qmc

            drawn = special.ndtri(qmc.Sobol(wide, seed=1).random(1 << 12))[:number]
        else:
            drawn = rng.standard_normal((number, wide))
        self.ideal = np.array(world.ideal) + world.apart * drawn[:, :-1]
        self.mood = world.happiness + world.moods * drawn[:, -1]
        self.activity = rng.gamma(2.0, 0.5, number)

    def expected(self, person: Codes, context: Codes, profile: Sequence[float]) -> Floats:
        """Return the expected satisfaction of each decision with every arm, before disturbances."""
        world = self._world
        shift = np.array([0.0, world.by_context, -world.by_context])[context]
        ideal = self.ideal[person] + shift[:, None]
        found = np.empty((len(person), len(ARMS)))
        for place, name in enumerate(sorted(ARMS)):
            levels = moved(profile, name)
            found[:, place] = self.mood[person] - world.strength * np.sum(
                (levels - ideal) ** 2, axis=1
            )
        return found


def moved(profile: Sequence[float], arm: str) -> Floats:
    """Return the levels of `TRAITS` with which an arm writes."""
    deviation = [ARMS[arm].get(trait, 0.0) for trait in TRAITS]
    found: Floats = np.clip(np.asarray(profile, float) + deviation, 0, 1)
    return found


class _Learner:
    """The companion's policy."""

    def __init__(self, rng: Generator, arms: int, chooser: Chooser, usual: int) -> None:
        self._rng, self._arms, self._chooser, self._usual = rng, arms, chooser, usual
        self._won = np.ones((len(CONTEXTS), arms))
        self._lost = np.ones((len(CONTEXTS), arms))

    def probabilities(self) -> Floats:
        """Return the probabilities of all arms by context."""
        arms = self._arms
        found = np.full((len(CONTEXTS), arms), 1 / arms)
        if self._chooser == "cautious":
            found[:] = (1 - _CAUTIOUS) / (arms - 1)
            found[:, self._usual] = _CAUTIOUS
        elif self._chooser == "adaptive":
            draws = self._rng.beta(self._won, self._lost, (_DRAWS, *self._won.shape))
            best = draws.argmax(axis=2)
            for context in range(len(CONTEXTS)):
                share = np.bincount(best[:, context], minlength=arms) / _DRAWS
                found[context] = (1 - _FLOOR) * share + _FLOOR / arms
        return found

    def learn(self, context: Codes, arm: Codes, reward: Floats) -> None:
        """Learn from ratings."""
        known = np.isfinite(reward)
        place = (context * self._arms + arm)[known]
        size = self._won.size
        won = np.bincount(place, reward[known], size).reshape(self._won.shape)
        self._won += won
        self._lost += np.bincount(place, minlength=size).reshape(won.shape) - won


def _draw(probabilities: Floats, luck: Floats) -> Codes:
    """Return an arm for each decision."""
    found: Codes = (luck[:, None] >= np.cumsum(probabilities, axis=1)[:, :-1]).sum(axis=1)
    return found


def _rating(mean: Floats, luck: Floats) -> Floats:
    """Return ratings of 0, 0.5 or 1 with these expectations."""
    neutral = 0.4 * np.minimum(mean, 1 - mean)
    high = mean - neutral / 2
    return np.where(luck < high, 1.0, np.where(luck < high + neutral, 0.5, 0.0))
