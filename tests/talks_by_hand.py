"""Turns, sessions, people and times of reply, by plain Python from raw messages.

It follows the definitions in words (`aico_lab.mart.definitions`) and none of their code, so that
metrics can be compared with it. Words and questions are found by other expressions than DuckDB's.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict, deque
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from scipy import stats

from aico_lab.messages.sentiment import score
from aico_lab.metrics.engine.intervals import FEWEST
from aico_lab.sources import chitchat
from tests import text_by_hand
from tests.talks import MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
    from datetime import date

    from aico_lab.metrics.engine.answer import Answer

HALF_AN_HOUR = 30 * 60_000

T = TypeVar("T")
Key = TypeVar("Key", bound="Hashable")


class Said(NamedTuple):
    """A message and its place; `person` is the one who talks with the companion."""

    id: int
    conversation: str
    channel: str
    person: str | None
    role: str
    ts_ms: int
    turn: int
    session: int
    gap_ms: int | None
    reply_ms: int | None
    recorded_ms: int | None
    is_estimated: bool
    reply_is_estimated: bool
    words: tuple[str, ...]
    asks: bool
    sentiment: float | None


class Turn(NamedTuple):
    """The consecutive messages of one side."""

    conversation: str
    turn: int
    session: int
    person: str | None
    role: str
    started_ms: int
    ended_ms: int
    reply_ms: int | None
    recorded_ms: int | None
    reply_is_estimated: bool
    end_is_estimated: bool
    messages: tuple[Said, ...]


class Session(NamedTuple):
    """Messages without a long silence between them."""

    conversation: str
    session: int
    person: str | None
    started_ms: int
    ended_ms: int
    started_by: str
    ended_by: str
    n_turns: int
    messages: tuple[Said, ...]


_RECENT: deque[tuple[pl.DataFrame, int, list[Said]]] = deque(maxlen=4)
"""Cached, since many tests use the same conversations."""


def messages_of(raw: pl.DataFrame, gap_ms: int = HALF_AN_HOUR) -> list[Said]:
    """Return the messages of people and the companion, by conversation and in order.

    Args:
        raw: Rows of `tests.talks.MESSAGES`, in any order.
        gap_ms: A longer silence begins a session. Turns end after half an hour whatever it is.
    """
    for known, its_gap_ms, messages in _RECENT:
        if known is raw and its_gap_ms == gap_ms:
            return messages
    talked = [
        row
        for row in raw.iter_rows(named=True)
        if row["role"] != "system" and "missing_since" not in (row["metadata"] or "")
    ]
    talked.sort(key=lambda row: (row["conversation_id"], row["timestamp"], row["id"]))
    messages = [
        message
        for _, rows in grouped(talked, lambda row: row["conversation_id"])
        for message in _in_places(rows, gap_ms)
    ]
    _RECENT.append((raw, gap_ms, messages))
    return messages


def turns_of(messages: Iterable[Said]) -> list[Turn]:
    """Return the turns of messages."""
    return [
        Turn(
            conversation,
            turn,
            said[0].session,
            min((m.person for m in said if m.person is not None), default=None),
            said[0].role,
            said[0].ts_ms,
            said[-1].ts_ms,
            said[0].reply_ms,
            said[0].recorded_ms,
            said[0].reply_is_estimated,
            said[-1].is_estimated,
            tuple(said),
        )
        for (conversation, turn), said in grouped(messages, lambda m: (m.conversation, m.turn))
    ]


def sessions_of(messages: Iterable[Said]) -> list[Session]:
    """Return the sessions of messages, by the gap with which the messages were placed."""
    return [
        Session(
            conversation,
            session,
            min(
                (m.person for m in said if m.role == "user" and m.person is not None),
                default=min((m.person for m in said if m.person is not None), default=None),
            ),
            said[0].ts_ms,
            said[-1].ts_ms,
            said[0].role,
            said[-1].role,
            len({m.turn for m in said}),
            tuple(said),
        )
        for (conversation, session), said in grouped(
            messages, lambda m: (m.conversation, m.session)
        )
    ]


def sessions_of_people(messages: Iterable[Said], gap_ms: int = HALF_AN_HOUR) -> list[Session]:
    """Return the sessions of each person across conversations; without a person, of each one."""
    made = []
    in_order = sorted(messages, key=lambda m: (m.ts_ms, m.conversation))  # which keeps their places
    whose = grouped(in_order, lambda m: (m.person, m.person or m.conversation))
    for (person, name), theirs in whose:
        stretches: list[list[Said]] = []
        for message in theirs:
            if stretches and message.ts_ms - stretches[-1][-1].ts_ms <= gap_ms:
                stretches[-1].append(message)
            else:
                stretches.append([message])
        for number, said in enumerate(stretches):
            made.append(
                Session(
                    name,
                    number,
                    person,
                    said[0].ts_ms,
                    said[-1].ts_ms,
                    said[0].role,
                    said[-1].role,
                    len({(m.conversation, m.turn) for m in said}),
                    tuple(said),
                )
            )
    return made


def grouped(rows: Iterable[T], key: Callable[[T], Key]) -> Iterator[tuple[Key, list[T]]]:
    """Return rows grouped by a key, keys and rows in the order of their first occurrence."""
    groups: defaultdict[Key, list[T]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    yield from groups.items()


def smallest_reaching(values: Iterable[int], share: float) -> int | None:
    """Return the smallest value that is no smaller than a share of all values."""
    ordered = sorted(values)
    reaching = (v for i, v in enumerate(ordered, 1) if i >= share * len(ordered) - 1e-9)
    return next(reaching, None)


def units_of(turns: list[Turn]) -> list[tuple[str, str]]:
    """Return the unit of each turn: its person if there are several, else its conversation."""
    several = len({turn.person for turn in turns if turn.person is not None}) > 1
    return [
        ("person", turn.person)
        if several and turn.person is not None
        else ("conversation", turn.conversation)
        for turn in turns
    ]


def median_interval_by_hand(
    values: Sequence[int], units: Sequence[Hashable]
) -> tuple[int | None, int | None]:
    """Return Woodruff's interval with Satterthwaite's degrees of freedom."""
    ordered, n = sorted(values), len(set(units))
    if n < FEWEST:
        return None, None
    median = ordered[math.ceil(len(values) / 2) - 1]
    share = sum(value <= median for value in values) / len(values)
    apart: defaultdict[Hashable, float] = defaultdict(float)
    for value, unit in zip(values, units, strict=True):
        apart[unit] += (value <= median) - share
    squares = sum(a**2 for a in apart.values())
    kurtosis = n * sum(a**4 for a in apart.values()) / squares**2
    freedom = min(n - 1, max(2, 2 * n / (kurtosis - (n - 3) / (n - 1))))
    reach = stats.t.ppf(0.975, freedom) * math.sqrt(squares * n / (n - 1)) / len(values)

    def value_at(at: float) -> int:
        return ordered[max(math.ceil(min(max(at, 0), 1) * len(values) - 1e-9), 1) - 1]

    return value_at(0.5 - reach), value_at(0.5 + reach)


def start_of(day: date, unit: str) -> date:
    """Return the first day of the period: the day, the Monday, or the first of the month."""
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def following(start: date, unit: str) -> date:
    """Return the first day of the next period."""
    if unit == "month":
        return (start + timedelta(days=31)).replace(day=1)
    return start + timedelta(days=7 if unit == "week" else 1)


def is_complete(start: date, unit: str, zone: str, first: datetime, last: datetime) -> bool:
    """Return whether a period lies between two moments."""
    return _begins(start, zone) >= first and _begins(following(start, unit), zone) <= last


@functools.cache
def _begins(day: date, zone: str) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def mean(values: Iterable[float]) -> float | None:
    """Return the mean, or None without values."""
    taken = list(values)
    return sum(taken) / len(taken) if taken else None


def assert_rows(answer: Answer, expected: list[dict[str, Any]]) -> None:
    """Assert that an answer has these rows; columns that they lack are not compared."""
    columns = list(expected[0]) if expected else []
    found = answer.pl().select(columns).to_dicts() if expected else answer.pl().to_dicts()
    assert len(found) == len(expected), (answer.metric.name, found, expected)
    for one, other in zip(found, expected, strict=True):
        for name in columns:
            value = other[name]
            if isinstance(value, float):
                value = pytest.approx(value, rel=1e-9, abs=1e-12)
            assert one[name] == value, (answer.metric.name, name, one, other)


@functools.cache
def real_messages(limit: int = 20_000) -> pl.DataFrame:
    """Return the first of the real conversations, as `tests.talks.World` takes them."""
    records = [record for batch in chitchat.read(limit=limit) for record in batch.messages]
    columns = [name for name in MESSAGES if name not in {"id", "timestamp"}]
    rows = [
        {
            "id": number,
            "timestamp": record.timestamp,
            **{name: getattr(record, name) for name in columns},
        }
        for number, record in enumerate(score(records), 1)
    ]
    return pl.DataFrame(rows, schema={**MESSAGES, "timestamp": pl.String}).with_columns(
        pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC")
    )


def _in_places(rows: list[dict[str, Any]], gap_ms: int) -> Iterator[Said]:
    """Return the messages of one conversation, in their order."""
    times = [int(row["timestamp"].timestamp() * 1000 + 0.0005) for row in rows]
    gaps = [None, *(after - before for before, after in pairwise(times))]
    people = [_person(rows, place) for place in range(len(rows))]
    turn = session = -1
    for place, (row, gap) in enumerate(zip(rows, gaps, strict=True)):
        side = row["role"], people[place]
        begins = (
            gap is None
            or gap > HALF_AN_HOUR
            or side != (rows[place - 1]["role"], people[place - 1])
        )
        turn += begins
        session += gap is None or gap > gap_ms
        before = _answered(rows, people, place)
        estimated = [at is not None and _is_estimated(rows[at]) for at in (place, before)]
        guess = before is not None and any(estimated)
        if guess:
            before = None
        recorded = row["response_time"]
        yield Said(
            id=row["id"],
            conversation=row["conversation_id"],
            channel=row["channel_id"],
            person=people[place],
            role=row["role"],
            ts_ms=times[place],
            turn=turn,
            session=session,
            gap_ms=gap,
            reply_ms=None if before is None else times[place] - times[before],
            recorded_ms=None if before is None or recorded is None else round(recorded * 1000),
            is_estimated=estimated[0],
            reply_is_estimated=guess,
            words=tuple(text_by_hand.small_words_of(row["content"])),
            asks=text_by_hand.is_question(row["content"]),
            sentiment=row["sentiment_score"],
        )


def _is_estimated(row: dict[str, Any]) -> bool:
    return '"timestamp_estimated": true' in (row["metadata"] or "")


def _person(rows: list[dict[str, Any]], place: int) -> str | None:
    """Return the person who wrote a message, or to whom the companion wrote it.

    That is the person whom a message of the companion names, if this person wrote before; else the
    person who wrote last; and before anybody wrote, the person whom the first message names.
    """
    names = rows[place]["user_id"]
    users = [row["user_id"] for row in rows[: place + 1] if row["role"] == "user"]
    if rows[place]["role"] == "user" or (names is not None and names in users):
        return names
    return users[-1] if users else rows[0]["user_id"]


def _answered(rows: list[dict[str, Any]], people: list[str | None], place: int) -> int | None:
    """Return the place of the message that a message answers, or None.

    It is the last one between the person and the companion, if the other side wrote it.
    """
    by_user = rows[place]["role"] == "user"
    if by_user and all(row["role"] != "user" for row in rows[:place]):
        return place - 1 if place else None
    back = (at for at in range(place - 1, -1, -1) if people[at] == people[place])
    before = next(back, None)
    return None if before is None or rows[before]["role"] == rows[place]["role"] else before
