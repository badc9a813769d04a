"""`lab.personality`: versions of the companion's personality, policies, and changes."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from aico_lab.dal import DataAccessLayer
from aico_lab.domain import Profile, values
from aico_lab.domain.personality import STABILITY, check_rules
from aico_lab.errors import UnknownName, did_you_mean
from aico_lab.home.files import private_files
from aico_lab.personality.changes import refuse_beside_others
from aico_lab.personality.contexts import bucket_of_message
from aico_lab.personality.policies import policy_of
from aico_lab.personality.stored_policies import StoredPolicy, add_policy
from aico_lab.repositories import UnitOfWork

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime
    from typing import Any

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
        user_id = self.person(user)
        return self.work(lambda uow: uow.profiles.get_active(user_id, context, at))

    def profiles(self, user: str | None = None) -> list[Profile]:
        """Return the versions for a person, or for everybody, in order of activation."""
        user_id = self.person(user)
        return self.work(lambda uow: uow.profiles.get_by_user(user_id))

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

        Args:
            traits: Values from 0 to 1 by trait; see `aico_lab.domain.personality.TRAITS`.
            reason: Why it is stated.
            user: The id or name of the person whom it is for; None for everybody.
            context: The context that it is for, such as 'evening'; None for every context.
            stability: From 0 to 1: a trait moves by at most `1 - stability` in one change.
            active_from: When it became active; None for now.

        Raises:
            UnknownName: There is no such person.
            InvalidEntity: A trait is unknown or outside 0..1, or traits violate a rule.
            ChangeRefused: A change for these people is watched.
        """
        profile = Profile(
            dict(traits),
            self.person(user),
            context,
            stability=stability,
            active_from=values.now() if active_from is None else active_from,
            reason=reason,
        )
        check_rules(profile.traits)

        async def add(uow: AbstractUnitOfWork) -> Profile:
            await refuse_beside_others(uow, profile.user_id)
            known = await uow.profiles.get_by_user(profile.user_id)
            same = [one for one in known if one.context == context and one.active_until is None]
            for one in same:
                await uow.profiles.end(one.id, max(profile.active_from, one.active_from))
            new = replace(
                profile,
                version=1 + max((one.version for one in known), default=0),
                based_on=same[-1].id if same else None,
            )
            await uow.profiles.save(new)
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

    def person(self, user: str | None) -> str | None:
        """Return the id of a person by id or name; None for None.

        Raises:
            UnknownName: There is no such person, or several have that name.
        """
        if user is None:
            return None
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
            "<Personality: .profile(), .add_profile(), .policy(NAME), .add_policy(), "
            ".context_of(MESSAGE_ID)>"
        )
