"""The part of a home to be erased: a person, a channel, a conversation, an import or a time."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Final, Literal, get_args

from aico_lab.domain import values
from aico_lab.errors import InvalidValue, UnknownName, WrongUse
from aico_lab.privacy.kept_rows import kept_ids, kept_rows
from aico_lab.zones import get_zone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.adapters.libsql import Connection

Kind = Literal["user", "channel", "conversation", "import", "before"]

_KNOWN: Final = {
    # Also people whose row was deleted, of whom feed, imports and older snapshots still know, and
    # those by whom a channel is named in which at most the companion's messages are left.
    "user": "SELECT user_id FROM users UNION SELECT user_id FROM messages "
    "UNION SELECT user_id FROM feedback_events UNION SELECT user_id FROM personality_profiles "
    "UNION SELECT other FROM relationships "
    "UNION SELECT row_key FROM import_rows WHERE table_name = 'users' "
    "UNION SELECT row_key FROM change_log WHERE table_name = 'users' AND row_key <> '' "
    "UNION SELECT substr(channel_id, 8) FROM channels WHERE channel_id GLOB 'direct:?*' "
    "AND channel_id NOT IN (SELECT channel_id FROM messages WHERE role = 'user')",
    "channel": "SELECT channel_id FROM channels",
    "conversation": "SELECT conversation_id FROM messages UNION "
    "SELECT conversation_id FROM feedback_events",
    "import": "SELECT import_id FROM imports",
}
"""SQL for the ids that there are."""

_NOUN: Final = {
    "user": "person",
    "channel": "channel",
    "conversation": "conversation",
    "import": "import",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of a home that is to be erased.

    Attributes:
        kind: What the value identifies.
        value: An id; for 'before' a time in UTC, ISO 8601 with microseconds.
    """

    kind: Kind
    value: str

    @classmethod
    def of(cls, given: Mapping[str, str | date | None], timezone: str) -> Scope:
        """Return the scope of the only given argument.

        Args:
            given: The arguments by kind; None for those that were not given.
            timezone: The zone in which a day without a time begins.

        Raises:
            WrongUse: None or several are given, or an id is empty.
            InvalidValue: 'before' is not a day or a time.
        """
        named = {kind: value for kind, value in given.items() if value is not None}
        if len(named) != 1:
            raise WrongUse(
                "Name one thing to forget: a user, a channel, a conversation, an import, or "
                "everything before a day."
            )
        ((kind, value),) = named.items()
        assert kind in get_args(Kind)  # noqa: S101 - of our own callers
        if kind == "before":
            return cls("before", _moment(value, timezone))
        if not isinstance(value, str) or not value:
            raise WrongUse(f"The id of the {_NOUN[kind]} is empty: name the one to forget.")
        return cls(kind, value)  # type: ignore[arg-type]

    def check(self, connection: Connection) -> None:
        """Raise UnknownName if the home has nothing with this id."""
        if self.kind == "before" or connection.fetch_one(
            f"SELECT 1 FROM ({_KNOWN[self.kind]}) AS known WHERE known.{_column(self.kind)} = ?",
            [self.value],
        ):
            return
        if self.value in kept_ids(connection, self.kind):
            return
        where = ": see `aico-lab sources --imports`" if self.kind == "import" else ""
        if self.kind == "import" and kept_rows(connection):
            where += (
                "; if rows of it are among the conflicts, `aico-lab federate resolve` ends them"
            )
        raise UnknownName(
            f"There is no {_NOUN[self.kind]} with the id {self.value!r} in this home{where}."
        )

    def hashed(self, key: bytes) -> dict[str, str]:
        """Return the scope as receipts have it, with a keyed hash instead of an id."""
        if self.kind in ("before", "import"):  # which identify nobody
            return {"kind": self.kind, "value": self.value}
        return {"kind": self.kind, "id_hmac": _digest(key, self.kind, self.value)}


def found(connection: Connection, hashed: Mapping[str, str], key: bytes) -> Scope | None:
    """Return the scope of a receipt, or None if the home has nothing with its id.

    Args:
        connection: The primary database.
        hashed: The scope as the receipt has it.
        key: The key of receipts.
    """
    kind = hashed["kind"]
    if kind == "before":
        return Scope("before", hashed["value"])
    if kind not in _KNOWN:  # of an erasure whose entry in the sealed file was lost
        return None
    stored = connection.fetch_all(f"SELECT CAST({_column(kind)} AS BLOB) FROM ({_KNOWN[kind]})")
    names = [value.decode(errors="surrogateescape") for (value,) in stored if value is not None]
    for name in (*names, *sorted(kept_ids(connection, kind))):
        if hashed.get("value", _digest(key, kind, name)) == (
            name if "value" in hashed else hashed["id_hmac"]
        ):
            return Scope(kind, name)  # type: ignore[arg-type]
    return None


def _column(kind: str) -> str:
    return f"{kind}_id"


def _digest(key: bytes, kind: str, value: str) -> str:
    said = f"{kind}\0{value}".encode(errors="surrogateescape")
    return hmac.new(key, said, hashlib.sha256).hexdigest()


def _moment(value: str | date, timezone: str) -> str:
    """Return a day or time in the form of stored times."""
    try:
        given = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise InvalidValue(f"{value!r} is not a day or a time: write it as 2024-05-01.") from None
    if not isinstance(given, datetime):
        given = datetime.combine(given, time())
    if given.tzinfo is None:
        given = given.replace(tzinfo=get_zone(timezone))
    return values.to_timestamp(given)
