"""Target policies: the probabilities with which they choose each arm at each decision of a log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aico_lab.personality.log import Floats, Log

_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Target:
    """A policy whose value is asked for.

    Attributes:
        name: Its name in tables.
        function: Returns the probabilities of all arms for each decision, N x K.
    """

    name: str
    function: Callable[[Log], Floats]

    def probabilities(self, log: Log) -> Floats:
        """Return the probabilities of all arms for each decision, N x K.

        Raises:
            InvalidValue: The policy names an arm that the log does not have; or its probabilities
                are not numbers from 0 to 1 that add up to 1.
        """
        found = np.asarray(self.function(log), dtype=np.float64)
        if found.shape != (len(log), len(log.arms)):
            raise InvalidValue(
                f"The policy {self.name!r} has probabilities of shape {found.shape} instead of "
                f"{(len(log), len(log.arms))}."
            )
        if not np.all(found >= 0) or np.any(np.abs(found.sum(axis=1) - 1) > _ROUNDING):
            raise InvalidValue(
                f"The probabilities of the policy {self.name!r} are not all from 0 to 1 with the "
                "sum 1."
            )
        return found


def fixed(arm: str) -> Target:
    """Return the policy that always chooses one arm."""
    return Target(f"always {arm}", lambda log: _rows(log, np.full(len(log), _place(log, arm))))


def per_context(arms: Mapping[str, str], otherwise: str) -> Target:
    """Return the policy that chooses by the context.

    Args:
        arms: The arm by context bucket.
        otherwise: The arm of all other contexts.
    """

    def function(log: Log) -> Floats:
        table = [_place(log, arms.get(context, otherwise)) for context in log.contexts]
        return _rows(log, np.array(table, dtype=np.int64)[log.context])

    chosen = ", ".join(f"{arm} in {context}" for context, arm in arms.items())
    return Target(f"{chosen}, else {otherwise}" if chosen else f"always {otherwise}", function)


def uniform() -> Target:
    """Return the policy that chooses all arms with the same probability."""

    def function(log: Log) -> Floats:
        return np.full((len(log), len(log.arms)), 1 / max(len(log.arms), 1))

    return Target("uniform", function)


def mixed(target: Target, epsilon: float) -> Target:
    """Return the policy that follows another, but chooses uniformly with probability `epsilon`.

    Raises:
        InvalidValue: `epsilon` is not from 0 to 1.
    """
    if not 0 <= epsilon <= 1:
        raise InvalidValue(f"epsilon must be from 0 to 1, not {epsilon!r}.")

    def function(log: Log) -> Floats:
        return (1 - epsilon) * target.probabilities(log) + epsilon / max(len(log.arms), 1)

    return Target(f"{target.name}, {epsilon:.0%} at random", function)


def logged() -> Target:
    """Return the policy that made the log; it needs the logged probabilities of all arms."""

    def function(log: Log) -> Floats:
        if log.probabilities is None:
            raise InvalidValue("The log does not hold the probabilities of all arms.")
        return log.probabilities

    return Target("as logged", function)


def _rows(log: Log, arm: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
    found = np.zeros((len(log), len(log.arms)))
    found[np.arange(len(log)), arm] = 1
    return found


def _place(log: Log, arm: str) -> int:
    try:
        return list(log.arms).index(arm)
    except ValueError:
        known = ", ".join(log.arms) or "none"
        raise InvalidValue(f"The log has no arm {arm!r}; its arms are: {known}.") from None
