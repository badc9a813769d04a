"""The policies among which a tuner can choose, evaluated under the present personality."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.domain.personality import active_profile, contexts_of
from aico_lab.errors import UnknownName, did_you_mean
from aico_lab.personality import targets
from aico_lab.personality.contexts import PARTS
from aico_lab.personality.evaluation import evaluate
from aico_lab.personality.log import NONE

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from aico_lab.domain import Profile
    from aico_lab.personality.evaluation import Evaluation
    from aico_lab.personality.log import Log

MOST: Final = 12
"""The most arms that are evaluated: those that were tried most."""


def of_version(log: Log, profile: Profile | None, profiles: Sequence[Profile], at: datetime) -> Log:
    """Return the decisions that count for a version of the personality.

    Under another version the same arm is another personality, so that arm and version would mix.
    One person alone tells too little, so for a person's own version everybody's decisions count:
    each under the version that applies to its person and context now. A version for several people
    has the decisions under it.

    Args:
        log: The decisions.
        profile: The version; None if there is none, with which decisions without a version count.
        profiles: All versions, of everybody.
        at: The present moment.
    """
    if profile is None or profile.user_id is None:
        wanted = NONE if profile is None else profile.id
        kept = np.array([one == wanted for one in log.profiles], np.bool_)
        return log.choose(kept[log.profile])
    codes = {name: code for code, name in enumerate(log.profiles)}
    places, row_place = np.unique(
        np.column_stack([log.person, log.context]), axis=0, return_inverse=True
    )
    now = np.empty(len(places), np.int64)
    for at_place, (whose, where) in enumerate(places):
        person, context = log.people[whose], log.contexts[where]
        active = active_profile(
            (one for one in profiles if one.user_id in (None, person)), person, context, at
        )
        now[at_place] = codes.get(NONE if active is None else active.id, -1)
    return log.choose(log.profile == now[row_place.ravel()])


def of_context(log: Log, context: str | None) -> Log:
    """Return the decisions in a context; None for all.

    Raises:
        UnknownName: No decision was made in it, and it is no part of a day.
    """
    if context is None:
        return log
    inside = np.array([context in contexts_of(one) for one in log.contexts], np.bool_)
    if not inside.any() and context.partition("/")[0] not in PARTS:
        known = sorted({one for bucket in log.contexts for one in contexts_of(bucket)} | {*PARTS})
        end = did_you_mean(context, known, f": the contexts are {', '.join(known)}.")
        raise UnknownName(f"No decision was made in the context {context!r}{end}")
    return log.choose(inside[log.context])


def of_policy(log: Log, policy: str, arms: Collection[str] = (), also: Collection[str] = ()) -> Log:
    """Return the decisions of one policy, with the arms among which it chose.

    Args:
        log: The decisions.
        policy: The id of the policy.
        arms: Its arms, for a policy that made no decision yet.
        also: Policies of other people with the same arms, which count as the same.
    """
    rows = np.array([one == policy or one in also for one in log.policies], np.bool_)[log.policy]
    theirs = log.choose(rows)
    seen = np.bincount(theirs.arm, minlength=len(log.arms)) > 0
    if theirs.probabilities is not None:
        seen |= np.isfinite(theirs.probabilities).any(axis=0)
    if not len(theirs):
        return replace(
            theirs, arms=sorted(arms), policies=[policy],
            probabilities=np.empty((0, len(arms))),
        )  # fmt: skip
    places = np.flatnonzero(seen)
    return replace(
        theirs,
        arm=np.searchsorted(places, theirs.arm).astype(np.int64),
        arms=[log.arms[int(at)] for at in places],
        probabilities=None if theirs.probabilities is None else theirs.probabilities[:, places],
        policy=np.zeros(len(theirs), np.int64),
        policies=[policy, *also],
    )


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
