"""Policies: how a companion chooses among arms (styles or skills), with known probabilities.

Every policy first computes the probability of each arm and then draws the arm from these
probabilities. So the logged propensity is the one with which the arm was really chosen, and weights
by its inverse are unbiased. For Thompson sampling this is the same as drawing from the posterior,
as its probabilities are those that an arm is the best one ("probability matching").

Sources:
    Sutton, Barto (2018), Reinforcement Learning, 2nd edition, section 2.2 (epsilon-greedy).
    Thompson (1933), On the likelihood that one unknown probability exceeds another.
    Agrawal, Goyal (2013), Thompson sampling for contextual bandits with linear payoffs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias, get_args

import numpy as np

from aico_lab.domain import values
from aico_lab.domain.personality import check_traits
from aico_lab.errors import CorruptDatabase, InvalidValue, UnknownName, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

PropensityKind = Literal["exact", "monte-carlo"]
State: TypeAlias = "dict[str, Any]"

DRAWS: Final = 1000
"""The posterior draws from which linear Thompson sampling estimates its probabilities."""

_LEVELS: Final = np.array([1e-8, 1e-5, 1e-3, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 0.999, 1 - 1e-5,
                           1 - 1e-8])  # fmt: skip
"""Quantiles of each arm at which the integration begins a new piece."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_SUM: Final = 1e-6
"""How far a sum of probabilities may be from 1."""

_HUGE: Final = 1e9
"""The largest feature."""

_MOST_DRAWS: Final = 100_000

_SMALLEST: Final = 1e-3
"""The least parameter of a beta distribution, as other programs store zeros."""


def best_probabilities(alpha: Floats, beta: Floats) -> Floats:
    """Return the probability of each arm to be the best of independent beta distributions.

    The integral of F_1(x) ... F_K(x) without F_k over the distribution of arm k is computed by
    Gauss-Legendre quadrature between quantiles of all arms, so that no steep distribution falls
    between two nodes. In tests it is exact to 1e-6.

    Args:
        alpha: The first parameters, one for each arm, or rows of them.
        beta: The second parameters.

    Returns:
        Probabilities of the same shape, which sum to 1 in each row.
    """
    from scipy.special import betainc, betaincinv

    shape = np.shape(alpha)
    a = np.maximum(np.atleast_2d(np.asarray(alpha, float)), _SMALLEST)
    b = np.maximum(np.atleast_2d(np.asarray(beta, float)), _SMALLEST)
    rows, places = np.unique(np.stack([a, b], axis=-1), axis=0, return_inverse=True)
    found = np.empty(rows.shape[:2])
    for at, row in enumerate(rows):
        first, second = row[:, 0], row[:, 1]
        ends = betaincinv(first[:, None], second[:, None], _LEVELS).ravel()
        for k in range(len(first)):
            cuts = np.unique(np.concatenate([[0, 1], betainc(first[k], second[k], ends)]))
            half = np.diff(cuts)[:, None] / 2
            levels = (cuts[:-1, None] + half * (1 + _NODES)).ravel()
            x = betaincinv(first[k], second[k], levels)
            others = [j for j in range(len(first)) if j != k]
            below = betainc(first[others, None], second[others, None], x).prod(axis=0)
            found[at, k] = (half * _WEIGHTS).ravel() @ below
        found[at] /= found[at].sum()
    return found[places.ravel()].reshape(shape)


@dataclass(frozen=True, slots=True)
class Choice:
    """The arm that a policy chose.

    Attributes:
        arm: The arm.
        propensity: The probability with which it was chosen.
        kind: Whether the probabilities are 'exact' or estimated ('monte-carlo').
        probabilities: The probabilities of all arms.
        context: The context bucket, or None.
        features: The numbers that the policy knew, by name.
        policy: The id of the policy, or None.
    """

    arm: str
    propensity: float
    kind: PropensityKind
    probabilities: Mapping[str, float] = field(hash=False)
    context: str | None = None
    features: Mapping[str, float] = field(default_factory=dict, hash=False)
    policy: str | None = None

    def __post_init__(self) -> None:
        """Check that it can be logged: a log with one impossible propensity tells nothing.

        Raises:
            InvalidValue: The probabilities are none, or the arm is not one of them, or a feature is
                no finite number.
            InvalidEntity: The context is no text.
        """
        stated = checked_numbers("probabilities", self.probabilities, 0, 1 + _SUM)
        of_arm = stated.get(self.arm) if isinstance(self.arm, str) else None
        mine = _number("The propensity", self.propensity, 0, 1 + _SUM)
        if of_arm is None or not mine > 0 or abs(of_arm - mine) > _SUM:
            raise InvalidValue("The propensity must be that of the chosen arm, and above 0.")
        if abs(sum(stated.values()) - 1) > len(stated) * _SUM:
            raise InvalidValue("The probabilities of all arms must add up to 1.")
        if self.kind not in get_args(PropensityKind):
            raise InvalidValue(f"kind must be one of {', '.join(get_args(PropensityKind))}.")
        checked_numbers("features", self.features, -_HUGE, _HUGE)
        values.optional(values.identifier, "context", self.context)


def checked_numbers(name: str, given: object, low: float, high: float) -> dict[str, float]:
    """Return numbers by name.

    Raises:
        InvalidValue: It is no mapping of texts to numbers in these bounds.
    """
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise InvalidValue(f"{name} must be a mapping of names to numbers.")
    for key in given:
        values.storable(name, key)
    return {key: _number(f"{name}: {key}", value, low, high) for key, value in given.items()}


class ArmPolicy(ABC):
    """A rule that chooses arms. Policies hold no state: it is passed in, and returned changed.

    Attributes:
        kind: The name of the kind.
        takes: The parameters of the kind, with their defaults.
        arms: The arms, in order, each with the steps of traits that it stands for.
        floor: The least probability of every arm.
        parameters: The parameters of the kind.
    """

    kind: ClassVar[str]
    takes: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        arms: Mapping[str, Mapping[str, float]] | Sequence[str],
        *,
        floor: float = 0.0,
        **parameters: Any,
    ) -> None:
        """Check the arms and parameters.

        Args:
            arms: The arms; as a mapping, each with the steps of traits that it stands for, such as
                `{"warmer": {"warmth": 0.1}, "as is": {}}`.
            floor: The least probability of every arm, at most 1 divided by their number.
            parameters: The parameters of the kind.

        Raises:
            InvalidValue: There is no arm, or a parameter is unknown or out of range.
            InvalidEntity: An arm has a step that no trait can move.
        """
        if not arms or not all(isinstance(name, str) and name for name in arms):
            raise InvalidValue("A policy needs arms with names: name at least one.")
        if len(set(arms)) < len(arms):
            raise InvalidValue("Two arms have the same name: name each once.")
        steps = arms if isinstance(arms, Mapping) else {name: {} for name in arms}
        self.arms = {}
        for name, moves in steps.items():
            if not isinstance(moves, Mapping):
                raise InvalidValue(f"The steps of the arm {name!r} must be a mapping of traits.")
            values.storable("The name of an arm", name)
            self.arms[name] = check_traits(f"arm {name}", dict(moves), -1, 1)
        self.floor = _number("floor", floor, 0, 1 / len(self.arms))
        for name in parameters:
            if name not in self.takes:
                end = did_you_mean(
                    name, self.takes, f": it takes {', '.join(self.takes) or 'none'}."
                )
                raise InvalidValue(f"A policy of kind {self.kind} has no parameter {name!r}{end}")
        self.parameters: dict[str, Any] = {**self.takes, **parameters}
        self._check()

    def stored(self) -> dict[str, Any]:
        """Return everything that `policy_of` needs to make the policy again, as JSON values."""
        return {"arms": self.arms, "floor": self.floor, **self.parameters}

    def choose(
        self,
        state: State,
        rng: np.random.Generator,
        *,
        context: str | None = None,
        features: Mapping[str, float] | None = None,
        name: str | None = None,
    ) -> Choice:
        """Choose an arm.

        Args:
            state: What was learned so far; an empty dictionary at first.
            rng: The source of random numbers.
            context: The context bucket.
            features: Numbers that describe the situation, by name.
            name: The id of the policy, for the choice.

        Raises:
            InvalidValue: A feature is no finite number.
            InvalidEntity: The context is no text.
            CorruptDatabase: The state is damaged.
        """
        known = checked_numbers("features", {} if features is None else features, -_HUGE, _HUGE)
        values.optional(values.identifier, "context", context)
        p, kind = self.probabilities(state, rng, context=context, features=known)
        place = int(rng.choice(len(p), p=p))
        names = list(self.arms)
        by_arm = dict(zip(names, map(float, p), strict=True))
        return Choice(names[place], float(p[place]), kind, by_arm, context, known, name)

    def probabilities(
        self,
        state: State,
        rng: np.random.Generator,
        *,
        context: str | None = None,
        features: Mapping[str, float] | None = None,
    ) -> tuple[Floats, PropensityKind]:
        """Return the probability of each arm, in order, and whether they are exact.

        With a floor, every probability p becomes `floor + (1 - K floor) p`.
        """
        p, kind = self._probabilities(state, rng, context, features or {})
        p = self.floor + (1 - len(p) * self.floor) * p
        return p / p.sum(), kind

    def learned(
        self,
        state: State,
        arm: str,
        reward: float,
        *,
        context: str | None = None,
        features: Mapping[str, float] | None = None,
    ) -> State:
        """Return the state after an outcome; the passed state stays as it is.

        Args:
            state: The state before.
            arm: The arm that was chosen.
            reward: The outcome, from 0 to 1.
            context: The context bucket of the choice.
            features: The features of the choice.

        Raises:
            InvalidValue: The outcome is not a number from 0 to 1.
            UnknownName: The policy has no such arm.
        """
        if arm not in self.arms:
            end = did_you_mean(arm, self.arms, f": the arms are {', '.join(self.arms)}.")
            raise UnknownName(f"The policy has no arm {arm!r}{end}")
        return self._learned(
            state, arm, _number("An outcome", reward, 0, 1), context, features or {}
        )

    def _check(self) -> None:  # noqa: B027 - not every kind has parameters
        """Raise InvalidValue if a parameter of the kind is out of range."""

    @abstractmethod
    def _probabilities(
        self,
        state: State,
        rng: np.random.Generator,
        context: str | None,
        features: Mapping[str, float],
    ) -> tuple[Floats, PropensityKind]:
        """Return the probabilities without the floor."""

    def _learned(
        self,
        state: State,
        arm: str,
        reward: float,
        context: str | None,
        features: Mapping[str, float],
    ) -> State:
        """Return the state after an outcome."""
        del arm, reward, context, features
        return state

    def _pairs(self, state: State, context: str | None, default: tuple[float, float]) -> Floats:
        """Return the two numbers of each arm in a context, K x 2."""
        try:
            known = state.get("contexts", {}).get(context or ANY, {})
            found = np.array([known.get(arm, default) for arm in self.arms], float)
        except (AttributeError, TypeError, ValueError) as error:
            raise CorruptDatabase(_DAMAGED) from error
        if found.shape != (len(self.arms), 2) or not np.all(np.isfinite(found) & (found >= 0)):
            raise CorruptDatabase(_DAMAGED)
        return found

    def _with_pair(
        self, state: State, context: str | None, arm: str, pair: tuple[float, float]
    ) -> State:
        contexts = dict(state.get("contexts", {}))
        contexts[context or ANY] = {**contexts.get(context or ANY, {}), arm: list(pair)}
        return {**state, "contexts": contexts}


_DAMAGED: Final = (
    "What the policy learned is damaged: restore it from a backup, or add another policy."
)

ANY: Final = "any"
"""The context of a state that a choice without a context has."""


class FixedPolicy(ArmPolicy):
    """Chooses the parameter `arm` always, or as often as the floor allows."""

    kind = "fixed"
    takes: ClassVar = {"arm": None}

    def _check(self) -> None:
        arm = self.parameters["arm"]
        if not isinstance(arm, str) or arm not in self.arms:
            raise InvalidValue(f"The arm of a fixed policy is one of {', '.join(self.arms)}.")

    def _probabilities(
        self,
        state: State,
        rng: np.random.Generator,
        context: str | None,
        features: Mapping[str, float],
    ) -> tuple[Floats, PropensityKind]:
        del state, rng, context, features
        return np.array([float(arm == self.parameters["arm"]) for arm in self.arms]), "exact"


class EpsilonGreedy(ArmPolicy):
    """Chooses the arm with the best mean in the context; with probability `epsilon` any arm.

    Arms that were never tried in a context precede the others, and arms that are equal share their
    probability.
    """

    kind = "epsilon-greedy"
    takes: ClassVar = {"epsilon": 0.1}

    def _check(self) -> None:
        _number("epsilon", self.parameters["epsilon"], 0, 1)

    def _probabilities(
        self,
        state: State,
        rng: np.random.Generator,
        context: str | None,
        features: Mapping[str, float],
    ) -> tuple[Floats, PropensityKind]:
        del rng, features
        count, total = self._pairs(state, context, (0.0, 0.0)).T
        means = np.where(count > 0, total / np.maximum(count, 1), np.inf)
        best = means == means.max()
        epsilon = float(self.parameters["epsilon"])
        return epsilon / len(means) + (1 - epsilon) * best / best.sum(), "exact"

    def _learned(
        self,
        state: State,
        arm: str,
        reward: float,
        context: str | None,
        features: Mapping[str, float],
    ) -> State:
        del features
        count, total = self._pairs(state, context, (0.0, 0.0))[list(self.arms).index(arm)]
        return self._with_pair(state, context, arm, (float(count) + 1, float(total) + reward))


class BetaThompson(ArmPolicy):
    """Thompson sampling with a beta distribution for each arm in each context.

    An outcome r between 0 and 1 adds r to the first parameter and 1 - r to the second one. Both
    begin with 1.
    """

    kind = "thompson"

    def _probabilities(
        self,
        state: State,
        rng: np.random.Generator,
        context: str | None,
        features: Mapping[str, float],
    ) -> tuple[Floats, PropensityKind]:
        del rng, features
        alpha, beta = self._pairs(state, context, (1.0, 1.0)).T
        return best_probabilities(alpha, beta), "exact"

    def _learned(
        self,
        state: State,
        arm: str,
        reward: float,
        context: str | None,
        features: Mapping[str, float],
    ) -> State:
        del features
        alpha, beta = self._pairs(state, context, (1.0, 1.0))[list(self.arms).index(arm)]
        return self._with_pair(
            state, context, arm, (float(alpha) + reward, float(beta) + 1 - reward)
        )


class LinearThompson(ArmPolicy):
    """Thompson sampling with a linear model of the outcome for each arm.

    The posterior of an arm's coefficients is normal, with the mean of a ridge regression and the
    covariance `scale`^2 A^-1 (Agrawal and Goyal 2013). The model has a constant and the parameter
    `features`; a missing feature is 0. The context bucket is not used.

    The probabilities are estimated by `draws` draws from the posterior: an arm that is the best in
    n of S draws gets (n + 1) / (S + K), so that none is 0. This moves them towards 1 / K by at most
    K / (S + K); as the arm is drawn from the estimated probabilities, the propensities are still
    those with which arms were chosen.
    """

    kind = "linear-thompson"
    takes: ClassVar = {"features": (), "scale": 0.25, "draws": DRAWS}

    def _check(self) -> None:
        names = self.parameters["features"]
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise InvalidValue("features are the names of features, as a list.")
        if len(set(names)) < len(names):
            raise InvalidValue("Two features have the same name: name each once.")
        self.parameters["features"] = list(names)
        _number("scale", self.parameters["scale"], 0, 100)
        _number("draws", self.parameters["draws"], 1, _MOST_DRAWS)

    def _probabilities(
        self,
        state: State,
        rng: np.random.Generator,
        context: str | None,
        features: Mapping[str, float],
    ) -> tuple[Floats, PropensityKind]:
        del context
        x = self._vector(features)
        draws, scale = int(self.parameters["draws"]), float(self.parameters["scale"])
        mean, deviation = np.empty(len(self.arms)), np.empty(len(self.arms))
        for at, arm in enumerate(self.arms):
            precision, weighted = self._model(state, arm, len(x))
            solved = np.linalg.solve(precision, np.column_stack([weighted, x]))
            mean[at] = x @ solved[:, 0]
            deviation[at] = scale * math.sqrt(max(float(x @ solved[:, 1]), 0))
        # The value of an arm is normal, so its coefficients need not be drawn.
        values = rng.normal(mean, deviation, size=(draws, len(mean)))
        wins = np.bincount(values.argmax(axis=1), minlength=len(mean))
        return (wins + 1) / (draws + len(mean)), "monte-carlo"

    def _learned(
        self,
        state: State,
        arm: str,
        reward: float,
        context: str | None,
        features: Mapping[str, float],
    ) -> State:
        del context
        x = self._vector(features)
        precision, weighted = self._model(state, arm, len(x))
        models = dict(state.get("models", {}))
        models[arm] = {
            "precision": (precision + np.outer(x, x)).tolist(),
            "weighted": (weighted + reward * x).tolist(),
        }
        return {**state, "models": models}

    def _vector(self, features: Mapping[str, float]) -> Floats:
        names = self.parameters["features"]
        return np.array(
            [1.0, *(_number(f"feature {n}", features.get(n, 0.0), -_HUGE, _HUGE) for n in names)]
        )

    def _model(self, state: State, arm: str, size: int) -> tuple[Floats, Floats]:
        try:
            known = state.get("models", {}).get(arm)
            if known is None:
                return np.eye(size), np.zeros(size)
            precision = np.array(known["precision"], float)
            weighted = np.array(known["weighted"], float)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CorruptDatabase(_DAMAGED) from error
        if precision.shape != (size, size) or weighted.shape != (size,):
            raise CorruptDatabase(_DAMAGED)
        if not (np.isfinite(precision).all() and np.isfinite(weighted).all()):
            raise CorruptDatabase(_DAMAGED)
        return precision, weighted


KINDS: Final[Mapping[str, type[ArmPolicy]]] = {
    one.kind: one for one in (FixedPolicy, EpsilonGreedy, BetaThompson, LinearThompson)
}
"""The kinds of policies by name."""


def policy_of(kind: str, stored: Mapping[str, Any]) -> ArmPolicy:
    """Return a policy by its kind, and the arms and parameters that `stored()` returned.

    Raises:
        UnknownName: There is no such kind.
        InvalidValue: The arms or parameters are invalid.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        end = did_you_mean(str(kind), KINDS, f": the kinds are {', '.join(KINDS)}.")
        raise UnknownName(f"There is no kind of policy {kind!r}{end}")
    given = dict(stored)
    arms = given.pop("arms", None)
    if not isinstance(arms, dict | list | tuple):
        raise InvalidValue("A policy needs arms: name at least one.")
    return KINDS[kind](arms, **given)


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InvalidValue(f"{name} must be a number, not {type(value).__name__}.")
    try:
        taken = float(value)
    except OverflowError:
        taken = math.inf
    if not low <= taken <= high:
        raise InvalidValue(f"{name} must be a number from {low:g} to {high:g}, not {taken:g}.")
    return taken
