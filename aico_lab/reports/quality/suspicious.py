"""Suspicious messages: the same one several times, and times that are most likely wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aico_lab.constants import FIRST_PLAUSIBLE_MS, MS_PER_DAY, MS_PER_MINUTE
from aico_lab.metrics.engine.claims import counted
from aico_lab.reports.quality.checks import DataCheck, found, rows_from

if TYPE_CHECKING:
    from aico_lab.lab import Lab

SHORTEST: Final = 20
"""The fewest characters of a text whose repetition is noticed: people often write 'ok' twice."""

FEWEST: Final = 5
"""The fewest messages of a conversation whose times should differ."""

_FUTURE: Final = "ts_ms > epoch_ms(now())"
_OF_1970: Final = f"ts_ms >= 0 AND ts_ms < {MS_PER_DAY}"
_EARLY: Final = f"ts_ms < {FIRST_PLAUSIBLE_MS} AND NOT ({_OF_1970})"

_AUTHOR: Final = "m.role, coalesce(m.user_id, '')"


def repetitions(lab: Lab, *, minutes: int) -> int:
    """Return how many messages repeat an earlier one of the same author and conversation.

    Args:
        lab: The lab.
        minutes: The most minutes from one of the equal messages to the next.
    """
    ((n,),) = rows_from(
        lab,
        f"""
        SELECT count(*) FROM (
            SELECT m.ts_ms - lag(m.ts_ms) OVER (
                PARTITION BY m.conversation_id, {_AUTHOR}, t.content ORDER BY m.ts_ms, m.id
            ) AS since
            FROM mart.messages m JOIN mart.texts t USING (id) WHERE length(t.content) >= ?
        ) WHERE since <= ?""",
        [SHORTEST, minutes * MS_PER_MINUTE],
    )
    return int(n)


def copies(lab: Lab) -> tuple[int, int]:
    """Return how many messages another conversation has with the same author, time and text.

    Returns:
        The number of all, and that of messages that name a person: a companion may greet many
        people at once.
    """
    ((n, named),) = rows_from(
        lab,
        f"""
        SELECT coalesce(sum(n - 1), 0)::BIGINT, coalesce(sum(n - 1) FILTER (named), 0)::BIGINT
        FROM (
            SELECT count(DISTINCT m.conversation_id) AS n, bool_or(r.user_id IS NOT NULL) AS named
            FROM mart.messages m JOIN mart.texts t USING (id) JOIN raw.messages r USING (id)
            WHERE length(t.content) >= ? GROUP BY {_AUTHOR}, m.ts_ms, t.content
        )""",
        [SHORTEST],
    )
    return int(n), int(named)


def duplicates(lab: Lab, *, minutes: int) -> list[DataCheck]:
    """Return the checks of messages that are there several times.

    Args:
        lab: The lab.
        minutes: The most minutes from one of the equal messages to the next.
    """
    within, (twice, named) = repetitions(lab, minutes=minutes), copies(lab)
    ((renamed,),) = rows_from(
        lab,
        "SELECT count(*) FROM raw.messages "
        "WHERE json_exists(TRY_CAST(metadata AS JSON), '$.id_in_conversation')",
    )
    copied = f"with the author's own text of at most {minutes} min before"
    return [
        found("Repeated texts", within, "look", f"{counted(within, 'messages')} {copied}"),
        found(
            "The same message in two conversations",
            twice,
            "act" if named else "look",
            f"{counted(twice, 'messages')} with the author, time and text of one in another "
            "conversation: "
            + ("a file was perhaps imported in two ways" if named else "none names a person"),
            command="aico-lab metrics show channels",
        ),
        DataCheck(
            "Ids used in several conversations",
            "fine",
            f"{counted(renamed, 'messages')} with an id that another conversation used first"
            if renamed
            else "none",
            renamed,
        ),
    ]


def count_times(lab: Lab) -> dict[str, int]:
    """Return the numbers of messages with suspicious times, by kind."""
    query = f"""
        WITH m AS (
            SELECT m.*, epoch_ms(c.created_at) AS created_ms
            FROM mart.messages m LEFT JOIN raw.channels c USING (channel_id)
        ), same AS (
            SELECT count(*) AS n FROM mart.messages WHERE NOT is_estimated
            GROUP BY conversation_id
            HAVING n >= {FEWEST} AND min(ts_ms) = max(ts_ms)
        )
        SELECT
            count(*) FILTER ({_FUTURE}), count(*) FILTER ({_OF_1970}), count(*) FILTER ({_EARLY}),
            (SELECT coalesce(sum(n), 0) FROM same),
            count(*) FILTER (ts_ms < created_ms - {MS_PER_DAY}),
            count(*) FILTER (is_estimated),
            count(*)
        FROM m"""
    names = ("future", "1970", "before 1990", "all equal", "before channel", "estimated", "all")
    return dict(zip(names, map(int, rows_from(lab, query)[0]), strict=True))


def times(lab: Lab) -> list[DataCheck]:
    """Return the checks of times that are most likely wrong."""
    n = count_times(lab)
    list_of = (
        'aico-lab sql "SELECT message_id, timestamp FROM mart.messages '
        'JOIN raw.messages USING (id) WHERE {}"'
    )

    def check(name: str, kind: str, verdict: Any, what: str, command: str) -> DataCheck:
        return found(
            name, n[kind], verdict, f"{counted(n[kind], 'messages')} {what}", command=command
        )

    return [
        check("Times in the future", "future", "act", "dated later than now, and in no calendar",
              list_of.format(_FUTURE)),
        check("Times on 1 January 1970", "1970", "act", "of that day (UTC), a sign of no time",
              list_of.format(_OF_1970)),
        check("Times before 1990", "before 1990", "act", "from before 1990, and in no calendar",
              list_of.format(_EARLY)),
        check("Conversations of one moment", "all equal", "look",
              f"of conversations of {FEWEST} or more messages that all have one time: that of "
              "an export or import", "aico-lab import FILE --start TIME"),
        check("Times before the channel", "before channel", "look",
              "dated more than a day before the beginning of the channel",
              "aico-lab metrics show channels"),
        check("Estimated times", "estimated", "look",
              "without an exact time, left out of reply times and records",
              "aico-lab import FILE --start TIME"),
    ]  # fmt: skip
