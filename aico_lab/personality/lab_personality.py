"""`lab.personality`: versions of the companion's personality, policies, and changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from aico_lab.dal import DataAccessLayer
from aico_lab.domain import PersonalityChange, Profile, values
from aico_lab.domain.personality import (
    STABILITY,
    check_rules,
    violated_rules,
)
from aico_lab.errors import (
    ChangeRefused,
    CorruptDatabase,
    InvalidEntity,
    UnknownName,
    did_you_mean,
)
from aico_lab.home.files import private_files
from aico_lab.messages.simulated import is_simulated
from aico_lab.metrics.engine.filters import Filters
from aico_lab.personality.candidates import of_context, of_policy, of_version
from aico_lab.personality.change_log import change_logs
from aico_lab.personality.changes import (
    apply_change,
    find_change,
    keep_change,
    refuse_among,
    refuse_stale,
    roll_back_change,
    save_proposal,
)
from aico_lab.personality.contexts import bucket_of_message
from aico_lab.personality.log import read_log
from aico_lab.personality.outcomes import outcome_of
from aico_lab.personality.policies import policy_of
from aico_lab.personality.proposals import GUARDRAILS, Proposal, check_step, draft, unwatchable
from aico_lab.personality.status import PersonalityStatus, WatchedChange
from aico_lab.personality.stored_policies import (
    StoredPolicy,
    add_policy,
    profile_of,
    readable_policy,
)
from aico_lab.personality.watching import ALONE, watch
from aico_lab.repositories import UnitOfWork
from aico_lab.results import json_text
from aico_lab.zones import to_ms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from aico_lab.personality.log import Log
    from aico_lab.repositories.unit_of_work import AbstractUnitOfWork
    from aico_lab.storage import Storage

Result = TypeVar("Result")


class Personality:
    """Holds the companion's personality, lets it choose styles, and tunes it with evidence."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def profile(
        self,
        user: str | None = None,
        context: str | None = None,
        at: datetime | None = None,
    ) -> Profile | None:
        """Return the version that applies to a person in a context, or None.

        A version for the person precedes one for everybody, and among these one for the context
        precedes one for every context.

        Args:
            user: The id or name of the person; None for somebody without own versions.
            context: The context bucket, such as 'evening'; None for an unknown one.
            at: The time; None for now.

        Raises:
            UnknownName: There is no such person.
            InvalidEntity: Another program stored traits that this one does not know.
        """
        moment = values.now() if at is None else values.moment("at", at)
        values.optional(values.identifier, "context", context)
        primary = self._storage.primary
        found = profile_of(primary, self.person(user), context, moment)
        rows = primary.fetch_dicts(
            "SELECT * FROM personality_profiles WHERE profile_id = ?", [found]
        )
        return Profile.from_row(rows[0]) if rows else None

    def profiles(self, user: str | None = None) -> list[Profile]:
        """Return the versions for a person, or for everybody, in order of activation."""
        rows = self._storage.primary.fetch_dicts(
            "SELECT * FROM personality_profiles WHERE user_id IS ? "
            "ORDER BY active_from, version, profile_id",
            [self.person(user)],
        )
        return [Profile.from_row(row) for row in rows]

    @private_files()
    def add_profile(
        self,
        traits: Mapping[str, float],
        *,
        reason: str,
        user: str | None = None,
        context: str | None = None,
        stability: float = STABILITY,
        active_from: datetime | None = None,
    ) -> Profile:
        """State the personality by hand; the version before for the same person and context ends.

        A version of another program that would begin later never begins.

        Args:
            traits: Values from 0 to 1 by trait; see `aico_lab.domain.personality.TRAITS`.
            reason: Why it is stated.
            user: The id or name of the person whom it is for; None for everybody.
            context: The context that it is for, such as 'evening'; None for every context.
            stability: From 0 to 1: a trait moves by at most `1 - stability` in one change.
            active_from: When it became active: after the version before, and not in the future;
                None for now.

        Raises:
            UnknownName: There is no such person.
            InvalidEntity: A trait is unknown or outside 0..1, or traits violate a rule, or there
                is no trait or no reason, or the time lies in the future.
            ChangeRefused: A change for these people is watched, or the time does not follow that of
                the version before.
        """
        now = values.now()
        profile = Profile(
            dict(traits) if isinstance(traits, Mapping) else traits,
            self.person(user),
            context,
            stability=stability,
            active_from=now if active_from is None else active_from,
            reason=values.identifier("reason", reason),
            simulated=is_simulated(self._storage.primary),
        )
        if not profile.traits:
            raise InvalidEntity("A profile needs traits: state at least one.")
        if profile.active_from > now:
            raise InvalidEntity("active_from lies in the future: state it once it applies.")
        check_rules(profile.traits)

        async def add(uow: AbstractUnitOfWork) -> Profile:
            refuse_among(await uow.personality_changes.all(), profile.user_id)
            known = await uow.profiles.get_periods(profile.user_id)
            same = [one for one in known if one.context == context]
            begun = [one for one in same if one.active_from <= now]
            if begun and begun[-1].active_from >= profile.active_from:
                raise ChangeRefused(
                    f"Version {begun[-1].version} began on {begun[-1].active_from:%Y-%m-%d %H:%M} "
                    "UTC, and a version only follows another: let the new one begin later."
                )
            for one in same:
                await uow.profiles.end(one.id, max(profile.active_from, one.active_from))
            new = replace(
                profile,
                version=1 + max((one.version for one in known), default=0),
                based_on=begun[-1].id if begun else None,
            )
            await uow.profiles.save(new)
            await refuse_stale(uow)
            return new

        return self.work(add, commit=True)

    @private_files()
    def add_policy(
        self,
        name: str,
        kind: str,
        arms: Mapping[str, Mapping[str, float]] | Sequence[str],
        *,
        user: str | None = None,
        **parameters: Any,
    ) -> StoredPolicy:
        """Store a new policy, and return it.

        Args:
            name: Its id.
            kind: 'fixed', 'epsilon-greedy', 'thompson' or 'linear-thompson'; see
                `aico_lab.personality.policies`.
            arms: The styles or skills; as a mapping, each with the steps of traits that it stands
                for, such as `{"warmer": {"warmth": 0.1}, "as is": {}}`.
            user: The id or name of the person whom it is for; None for everybody.
            parameters: `floor`, and the parameters of the kind, such as `epsilon`.

        Raises:
            UnknownName: There is no such kind or person.
            InvalidValue: An arm or a parameter is invalid.
            DuplicateId: A policy with that id exists already.
        """
        policy = policy_of(kind, {"arms": arms, **parameters})
        add_policy(self._storage.primary, name, policy, user_id=self.person(user))
        return self.policy(name)

    def policy(self, name: str, *, seed: int | None = None) -> StoredPolicy:
        """Return a stored policy, with which a companion chooses and learns.

        Args:
            name: Its id.
            seed: Makes the choices repeatable; None draws anew each time.

        Raises:
            UnknownName: There is no such policy, or this program does not know its kind.
        """
        return StoredPolicy(self._storage.primary, name, seed=seed)

    def context_of(self, message_id: str) -> str:
        """Return the context bucket of a stored message, such as 'evening/opening'.

        It has the part of the day in the person's zone (the preference `timezone`, or else the
        lab's), the place in the session, and the theme if there is an exploration.

        Raises:
            UnknownName: No message has that id.
        """
        return bucket_of_message(self._storage.primary, message_id, self._storage.timezone)

    @private_files()
    def propose(
        self,
        goal: str = "satisfaction",
        *,
        max_step: float = 0.1,
        user: str | None = None,
        context: str | None = None,
        policy: str | None = None,
        dry_run: bool = False,
    ) -> Proposal:
        """Propose a bounded change of the profile from the newest snapshot, and store it.

        The evidence are the `decisions` of one policy. A stored proposal replaces an open one for
        the same person and context.

        Args:
            goal: The outcome to improve; see `aico_lab.personality.outcomes`.
            max_step: The most that a trait may move.
            user: The id or name of the person whom it is for; None for everybody.
            context: The context that it is for, such as 'evening'; None for every context.
            policy: The policy whose arms are compared; None for the one that `decisions` takes.
            dry_run: Store nothing.

        Returns:
            The proposal. Its `change_id` is None if nothing is proposed, or in a dry run.

        Raises:
            UnknownName: There is no such outcome, person, context or policy.
            InvalidValue: The step is not above 0 and at most 1.
            ChangeRefused: There is no profile yet, or a change for these people is watched.
            NeverSynced: There is no snapshot yet.
        """
        check_step(max_step)
        user_id, outcome = self.person(user), outcome_of(goal)

        refuse_among(self.changes(), user_id)
        profile = self.profile(user_id, context)
        if profile is None:
            raise ChangeRefused(
                "There is no profile to change yet: state one with `lab.personality.add_profile()`."
            )
        log = self.decisions(outcome.name, user=user_id, context=context, policy=policy)
        chosen = next(iter(log.policies), None)
        others = [
            self.decisions(name, user=user_id, context=context, policy=policy)
            for name in GUARDRAILS
            if name != outcome.name
        ]
        arms = self._arms().get(chosen or "", {})
        made = draft(log, others, arms, profile, max_step)
        proposal = Proposal.of(made, profile, log, max_step, user_id=user_id, context=context)
        if made.best is None or dry_run:
            return proposal
        change = PersonalityChange(
            json.loads(json_text(proposal)),
            profile.id,
            user_id,
            context,
            generation=log.generation,
            reason=proposal.sentence,
        )
        self.work(lambda uow: save_proposal(uow, change), commit=True)
        return replace(proposal, change_id=change.id)

    def decisions(
        self,
        outcome: str = "satisfaction",
        *,
        user: str | None = None,
        context: str | None = None,
        policy: str | None = None,
        filters: Filters | None = None,
    ) -> Log:
        """Return the decisions on which a proposal rests, with their outcomes.

        These are the decisions of one policy under the version of the personality that applies now
        (see `aico_lab.personality.candidates.of_version`). Policies for one person each, with the
        same arms and steps, count as one.

        Args:
            outcome: The outcome; see `aico_lab.personality.outcomes`.
            user: The id or name of the person whose version it is; None for everybody's.
            context: The context, such as 'evening'; None for every context.
            policy: The policy; None for the one whose arms move traits, and which made most of
                these decisions.
            filters: Which decisions: `since`, `until`, `user` and `channel`; None for all.

        Raises:
            UnknownName: There is no such outcome, person, context or policy.
            NeverSynced: There is no snapshot yet.
        """
        profile = self.profile(user, context)
        whole = read_log(self._storage.reader, outcome, filters or Filters())
        log = of_version(of_context(whole, context), profile, self._periods(), values.now())
        known = self._arms()
        made = np.bincount(log.policy, minlength=len(log.policies))
        counts = dict.fromkeys(known, 0) | dict(zip(log.policies, made.tolist(), strict=True))
        if policy is not None and policy not in counts:
            end = did_you_mean(str(policy), counts, f": there is {', '.join(counts) or 'none'}.")
            raise UnknownName(f"There is no policy {policy!r}{end}")

        if policy is not None:
            return of_policy(log, policy, known.get(policy, {}))
        personal = {
            name
            for (name,) in self._storage.primary.fetch_all(
                "SELECT policy_id FROM personality_policies WHERE user_id IS NOT NULL"
            )
        }
        alike: dict[str, list[str]] = {}
        for name in sorted(counts, key=lambda one: (-counts[one], one)):
            question = json_text(known[name]) if name in personal & known.keys() else name
            alike.setdefault(question, []).append(name)

        def rank(names: Sequence[str]) -> tuple[object, ...]:
            moves, made = any(known.get(names[0], {}).values()), sum(counts[one] for one in names)
            return (moves and made > 0, made > 0, moves, made, names[0])

        chosen = max(alike.values(), key=rank, default=None)
        if chosen is None:
            return log
        also = [name for name in chosen[1:] if counts[name]]
        return of_policy(log, chosen[0], known.get(chosen[0], {}), also)

    def show(self, change_id: str) -> PersonalityChange:
        """Return a change by its id, or by the beginning of it.

        Raises:
            UnknownName: There is no such change, or there are several.
        """
        return find_change(self.changes(), change_id)

    @private_files()
    def apply(self, change_id: str, *, dry_run: bool = False) -> PersonalityChange:
        """Apply a proposal: write the new version of the profile, which is then watched.

        Args:
            change_id: The id of the proposal, or its beginning.
            dry_run: Do everything, and undo it.

        Raises:
            UnknownName: There is no such proposal.
            ChangeRefused: It was applied or refused before, its profile is another version now,
                another change is watched, or it could not be watched. The profiles are unchanged.
            InvalidEntity: A step is out of bounds, or the new traits violate a rule.
        """
        change = self.show(change_id)
        # What concerns one person is never decided, however long it is watched.
        if self._is_open(change) and change.user_id is None:
            logs = change_logs(self._storage.reader, change)
            if logs and (why := unwatchable(logs)) is not None:
                raise ChangeRefused(f"Nothing was applied, as {why}; log on, and propose later.")
        return self.work(lambda uow: apply_change(uow, change_id), commit=not dry_run)

    @private_files()
    def rollback(self, change_id: str | None = None, *, dry_run: bool = False) -> PersonalityChange:
        """Restore the traits from before a watched change.

        Args:
            change_id: The id of the change, or its beginning; None for the only watched one.
            dry_run: Do everything, and undo it.

        Raises:
            UnknownName: There is no such change.
            ChangeRefused: It is not watched, or the profile was changed again since.
        """
        named = change_id or self._only_watched()
        return self.work(lambda uow: roll_back_change(uow, named), commit=not dry_run)

    @private_files()
    def keep(self, change_id: str | None = None, *, dry_run: bool = False) -> PersonalityChange:
        """End the watch of a change whose version stays.

        Args:
            change_id: The id of the change, or its beginning; None for the only watched one.
            dry_run: Do everything, and undo it.

        Raises:
            UnknownName: There is no such change.
            ChangeRefused: It is not watched.
        """
        named = change_id or self._only_watched()
        return self.work(lambda uow: keep_change(uow, named), commit=not dry_run)

    def changes(self, user: str | None = None) -> list[PersonalityChange]:
        """Return the proposals and changes, the latest first.

        Args:
            user: The id or name of a person, for those that reach them; None for all.

        Raises:
            UnknownName: There is no such person.
        """
        user_id = self.person(user)
        rows = self._storage.primary.fetch_dicts(
            "SELECT * FROM personality_changes ORDER BY proposed_at DESC, change_id"
        )
        return [one for one in map(PersonalityChange.from_dict, rows) if one.reaches(user_id)]

    def status(self, user: str | None = None, context: str | None = None) -> PersonalityStatus:
        """Return the profile, what was logged, the proposals, and how watched changes do.

        Args:
            user: The id or name of a person; None for everybody.
            context: The context bucket; None for every context.

        Raises:
            UnknownName: There is no such person.
        """
        primary, user_id = self._storage.primary, self.person(user)
        profile = self.profile(user_id, context)
        known = self.changes(user_id)
        (decisions, with_propensity), simulated = (
            primary.fetch_all(
                "SELECT count(*), count(propensity) FROM personality_decisions "
                "WHERE ?1 IS NULL OR user_id = ?1",
                [user_id],
            )[0],
            is_simulated(primary),
        )
        policies = primary.fetch_dicts(
            "SELECT policy_id AS name, kind, user_id, rounds FROM personality_policies "
            "ORDER BY policy_id"
        )
        return PersonalityStatus(
            profile=profile,
            broken_rules=tuple(
                f"{rule.name}: {rule.sentence}"
                for rule in violated_rules({} if profile is None else profile.traits)
            ),
            decisions=decisions,
            with_propensity=with_propensity,
            policies=tuple(policies),
            proposed=tuple(one for one in known if self._is_open(one)),
            watched=tuple(self._watched(one) for one in known if one.status == "applied"),
            simulated=simulated,
        )

    def _is_open(self, change: PersonalityChange) -> bool:
        """Return whether a change can be applied; before this version stale ones stayed."""
        now, primary = values.now(), self._storage.primary
        return change.status == "proposed" and change.old_profile_id == profile_of(
            primary, change.user_id, change.context, now
        )

    def _periods(self) -> list[Profile]:
        """Return all versions of everybody, without traits."""
        rows = self._storage.primary.fetch_dicts("SELECT * FROM personality_profiles")
        return [Profile.from_row({**row, "traits": {}}) for row in rows]

    def _watched(self, change: PersonalityChange) -> WatchedChange:
        """Return a change with what its watch recommends."""
        logs, applied = change_logs(self._storage.reader, change), change.applied_at
        if applied is None or not logs:
            none = "There is no snapshot with decisions yet."
            return WatchedChange(change, "wait", ALONE if change.user_id else none, None)
        found = watch(logs[0], to_ms(applied), guardrails=logs[1:])
        return WatchedChange(change, found.recommendation, found.reason, found)

    def _arms(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return the arms of each stored policy, with their steps, that this program can read."""
        rows = self._storage.primary.fetch_all(
            "SELECT policy_id, kind, parameters FROM personality_policies ORDER BY policy_id"
        )
        found = {}
        for name, kind, parameters in rows:
            with suppress(CorruptDatabase, UnknownName):
                found[name] = readable_policy(name, kind, parameters).arms
        return found

    def _only_watched(self) -> str:
        watched = [one.id for one in self.changes() if one.status == "applied"]
        if len(watched) != 1:
            many = f"{len(watched)} changes are watched" if watched else "No change is watched"
            raise ChangeRefused(f"{many}: see `aico-lab personality status`.")
        return watched[0]

    def person(self, user: str | None) -> str | None:
        """Return the id of a person by id or name; None for None.

        Raises:
            UnknownName: There is no such person, or several have that name.
        """
        if user is None:
            return None
        values.identifier("user", user)
        rows = self._storage.primary.fetch_all(
            "SELECT user_id, user_id = ?1 FROM users WHERE user_id = ?1 OR name = ?1 "
            "ORDER BY 2 DESC",
            [user],
        )
        if rows and (rows[0][1] or len(rows) == 1):
            return str(rows[0][0])
        if rows:
            raise UnknownName(f"{len(rows)} people have the name {user!r}: give the id of one.")
        known = [one for (one,) in self._storage.primary.fetch_all("SELECT user_id FROM users")]
        raise UnknownName(f"There is no person {user!r}{did_you_mean(user, known, '.')}")

    def work(
        self, do: Callable[[AbstractUnitOfWork], Awaitable[Result]], *, commit: bool = False
    ) -> Result:
        """Return the result of a function in a unit of work, which is rolled back or committed.

        It runs in a thread, since a notebook has an event loop of its own.

        Args:
            do: The function.
            commit: Whether to commit.
        """
        _ = self._storage.primary  # opening it brings the schema up to date

        async def run() -> Result:
            dal = DataAccessLayer(self._storage.adapter, max_connections=1)
            try:
                async with UnitOfWork(dal) as uow:
                    result = await do(uow)
                    if commit:
                        await uow.commit()
                    return result
            finally:
                await dal.close()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, run()).result()

    def __repr__(self) -> str:
        return (
            "<Personality: .status(), .profile(), .add_profile(), .policy(NAME), .add_policy(), "
            ".context_of(MESSAGE_ID), .propose(GOAL), .apply(ID), .keep(), .rollback()>"
        )
