"""Merge cells of a cube if they are about too few people, or if there are too many for a page.

Merging loses the hour, the channel or person, or the day within the week, but no message.
"""

from __future__ import annotations

from typing import Final

import polars as pl

OTHER: Final = -1
"""The code of all channels, or people, without rows of their own."""

NOBODY: Final = -2
"""The code of messages that name no channel, or no person."""

NO_HOUR: Final = -1
"""The hour of rows whose messages are known by day only."""

WEEK: Final = -2
"""The hour of rows whose messages are known by week only; `day` is the week's Monday."""

MEASURES: Final = (
    "messages", "unsegmented", "words", "questions", "unscored", "sentiment", "sessions",
)  # fmt: skip
"""The sums of a cell: messages; those whose words cannot be counted, and the words of the others;
those with a question; those without a sentiment score, and the sum of the others' scores in
`SCORE_UNITS`; and sessions begun."""

DIMENSIONS: Final = ("day", "hour", "channel", "person", "side")

_DETAIL: Final = ((20, 10), (20, 5), (10, 5), (5, 5), (20, 0), (10, 0), (5, 0), (0, 0))
"""Numbers of channels and of people with cells of their own, tried in turn until the cells fit."""

_MONDAY: Final = 3  # days since 1970-01-01, a Thursday, are 3 (mod 7) days after a Monday


def protected(
    rows: pl.DataFrame, first_day: int, *, min_people: int, min_cell: int
) -> tuple[pl.DataFrame, int, int]:
    """Merge or leave out cells until each one is about enough people and messages.

    Small cells lose their hour, then their channel, then their day within the week.

    Args:
        rows: The sums, by person if there is a least number of people.
        first_day: The first day of the calendar, in days since 1970.
        min_people: The fewest people of a cell.
        min_cell: The fewest messages of a cell.

    Returns:
        The cells, the number of messages left out, and the number of messages whose words or score
        are left out.
    """
    if min_people <= 1 and min_cell <= 1:
        return rows, 0, 0
    rows = rows.with_columns(who="person")
    if min_people > 1:  # no row may be about one person
        rows = rows.with_columns(person=pl.lit(OTHER, pl.Int64))
    merges: list[dict[str, pl.Expr]] = [
        {},
        {"hour": pl.lit(NO_HOUR, pl.Int64)},
        {"channel": pl.lit(OTHER, pl.Int64), "person": pl.lit(OTHER, pl.Int64)},
        {
            "day": pl.max_horizontal(monday(), pl.lit(first_day, pl.Int64)),
            "hour": pl.lit(WEEK, pl.Int64),
        },
    ]
    kept = rows.clear()
    for merge in merges:
        rows = pl.concat([kept, rows.with_columns(**merge)])
        # A session begun by the companion may be that of a person who writes later, in other cells.
        wrote = (pl.col("who") >= 0) & (pl.col("messages") > 0)
        people = pl.col("who").filter(wrote).n_unique().over(DIMENSIONS)
        messages = pl.col("messages").sum().over(DIMENSIONS)
        enough = rows.select(
            ((people >= min_people) | (min_people <= 1))
            & ((messages >= min_cell) | (min_cell <= 1))
        ).to_series()
        kept, rows = rows.filter(enough), rows.filter(~enough)
    cells, values_left_out = _without_values_of_few(kept, min_people)
    return cells, int(rows["messages"].sum()), values_left_out


def _without_values_of_few(rows: pl.DataFrame, min_people: int) -> tuple[pl.DataFrame, int]:
    """Sum the rows of each cell, without words and scores that rest on too few people."""

    def people(unknown: str) -> pl.Expr:
        has = (pl.col("messages") > pl.col(unknown)) & (pl.col("who") >= 0)
        return pl.col("who").filter(has).n_unique()

    cells = rows.group_by(DIMENSIONS).agg(
        pl.col(MEASURES).sum(), worded=people("unsegmented"), rated=people("unscored")
    )
    lost = 0
    for unknown, value, known in (("unsegmented", "words", "worded"),
                                  ("unscored", "sentiment", "rated")):  # fmt: skip
        few = pl.lit(min_people > 1) & (pl.col(known) < min_people)
        lost += int(cells.filter(few).select((pl.col("messages") - pl.col(unknown)).sum()).item())
        cells = cells.with_columns(
            pl.when(few).then("messages").otherwise(unknown).alias(unknown),
            pl.when(few).then(0).otherwise(value).alias(value),
        )
    return cells.select(*DIMENSIONS, *MEASURES), lost


def reduced(cells: pl.DataFrame, most: int) -> pl.DataFrame:
    """Merge people and channels, then hours, then days, until there are few enough cells."""
    merged = cells
    for channels, people in _DETAIL:
        if merged.height <= most:
            return merged
        merged = _summed(
            cells.with_columns(
                channel=pl.when(pl.col("channel") >= channels).then(OTHER).otherwise("channel"),
                person=pl.when(pl.col("person") >= people).then(OTHER).otherwise("person"),
            ).with_columns(pl.col("channel", "person").cast(pl.Int64))
        )
    if merged.height > most:
        hour = pl.when(hour=WEEK).then(WEEK).otherwise(NO_HOUR).cast(pl.Int64)
        merged = _summed(merged.with_columns(hour=hour))
    if merged.height > most:
        first = pl.max_horizontal(monday(), pl.col("day").min())
        merged = _summed(merged.with_columns(day=first, hour=pl.lit(WEEK, pl.Int64)))
    return merged


def monday() -> pl.Expr:
    """Return the Monday of the week of `day`, in days since 1970."""
    return pl.col("day") - (pl.col("day") + _MONDAY) % 7


def _summed(cells: pl.DataFrame) -> pl.DataFrame:
    return cells.group_by(DIMENSIONS).agg(pl.col(MEASURES).sum())
