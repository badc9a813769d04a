"""Proposals: a bounded change of a profile, with its expected effect, or why there is none.

An arm of a policy stands for steps of traits, such as `{"warmer": {"warmth": 0.1}}`, so a log of
arms tells what a profile that moves by these steps would do. A smaller or larger step than an arm's
was never tried, so none is proposed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from aico_lab.errors import InvalidEntity, InvalidValue
from aico_lab.personality import targets
from aico_lab.personality.evaluation import evaluate
from aico_lab.personality.power import SMALL, needed_log
from aico_lab.personality.simulate import LABEL
from aico_lab.personality.watching import days_before, too_short, why_never

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aico_lab.domain import Profile
    from aico_lab.personality.evaluation import Evaluation
    from aico_lab.personality.log import Log
    from aico_lab.personality.targets import Target

GUARDRAILS: Final = ("satisfaction", "sentiment_change", "session_continues", "returns_within_week")
"""The outcomes that must not worsen, apart from the goal."""


@dataclass(frozen=True, slots=True)
class Effect:
    """The expected change of an outcome, or why it is unknown.

    Attributes:
        outcome: The name of the outcome.
        better: Whether more of it is better, or less.
        value: The expected change; None if the log does not support the question.
        low: The low end of its interval.
        high: The high end.
        sentence: The gate's verdict.
        margin: The largest worsening that is accepted of it as a guardrail.
    """

    outcome: str
    better: str
    value: float | None
    low: float | None
    high: float | None
    sentence: str
    margin: float

    @property
    def worst(self) -> float | None:
        """The less favourable end, so that more is better."""
        if self.low is None or self.high is None:
            return None
        return self.low if self.better == "higher" else -self.high

    @property
    def best(self) -> float | None:
        """The more favourable end, so that more is better."""
        if self.low is None or self.high is None:
            return None
        return self.high if self.better == "higher" else -self.low

    @property
    def may_worsen(self) -> bool:
        """Whether it worsens, or may worsen by more than the margin, as far as it is known."""
        if self.worst is None or self.best is None:
            return False
        return self.best < 0 or self.worst <= -self.margin

    @property
    def undecided(self) -> bool:
        """Whether a larger log could tell whether it improves or worsens."""
        return self.best is None or self.worst is None or self.worst <= 0 < self.best


@dataclass(frozen=True, slots=True)
class CandidateChange:
    """An arm that a profile could move to.

    Attributes:
        arm: The arm.
        steps: How far each trait would move.
        effect: The expected change of the goal; None if the steps are not possible.
        guardrails: The expected changes of the outcomes that must not worsen.
        fit: Whether it can be proposed.
        sentence: Why, or why not.
    """

    arm: str
    steps: Mapping[str, float]
    effect: Effect | None
    guardrails: tuple[Effect, ...]
    fit: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Draft:
    """The result of comparing all arms.

    Attributes:
        best: The candidate to propose; None if there is none.
        candidates: All candidates.
        sentence: The result in one sentence.
        needed: What to log, and for how long, if nothing is proposed and a larger log could help.
    """

    best: CandidateChange | None
    candidates: tuple[CandidateChange, ...]
    sentence: str
    needed: str | None


def check_step(max_step: float) -> None:
    """Raise InvalidValue if the largest step is not above 0 and at most 1."""
    number = isinstance(max_step, int | float) and not isinstance(max_step, bool)
    if not number or not 0 < max_step <= 1:
        raise InvalidValue(f"The largest step is above 0 and at most 1, not {max_step!r}.")


def draft(
    log: Log,
    guardrails: Sequence[Log],
    arms: Mapping[str, Mapping[str, float]],
    profile: Profile,
    max_step: float,
) -> Draft:
    """Compare the arms by which a profile can move, and return the best one.

    An arm is compared with the arm that moves nothing, or with the policy that made the log if
    there is none. It can be proposed if its gain is favourable on its whole confidence sequence,
    which is valid however often one asks, and if each guardrail's 95 % interval neither lies below
    0 nor reaches the margin, a fifth of its standard deviation: the effect for which logs are
    planned. The watch that follows is stricter, and nothing is proposed before there are enough
    days for it. A guardrail that the log does not tell about is
    named in the sentence. Of several such arms the one with the largest gain is the best.

    Args:
        log: The decisions with the goal as their outcome.
        guardrails: The same decisions with the outcomes that must not worsen.
        arms: The steps of traits by arm.
        profile: The present version.
        max_step: The most that a trait may move.
    """
    present = next((arm for arm in log.arms if arm in arms and not arms[arm]), None)
    over = None if present is None else targets.fixed(present)
    moving = {arm: steps for arm, steps in arms.items() if steps and arm in log.arms}
    refused = {arm: _impossible(profile, steps, max_step) for arm, steps in moving.items()}
    compared = [
        _candidate([log, *guardrails], arm, moving[arm], over)
        if why is None
        else CandidateChange(arm, moving[arm], None, (), False, why)
        for arm, why in refused.items()
    ]
    fit = [one for one in compared if one.fit]
    best = max(fit, key=lambda one: abs((one.effect and one.effect.value) or 0.0), default=None)
    if best is not None:
        days, enough = max(
            (days_before(one, int(one.time_ms.max()) + 1) for one in (log, *guardrails)),
            key=lambda one: one[1] - one[0],
        )
        why = unwatchable((log, *guardrails))
        if why is not None:
            more = f"{enough - days} more day{'' if enough - days == 1 else 's'}"
            return Draft(
                None,
                tuple(compared),
                f"Nothing is proposed yet: {best.sentence.removesuffix('.')}; but {why}.",
                f"Log for {more if days < enough else 'another week'}, and propose again.",
            )
        return Draft(best, tuple(compared), best.sentence, None)
    needed = _needed(compared, log, guardrails)
    return Draft(None, tuple(compared), _why_none(compared, arms, log, profile), needed)


def unwatchable(logs: Sequence[Log]) -> str | None:
    """Return why a change after the last decision could not be watched; None if it could.

    Args:
        logs: The decisions with the goal as their outcome, and then with each guardrail. Of these
            only the days count, as some outcomes are never asked for.
    """
    ends = [int(one.time_ms.max(initial=0)) + 1 for one in logs]
    reasons = [why_never(logs[0], ends[0]), *map(too_short, logs[1:], ends[1:])]
    found = next((why for why in reasons if why is not None), None)
    return None if found is None else f"a change could not be watched: {found}"


def _needed(compared: Sequence[CandidateChange], log: Log, guardrails: Sequence[Log]) -> str | None:
    """Return the log that could lead to a proposal; None if no log could, or that is not known."""
    unclear = {
        one.outcome: needed_log(of, guardrail=True)
        for candidate in compared
        for one, of in zip(candidate.guardrails, guardrails, strict=False)
        if one.may_worsen and one.undecided
    }
    if unclear:
        return max(unclear.values(), key=lambda one: one.people * (one.weeks or 1)).sentence
    if not len(log) or any(one.effect and one.effect.undecided for one in compared):
        return needed_log(log).sentence
    return None


def _impossible(profile: Profile, steps: Mapping[str, float], max_step: float) -> str | None:
    """Return why a profile cannot move by these steps, or None if it can."""
    for name, step in steps.items():
        if abs(step) > max_step + 1e-9:
            return f"{name} would move by {abs(step):g}, more than the asked {max_step:g}."
    try:
        profile.moved(steps)
    except InvalidEntity as error:
        return str(error)
    return None


def _candidate(
    logs: Sequence[Log], arm: str, steps: Mapping[str, float], over: Target | None
) -> CandidateChange:
    """Return an arm with its effects.

    Args:
        logs: The log of the goal, and those of the guardrails.
        arm: The arm.
        steps: Its steps.
        over: What it is compared with.
    """

    def effect(of: Log, *, anytime: bool) -> Effect:
        known = of.reward[of.observed]
        margin = SMALL * float(np.std(known)) if len(known) else 0.0
        return _effect(evaluate(of, targets.fixed(arm), over=over), margin, anytime=anytime)

    goal = effect(logs[0], anytime=True)
    if goal.worst is None:
        return CandidateChange(arm, steps, goal, (), False, goal.sentence)
    if goal.worst <= 0:
        is_worse = goal.best is not None and goal.best < 0
        sentence = f"{arm} {'is worse' if is_worse else 'may be no better'}: {shown(goal)}."
        return CandidateChange(arm, steps, goal, (), False, sentence)
    others = tuple(effect(one, anytime=False) for one in logs[1:])
    worse = [one for one in others if one.may_worsen]
    if worse:
        named = "; ".join(f"{shown(one)}, margin {one.margin:.2g}" for one in worse)
        does = "may worsen" if all(one.undecided for one in worse) else "worsens"
        sentence = f"{arm} would be better, but a guardrail {does}: {named}."
        return CandidateChange(arm, steps, goal, others, False, sentence)
    sentence = f"{arm} is better: {shown(goal)}."
    unknown = ", ".join(one.outcome for one in others if one.worst is None)
    if unknown:
        sentence += f" Whether it worsens {unknown} is not known."
    return CandidateChange(arm, steps, goal, others, True, sentence)


def _effect(evaluation: Evaluation, margin: float, *, anytime: bool) -> Effect:
    main, reason = evaluation.main, evaluation.verdict.reason
    outcome, better = evaluation.outcome, evaluation.better
    low = high = None
    if main is not None:
        low, high = main.gain_low, main.gain_high
        if anytime:
            low, high = main.gain_low_anytime, main.gain_high_anytime
    if main is None or main.gain is None or low is None or high is None:
        if evaluation.verdict.supported:
            reason = "The outcome varies too little for an interval."
        return Effect(outcome, better, None, None, None, reason, margin)
    return Effect(outcome, better, main.gain, low, high, reason, margin)


def shown(effect: Effect) -> str:
    """Return an effect in words, such as `satisfaction +0.05 (0.01 to 0.09)`."""
    if effect.value is None:
        return f"{effect.outcome} unknown"
    return f"{effect.outcome} {effect.value:+.3g} ({effect.low:+.3g} to {effect.high:+.3g})"


def _why_none(
    compared: Sequence[CandidateChange],
    arms: Mapping[str, Mapping[str, float]],
    log: Log,
    profile: Profile,
) -> str:
    if not len(log):
        ahead = (
            f" In the future, and left out, are {log.ahead:,} of the home: set the clock of the "
            "program that writes them, and correct their times."
        )
        return (
            "Nothing is proposed: no decision on a style was logged under the present version of "
            f"the personality, which began on {profile.active_from:%Y-%m-%d} UTC; decisions under "
            f"other versions do not count.{ahead if log.ahead else ''}"
        )
    if not compared:
        if any(arms.values()):
            return "Nothing is proposed: no logged arm moves a trait."
        return (
            "Nothing is proposed: no policy states which traits its arms move, so add one with "
            "`lab.personality.add_policy()`."
        )
    closest = max(
        compared,
        key=lambda one: (
            one.effect is not None,
            one.effect is not None and one.effect.worst is not None,
            (one.effect and one.effect.worst) or 0.0,
        ),
    )
    return f"Nothing is proposed: {closest.sentence}"


def _named(policies: Sequence[str]) -> str | None:
    others = len(policies) - 1
    if others <= 0:
        return policies[0] if policies else None
    return f"{policies[0]} and {others} other{'s' if others > 1 else ''} with the same arms"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed change of a profile, or why there is none.

    Attributes:
        change_id: The id under which it is stored; None if it is not.
        sentence: The result in one sentence.
        goal: The outcome to improve.
        user_id: The person whom it is for; None for everybody.
        context: The context that it is for; None for every context.
        arm: The arm that the profile would move to; None if nothing is proposed.
        steps: How far each trait would move.
        before: The present levels of these traits.
        after: Their levels after the change.
        max_step: The most that a trait could move.
        effect: The expected change of the goal, with its confidence sequence.
        guardrails: The expected changes of outcomes that must not worsen.
        people: The number of people in the evidence.
        contexts: The context buckets in the evidence.
        decisions: The number of decisions in the evidence.
        policy: The policy whose decisions and arms these are, and how many people's policies with
            the same arms there are besides; None if there is none.
        generation: The generation of the snapshot.
        profile_id: The version that it was made on.
        candidates: All arms that were compared.
        needed: What to log, and for how long, if nothing is proposed.
        simulated: Whether the evidence is simulated.
    """

    change_id: str | None
    sentence: str
    goal: str
    user_id: str | None
    context: str | None
    arm: str | None
    steps: Mapping[str, float]
    before: Mapping[str, float]
    after: Mapping[str, float]
    max_step: float
    effect: Effect | None
    guardrails: tuple[Effect, ...]
    people: int
    contexts: tuple[str, ...]
    decisions: int
    policy: str | None
    generation: int | None
    profile_id: str
    candidates: tuple[CandidateChange, ...]
    needed: str | None
    simulated: bool

    @classmethod
    def of(
        cls,
        made: Draft,
        profile: Profile,
        log: Log,
        max_step: float,
        *,
        user_id: str | None,
        context: str | None,
    ) -> Proposal:
        """Return the proposal of a draft that is not stored yet."""
        steps = dict(made.best.steps) if made.best else {}
        moved = profile.moved(steps) if steps else {}
        return cls(
            change_id=None,
            sentence=f"{LABEL}: {made.sentence}" if log.simulated else made.sentence,
            goal=log.outcome.name,
            user_id=user_id,
            context=context,
            arm=made.best.arm if made.best else None,
            steps=steps,
            before={name: profile.traits[name] for name in steps},
            after={name: moved[name] for name in steps},
            max_step=max_step,
            effect=made.best.effect if made.best else None,
            guardrails=made.best.guardrails if made.best else (),
            people=len(np.unique(log.person)),
            contexts=tuple(log.contexts[place] for place in np.unique(log.context)),
            decisions=len(log),
            policy=_named(log.policies),
            generation=log.generation,
            profile_id=profile.id,
            candidates=made.candidates,
            needed=made.needed,
            simulated=log.simulated,
        )
