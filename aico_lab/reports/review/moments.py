"""A person's messages in a period: hours, words, the kindest exchange, first messages, themes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aico_lab.constants import FIRST_PLAUSIBLE_MS
from aico_lab.messages.vader import is_purely_positive

if TYPE_CHECKING:
    from aico_lab.lab import Lab

KIND: Final = 0.05
"""The lowest sentiment score of a kind message; VADER calls such messages positive."""

_TO_YOU: Final = r"\b(you|your|yours|thanks|thank)\b"

LONGEST: Final = 280
"""The most characters of a message that the page quotes."""

_MOST: Final = 0.9
"""The lowest share of a person's messages whose words can be counted, if any number is told."""


@dataclass(frozen=True)
class OwnMessages:
    """The messages of a person in a period.

    Attributes:
        user: The person's id.
        since_ms: The start of the period, in UTC milliseconds; None for the beginning.
        until_ms: Its end, which does not belong to it; None for the end.
    """

    user: str
    since_ms: int | None
    until_ms: int | None

    @property
    def values(self) -> dict[str, Any]:
        """The values of the condition below."""
        return {"user": self.user, "since": self.since_ms, "until": self.until_ms}


_SELECTED: Final = (
    "m.user_id = $user AND m.ts_ms >= coalesce($since, m.ts_ms) "
    "AND m.ts_ms < coalesce($until, m.ts_ms + 1)"
)


@dataclass(frozen=True)
class Exchange:
    """A message and the reply right after it.

    Attributes:
        ts_ms: The time of the message, in UTC milliseconds.
        message: The text of the person's message.
        reply: The text of the companion's reply.
    """

    ts_ms: int
    message: str
    reply: str


@dataclass(frozen=True)
class OwnTheme:
    """A theme of a person's messages.

    Attributes:
        name: The words that name the theme.
        messages: The number of the person's messages about it in the period.
        first_ms: The time of the first of them, in UTC milliseconds.
        is_new: Whether the person has no earlier message about it.
    """

    name: str
    messages: int
    first_ms: int
    is_new: bool


def exact_hours(lab: Lab, chosen: OwnMessages) -> list[int]:
    """Return the number of messages of each local hour of the day, from 0 to 23.

    Messages whose times are estimated, before 1990 or in the future do not count.
    """
    rows = _rows(
        lab,
        f"""
        SELECT hour((make_timestamp(m.ts_ms * 1000) AT TIME ZONE 'UTC') AT TIME ZONE $zone),
            count(*)
        FROM mart.messages m
        WHERE {_SELECTED} AND NOT m.is_estimated AND m.ts_ms >= $first
            AND m.ts_ms <= epoch_ms(now())
        GROUP BY 1""",
        {**chosen.values, "zone": lab.timezone, "first": FIRST_PLAUSIBLE_MS},
    )
    counts = dict(rows)
    return [counts.get(hour, 0) for hour in range(24)]


def own_words(lab: Lab, chosen: OwnMessages) -> tuple[int, int] | None:
    """Return the number of the person's words, and of the messages that have them.

    Returns:
        The numbers; None if the words of too many messages cannot be counted, as in Chinese, which
        puts no spaces between them.
    """
    ((words, counted, n),) = _rows(
        lab,
        f"""
        SELECT coalesce(sum(m.n_words), 0)::BIGINT, count(m.n_words), count(*)
        FROM mart.messages m WHERE m.role = 'user' AND {_SELECTED}""",
        chosen.values,
    )
    return (words, counted) if n and counted >= _MOST * n else None


def kindest_exchange(lab: Lab, chosen: OwnMessages) -> Exchange | None:
    """Return the exchange in which the less positive message is the most positive.

    Both messages have a positive sentiment score, at most `LONGEST` characters, and neither a
    negative word nor a negation, as in 'a terrible film' or 'I don't love it'. Each speaks to the
    other side, by 'you' or 'thanks'. The reply is the next message of the conversation. Of several
    exchanges, the one with the higher sum of both scores, then the earliest, is returned.

    Returns:
        The exchange; None if there is none.
    """
    rows = _rows(
        lab,
        f"""
        WITH m AS (FROM mart.messages m SELECT * WHERE {_SELECTED})
        SELECT one.ts_ms, said.content, answered.content
        FROM m AS one
        JOIN m AS other ON other.conversation_id = one.conversation_id
            AND other.msg_idx = one.msg_idx + 1
        JOIN mart.texts AS said ON said.id = one.id
        JOIN mart.texts AS answered ON answered.id = other.id
        WHERE one.role = 'user' AND other.role = 'assistant'
            AND one.sentiment_score >= $kind AND other.sentiment_score >= $kind
            AND greatest(one.n_chars, other.n_chars) <= $longest
            AND regexp_matches(said.content, $to_you, 'i')
            AND regexp_matches(answered.content, $to_you, 'i')
        ORDER BY least(one.sentiment_score, other.sentiment_score) DESC,
            one.sentiment_score + other.sentiment_score DESC, one.ts_ms, one.id""",
        {**chosen.values, "kind": KIND, "longest": LONGEST, "to_you": _TO_YOU},
    )
    for ts_ms, message, reply in rows:
        if is_purely_positive(message) and is_purely_positive(reply):
            return Exchange(ts_ms, message, reply)
    return None


def first_message(lab: Lab, chosen: OwnMessages) -> tuple[int, str] | None:
    """Return time and text of the person's first message in the period; None without any."""
    rows = _rows(
        lab,
        f"""
        SELECT m.ts_ms, t.content FROM mart.messages m JOIN mart.texts t USING (id)
        WHERE m.role = 'user' AND {_SELECTED} ORDER BY m.ts_ms, m.id LIMIT 1""",
        chosen.values,
    )
    return rows[0] if rows else None


def themes_of(lab: Lab, chosen: OwnMessages) -> list[OwnTheme]:
    """Return the themes of the person's messages, most messages first; empty if none are known.

    Outliers, which have little to do with their theme, do not count.
    """
    rows = _rows(
        lab,
        f"""
        WITH own AS (
            SELECT t.name, m.ts_ms, {_SELECTED} AS here
            FROM mart.messages m JOIN mart.message_themes t USING (id)
            WHERE m.user_id = $user AND m.role = 'user' AND NOT t.is_outlier
        )
        SELECT name, count(*) FILTER (here) AS n, min(ts_ms) FILTER (here) AS first,
            min(ts_ms) = min(ts_ms) FILTER (here)
        FROM own GROUP BY name HAVING n > 0 ORDER BY n DESC, first, name""",
        chosen.values,
    )
    return [OwnTheme(*row) for row in rows]


def _rows(lab: Lab, query: str, values: dict[str, Any]) -> list[Any]:
    relation = lab.sql(query, values)
    assert relation is not None  # noqa: S101 - a SELECT has a result
    return list(relation.fetchall())
