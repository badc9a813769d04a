"""Conversations for the tests of metrics: made-up ones in memory, and the real ones.

A `World` is a DuckDB with the tables of the warehouse, which the code of a sync has made. Metrics
take it instead of the reader of a snapshot.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import duckdb
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st

from aico_lab.adapters.duckdb import execute_with
from aico_lab.etl import views
from aico_lab.mart import refresh
from aico_lab.mart import views as mart_views
from aico_lab.mart.text import MEASURED
from aico_lab.metrics.engine.asking import ask
from aico_lab.metrics.engine.catalogue import CATALOGUE
from aico_lab.metrics.engine.filters import Filters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aico_lab.metrics.engine.answer import Answer

MESSAGES = {
    "id": pl.Int64,
    "message_id": pl.String,
    "channel_id": pl.String,
    "conversation_id": pl.String,
    "user_id": pl.String,
    "role": pl.String,
    "content": pl.String,
    "timestamp": pl.Datetime("us", "UTC"),
    "sentiment_score": pl.Float64,
    "response_time": pl.Float64,
    "reply_to": pl.String,
    "metadata": pl.String,
}
OTHERS = {
    "users": {"user_id": pl.String, "name": pl.String},
    "channels": {"channel_id": pl.String, "name": pl.String},
    "feedback_events": {
        "event_id": pl.String, "user_id": pl.String, "conversation_id": pl.String,
        "message_id": pl.String, "kind": pl.String, "name": pl.String, "value": pl.Float64,
        "timestamp": pl.Datetime("us", "UTC"), "metadata": pl.String,
    },
    "personality_profiles": {
        "profile_id": pl.String, "user_id": pl.String, "version": pl.Int64, "traits": pl.String,
        "active_from": pl.Datetime("us", "UTC"), "active_until": pl.Datetime("us", "UTC"),
        "context": pl.String,
    },
    "personality_decisions": {
        "message_id": pl.String, "user_id": pl.String, "conversation_id": pl.String,
        "profile_id": pl.String, "policy": pl.String, "context": pl.String, "features": pl.String,
        "arms": pl.String, "arm": pl.String, "propensity": pl.Float64,
        "propensity_kind": pl.String, "decided_at": pl.Datetime("us", "UTC"),
        "simulated": pl.Boolean,
    },
    "preference_changes": {
        "change_id": pl.Int64, "user_id": pl.String, "preference_key": pl.String,
        "old_value": pl.String, "value": pl.String, "changed_at": pl.Datetime("us", "UTC"),
    },
}  # fmt: skip


GENERATION = 7
FEW_ROWS = 1_000
EMPTY = {table: pl.DataFrame(schema=columns) for table, columns in OTHERS.items()}


class _Warehouse:
    """An empty warehouse in memory, with its views."""

    def __init__(self, *, threads: int | None = None) -> None:
        options = {} if threads is None else {"threads": threads}
        self.connection = duckdb.connect(":memory:", config=options)
        self.connection.execute("SET TimeZone = 'UTC'")
        for definition in views.DEFINITIONS:
            self.connection.execute(definition)
        self._filled = {"messages", *OTHERS}
        self.fill(pl.DataFrame(schema=MESSAGES), {}, refresh.Changes(self.connection, reread=True))
        for view in (*views.VIEWS, *mart_views.views_of({"messages": MESSAGES, **OTHERS})):
            self.connection.execute(view)
        self.connection.execute(f"INSERT INTO meta.state (generation) VALUES ({GENERATION})")

    def fill(
        self, messages: pl.DataFrame, others: dict[str, pl.DataFrame], changes: refresh.Changes
    ) -> None:
        """Replace the rows of all tables."""
        tables = {"messages": messages} | others
        for table in self._filled | tables.keys():
            rows = tables.get(table, EMPTY.get(table)).to_arrow()
            statement = f"CREATE OR REPLACE TABLE raw.{table} AS SELECT * FROM rows"
            execute_with(self.connection, statement, rows=rows)
        self._filled = {"messages", *others}
        changes.note_added(messages.to_arrow())
        changes.apply()


_idle: list[_Warehouse] = []
"""Warehouses of one thread that no `World` uses now: to make one takes longer than to fill it."""


class _Remembering(refresh.Changes):
    """Measures each text once in this process.

    DuckDB compiles the patterns for every statement, which takes longer than all the rest.
    """

    _measures: ClassVar[dict[str | None, tuple[Any, ...]]] = {}

    def _measure(self, rows: pa.Table) -> None:
        contents = rows["content"].to_pylist()
        if unknown := list(set(contents) - self._measures.keys()):
            numbered = pa.table({"id": range(len(unknown)), "content": pa.array(unknown, "string")})
            measured = execute_with(self._connection, MEASURED, rows=numbered).fetchall()
            self._measures.update((unknown[number], found) for number, *found in measured)
        if contents:
            columns = zip(*(self._measures[content] for content in contents), strict=True)
            measures = pa.table([rows["id"], *columns], self._connection.table("measures").columns)
            execute_with(self._connection, "INSERT INTO measures FROM rows", rows=measures)


class World:
    """A warehouse in memory.

    Attributes:
        messages: The rows of `raw.messages`.
    """

    def __init__(self, messages: pl.DataFrame, **others: pl.DataFrame) -> None:
        """Make the warehouse.

        Args:
            messages: Rows of `MESSAGES`; see `talk`.
            others: Rows of `OTHERS`, by table.
        """
        self.messages = messages
        # For so few rows, several threads cost more than they save.
        self._few = len(messages) < FEW_ROWS
        if self._few:
            self._warehouse = _idle.pop() if _idle else _Warehouse(threads=1)
        else:
            self._warehouse = _Warehouse()
        # A connection of its own, as each snapshot has: metrics keep temporary tables in it.
        self._connection = self._warehouse.connection.cursor()
        self._connection.execute("SET TimeZone = 'UTC'")
        changes = _Remembering if self._few else refresh.Changes
        self._warehouse.fill(messages, others, changes(self._warehouse.connection, reread=True))
        self._connection.execute(f"COMMENT ON VIEW conversations IS '{views.version()}'")

    def connection(self) -> duckdb.DuckDBPyConnection:
        """Return the connection, as a reader of a snapshot does."""
        return self._connection

    def ask(self, name: str, *, filters: dict[str, Any] | None = None, **parameters: Any) -> Answer:
        """Return the answer of a metric."""
        metric = CATALOGUE[name]
        return ask(metric, self, Filters(**(filters or {})), metric.check(parameters))

    def close(self) -> None:
        """Lose the rows; a large warehouse is closed, a small one is filled again."""
        self._connection.close()
        if not self._few:
            self._warehouse.connection.close()
        elif self._warehouse not in _idle:
            _idle.append(self._warehouse)


@contextmanager
def world(messages: pl.DataFrame, **others: pl.DataFrame) -> Iterator[World]:
    """Return a warehouse in memory that is closed after the block."""
    made = World(messages, **others)
    try:
        yield made
    finally:
        made.close()


START = datetime(2024, 3, 30, 22, tzinfo=UTC)  # the night in which Europe's summer time begins


def said(
    seconds: float,
    role: str = "user",
    content: str = "hello there",
    *,
    conversation: str = "c",
    user: str | None = "u",
    sentiment: float | None = 0.0,
    response_time: float | None = None,
) -> dict[str, Any]:
    """Return a message, without its ids, at a number of seconds after `START`."""
    return {
        "channel_id": conversation,
        "conversation_id": conversation,
        "user_id": user,
        "role": role,
        "content": content,
        "timestamp": START + timedelta(seconds=seconds),
        "sentiment_score": sentiment,
        "response_time": response_time,
    }


def talk(*messages: dict[str, Any]) -> pl.DataFrame:
    """Return messages with ids in the order of their arrival, as `World` takes them."""
    rows = [
        {"id": number, "message_id": f"m{number}", **message}
        for number, message in enumerate(messages, 1)
    ]
    return pl.DataFrame(rows, schema=MESSAGES, orient="row")


TEXTS = (
    "hello there", "why?", "I am not sure, are you? Yes.", "the cat and the dog", "wonderful!",
    "", "…", "don't", "see http://a.b/?q=1", "Was für ein schöner Tag?", "of course of course",
)  # fmt: skip

_GAPS = (0, 0, 1, 5, 59, 60, 1799, 1800, 1801, 3600, 43_200, 43_201, 86_400, 90_000, 604_800)

_messages = st.fixed_dictionaries(
    {
        "gap": st.sampled_from(_GAPS),
        "conversation": st.sampled_from(["c", "c", "c", "d", "e"]),
        "role": st.sampled_from(["user", "user", "assistant", "assistant", "system"]),
        "content": st.sampled_from(TEXTS),
        "sentiment": st.sampled_from([None, -1.0, -0.6, -0.05, 0.0, 0.049, 0.3, 0.75, 1.0]),
        "response_time": st.sampled_from([None, None, None, 0.0, 2.5]),
    }
)


_MARKS = st.sampled_from(
    [None, None, None, '{"timestamp_estimated": true}', '{"missing_since": "2024-05-01T00:00:00Z"}']
)


@st.composite
def talks(draw: st.DrawFn, max_size: int = 30, *, marked: bool = False) -> pl.DataFrame:
    """Conversations of three channels, one of them between two people and the companion.

    Ties, single messages, silences of about half an hour, midnight and a change to summer time, a
    companion that speaks first, people who never write, and messages in any order of arrival. If
    they are `marked`, some times are estimated, and some messages disappeared from an export.
    """
    second, made = 0, []
    for drawn in draw(st.lists(_messages, max_size=max_size)):
        second += drawn.pop("gap")
        conversation = drawn["conversation"]
        people = ["u", "v"] if conversation == "e" else ["u" if conversation == "c" else "w"]
        user = draw(st.sampled_from(people)) if drawn["role"] == "user" else None
        if drawn["role"] == "assistant":  # the source document stores the person; others do not
            user = draw(st.sampled_from([None, people[0]]))
        marks = {"metadata": draw(_MARKS)} if marked else {}
        made.append(said(second, user=user, **drawn) | marks)
    return talk(*draw(st.permutations(made)))


def shuffled(messages: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Return the same rows in another order."""
    return messages.sample(fraction=1, shuffle=True, seed=seed)
