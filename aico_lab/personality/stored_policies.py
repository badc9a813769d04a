"""Policies whose state is in the primary database, for companions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from aico_lab.adapters.libsql import NOW
from aico_lab.domain import Profile, values
from aico_lab.domain.personality import active_profile
from aico_lab.errors import (
    CorruptDatabase,
    DomainError,
    DuplicateId,
    InvalidValue,
    UnknownName,
    did_you_mean,
)
from aico_lab.messages.simulated import is_simulated
from aico_lab.personality.policies import Choice, policy_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from aico_lab.adapters.libsql import Connection
    from aico_lab.personality.policies import ArmPolicy, State


class StoredPolicy:
    """Chooses arms for a companion, and learns; the state is in the primary database.

    ::

        policy = lab.personality.policy("style", seed=1)
        choice = policy.choose("evening/opening")
        ...                                   # answer in the style `choice.arm`
        policy.record(message_id, choice)     # once the answer is stored
        policy.learn(1.0)                     # once its outcome is known

    Attributes:
        name: The policy's id.
        policy: The rule, with its arms and parameters.
        user_id: The person whom it is for; None for everybody.
    """

    def __init__(self, primary: Connection, name: str, *, seed: int | None = None) -> None:
        """Open a policy.

        Args:
            primary: The primary database.
            name: The policy's id.
            seed: Makes the choices repeatable, for the same state; None draws anew each time.

        Raises:
            UnknownName: There is no such policy, or this program does not know its kind.
            InvalidValue: The seed is not a whole number from 0 on.
            CorruptDatabase: Its stored arms or parameters are invalid.
        """
        if seed is not None:
            values.whole_number("The seed", seed, 0)
        self._primary = primary
        self.name = name
        row = primary.fetch_one(
            "SELECT kind, parameters, user_id, rounds FROM personality_policies "
            "WHERE policy_id = ?",
            [name := values.identifier("The name of a policy", name)],
        )
        if row is None:
            known = [
                one for (one,) in primary.fetch_all("SELECT policy_id FROM personality_policies")
            ]
            end = did_you_mean(name, known, ": add it with `lab.personality.add_policy()`.")
            raise UnknownName(f"There is no policy {name!r}{end}")
        kind, parameters, self.user_id, rounds = row
        self.policy: ArmPolicy = readable_policy(name, kind, parameters)
        self._rng = np.random.default_rng(None if seed is None else [seed, rounds])
        self._last: Choice | None = None

    @property
    def rounds(self) -> int:
        """The number of outcomes that it has learned from."""
        return self._read()[1]

    @property
    def state(self) -> State:
        """The state that it has learned so far."""
        return self._read()[0]

    def choose(
        self, context: str | None = None, *, features: Mapping[str, float] | None = None
    ) -> Choice:
        """Choose an arm by the present state.

        Args:
            context: The context bucket, such as `lab.personality.context_of(MESSAGE)`.
            features: Numbers that describe the situation, by name.

        Raises:
            InvalidValue: A feature is no finite number.
            InvalidEntity: The context is no text.
            CorruptDatabase: The stored state is damaged.
        """
        self._last = self.policy.choose(
            self.state, self._rng, context=context, features=features, name=self.name
        )
        return self._last

    def learn(self, outcome: float, choice: Choice | None = None) -> None:
        """Learn from the outcome of a choice, without losing what other processes learn.

        Every call counts: a choice with two outcomes counts twice.

        Args:
            outcome: From 0 to 1; feedback f of -1, 0 or 1 is `(f + 1) / 2`.
            choice: The choice; None for the last one.

        Raises:
            InvalidValue: The outcome is not a number from 0 to 1, or another policy made the
                choice; the state is unchanged.
            UnknownName: Nothing was chosen yet.
            CorruptDatabase: The stored state is damaged.
        """
        made = self._made(choice)
        while True:
            state, rounds = self._read()
            after = self.policy.learned(
                state, made.arm, outcome, context=made.context, features=made.features
            )
            # Only the state that was read is replaced; if another process was first, once more.
            if self._primary.fetch_all(
                f"UPDATE personality_policies SET state = ?, rounds = rounds + 1, "
                f"updated_at = {NOW} WHERE policy_id = ? AND rounds = ? RETURNING rounds",
                [values.compact_json(after), self.name, rounds],
            ):
                return

    def record(self, message_id: str, choice: Choice | None = None) -> None:
        """Write a choice as the decision on a stored message of the companion.

        Record each choice once: on a further message the arm was not chosen again, so its
        probability would be wrong.

        Args:
            message_id: The id of the message.
            choice: The choice; None for the last one.

        Raises:
            UnknownName: No message has that id, or nothing was chosen yet.
            InvalidValue: It is a message of a person, or another policy made the choice.
            DuplicateId: A decision on the message is recorded already.
        """
        made, primary = self._made(choice), self._primary
        with primary.transaction():
            row = primary.fetch_one(
                "SELECT user_id, conversation_id, timestamp, role FROM messages "
                "WHERE message_id = ?",
                [values.identifier("message_id", message_id)],
            )
            if row is None:
                raise UnknownName(f"No message has the id {message_id!r}: store the message first.")
            user_id, conversation_id, stamp, role = row
            if role != "assistant":
                raise InvalidValue(
                    f"The message {message_id!r} is not the companion's: record the decision on "
                    "its answer."
                )
            moment = values.from_timestamp("timestamp", stamp)
            profile = profile_of(primary, user_id, made.context, moment)
            written = primary.fetch_all(
                "INSERT INTO personality_decisions (message_id, user_id, conversation_id, "
                "profile_id, policy, context, features, arms, arm, propensity, propensity_kind, "
                "decided_at, simulated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (message_id) DO NOTHING RETURNING message_id",
                [
                    message_id,
                    user_id,
                    conversation_id,
                    profile,
                    self.name,
                    made.context,
                    values.compact_json(dict(made.features)) if made.features else None,
                    values.compact_json(dict(made.probabilities)),
                    made.arm,
                    made.propensity,
                    made.kind,
                    stamp,
                    int(is_simulated(primary)),
                ],
            )
            if not written:
                raise DuplicateId("A decision on that message is recorded already: record it once.")

    def _made(self, choice: Choice | None) -> Choice:
        made = self._last if choice is None else choice
        if made is None:
            raise UnknownName("Nothing was chosen yet: call choose() first.")
        if not isinstance(made, Choice):
            raise InvalidValue(f"A choice is what choose() returned, not {type(made).__name__}.")
        if made.policy not in (None, self.name) or set(made.probabilities) != set(self.policy.arms):
            raise InvalidValue(
                f"The choice was not made by the policy {self.name!r}: pass it to the policy that "
                "made it."
            )
        return made

    def _read(self) -> tuple[State, int]:
        row = self._primary.fetch_one(
            "SELECT state, rounds FROM personality_policies WHERE policy_id = ?", [self.name]
        )
        if row is None:
            raise UnknownName(f"The policy {self.name!r} was removed: add it again.")
        return _object(self.name, row[0]), row[1]

    def __repr__(self) -> str:
        return (
            f"<StoredPolicy {self.name!r}, {self.policy.kind}, {len(self.policy.arms)} arms: "
            ".choose(CONTEXT), .record(MESSAGE_ID), .learn(OUTCOME)>"
        )


def add_policy(
    primary: Connection, name: str, policy: ArmPolicy, *, user_id: str | None = None
) -> None:
    """Store a new policy that has learned nothing yet.

    Raises:
        InvalidEntity: The name is no text, or empty.
        DuplicateId: A policy with that id exists already.
    """
    values.identifier("The name of a policy", name)
    if not primary.fetch_all(
        "INSERT INTO personality_policies (policy_id, user_id, kind, parameters, state, "
        f"updated_at) VALUES (?, ?, ?, ?, '{{}}', {NOW}) "
        "ON CONFLICT (policy_id) DO NOTHING RETURNING policy_id",
        [name, user_id, policy.kind, values.compact_json(policy.stored())],
    ):
        raise DuplicateId(f"A policy {name!r} exists already: use another name.")


def profile_of(
    primary: Connection, user_id: str | None, context: str | None, at: datetime
) -> str | None:
    """Return the id of the version that applies to a person in a context at a time, or None.

    Its traits are not read, as other programs may have stored traits that this one does not know.
    """
    rows = primary.fetch_dicts(
        "SELECT profile_id, user_id, context, version, active_from, active_until "
        "FROM personality_profiles WHERE user_id IS NULL OR user_id = ?",
        [user_id],
    )
    profiles = [Profile.from_dict({**row, "traits": {}}) for row in rows]
    found = active_profile(profiles, user_id, context, at)
    return None if found is None else found.id


def readable_policy(name: str, kind: str, parameters: str) -> ArmPolicy:
    """Return the rule of a stored policy.

    Raises:
        UnknownName: This program does not know its kind.
        CorruptDatabase: Its arms or parameters are invalid.
    """
    try:
        return policy_of(kind, _object(name, parameters))
    except (DomainError, InvalidValue) as error:
        raise CorruptDatabase(
            f"The stored policy {name!r} is invalid ({error}): restore it from a backup, or add "
            "another one."
        ) from error


def _object(name: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CorruptDatabase(f"The policy {name!r} is no JSON object: restore it from a backup.")
    return found
