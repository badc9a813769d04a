"""The companion's personality: versions of its traits, rules between traits, and their changes.

Sources of the rules:
    DeYoung, Quilty, Peterson (2007), Between facets and domains: 10 aspects of the Big Five.
    Costa, McCrae (1992), Revised NEO Personality Inventory, of which warmth is a facet.
    Wiggins (1979), A psychological taxonomy of trait-descriptive terms: the interpersonal domain.
    Ashton, Lee (2007), Empirical, theoretical, and practical advantages of the HEXACO model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from aico_lab.domain import values
from aico_lab.domain.entities import Entity, new_id
from aico_lab.errors import InvalidEntity, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

DISPOSITIONS: Final = (
    "openness",
    "conscientiousness",
    "extraversion",
    "agreeableness",
    "neuroticism",
    "honesty_humility",
)
"""The Big Five, and Honesty-Humility of the HEXACO model."""

EXPRESSIONS: Final = ("warmth", "assertiveness", "formality", "verbosity", "humour", "curiosity")
"""Parameters of how the companion expresses itself."""

TRAITS: Final = (*DISPOSITIONS, *EXPRESSIONS)

STABILITY: Final = 0.8
"""The stability of a profile that states none: a trait moves by at most 0.2 in a change."""

_PLACES: Final = 6
"""The decimal places of a changed trait, so that 0.1 + 0.2 is 0.3."""


@dataclass(frozen=True, slots=True)
class TraitRule:
    """A rule between traits.

    Attributes:
        name: The name.
        traits: The traits that it is about; it holds where a profile does not state them all.
        sentence: What it demands.
        source: The publication that it follows.
        holds: Whether the values of these traits, in this order, keep it.
    """

    name: str
    traits: tuple[str, ...]
    sentence: str
    source: str
    holds: Callable[..., bool]


def _near(one: float, other: float) -> bool:
    return round(abs(one - other), _PLACES) <= _APART


_APART: Final = 0.6
"""The most that a facet may be apart from its domain: they correlate, and are not the same."""

RULES: Final = (
    TraitRule(
        "assertive extraversion",
        ("assertiveness", "extraversion"),
        f"assertiveness, an aspect of extraversion, is at most {_APART} apart from it",
        "DeYoung, Quilty and Peterson (2007)",
        _near,
    ),
    TraitRule(
        "curious openness",
        ("curiosity", "openness"),
        f"curiosity, which openness to experience includes, is at most {_APART} apart from it",
        "DeYoung, Quilty and Peterson (2007)",
        _near,
    ),
    TraitRule(
        "warmth of somebody agreeable or outgoing",
        ("warmth", "agreeableness", "extraversion"),
        f"warmth is at most {_APART} above the higher one of agreeableness and extraversion",
        "Costa and McCrae (1992)",
        lambda warmth, *bases: round(warmth - max(bases), _PLACES) <= _APART,
    ),
    TraitRule(
        "humble dominance",
        ("honesty_humility", "assertiveness", "agreeableness"),
        "honesty_humility of 0.7 or more excludes assertiveness of 0.8 or more together with "
        "agreeableness of 0.2 or less, the arrogant part of the interpersonal circle",
        "Wiggins (1979), Ashton and Lee (2007)",
        lambda honest, assertive, agreeable: (
            not (
                honest >= 0.7 and assertive >= 0.8 and agreeable <= 0.2  # noqa: PLR2004 - the rule
            )
        ),
    ),
)
"""The rules that a change must keep; a version of another program may violate them."""


def violated_rules(traits: Mapping[str, float]) -> list[TraitRule]:
    """Return the rules that values of traits violate."""
    return [
        rule
        for rule in RULES
        if all(name in traits for name in rule.traits)
        and not rule.holds(*(traits[name] for name in rule.traits))
    ]


def check_traits(field_name: str, traits: object, low: float, high: float) -> dict[str, float]:
    """Return numbers by trait.

    Args:
        field_name: The name of the field in errors.
        traits: A dictionary of some of the `TRAITS`.
        low: The least number.
        high: The greatest number.

    Raises:
        InvalidEntity: A name is no trait, or a value is not a finite number in these bounds.
    """
    if not isinstance(traits, dict):
        raise InvalidEntity(f"{field_name} must be a dictionary, not {type(traits).__name__}.")
    checked = {}
    for name, value in sorted(traits.items(), key=lambda item: str(item[0])):
        if name not in TRAITS:
            end = did_you_mean(str(name), TRAITS, f": the traits are {', '.join(TRAITS)}.")
            raise InvalidEntity(f"There is no trait {name!r}{end}")
        checked[name] = values.number(f"{field_name}: {name}", value, low, high)
    return checked


@dataclass(frozen=True, slots=True)
class Profile(Entity):
    """A version of the companion's personality, which is never changed, only ended.

    Attributes:
        traits: Values from 0 to 1 of some or all `TRAITS`.
        user_id: The person whom it is for; None for everybody.
        context: The context that it is for, such as 'evening'; None for every context.
        version: The number among the versions for that person, or for everybody.
        stability: From 0 to 1: a trait moves by at most `1 - stability` in one change.
        active_from: When it became active, UTC.
        active_until: When it ended, UTC; None while it is active.
        based_on: The id of the version that it was made from.
        reason: Why it was made.
        simulated: Whether a simulation made it.
        id: Unique among all versions.
    """

    traits: dict[str, float] = field(hash=False)
    user_id: str | None = None
    context: str | None = None
    version: int = 1
    stability: float = STABILITY
    active_from: datetime = field(default_factory=values.now)
    active_until: datetime | None = None
    based_on: str | None = None
    reason: str | None = None
    simulated: bool = False
    id: str = field(default_factory=new_id)

    _aliases: ClassVar[Mapping[str, str]] = {"profile_id": "id"}

    def __post_init__(self) -> None:
        self._settle(
            traits=check_traits("traits", self.traits, 0, 1),
            user_id=values.optional(values.identifier, "user_id", self.user_id),
            context=values.optional(values.identifier, "context", self.context),
            version=int(values.number("version", self.version, 1)),
            stability=values.number("stability", self.stability, 0, 1),
            active_from=values.moment("active_from", self.active_from),
            active_until=values.optional(values.moment, "active_until", self.active_until),
            based_on=values.optional(values.identifier, "based_on", self.based_on),
            reason=values.optional(values.text, "reason", self.reason),
            simulated=values.boolean("simulated", self.simulated),
            id=values.identifier("id", self.id),
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return a stored version.

        Raises:
            InvalidEntity: Another program stored it with traits that this one does not know; the
                message names the version.
        """
        try:
            return cls.from_dict(row)
        except InvalidEntity as error:
            raise InvalidEntity(
                f"Version {row.get('version')} of the personality of "
                f"{row.get('user_id') or 'everybody'}, {row.get('profile_id')!r}, was stored by "
                f"another program ({str(error).rstrip('.')}): state a new one with "
                "`lab.personality.add_profile()`, which ends it."
            ) from error

    @property
    def max_step(self) -> float:
        """The most that a trait may move in one change."""
        return round(1 - self.stability, _PLACES)

    def moved(self, steps: Mapping[str, float]) -> dict[str, float]:
        """Return the traits after a change.

        Args:
            steps: How far each trait moves.

        Raises:
            InvalidEntity: A step is no finite number, is larger than `max_step`, or is of a trait
                that the profile does not state; or the result is outside 0..1 or violates a rule.
        """
        checked = check_traits("step", dict(steps), -1, 1)
        traits = dict(self.traits)
        for name, step in checked.items():
            if name not in traits:
                raise InvalidEntity(
                    f"The profile states no {name}, so it cannot move: state it in a new version."
                )
            if round(abs(step), _PLACES) > self.max_step:
                raise InvalidEntity(
                    f"{name} would move by {abs(step):g}, and a stability of {self.stability:g} "
                    f"allows {self.max_step:g}: take a smaller step."
                )
            to = round(traits[name] + step, _PLACES)
            if not 0 <= to <= 1:
                raise InvalidEntity(
                    f"{name} would move from {traits[name]:g} to {to:g}, outside 0 to 1: take a "
                    "smaller step."
                )
            traits[name] = to
        check_rules(traits)
        return traits

    def successor(self, traits: Mapping[str, float], *, reason: str, **changed: Any) -> Profile:
        """Return a new version with other traits, made from this one.

        Args:
            traits: All traits of the new version.
            reason: Why it is made.
            changed: Other fields that differ, such as `user_id`.
        """
        return replace(
            self,
            traits=dict(traits),
            reason=reason,
            based_on=self.id,
            active_from=values.now(),
            active_until=None,
            id=new_id(),
            **changed,
        )


def active_profile(
    profiles: Iterable[Profile], user_id: str | None, context: str | None, at: datetime
) -> Profile | None:
    """Return the version that applies to a person in a context at a time, or None.

    A version for the person precedes one for everybody, and among these one for the context
    precedes one for every context. A version for 'evening' is also for 'evening/opening'. Of
    several versions that are alike, the one activated last applies, then the higher number.

    Args:
        profiles: The versions.
        user_id: The person; None for somebody without versions of their own.
        context: The context bucket; None for an unknown one.
        at: The time.
    """

    def rank(one: Profile) -> tuple[object, ...]:
        is_exact = one.context == context
        return (
            one.user_id is not None, one.context is not None, is_exact, one.active_from,
            one.version, one.id,
        )  # fmt: skip

    contexts = contexts_of(context)
    applying = [
        one
        for one in profiles
        if one.user_id in (None, user_id)
        and (one.context is None or one.context in contexts)
        and one.active_from <= at
        and (one.active_until is None or at < one.active_until)
    ]
    return max(applying, key=rank, default=None)


def contexts_of(context: str | None) -> tuple[str, ...]:
    """Return the contexts whose versions are for a context bucket: itself, and its first part."""
    return () if context is None else (context, context.partition("/")[0])


def check_rules(traits: Mapping[str, float]) -> None:
    """Raise InvalidEntity, which names them, if traits violate rules between them."""
    if broken := violated_rules(traits):
        named = "; ".join(f"{rule.name!r}: {rule.sentence} ({rule.source})" for rule in broken)
        raise InvalidEntity(f"The traits violate {named}: change other traits, too.")


ENDS: Final = ("rolled back", "kept", "refused")
STATUSES: Final = ("proposed", "applied", *ENDS)


@dataclass(frozen=True, slots=True)
class PersonalityChange(Entity):
    """A proposed change of a profile, and what became of it.

    Attributes:
        proposal: The whole proposal; its key `steps` says how far each trait moves.
        old_profile_id: The version that it was made on.
        user_id: The person whom it is for; None for everybody.
        context: The context that it is for; None for every context.
        status: 'proposed'; 'applied' while it is watched; 'rolled back', 'kept' or 'refused'.
        new_profile_id: The version that it made.
        generation: The generation of the snapshot that it was made from.
        reason: Why it was proposed, or refused.
        proposed_at: When it was proposed, UTC.
        applied_at: When it was applied, UTC.
        ended_at: When it ended, UTC.
        id: Unique among all changes.
    """

    proposal: dict[str, Any] = field(hash=False)
    old_profile_id: str
    user_id: str | None = None
    context: str | None = None
    status: str = "proposed"
    new_profile_id: str | None = None
    generation: int | None = None
    reason: str | None = None
    proposed_at: datetime = field(default_factory=values.now)
    applied_at: datetime | None = None
    ended_at: datetime | None = None
    id: str = field(default_factory=new_id)

    _aliases: ClassVar[Mapping[str, str]] = {"change_id": "id"}

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise InvalidEntity(f"status must be one of {', '.join(STATUSES)}.")
        self._settle(
            proposal=values.json_object("proposal", self.proposal),
            old_profile_id=values.identifier("old_profile_id", self.old_profile_id),
            user_id=values.optional(values.identifier, "user_id", self.user_id),
            context=values.optional(values.identifier, "context", self.context),
            new_profile_id=values.optional(
                values.identifier, "new_profile_id", self.new_profile_id
            ),
            reason=values.optional(values.text, "reason", self.reason),
            proposed_at=values.moment("proposed_at", self.proposed_at),
            applied_at=values.optional(values.moment, "applied_at", self.applied_at),
            ended_at=values.optional(values.moment, "ended_at", self.ended_at),
            id=values.identifier("id", self.id),
        )

    @property
    def steps(self) -> dict[str, float]:
        """How far each trait moves."""
        steps = self.proposal.get("steps")
        return dict(steps) if isinstance(steps, dict) else {}

    def reaches(self, user_id: str | None) -> bool:
        """Return whether it changes what a person experiences; None stands for everybody."""
        return None in (self.user_id, user_id) or self.user_id == user_id
