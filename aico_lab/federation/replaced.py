"""Bundles whose rows are in newer ones, so that all devices remove their files.

A *state* is a series of bundles in a stream of its own, which have rows in the versions that they
came in. A signed statement names its last bundle, and the bundles that the state replaces. A device
that has taken in the state counts those as taken in, and removes their files; a device that cannot
read the class removes them as soon as it passes the state on.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aico_lab.federation.bundles import FileName, parse_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aico_lab.federation.replica import Replica

UNKNOWN_CTX: Final = "null"
"""The stored context of a bundle that came only as a part of a state."""

_HASH: Final = re.compile("[0-9a-f]{32}")


class Link(NamedTuple):
    """A bundle in the chain of its stream."""

    stream: str
    n: int
    hash: str
    prev: str

    @property
    def file(self) -> str:
        """The name of the bundle's file."""
        return str(FileName(self.stream, self.n, self.hash))


def replacement(class_: str, state: FileName, links: Iterable[Link]) -> dict[str, Any]:
    """Return the statement that a state replaces bundles of a class."""
    bundles = sorted(map(list, links))
    return {"kind": "replace", "class": class_, "state": str(state), "bundles": bundles}


def receive(replica: Replica, statement: Mapping[str, Any]) -> None:
    """Store a statement that a state replaces bundles.

    Raises:
        Refused: A name is not that of a bundle.
        KeyError, TypeError, ValueError: The statement is malformed.
    """
    state = parse_name(statement["state"])
    links = [Link(*one) for one in statement["bundles"]]
    for link in links:
        if type(link.n) is not int or not _HASH.fullmatch(link.prev):
            raise ValueError("is no bundle")
        parse_name(link.file)
    replica.connection.execute(
        "INSERT INTO sync_states VALUES (?, ?, ?, 0) ON CONFLICT DO NOTHING",
        [str(state), str(statement["class"]), json.dumps(links)],
    )
    # What this device has forgotten, because it was restored from a backup, was in these streams.
    own = replica.own_streams()
    known = _chain_of(replica, own)
    for stream in {one.stream for one in links if one.stream in own and one.file not in known}:
        replica.begin_stream(own[stream])


def _chain_of(replica: Replica, streams: Iterable[str]) -> set[str]:
    rows = replica.connection.fetch_all(
        "SELECT stream, n, hash FROM sync_chain "
        "WHERE stream IN (SELECT value FROM json_each(?))",
        [json.dumps(sorted(streams))],
    )  # fmt: skip
    return {str(FileName(*row)) for row in rows}


def take_effect(replica: Replica) -> set[str]:
    """Count as taken in what newly taken in states replace; return the names of those files."""
    connection = replica.connection
    gone: set[str] = set()
    for file, class_, text in connection.fetch_all(
        "SELECT file, class, bundles FROM sync_states WHERE is_complete = 0"
    ):
        if not connection.fetch_one(
            "SELECT 1 FROM sync_chain WHERE stream = ? AND n = ? AND hash = ?", [*parse_name(file)]
        ):
            continue
        links = _links(text)
        there = sum((replica.spool.folder / link.file).exists() for link in links)
        with connection.transaction():
            connection.execute(
                "INSERT INTO sync_chain SELECT value ->> 0, value ->> 1, value ->> 2, "
                f"value ->> 3, ?, '{UNKNOWN_CTX}' FROM json_each(?) WHERE true "
                "ON CONFLICT DO NOTHING",
                [class_, text],
            )
            connection.execute("UPDATE sync_states SET is_complete = 1 WHERE file = ?", [file])
            # A state also names what the states before it had replaced.
            connection.execute(
                "DELETE FROM sync_states WHERE is_complete = 1 "
                "AND file IN (SELECT value FROM json_each(?))",
                [json.dumps([link.file for link in links])],
            )
            if there:
                device = parse_name(file).device
                replica.audit("federation.compacted", device, f"bundles of {class_}: {there:,}")
        gone |= {link.file for link in links}
    return gone


def names(replica: Replica) -> set[str]:
    """Return the names of the files that this device needs and passes on no longer."""
    states = replica.connection.fetch_all(
        "SELECT file, class, bundles, is_complete FROM sync_states"
    )
    if not states:
        return set()
    held = {c for c, devices in replica.entitled().items() if replica.device_id in devices}
    return {
        link.file
        for file, class_, text, is_complete in states
        if is_complete or (class_ not in held and (replica.spool.folder / file).exists())
        for link in _links(text)
    }


def known(replica: Replica) -> list[dict[str, Any]]:
    """Return the statements on states that this device knows of."""
    return [
        replacement(class_, parse_name(file), _links(text))
        for file, class_, text in replica.connection.fetch_all(
            "SELECT file, class, bundles FROM sync_states ORDER BY file"
        )
    ]


def states(replica: Replica) -> dict[FileName, list[Link]]:
    """Return the last bundles of the states that were taken in, with what they replace."""
    return {
        parse_name(file): _links(text)
        for file, text in replica.connection.fetch_all(
            "SELECT file, bundles FROM sync_states WHERE is_complete = 1"
        )
    }


def _links(text: str) -> list[Link]:
    return [Link(*one) for one in json.loads(text)]
