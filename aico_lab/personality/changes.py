"""Changes of profiles: apply a proposal, and keep or roll back what was applied.

Each function works in an open unit of work, which the caller commits: the new version, the record
of the change and the event `personality.profile.changed` are one transaction, or nothing is. It
holds the write lock from its beginning, so that of two tuners one finds what the other did.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from aico_lab.domain import PersonalityChange, values
from aico_lab.errors import ChangeRefused, InvalidEntity, UnknownName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.domain import Profile
    from aico_lab.repositories.unit_of_work import AbstractUnitOfWork

CHANGED: Final = "personality.profile.changed"
"""The topic of the event that follows every change of a profile."""


async def apply_change(uow: AbstractUnitOfWork, change_id: str) -> PersonalityChange:
    """Write the new version that a proposal asks for, and return the change, which is now watched.

    Raises:
        UnknownName: There is no such proposal.
        ChangeRefused: It was applied or refused before, its profile is another version now, or
            another change is watched.
        InvalidEntity: A step is out of bounds, or the new traits violate a rule.
    """
    change = await change_of(uow, change_id)
    if change.status != "proposed":
        raise ChangeRefused(f"The proposal {change.id} was {_was(change)}: make a new one.")
    refuse_among(await uow.personality_changes.all(), change.user_id)
    old = await uow.profiles.get_active(change.user_id, change.context)
    if old is None or old.id != change.old_profile_id:
        raise ChangeRefused(
            f"The proposal {change.id} was made on another version of the profile than the present "
            "one: make a new one with `aico-lab personality propose`."
        )
    new = await _next(uow, change, old, old.moved(_bounded(change)), change.reason or "proposal")
    await _put(uow, change, old, new)
    done = replace(change, status="applied", new_profile_id=new.id, applied_at=new.active_from)
    await uow.personality_changes.save(done)
    await refuse_stale(uow)
    await _publish(uow, done, old.id, new.id)
    return done


async def roll_back_change(uow: AbstractUnitOfWork, change_id: str) -> PersonalityChange:
    """Restore the traits from before a watched change, and return the change.

    If the change made the first version of a narrower scope, such as a person's own one, that
    version ends, so that the wider one applies again; else a new version has the former traits.

    Raises:
        UnknownName: There is no such change.
        ChangeRefused: It is not watched, or the profile was changed again since.
    """
    change = await _watched(uow, change_id)
    present = await uow.profiles.get_active(change.user_id, change.context)
    before = await uow.profiles.get_by_id(change.old_profile_id)
    if present is None or present.id != change.new_profile_id or before is None:
        raise ChangeRefused(
            f"The profile was changed again since {change.id}, so nothing was rolled back: propose "
            "a change of the present version."
        )
    if not _is_of(before, change):
        await uow.profiles.end(present.id, values.now())
        return await _close(uow, change, before)
    reason = f"rolled back {change.id}"
    restored = await _next(uow, change, present, before.traits, reason)
    await _put(uow, change, present, restored)
    return await _close(uow, change, restored)


async def keep_change(uow: AbstractUnitOfWork, change_id: str) -> PersonalityChange:
    """End the watch of a change whose version stays, and return the change.

    Raises:
        UnknownName: There is no such change.
        ChangeRefused: It is not watched.
    """
    change = await _watched(uow, change_id)
    return await _ended(uow, change, "kept")


def refuse_among(changes: Sequence[PersonalityChange], user_id: str | None) -> None:
    """Raise ChangeRefused if a change is watched that reaches a person, or anybody for None."""
    for other in changes:
        if other.status == "applied" and other.reaches(user_id):
            raise ChangeRefused(
                f"The change {other.id} is watched, and two at once could not be told apart: first "
                "`aico-lab personality keep` or `aico-lab personality rollback`."
            )


async def refuse_stale(uow: AbstractUnitOfWork) -> None:
    """Refuse the open proposals whose version of the profile no longer applies."""
    for one in await uow.personality_changes.all():
        if one.status != "proposed":
            continue
        active = await uow.profiles.get_active(one.user_id, one.context)
        if active is None or active.id != one.old_profile_id:
            await _ended(uow, one, "refused")


async def save_proposal(uow: AbstractUnitOfWork, proposal: PersonalityChange) -> None:
    """Save a proposal, which replaces an open one for the same person and context."""
    await refuse_stale(uow)
    for one in await uow.personality_changes.all():
        same = (one.user_id, one.context) == (proposal.user_id, proposal.context)
        if one.status == "proposed" and same:
            await _ended(uow, one, "refused")
    await uow.personality_changes.save(proposal)


async def change_of(uow: AbstractUnitOfWork, change_id: str) -> PersonalityChange:
    """Return a change by its id, or by the beginning of it that no other has.

    Raises:
        UnknownName: There is no such change, or there are several.
    """
    return find_change(await uow.personality_changes.all(), change_id)


def find_change(changes: Sequence[PersonalityChange], change_id: str) -> PersonalityChange:
    """Return one of some changes, as `change_of`.

    Raises:
        UnknownName: There is no such change, or there are several.
    """
    values.identifier("The id of a change", change_id)
    found = [one for one in changes if one.id == change_id] or [
        one for one in changes if one.id.startswith(change_id)
    ]
    if len(found) != 1:
        count = f"{len(found)} changes begin" if found else "No change begins"
        raise UnknownName(f"{count} with {change_id!r}: see `aico-lab personality status`.")
    return found[0]


async def _watched(uow: AbstractUnitOfWork, change_id: str) -> PersonalityChange:
    change = await change_of(uow, change_id)
    if change.status != "applied":
        raise ChangeRefused(
            f"The change {change.id} was {_was(change)}: only a watched change can be kept or "
            "rolled back."
        )
    return change


def _was(change: PersonalityChange) -> str:
    at = change.ended_at or change.applied_at or change.proposed_at
    return f"{change.status} on {at:%Y-%m-%d %H:%M} UTC"


def _bounded(change: PersonalityChange) -> dict[str, float]:
    """Return the steps of a proposal, none larger than the proposal's own bound."""
    largest = change.proposal.get("max_step", 1)
    if not change.steps:
        raise InvalidEntity(f"The proposal {change.id} moves no trait: make a new one.")
    for name, step in change.steps.items():
        if isinstance(step, int | float) and not abs(step) <= largest:
            raise InvalidEntity(f"{name} would move by more than {largest:g}: make a new proposal.")
    return change.steps


def _is_of(profile: Profile, change: PersonalityChange) -> bool:
    """Return whether a version is for the same person and context as a change."""
    return (profile.user_id, profile.context) == (change.user_id, change.context)


async def _next(
    uow: AbstractUnitOfWork,
    change: PersonalityChange,
    present: Profile,
    traits: dict[str, float],
    reason: str,
) -> Profile:
    """Return the version that follows the present one, not saved yet."""
    known = await uow.profiles.get_periods(change.user_id)
    number = 1 + max((one.version for one in known), default=0)
    return present.successor(
        traits, reason=reason, user_id=change.user_id, context=change.context, version=number
    )


async def _put(
    uow: AbstractUnitOfWork, change: PersonalityChange, present: Profile, new: Profile
) -> None:
    """Save a new version; the present one ends, unless it is of a wider scope."""
    if _is_of(present, change):
        await uow.profiles.end(present.id, new.active_from)
    await uow.profiles.save(new)


async def _close(
    uow: AbstractUnitOfWork, change: PersonalityChange, active: Profile
) -> PersonalityChange:
    """End a change that was rolled back, after which another version is active."""
    done = await _ended(uow, change, "rolled back")
    await refuse_stale(uow)
    await _publish(uow, done, change.new_profile_id, active.id)
    return done


async def _ended(
    uow: AbstractUnitOfWork, change: PersonalityChange, status: str
) -> PersonalityChange:
    done = replace(change, status=status, ended_at=values.now())
    await uow.personality_changes.save(done)
    return done


async def _publish(
    uow: AbstractUnitOfWork, change: PersonalityChange, before: str | None, after: str
) -> None:
    await uow.publish(
        CHANGED,
        {
            "change_id": change.id,
            "status": change.status,
            "user_id": change.user_id,
            "context": change.context,
            "old_profile_id": before,
            "new_profile_id": after,
        },
    )
