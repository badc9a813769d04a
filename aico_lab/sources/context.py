"""Assign each message of a file its user and its conversation, and count equal messages."""

from __future__ import annotations

from typing import Final

ASSUMED_USER: Final = "me"
"""The user of all messages in a file without user ids."""

NOBODYS: Final = "default"
"""The conversation of messages that name none, and that nobody is known to be in."""


class Occurrences:
    """Counts how often a message was seen lately, in bounded memory.

    Two generations of 50,000 messages are kept. An exact duplicate that comes later than that
    counts as the first of its kind again, gets the same derived id, and is stored once.
    """

    GENERATION: Final = 50_000

    def __init__(self) -> None:
        self._current: dict[bytes, int] = {}
        self._previous: dict[bytes, int] = {}

    def next(self, key: bytes) -> int:
        """Return how often `key` came before, and count it."""
        seen = self._current.get(key)
        if seen is None:
            seen = self._previous.get(key, 0)
        self._current[key] = seen + 1
        if len(self._current) >= self.GENERATION:
            self._previous, self._current = self._current, {}
        return seen


class Context:
    """The part of a file that was read so far, as far as the next message depends on it.

    Attributes:
        names_users: Whether any message of the file names a user. If so, a message that names none
            is nobody's (its account was deleted, say); if not, all are those of one person, `me`.
        occurrences: The messages without an id that were seen before.
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
        """Return the conversation and the channel of the next message.

        A missing conversation takes the id of the channel, and the reverse. Where neither is
        given, the conversation is that of the user; a message of the companion or the system that
        names no user is in the conversation of the person before it.
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
