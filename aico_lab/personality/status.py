"""The state of the personality, and how watched changes do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.domain import PersonalityChange, Profile
    from aico_lab.personality.watching import Recommendation, Watch


@dataclass(frozen=True, slots=True)
class WatchedChange:
    """An applied change, and how it does.

    Attributes:
        change: The change.
        recommendation: 'keep', 'roll back' or 'wait'.
        reason: Why, in one sentence.
        watch: The changes of the outcomes; None before there are decisions in a snapshot.
    """

    change: PersonalityChange
    recommendation: Recommendation
    reason: str
    watch: Watch | None


@dataclass(frozen=True, slots=True)
class PersonalityStatus:
    """The state of the personality for a person, or for everybody.

    Attributes:
        profile: The version that applies; None if there is none.
        broken_rules: The rules between traits that it violates.
        decisions: The number of decisions about the person, or about everybody.
        with_propensity: The number of these whose probability was logged.
        policies: The policies: their names, kinds, people and rounds.
        proposed: Proposals that can be applied.
        watched: Applied changes, with what to do.
        simulated: Whether the home's data are simulated.
    """

    profile: Profile | None
    broken_rules: tuple[str, ...]
    decisions: int
    with_propensity: int
    policies: tuple[Mapping[str, Any], ...]
    proposed: tuple[PersonalityChange, ...]
    watched: tuple[WatchedChange, ...]
    simulated: bool
