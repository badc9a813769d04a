"""The people of the channels, and their profiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aico_lab.adapters.libsql import NOW
from aico_lab.channel_memory.messages import (
    foreign_forms,
    from_json,
    from_moment,
    to_id,
    to_json,
)
from aico_lab.channel_memory.rows import Row
from aico_lab.errors import UnknownUser

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from aico_lab.channel_memory.connections import ThreadConnections
    from aico_lab.channel_memory.messages import Id


@dataclass(frozen=True, slots=True)
class ChannelUser(Row):
    """A person who takes part in channels.

    Attributes:
        user_id: Unique among all users.
        name: The person's name, if known.
        created_at: When the user was stored, in UTC.
    """

    user_id: str
    name: str | None
    created_at: datetime


class UserManager:
    """Reads and writes `users` and `user_profiles` of a channel memory."""

    def __init__(self, connections: ThreadConnections) -> None:
        self._connections = connections

    def get_or_create_user(self, user_id: Id, name: str | None = None) -> ChannelUser:
        """Return a user; create one if the id is new.

        Args:
            user_id: The user's id.
            name: The person's name; stored if no name is known yet.

        Raises:
            CorruptDatabase: Another program wrote a malformed time.
        """
        with self._connections.transaction() as connection:
            connection.execute(
                f"INSERT INTO users (user_id, name, created_at) VALUES (?, ?, {NOW}) "
                "ON CONFLICT (user_id) DO UPDATE SET name = excluded.name "
                "WHERE name IS NULL AND excluded.name IS NOT NULL",
                [to_id(user_id), name],
            )
            [(stored_name, created_at)] = connection.fetch_all(
                "SELECT name, created_at FROM users WHERE user_id = ?", [to_id(user_id)]
            )
        with foreign_forms("users"):
            return ChannelUser(to_id(user_id), stored_name, from_moment(created_at))

    def get_profile(self, user_id: Id) -> dict[str, Any]:
        """Return the profile of a user, which is empty for a new user.

        Raises:
            UnknownUser: No user has this id.
            CorruptDatabase: Another program wrote a profile that is not a JSON object.
        """
        rows = self._connections.read(
            "SELECT profile FROM users LEFT JOIN user_profiles USING (user_id) WHERE user_id = ?",
            [to_id(user_id)],
        )
        if not rows:
            raise UnknownUser("There is no user with this id: call get_or_create_user first.")
        with foreign_forms("user_profiles"):
            return from_json(rows[0][0])

    def update_profile(self, user_id: Id, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Set some keys of a user's profile, and keep the others.

        Of two concurrent updates both take effect, unless they set the same key.

        Args:
            user_id: The user's id.
            changes: The new JSON values by key.

        Returns:
            The whole updated profile.

        Raises:
            UnknownUser: No user has this id.
            InvalidEntity: A value is not a JSON value.
        """
        for name, value in changes.items():
            to_json(f"field {name!r}", {name: value})  # so that an error names the field
        with self._connections.transaction() as connection:
            profile = to_json("profile", {**self.get_profile(user_id), **changes})
            connection.execute(
                f"INSERT INTO user_profiles VALUES (?, ?, {NOW}) ON CONFLICT (user_id) "
                "DO UPDATE SET profile = excluded.profile, updated_at = excluded.updated_at",
                [to_id(user_id), profile],
            )
        return from_json(profile)
