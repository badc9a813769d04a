"""Find people and channels by their ids or names."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Final, Literal

from aico_lab.errors import InvalidValue, UnknownName, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aico_lab.adapters.libsql import Connection

_NAMES: Final = {
    "user": "SELECT CAST(user_id AS BLOB), CAST(name AS BLOB) FROM users {some}",
    "channel": "SELECT CAST(channel_id AS BLOB), CAST(name AS BLOB) FROM channels {some}",
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
    by_name = _by_name(primary, kind, wanted)
    unknown = [one for one in wanted if one not in by_name]
    if unknown:
        known = _by_name(primary, kind, None)
        end = did_you_mean(
            str(unknown[0]), known, f": give an id or a name of the table `{kind}s`."
        )
        raise UnknownName(f"There is no {kind} {unknown[0]!r}{end}")
    return tuple(dict.fromkeys(id_ for one in wanted for id_ in by_name[one]))


def _by_name(
    primary: Connection, kind: str, wanted: Collection[str] | None
) -> dict[str, list[str]]:
    """Return the ids of people or channels by id and by name, of some of these or of all."""
    some = ""
    if wanted is not None:
        some = "WHERE {kind}_id IN ({given}) OR name IN ({given})".format(
            kind=kind, given="SELECT value FROM json_each(?1)"
        )
    found: dict[str, list[str]] = {}
    for raw_id, raw_name in primary.fetch_all(
        _NAMES[kind].format(some=some), [] if wanted is None else [json.dumps(list(wanted))]
    ):
        id_ = raw_id.decode(errors="replace")
        found.setdefault(id_, []).append(id_)
        if raw_name and (name := raw_name.decode(errors="replace")) != id_:
            found.setdefault(name, []).append(id_)
    return found
