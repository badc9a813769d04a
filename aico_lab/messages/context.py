"""Assign each message of a file a user and a conversation, and count equal messages."""

from __future__ import annotations

from typing import Final

ASSUMED_USER: Final = "me"
"""The user assigned to the messages of a file without user ids."""

NOBODYS: Final = "default"
"""The conversation of messages that name neither a conversation nor a user."""


class Occurrences:
    """Counts recent occurrences of equal messages, in bounded memory.

    Two generations of 50,000 messages are kept. An exact duplicate that comes later counts as the
    first occurrence again; it gets the same derived id, and so is stored once.
    """

    GENERATION: Final = 50_000

    def __init__(self) -> None:
        self._current: dict[bytes, int] = {}
        self._previous: dict[bytes, int] = {}

    def next(self, key: bytes) -> int:
        """Return the number of earlier occurrences of `key`, and count this one."""
        seen = self._current.get(key)
        if seen is None:
            seen = self._previous.get(key, 0)
        self._current[key] = seen + 1
        if len(self._current) >= self.GENERATION:
            self._previous, self._current = self._current, {}
        return seen


class Context:
    """The state of reading a file on which the next message depends.

    Attributes:
        names_users: Whether any message of the file names a user. If so, messages without a user
            have none (a deleted account, for example); if not, all belong to one person, `me`.
        occurrences: The counts of messages without an id.
    """

    def __init__(self, *, names_users: bool) -> None:
        self.names_users = names_users
        self.occurrences = Occurrences()
        nobody_yet = NOBODYS if names_users else f"direct:{ASSUMED_USER}"
        self._before = (nobody_yet, nobody_yet)

    def author(self, role: str, user_id: str | None) -> str | None:
        """Return the given user, or `me` if the file names no users."""
        if user_id is None and not self.names_users and role != "system":
            return ASSUMED_USER
        return user_id

    def place(
        self, role: str, user_id: str | None, conversation_id: str | None, channel_id: str | None
    ) -> tuple[str, str]:
        """Return the conversation id and the channel id of the next message.

        A missing conversation id is that of the channel, and vice versa. If both are missing, the
        conversation is that of the user; a message by the companion or the system without a user
        is in the conversation of the last message that names a user or has the role user.
        """
        given = conversation_id or channel_id
        if given is None and user_id is None and role != "user":
            return self._before
        if given is None:
            given = NOBODYS if user_id is None else f"direct:{user_id}"
        place = (conversation_id or given, channel_id or given)
        if user_id is not None or role == "user":
            self._before = place
        return place
