"""The aggregate cube behind the filters of a page: counts and sums, no text and no ids.

A page holds one row for each day, hour, channel, side and person with messages, so that its readers
can filter messages without the home. The largest channels and people have a row of their own; the
others are merged. Rows about fewer people than `min_people` are merged upwards until they are about
enough people, or left out and counted: nothing about fewer people is in the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import ibis
import polars as pl
import polars.selectors as cs

from aico_lab.adapters.duckdb import translated
from aico_lab.mart.sums import total
from aico_lab.metrics.engine import pseudonyms
from aico_lab.metrics.engine.asking import NO_MESSAGES, select
from aico_lab.metrics.engine.checks import to_gap_ms
from aico_lab.metrics.engine.claims import counted
from aico_lab.metrics.engine.filters import Filters
from aico_lab.metrics.engine.talk import days_of, hour_of_day, hours_of
from aico_lab.reports.merging import (
    DIMENSIONS,
    MEASURES,
    NOBODY,
    OTHER,
    WEEK,
    monday,
    protected,
    reduced,
)

if TYPE_CHECKING:
    import duckdb
    import ibis.expr.types as ir

    from aico_lab.lab import Lab
    from aico_lab.metrics.engine.pseudonyms import Key
    from aico_lab.metrics.engine.talk import Talk

SHOWN: Final = 20
"""The most channels, and the most people, that have rows of their own."""

MOST_CELLS: Final = 100_000
"""The most rows of a cube, about 0.7 MB in a page; a larger cube loses detail."""

SCORE_UNITS: Final = 10_000
"""Sums of sentiment scores are stored in units of 1/10,000, the precision of VADER's scores."""


@dataclass(frozen=True)
class Cube:
    """The messages of a selection, summed by day, hour, channel, person and side.

    Attributes:
        filters: The filters of the selection.
        cells: A row for each cell: `day` (since 1970, local), `hour`, `channel` and `person` (an
            index of `channels` and `people`), `side` (1 for user, 0 for assistant), and `MEASURES`.
        first_day: The first local day of the cells, in days since 1970.
        last_day: The last local day of the cells, in days since 1970.
        channels: The labels of the channels.
        people: The labels of the people.
        named: The number of named people in the selection; None if it is below `min_people`.
        own_channels: The number of channels with cells of their own, which come first in
            `channels`.
        own_people: The number of people with cells of their own, who come first in `people`.
        generation: The generation of the snapshot.
        left_out: The number of messages left out for being about fewer people than `min_people`, or
            fewer messages than `min_cell`.
        values_left_out: The number of messages whose words or score are left out for the same
            reason, while the messages themselves are counted.
        far: The number of messages left out for being dated before 1990 or in the future.
        nothing: The sentence that replaces the cube if it has no cells.
    """

    filters: Filters
    cells: pl.DataFrame
    first_day: int
    last_day: int
    channels: tuple[str, ...]
    people: tuple[str, ...]
    named: int | None
    own_channels: int
    own_people: int
    generation: int
    left_out: int
    values_left_out: int
    far: int
    nothing: str = ""


def cube(
    lab: Lab,
    *,
    names: bool = False,
    gap_minutes: float = 30.0,
    shown: int = SHOWN,
    most_cells: int = MOST_CELLS,
    **filters: Any,
) -> Cube:
    """Return the cube of the selected messages on the newest (or pinned) snapshot.

    Args:
        lab: The lab.
        names: Whether channels and people are called by their names, or ids where there are none,
            rather than by pseudonyms.
        gap_minutes: A longer silence begins a new session.
        shown: The most channels, and the most people, with rows of their own.
        most_cells: The most rows; of more, people, channels, hours and days are merged.
        filters: The filters of the metrics; see `aico_lab.metrics.engine.filters`.

    Raises:
        InvalidValue: A filter or `gap_minutes` is invalid.
        UnknownName: No message has one of the users or channels of the filters.
        NeverSynced: There is no snapshot yet, or another version of aico_lab made it.
    """
    filters = {**filters, "timezone": filters.get("timezone") or lab.timezone}
    chosen = Filters(**filters)
    gap_ms = to_gap_ms(gap_minutes)
    connection, talk, generation, far = select(lab.storage.reader, chosen, by_side=True)
    least = chosen.min_people or 1
    rows = _run(connection, _sums(talk, gap_ms, shown, least))
    largest = _run(connection, _largest(talk, shown, least, names=names))
    kept, left_out, values_left_out = protected(
        rows, _day(talk.first_day), min_people=least, min_cell=chosen.min_cell
    )
    cells = reduced(kept, most_cells)
    nothing = _nothing(talk, left_out, far) if cells.is_empty() else ""
    cells, channels = _labelled(cells, "channel", largest, ("Other channels", "No channel"))
    cells, people = _labelled(cells, "person", largest, ("Other people", "Nobody named"))
    ends = cells.select(
        first=pl.col("day").min(),
        last=pl.when(hour=WEEK)
        .then(pl.min_horizontal(monday() + 6, pl.lit(_day(talk.last_day))))
        .otherwise("day")
        .max(),
    )
    total = largest.filter(kind="person")["total"].max()
    named = total if isinstance(total, int) else 0
    return Cube(
        filters=chosen,
        cells=cells.sort(DIMENSIONS),
        first_day=ends["first"][0] or 0,
        last_day=ends["last"][0] or 0,
        channels=tuple(channels.values()),
        people=tuple(people.values()),
        own_channels=sum(code >= 0 for code in channels),
        own_people=sum(code >= 0 for code in people),
        named=named if named >= least else None,
        generation=generation,
        left_out=left_out,
        values_left_out=values_left_out,
        far=far,
        nothing=nothing,
    )


def _run(connection: duckdb.DuckDBPyConnection, expression: ir.Table) -> pl.DataFrame:
    with translated("The snapshot"):
        query = str(ibis.to_sql(expression, dialect="duckdb", pretty=False))
        rows = pl.DataFrame(connection.execute(query).to_arrow_table())
    return rows.with_columns(cs.numeric().cast(pl.Int64))


def _sums(talk: Talk, gap_ms: int, shown: int, least: int) -> ir.Table:
    """Return the sums by day, hour, channel, side and person.

    Only the largest channels are distinguished. All people are distinguished if rows must be about
    several people, so that people can be counted; else only the largest.
    """
    messages = _in_calendar(talk, talk.messages)
    wrote = messages.select(
        "day", "hour", "channel_id", "user_id",
        side=(messages.role == "user").cast("int64"),
        messages=ibis.literal(1, "int64"),
        unsegmented=messages.n_words.isnull().cast("int64"),
        words=ibis.coalesce(messages.n_words, 0),
        questions=messages.is_question.cast("int64"),
        unscored=messages.sentiment_score.isnull().cast("int64"),
        score=ibis.coalesce(messages.sentiment_score, 0.0),
        sessions=ibis.literal(0, "int64"),
    )  # fmt: skip
    sessions = _in_calendar(talk, talk.sessions(gap_ms))
    if talk.filters.role:
        sessions = sessions.filter(sessions.started_by == talk.filters.role)
    nothing = ibis.literal(0, "int64")
    begun = sessions.select(
        "day", "hour", "channel_id", "user_id",
        side=(sessions.started_by == "user").cast("int64"),
        messages=nothing, unsegmented=nothing, words=nothing, questions=nothing, unscored=nothing,
        score=ibis.literal(0.0),
        sessions=ibis.literal(1, "int64"),
    )  # fmt: skip
    rows = ibis.union(wrote, begun)
    channels = _ranked(talk, messages, "channel_id", least)
    channels = channels.select("channel_id", channel_place="place")
    people = _ranked(talk, messages, "user_id", 1).select("user_id", person_place="place")
    rows = rows.left_join(channels, "channel_id").drop("channel_id_right")
    rows = rows.left_join(people, "user_id").drop("user_id_right")
    several = least > 1
    rows = rows.mutate(
        channel=_code(rows.channel_id, rows.channel_place, shown),
        person=_code(rows.user_id, rows.person_place, None if several else shown),
    )
    sums = {name: rows[name].sum() for name in MEASURES if name != "sentiment"}
    score = (total(rows.score) * SCORE_UNITS).round().cast("int64")
    return rows.group_by(DIMENSIONS).agg(**sums, sentiment=score)


def _largest(talk: Talk, shown: int, least: int, *, names: bool) -> ir.Table:
    """Return the largest channels and people: `kind`, `place`, `label`, and `total` of all."""
    messages = _in_calendar(talk, talk.messages)
    keys: dict[str, tuple[Key, int]] = {"channel": ("channel_id", least), "person": ("user_id", 1)}
    parts = []
    for kind, (key, enough) in keys.items():
        ranked = _ranked(talk, messages, key, enough)
        ranked = ranked.mutate(total=ranked.count().over(ibis.window()))
        ranked = ranked.filter(ranked.place < max(shown, 1))
        called = ranked.join(pseudonyms.labels(talk, key, names=names), key)
        parts.append(called.select("place", "total", "label", kind=ibis.literal(kind)))
    return ibis.union(*parts)


def _ranked(talk: Talk, messages: ir.Table, key: Key, least: int) -> ir.Table:
    """Return the ids about enough people, by `place` from 0 for most messages.

    Ties are in the order of their pseudonyms.
    """
    named = messages.filter(messages[key].notnull())
    amounts = named.group_by(key).agg(n=named.count(), people=named.user_id.nunique())
    if least > 1:
        amounts = amounts.filter(amounts.people >= least)
    numbers = pseudonyms.labels(talk, key, names=False).select(key, "number")
    amounts = amounts.left_join(numbers, key).drop(f"{key}_right")
    order = [ibis.desc(amounts.n), amounts.number]
    return amounts.mutate(place=ibis.row_number().over(order_by=order))


def _in_calendar(talk: Talk, table: ir.Table) -> ir.Table:
    """Return the rows on the days of the calendar, without implausible times."""
    hours = hours_of(table.local_ms)
    table = table.mutate(day=days_of(table.local_ms), hour=hour_of_day(hours))
    return table.filter(table.day.between(_day(talk.first_day), _day(talk.last_day)))


def _code(name: ir.StringValue, place: ir.IntegerValue, shown: int | None) -> ir.IntegerValue:
    known = ibis.coalesce(place, OTHER)
    if shown is not None:
        known = ibis.ifelse(known < shown, known, OTHER)
    return ibis.ifelse(name.isnull(), NOBODY, known)


def _day(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def _labelled(
    cells: pl.DataFrame, dimension: str, largest: pl.DataFrame, merged: tuple[str, str]
) -> tuple[pl.DataFrame, dict[int, str]]:
    """Replace the codes of a dimension by places from 0.

    Args:
        cells: The cells.
        dimension: 'channel' or 'person'.
        largest: The rows of `_largest`.
        merged: The labels of `OTHER` and `NOBODY`.

    Returns:
        The cells, and the label of each code that occurs, by place.
    """
    called = dict(largest.filter(kind=dimension).select("place", "label").iter_rows())
    called = dict(sorted(called.items())) | {OTHER: merged[0], NOBODY: merged[1]}
    occurs = set(cells[dimension])
    labels = {code: label for code, label in called.items() if code in occurs}
    places = {code: place for place, code in enumerate(labels)}
    places_of = pl.col(dimension).replace_strict(places, default=0, return_dtype=pl.Int64)
    return cells.with_columns(places_of), labels


def _nothing(talk: Talk, left_out: int, far: int) -> str:
    if not talk.years:
        return NO_MESSAGES
    if left_out:
        limits = [(talk.filters.min_cell, "messages"), (talk.filters.min_people or 1, "people")]
        said = " or ".join(counted(least, what) for least, what in limits if least > 1)
        return f"There is nothing to choose from: all rows are of fewer than {said}."
    if far:
        return (
            "There is nothing to choose from: all selected messages are from before 1990 or in the "
            "future."
        )
    return "There is nothing to choose from: no message matches the filters."
