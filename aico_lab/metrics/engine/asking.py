"""Compute metrics: compile the expression, run it in DuckDB, finish and type the rows."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import ibis
import polars as pl

from aico_lab.adapters.duckdb import translated
from aico_lab.constants import FIRST_PLAUSIBLE_MS
from aico_lab.errors import InvalidValue, NeverSynced, UnknownName
from aico_lab.etl import views
from aico_lab.mart.simulated import is_simulated
from aico_lab.metrics.engine import selected
from aico_lab.metrics.engine.answer import (
    Answer,
    Called,
    typed,
    without_small_cells,
    without_values_of_few,
)
from aico_lab.metrics.engine.catalogue import CATALOGUE
from aico_lab.metrics.engine.filters import Filters
from aico_lab.metrics.engine.metric import NOTHING, RoleFilter
from aico_lab.metrics.engine.talk import Talk
from aico_lab.runtime.garbage_collector import without_garbage_collector

if TYPE_CHECKING:
    import duckdb

    from aico_lab.etl.reader import Reader
    from aico_lab.metrics.engine.metric import Metric
    from aico_lab.metrics.engine.pseudonyms import Key

_VIEWS: Final = {"user_id": "people", "channel_id": "channels"}
"""The view of `mart` that holds the names, by key column."""

NO_MESSAGES: Final = (
    "There are no messages yet: add some by `aico-lab import`, then run `aico-lab sync`."
)


def ask(metric: Metric, reader: Reader, filters: Filters, parameters: dict[str, Any]) -> Answer:
    """Compute a metric on the snapshot of a reader.

    Raises:
        InvalidValue: The metric does not take a role, or a bound of the period is invalid.
        UnknownName: No message has one of the users or channels of the filters.
        NeverSynced: The snapshot was made by another version of aico_lab.
    """
    if filters.role and metric.role is RoleFilter.REFUSED:
        raise InvalidValue(f"{metric.name} is about both sides at once: leave out the role.")
    by_side = metric.role is RoleFilter.RESTRICTS_MESSAGES
    connection, talk, generation, far = select(reader, filters, by_side=by_side)
    filters = talk.filters
    with translated("The snapshot"):
        called = _called(connection, filters)
        talk = replace(talk, by_person=_names_several_people(connection, talk), words_are_cut=True)
        estimated = _count_estimated(connection, talk) if metric.estimated else 0
        query = compile_query(metric.name, talk, tuple(sorted(parameters.items())))
        if selected.WORDS in query:
            selected.cut_words(connection, talk)
        rows = pl.DataFrame(connection.execute(query).to_arrow_table())
    nothing = metric.nothing if isinstance(metric.nothing, str) else metric.nothing(rows, talk)
    if nothing == NOTHING and filters == Filters(timezone=filters.timezone):
        nothing = "There are no data for an answer."
    if not talk.years:
        nothing = NO_MESSAGES
    if metric.finish:
        rows = metric.finish(rows, talk, **parameters)
    answer = typed(rows, metric.columns)
    if filters.role and metric.role is RoleFilter.CHOOSES_ROWS:
        answer = answer.filter(pl.col("role") == filters.role)
    fewest_people = filters.min_people or metric.min_people
    kept = without_small_cells(answer, metric.people, filters.min_cell, fewest_people)
    shown, values_left_out = without_values_of_few(kept, fewest_people)
    return Answer(
        metric=metric,
        parameters=parameters,
        filters=filters,
        generation=generation,
        left_out=answer.height - kept.height,
        _rows=shown,
        begins=filters.begins(talk.bounds[0]) if talk.years else None,
        far=far,
        estimated=estimated,
        nothing=nothing,
        values_left_out=values_left_out,
        called=called,
        names=parameters.get("names") is True,
        simulated=is_simulated(connection),
    )


def select(
    reader: Reader, filters: Filters, *, by_side: bool
) -> tuple[duckdb.DuckDBPyConnection, Talk, int, int]:
    """Select messages of the snapshot of a reader.

    Args:
        reader: The reader.
        filters: The filters, with ids or pseudonyms of people and channels.
        by_side: Whether the filter `role` restricts the messages.

    Returns:
        A connection to the snapshot, the selected messages, whose filters have ids, the generation,
        and the number of selected messages dated before 1990 or in the future.

    Raises:
        InvalidValue: A bound of the period is invalid.
        UnknownName: No message has one of the users or channels of the filters.
        NeverSynced: The snapshot was made by another version of aico_lab.
    """
    connection = reader.connection()
    with translated("The snapshot"):
        _check_version(connection)
        filters = _with_ids(connection, filters)
        generation, times, far = _describe(connection, filters)
    return connection, Talk(filters, by_side=by_side, **times), generation, far


def check_filters(reader: Reader, filters: Filters) -> int | None:
    """Validate filters against the snapshot of a reader, as every metric does.

    Returns:
        The start of the period in UTC milliseconds; None without one.

    Raises:
        InvalidValue: A bound is not a time, or the period ends before it begins.
        UnknownName: No message has one of the users or channels.
    """
    connection = reader.connection()
    with translated("The snapshot"):
        filters = _with_ids(connection, filters)
        _, times, _ = _describe(connection, filters)
        return Talk(filters, **times).bounds[0]


@functools.lru_cache(maxsize=512)
def compile_query(name: str, talk: Talk, parameters: tuple[tuple[str, Any], ...]) -> str:
    """Return a metric's expression as DuckDB SQL, cached since notebooks repeat their questions."""
    with without_garbage_collector():  # which takes a quarter of the time
        expression = CATALOGUE[name].expression(talk, **dict(parameters))
        return str(ibis.to_sql(expression, dialect="duckdb", pretty=False))


def _check_version(connection: duckdb.DuckDBPyConnection) -> None:
    # Another version may define the columns that metrics count differently.
    if not views.are_of_this_version(connection):
        raise NeverSynced(
            "The snapshot was made by another version of aico_lab: run `aico-lab sync` first."
        )


def _describe(
    connection: duckdb.DuckDBPyConnection, filters: Filters
) -> tuple[int, dict[str, Any], int]:
    """Return the snapshot's generation, the times for `Talk`, and the number of far messages.

    The calendar begins with the first message of the selected people and channels, and ends with
    the last message of all. Far messages, which are dated before 1990 or in the future and most
    likely wrong, do not extend it, unless the filters ask for such times or there are no others.
    """
    now_ms = time.time_ns() // 1_000_000
    # Each bound alone: a relative `since` counts back from a message that is found only below.
    since, _ = replace(filters, until=None).bounds(now_ms)
    _, until = replace(filters, since=None).bounds(now_ms)
    first, last = min(FIRST_PLAUSIBLE_MS, since or FIRST_PLAUSIBLE_MS), max(now_ms, until or now_ms)
    is_chosen = " AND ".join(
        f"coalesce({selected.is_one_of(column, names)}, false)"
        for column, names in (("user_id", filters.users), ("channel_id", filters.channels))
    )
    # Messages outside an explicit bound are excluded by the filter, not counted as far.
    is_far = " OR ".join(
        condition
        for condition, bound in (
            (f"ts_ms < {first}", filters.since),
            (f"ts_ms > {last}", filters.until),
        )
        if bound is None
    )
    of_side = selected.is_one_of("role", (filters.role,) if filters.role else ())
    generation, first_ms, last_ms, recent_ms, begin_ms, years, far = connection.execute(
        f"""
        WITH
            told AS (
                SELECT
                    ts_ms, ts_ms BETWEEN {first} AND {last} AS usual,
                    {is_chosen} AS chosen, ({is_far or "false"}) AND {of_side} AS far
                FROM mart.messages
            )
        SELECT
            (SELECT max(generation) FROM meta.state),
            coalesce(
                min(ts_ms) FILTER (usual AND chosen), min(ts_ms) FILTER (usual), min(ts_ms), 0
            ),
            coalesce(max(ts_ms) FILTER (usual), max(ts_ms), 0),
            max(ts_ms) FILTER (ts_ms <= {now_ms}),
            coalesce(min(ts_ms) FILTER (usual), min(ts_ms), 0),
            list_sort(list(DISTINCT year(make_timestamp(ts_ms * 1000)))),
            CASE WHEN bool_or(usual) THEN count(*) FILTER (far AND chosen) ELSE 0 END
        FROM told"""
    ).fetchall()[0]
    times = {"first_ms": first_ms, "last_ms": last_ms, "recent_ms": recent_ms}
    times["begin_ms"] = begin_ms
    return generation or 0, {**times, "years": tuple(years or ())}, far


def _names_several_people(connection: duckdb.DuckDBPyConnection, talk: Talk) -> bool:
    """Return whether the selected turns name more than one person."""
    found = connection.execute(
        "SELECT min(user_id) <> max(user_id) FROM mart.turns "
        f"WHERE {selected.condition(talk, 'started_ms')}"
    ).fetchone()
    return bool(found and found[0])


def _count_estimated(connection: duckdb.DuckDBPyConnection, talk: Talk) -> int:
    """Return the number of selected messages with an estimated time."""
    sides = (talk.filters.role,) if talk.filters.role and talk.by_side else ()
    found = connection.execute(
        "SELECT count(*) FROM mart.messages WHERE is_estimated AND "
        f"{selected.condition(talk, 'ts_ms')} AND {selected.is_one_of('role', sides)}"
    ).fetchone()
    return int(found[0]) if found else 0


def _with_ids(connection: duckdb.DuckDBPyConnection, filters: Filters) -> Filters:
    """Return filters with the ids of people and channels that were given by their pseudonyms.

    A name that is the id of a person or channel is that id, even if it is also a pseudonym.

    Raises:
        UnknownName: No message has one of the users or channels.
    """
    users = tuple(_id_of(connection, "user_id", name) for name in filters.users)
    channels = tuple(_id_of(connection, "channel_id", name) for name in filters.channels)
    return replace(filters, user=users or None, channel=channels or None)


def _id_of(connection: duckdb.DuckDBPyConnection, column: Key, name: str) -> str:
    """Return the id of a person or channel that is given by id or pseudonym."""
    found = connection.execute(
        f"SELECT 1 FROM mart.messages WHERE {column} = ? LIMIT 1", [name]
    ).fetchone()
    if found is not None:
        return name
    known = connection.execute(
        f"SELECT {column} FROM mart.{_VIEWS[column]} WHERE lower(pseudonym) = lower(?)", [name]
    ).fetchone()
    if known is not None:
        return str(known[0])
    what = column.removesuffix("_id")
    raise UnknownName(
        f"No message has the {what} {name!r}: "
        f'`aico-lab sql "SELECT DISTINCT {column} FROM mart.messages"` lists all.'
    )


def _called(connection: duckdb.DuckDBPyConnection, filters: Filters) -> dict[Key, list[Called]]:
    """Return the names of the chosen people and channels, in the order of the filters."""
    chosen: dict[Key, tuple[str, ...]] = {"user_id": filters.users, "channel_id": filters.channels}
    called: dict[Key, list[Called]] = {}
    for column, ids in chosen.items():
        if ids:
            rows = connection.execute(
                f"SELECT {column}, pseudonym, name FROM mart.{_VIEWS[column]} "
                f"WHERE {selected.is_one_of(column, ids)}"
            ).fetchall()
            known = {one: Called(pseudonym, name) for one, pseudonym, name in rows}
            called[column] = [known[one] for one in ids]
    return called
