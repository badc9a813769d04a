"""The policies among which a tuner can choose, evaluated under the present personality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.personality import targets
from aico_lab.personality.evaluation import evaluate

if TYPE_CHECKING:
    from aico_lab.personality.evaluation import Evaluation
    from aico_lab.personality.log import Log

MOST: Final = 12
"""The most arms that are evaluated: those that were tried most."""


def of_present_version(log: Log) -> Log:
    """Return the decisions since each person's version of the personality last changed.

    Before, another personality made the same choices, so that arm and version would mix.
    """
    place = log.person * max(len(log.contexts), 1) + log.context
    kept = np.ones(len(log), dtype=np.bool_)
    if len(log):
        order = np.lexsort((log.time_ms, place))
        whose, version = place[order], log.profile[order]
        last = np.flatnonzero(np.diff(whose, append=-1))
        present = version[last][np.searchsorted(whose[last], whose)]
        other = np.where(version == present, -1, np.arange(len(log)))
        # Up to the last decision under another version, and none of the place before.
        start = np.concatenate([[0], last[:-1] + 1])
        latest = np.maximum.reduceat(other, start)
        kept[order] = np.arange(len(log)) > latest[np.searchsorted(whose[last], whose)]
    return log.choose(kept)


def evaluate_candidates(log: Log) -> list[Evaluation]:
    """Return evaluations of always choosing each arm, and of choosing at random.

    Those with an estimate come first, the best one before all.
    """
    tried = np.bincount(log.arm, minlength=len(log.arms))
    most = np.argsort(-tried, kind="stable")[:MOST]
    policies = [targets.fixed(log.arms[arm]) for arm in most] + [targets.uniform()]
    found = [evaluate(log, policy) for policy in policies]
    sign = -1 if log.outcome.better == "higher" else 1

    def rank(one: Evaluation) -> tuple[bool, float]:
        value = None if one.main is None else one.main.value
        return (value is None, sign * (value or 0.0))

    return sorted(found, key=rank)
