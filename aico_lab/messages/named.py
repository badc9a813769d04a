"""Find people and channels by their ids or names."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final, Literal

from aico_lab.errors import InvalidValue, UnknownName, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.adapters.libsql import Connection

_NAMES: Final = {
    "user": "SELECT CAST(user_id AS BLOB), CAST(name AS BLOB) FROM users",
    "channel": "SELECT CAST(channel_id AS BLOB), CAST(name AS BLOB) FROM channels",
}


def find_ids(
    primary: Connection, kind: Literal["user", "channel"], given: str | Sequence[str]
) -> tuple[str, ...]:
    """Return the ids of people or channels that are given by id or name.

    Raises:
        InvalidValue: The value is no id, name, or list of them, or an empty list.
        UnknownName: One is unknown.
    """
    wanted = [given] if isinstance(given, str) else given
    if not isinstance(wanted, Collection) or not all(isinstance(one, str) for one in wanted):
        raise InvalidValue(f"{kind} must be an id or a name, or a list of them, not {given!r}.")
    if not wanted:
        raise InvalidValue(f"The list of {kind}s is empty: leave it out for all.")
    by_name: dict[str, list[str]] = {}
    for raw_id, raw_name in primary.fetch_all(_NAMES[kind]):
        id_ = raw_id.decode(errors="replace")
        by_name.setdefault(id_, []).append(id_)
        if raw_name and (name := raw_name.decode(errors="replace")) != id_:
            by_name.setdefault(name, []).append(id_)
    unknown = [one for one in wanted if one not in by_name]
    if unknown:
        end = did_you_mean(str(unknown[0]), by_name, ".")
        raise UnknownName(f"There is no {kind} {unknown[0]!r}{end}")
    return tuple(dict.fromkeys(id_ for one in wanted for id_ in by_name[one]))
