"""Logged rounds: the arm that the companion chose, with which probability, and what came of it.

Estimates of a policy's value are computed from a `Log`, whether it was read from the warehouse or
made by `aico_lab.personality.simulate`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from aico_lab.adapters.duckdb import translated
from aico_lab.errors import InvalidValue
from aico_lab.mart.simulated import is_simulated
from aico_lab.metrics.engine import asking, selected
from aico_lab.metrics.engine.filters import Filters
from aico_lab.personality.outcomes import NEXT, Outcome, outcome_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    from numpy.typing import NDArray

    from aico_lab.etl.reader import Reader

    Floats: TypeAlias = NDArray[np.float64]
    Codes: TypeAlias = NDArray[np.int64]

NO_CONTEXT: Final = "any"
"""The context of decisions that record none."""

NONE: Final = "none"
"""The policy or version of decisions that record none."""


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """Decisions of a companion, one per row, in arrays of the same length N.

    Attributes:
        person: The person of each decision, as an index of `people`.
        time_ms: Its time in UTC milliseconds; rows are in the order of times.
        context: Its context bucket, as an index of `contexts`.
        features: Its numeric features, N x d; NaN where a feature was not recorded.
        arm: The chosen arm, as an index of `arms`.
        propensity: The probability with which the arm was chosen; NaN if it was not logged.
        reward: The outcome; NaN if it was not observed or is censored.
        probabilities: The probabilities of all arms, N x K, NaN where they were not logged.
        policy: The policy that chose, as an index of `policies`.
        profile: The version of the personality, as an index of `profiles`.
        people: The ids of the people.
        contexts: The context buckets.
        arms: The arms, also those that were never chosen.
        policies: The kinds of policies.
        profiles: The ids of the versions.
        names: The names of the features.
        outcome: The outcome in `reward`.
        simulated: Whether the data are simulated.
        generation: The generation of the snapshot; None for a log that is not from a home.
        unscaled: The number of ratings that are left out because their scale is not known.
        known_ms: The time since when each outcome was known; None if that was when its window was
            over.
        ahead: The number of decisions, also of other contexts and policies, that are left out
            because their times are in the future.
    """

    person: Codes
    time_ms: Codes
    context: Codes
    features: Floats
    arm: Codes
    propensity: Floats
    reward: Floats
    probabilities: Floats | None
    policy: Codes
    profile: Codes
    people: Sequence[str]
    contexts: Sequence[str]
    arms: Sequence[str]
    policies: Sequence[str]
    profiles: Sequence[str]
    names: Sequence[str]
    outcome: Outcome
    simulated: bool = False
    generation: int | None = None
    unscaled: int = 0
    known_ms: Codes | None = None
    ahead: int = 0

    def __post_init__(self) -> None:
        rows = len(self.arm)
        for column, names in (
            ("person", self.people), ("context", self.contexts), ("arm", self.arms),
            ("policy", self.policies), ("profile", self.profiles),
        ):  # fmt: skip
            codes = getattr(self, column)
            if len(codes) and not (codes.min() >= 0 and codes.max() < len(names)):
                raise InvalidValue(f"{column} has numbers outside 0..{len(names) - 1}.")
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray) and len(column) != rows:
                raise InvalidValue(f"{field.name} has {len(column)} rows instead of {rows}.")
        if self.probabilities is not None and self.probabilities.shape[1] != len(self.arms):
            raise InvalidValue(f"probabilities need one column for each of {len(self.arms)} arms.")

    def __len__(self) -> int:
        return len(self.arm)

    @property
    def observed(self) -> NDArray[np.bool_]:
        """Whether the outcome of each decision is known."""
        return np.isfinite(self.reward)

    @property
    def known_by(self) -> Codes:
        """The time since when each outcome was known."""
        if self.known_ms is not None:
            return self.known_ms
        return self.time_ms + self.outcome.window_ms

    def choose(self, rows: NDArray[np.bool_]) -> Log:
        """Return the log of some rows, with the same people, contexts and arms."""
        arrays: dict[str, Any] = {
            field.name: column[rows]
            for field in fields(self)
            if isinstance(column := getattr(self, field.name), np.ndarray)
        }
        return replace(self, **arrays)

    def with_reward(self, reward: Floats, outcome: Outcome) -> Log:
        """Return the same decisions with another outcome."""
        return replace(self, reward=reward, outcome=outcome, known_ms=None)


def read_log(
    reader: Reader, outcome: str | Outcome = "satisfaction", filters: Filters | None = None
) -> Log:
    """Read the decisions of a snapshot, each with its outcome.

    Args:
        reader: The reader of the snapshot, `lab.storage.reader`.
        outcome: The outcome, or its name; see `aico_lab.personality.outcomes`.
        filters: Which decisions: `since`, `until`, `user` and `channel`; None for all.

    Raises:
        UnknownName: There is no such outcome; or no message has one of the users or channels.
        InvalidValue: Some decisions are simulated and others are not.
        NeverSynced: There is no snapshot yet, or another version of aico_lab made it.
    """
    outcome = outcome_of(outcome)
    connection, talk, generation, _ = asking.select(reader, filters or Filters(), by_side=False)
    chosen = selected.condition(talk, "ts_ms")
    end_ms = talk.last_ms if talk.recent_ms is None else talk.recent_ms
    now_ms = time.time_ns() // 1_000_000
    with translated("The snapshot"):
        ((ahead, made_up),) = connection.execute(
            "SELECT count(*), coalesce(bool_or(simulated), false) "
            f"FROM ({_DECISIONS}) WHERE {chosen} AND ts_ms > {now_ms}"
        ).fetchall()
        chosen += f" AND ts_ms <= {now_ms}"
        arms = _keys(connection, "arms", chosen, also="arm")
        names = _keys(connection, "features", chosen)
        table = connection.execute(_query(outcome, chosen, end_ms, arms, names)).to_arrow_table()
        ratings = connection.execute(
            f"""SELECT count(*) FROM ({_RATINGS}) r
            JOIN (SELECT DISTINCT message_id FROM ({_DECISIONS}) WHERE {chosen}) USING (message_id)
            WHERE coalesce(r.lowest >= r.highest, true)"""
        ).fetchall()

    def numbers(name: str) -> Floats:
        found: Floats = table[name].to_numpy().astype(np.float64)
        return found

    def coded(name: str) -> tuple[Codes, list[str]]:
        column = table[name].combine_chunks().dictionary_encode()
        known = column.dictionary.to_pylist()
        order = sorted(range(len(known)), key=known.__getitem__)
        place = np.empty(len(known), np.int64)
        place[order] = np.arange(len(known))
        return place[column.indices.to_numpy()], [known[at] for at in order]

    def matrix(prefix: str, columns: Sequence[str]) -> Floats:
        if not columns:
            return np.empty((table.num_rows, 0))
        return np.column_stack([numbers(f"{prefix}{at}") for at in range(len(columns))])

    simulated = table["simulated"].to_numpy().astype(bool)
    all_simulated = made_up or (is_simulated(connection) if not len(simulated) else simulated.any())
    if simulated.any() and not simulated.all():
        raise InvalidValue(
            "Some decisions are simulated and others are not: nothing compares them."
        )
    probabilities = matrix("p", arms)
    person, people = coded("user_id")
    context, contexts = coded("context")
    policy, policies = coded("policy")
    profile, profiles = coded("profile_id")
    arm_names, arm = np.array(arms, dtype=object), table["arm"].to_pylist()
    return Log(
        person=person,
        time_ms=table["ts_ms"].to_numpy().astype(np.int64),
        context=context,
        features=matrix("f", names),
        arm=np.searchsorted(arm_names, arm).astype(np.int64) if arms else np.empty(0, np.int64),
        propensity=numbers("propensity"),
        reward=numbers("reward"),
        probabilities=probabilities if np.isfinite(probabilities).any() else None,
        policy=policy,
        profile=profile,
        people=people,
        contexts=contexts,
        arms=arms,
        policies=policies,
        profiles=profiles,
        names=names,
        outcome=outcome,
        simulated=bool(all_simulated),
        generation=generation,
        unscaled=ratings[0][0] if outcome.name == "satisfaction" else 0,
        known_ms=table["known_ms"].to_numpy().astype(np.int64),
        ahead=ahead,
    )


_DECISIONS: Final = f"""SELECT
            d.* EXCLUDE (context, policy, profile_id), m.id, m.msg_idx, m.channel_id,
            m.conversation_id AS of_conversation, m.user_id AS addressed,
            coalesce(d.context, '{NO_CONTEXT}') AS context,
            coalesce(d.policy, '{NONE}') AS policy,
            coalesce(d.profile_id, '{NONE}') AS profile_id
        FROM mart.decisions d
        LEFT JOIN raw.messages r USING (message_id) LEFT JOIN mart.messages m ON m.id = r.id
        WHERE d.user_id IS NOT NULL"""
"""The decisions about a named person, with the place of their message among all."""


_RATINGS: Final = """SELECT
            message_id, user_id, value, epoch_ms(timestamp) AS at_ms,
            CASE
                WHEN scaled AND json_array_length(metadata -> '$.scale') = 2
                    THEN TRY_CAST(metadata -> '/scale/0' AS DOUBLE)
                WHEN NOT scaled AND NOT beyond THEN -1.0
            END AS lowest,
            CASE
                WHEN scaled THEN TRY_CAST(metadata -> '/scale/1' AS DOUBLE) ELSE 1.0
            END AS highest
        FROM (
            SELECT
                *,
                coalesce(json_type(metadata -> '$.scale') != 'NULL', false) AS scaled,
                coalesce(bool_or(abs(value) > 1) FILTER (
                    coalesce(json_type(metadata -> '$.scale') = 'NULL', true)
                ) OVER (PARTITION BY name), false) AS beyond
            FROM raw.feedback_events WHERE value IS NOT NULL
        ) WHERE message_id IS NOT NULL"""
"""The ratings of messages, with the ends of their scales; null where the scale is unknown.

A scale that is not declared is -1..1. If some values of that name are beyond it, the scale is
another one, and 1 may be the worst: then nothing without a scale is known.
"""


def _keys(
    connection: duckdb.DuckDBPyConnection, column: str, chosen: str, also: str | None = None
) -> list[str]:
    """Return the sorted names in a JSON column: the keys of objects, or the elements of arrays.

    Arrays of numbers have no names; their elements are named by their position.
    """
    other = f"UNION SELECT {also} FROM chosen" if also else ""
    places = f"range(CAST(json_array_length({column}) AS BIGINT))"
    named = f"CAST({column} AS VARCHAR[])" if also else f"CAST({places} AS VARCHAR[])"
    rows = connection.execute(
        f"""WITH chosen AS (SELECT * FROM ({_DECISIONS}) WHERE {chosen})
        SELECT unnest(CASE json_type({column})
            WHEN 'OBJECT' THEN json_keys({column}) WHEN 'ARRAY' THEN {named} ELSE [] END)
        FROM (SELECT DISTINCT {column} FROM chosen WHERE {column} IS NOT NULL)
        {other}"""
    ).fetchall()
    return sorted({str(name) for (name,) in rows})


def _query(
    outcome: Outcome, chosen: str, end_ms: int, arms: Sequence[str], names: Sequence[str]
) -> str:
    """Return the SQL of one row per decision; what the outcome does not use is not computed.

    Messages of a person in a conversation are numbered, so that the next and the last ones are
    found by equality instead of by comparing times.
    """
    parts = [
        *(f"{_number('arms', arm)} AS p{at}" for at, arm in enumerate(arms)),
        *(f"{_number('features', name)} AS f{at}" for at, name in enumerate(names)),
    ]
    columns = "".join(f", {part}" for part in parts)
    return f"""WITH
    chosen AS (SELECT * FROM ({_DECISIONS}) WHERE {chosen}),
    numbered AS (
        SELECT
            id, conversation_id, user_id, role, ts_ms, n_words, sentiment_score,
            count(*) FILTER (role = 'user') OVER (
                PARTITION BY conversation_id, user_id ORDER BY msg_idx
            ) AS place
        FROM mart.messages
        WHERE user_id IN (SELECT addressed FROM chosen)
    ),
    placed AS (
        SELECT c.message_id, c.ts_ms, n.conversation_id, n.user_id, n.place
        FROM chosen c JOIN numbered n USING (id)
    ),
    said AS (SELECT * FROM numbered WHERE role = 'user'),
    around AS (
        SELECT
            p.message_id,
            min(s.ts_ms - p.ts_ms) FILTER (s.place = p.place + 1) AS reply_ms,
            avg(s.sentiment_score) FILTER (s.place <= p.place) AS mood_before,
            avg(s.sentiment_score) FILTER (
                s.place > p.place AND s.ts_ms - p.ts_ms <= {outcome.window_ms}
            ) AS mood_after,
            avg(s.n_words) FILTER (
                s.place > p.place AND s.ts_ms - p.ts_ms <= {outcome.window_ms}
            ) AS words_after
        FROM (
            SELECT *, unnest(range(place - {NEXT - 1}, place + {NEXT + 1})) AS near FROM placed
        ) p
        JOIN said s
            ON s.conversation_id = p.conversation_id AND s.user_id = p.user_id AND s.place = p.near
        GROUP BY ALL
    ),
    -- A session that began with the decision's message, or before, is not a return.
    visits AS (
        SELECT who.user_id, s.started_ms
        FROM (
            SELECT DISTINCT conversation_id, session_idx, user_id FROM mart.messages
            WHERE role = 'user' AND user_id IN (SELECT user_id FROM chosen)
        ) who
        JOIN (
            SELECT conversation_id, session_idx, min(ts_ms) AS started_ms
            FROM mart.messages GROUP BY ALL
        ) s USING (conversation_id, session_idx)
    ),
    returns AS (
        SELECT c.message_id, v.started_ms - c.ts_ms AS return_ms
        FROM chosen c ASOF JOIN visits v ON v.user_id = c.user_id AND v.started_ms > c.ts_ms
    ),
    ratings AS ({_RATINGS}),
    scored AS (
        SELECT
            c.message_id, avg((r.value - r.lowest) / (r.highest - r.lowest)) AS rated,
            max(r.at_ms - c.ts_ms) AS rated_ms
        FROM chosen c JOIN ratings r USING (message_id)
        WHERE r.value BETWEEN r.lowest AND r.highest AND r.lowest < r.highest
            AND coalesce(r.user_id, c.user_id) = c.user_id
            AND r.at_ms - c.ts_ms BETWEEN 0 AND {outcome.window_ms}
        GROUP BY ALL
    )
    SELECT
        c.user_id, c.ts_ms, c.context, c.arm, c.propensity, c.policy, c.profile_id, c.simulated,
        c.ts_ms + least({outcome.known}, {outcome.window_ms}) AS known_ms,
        CASE WHEN c.ts_ms <= {end_ms - outcome.window_ms} THEN {outcome.sql} END AS reward
        {columns}
    FROM chosen c
    LEFT JOIN around USING (message_id)
    LEFT JOIN returns USING (message_id)
    LEFT JOIN scored USING (message_id)
    ORDER BY c.ts_ms, c.message_id"""


def _number(column: str, name: str) -> str:
    """Return SQL for a number in a JSON column, by its key or its position."""
    pointer = "/" + name.replace("~", "~0").replace("/", "~1").replace("'", "''")
    return f"TRY_CAST(c.{column} -> '{pointer}' AS DOUBLE)"
