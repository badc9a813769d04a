"""Choose passages by person and time, as searches and metrics do, and name people in results."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from aico_lab import period
from aico_lab.messages.named import find_ids
from aico_lab.zones import get_zone, to_local, to_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from aico_lab.adapters.libsql import Connection
    from aico_lab.embeddings.exploration.passages import ExploredPassages
    from aico_lab.period import Moment

NOTHING: Final = "No passage matches the filters."

# The order in which `mart.people` numbers people, so that pseudonyms are the same in all results.
_PEOPLE: Final = """
    SELECT CAST(m.user_id AS BLOB), CAST(u.name AS BLOB) FROM (
        SELECT user_id, CASE
            WHEN EXISTS (SELECT 1 FROM devices WHERE recipient IS NOT NULL) THEN min(timestamp)
            ELSE min(id) END AS first
        FROM messages WHERE user_id IS NOT NULL GROUP BY user_id
    ) AS m LEFT JOIN users AS u ON u.user_id = m.user_id ORDER BY m.first, m.user_id"""


@dataclass(frozen=True, eq=False)
class Selection:
    """The passages that some filters choose.

    Attributes:
        passages: The chosen passages.
        places: Their positions among all passages.
        people: The ids of the people that are chosen; empty for everybody.
        said: The filters as a part of a sentence, with pseudonyms; empty without filters.
    """

    passages: ExploredPassages
    places: NDArray[np.int64]
    people: frozenset[str]
    said: str


def select(
    primary: Connection,
    zone: str,
    passages: ExploredPassages,
    *,
    user: str | Sequence[str] | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
) -> Selection:
    """Return the passages that begin in a period and have a message of one of some people.

    Args:
        primary: The primary database.
        zone: The time zone of days.
        passages: All passages.
        user: The people, by id or name; None for all.
        since: The first day or moment, or a span back from the last passage; see `period.bounds`.
        until: The last day, which is included, or a moment.

    Raises:
        InvalidValue: A bound is not a time, the period ends before it begins, or `user` is empty.
        UnknownName: There is no such person.
    """
    times = moments_ms(passages)
    start, end = period.bounds(since, until, zone, recent_ms(times) if since is not None else 0)
    said: list[str] = []
    kept = np.isfinite(times)
    chosen: frozenset[str] = frozenset()
    if start is not None:
        kept &= times >= start
        said.append(f"from {_written(start, zone)} on")
    if until is not None and end is not None:
        kept &= times < end
        last = period.parsed("until", until)
        said.append(f"until {_written(end, zone) if isinstance(last, datetime) else last}")
    if user is not None:
        people = People(primary)
        chosen = frozenset(find_ids(primary, "user", user))
        kept &= np.array(
            [
                not chosen.isdisjoint(wrote + named)
                for wrote, named in zip(passages.writers, passages.named, strict=True)
            ],
            bool,
        )
        said.append(" and ".join(people.label(one) for one in sorted(chosen, key=people.number)))
    places = np.flatnonzero(kept)
    some = passages if kept.all() else passages.only(places.tolist())
    return Selection(some, places, chosen, ", ".join(said))


def moments_ms(passages: ExploredPassages) -> NDArray[np.float64]:
    """Return when each passage begins, in UTC milliseconds; NaN where the time is unreadable."""
    moments = pl.Series(passages.started, dtype=pl.String).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.fZ", strict=False, time_zone="UTC"
    )
    return moments.dt.epoch("ms").cast(pl.Float64).fill_null(float("nan")).to_numpy()


def recent_ms(times: NDArray[np.float64]) -> int:
    """Return the last of some times that is not in the future, or else now, in UTC ms."""
    now = to_ms(datetime.now(UTC))
    past = times[times <= now]
    return int(past.max()) if len(past) else now


def _written(ms: int, zone: str) -> str:
    local = to_local(ms, get_zone(zone))
    return f"{local:%Y-%m-%d}" if not (local.hour or local.minute) else f"{local:%Y-%m-%d %H:%M}"


class People:
    """The people of a home: their pseudonyms, such as "Person 3", and their names."""

    def __init__(self, primary: Connection) -> None:
        self._names = {
            id_.decode(errors="replace"): (name or b"").decode(errors="replace")
            for id_, name in primary.fetch_all(_PEOPLE)
        }
        self._numbers = {id_: number for number, id_ in enumerate(self._names, 1)}
        self._alike = Counter(self._names.values())

    def number(self, id_: str) -> int:
        """Return the number of a person, as in `mart.people`, from 1."""
        return self._numbers.get(id_, len(self._numbers) + 1)

    def label(self, id_: str, *, names: bool = False) -> str:
        """Return the pseudonym of a person.

        Args:
            id_: The person.
            names: Return the name instead, with the id if several have it; the id without a name.
        """
        if not names:
            return f"Person {self.number(id_)}"
        name = " ".join(self._names.get(id_, "").split())
        if not name:
            return id_
        return f"{name} ({id_})" if self._alike[self._names[id_]] > 1 else name
