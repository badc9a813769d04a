"""The tables of the results of explorations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import polars as pl

from aico_lab.embeddings.exploration.views import TEXT
from aico_lab.metrics.engine.intervals import estimate, percent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from aico_lab.embeddings.exploration.clusters import Vectors
    from aico_lab.embeddings.exploration.drift import PeriodDrift
    from aico_lab.embeddings.exploration.duplicates import Duplicates
    from aico_lab.embeddings.exploration.passages import ExploredPassages
    from aico_lab.embeddings.exploration.selection import People
    from aico_lab.embeddings.exploration.stored import Exploration

MOMENT_MS: Final = pl.col("moment").dt.epoch("ms")
"""The time of a passage in UTC milliseconds; polars compares no times of different zones."""


def of_passages(found: Exploration, passages: ExploredPassages, zone: str) -> pl.DataFrame:
    """Return passages that an exploration has, with `writers`, `moment`, `started` and text.

    Args:
        found: The exploration.
        passages: The passages as they are now.
        zone: The time zone of `moment` and `started`.
    """
    about = pl.DataFrame(
        {
            "segment_id": passages.ids, "writers": [list(one) for one in passages.writers],
            "moment": passages.started, TEXT: passages.texts,
        },
        schema={
            "segment_id": pl.String(), "writers": pl.List(pl.String()), "moment": pl.String(),
            TEXT: pl.String(),
        },
    ).with_columns(_local("moment", zone))  # fmt: skip
    return (
        found.places.join(about, "segment_id", maintain_order="left")
        .drop_nulls("moment")
        .with_columns(
            name=pl.col("theme").replace_strict(
                dict(enumerate(found.names)), return_dtype=pl.String()
            ),
            started=pl.col("moment").dt.strftime("%Y-%m-%d %H:%M"),
        )
    )


def _local(column: str, zone: str) -> pl.Expr:
    """Return stored times as times of a zone."""
    moment = pl.col(column).str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", strict=False, time_zone="UTC")
    return moment.dt.convert_time_zone(zone)


def by_writer(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each passage and `person` who wrote in it, with the person's `weight`.

    A passage of several people counts in equal parts for each, so that sums over people are numbers
    of passages. `person` is null for a passage in which nobody wrote.
    """
    number = pl.col("writers").list.len()
    nobody = pl.lit(
        [None], pl.List(pl.String)
    )  # versions of polars explode empty lists differently
    parts = rows.with_columns(
        weight=1 / number.clip(1),
        person=pl.when(number > 0).then("writers").otherwise(nobody),
    )
    return parts.drop("writers").explode("person")


def of_themes(found: Exploration, rows: pl.DataFrame, *, whole: bool) -> pl.DataFrame:
    """Return the themes by number, with their words and the passages, outliers and people of each.

    Args:
        found: The exploration.
        rows: Passages, as `of_passages` returns them.
        whole: Keep themes without passages.
    """
    counts = rows.group_by("theme").agg(
        passages=pl.len().cast(pl.Int64),
        outliers=pl.col("is_outlier").sum().cast(pl.Int64),
        distance=pl.col("distance").mean(),
    )
    people = (
        by_writer(rows)
        .drop_nulls("person")
        .group_by("theme", "person")
        .agg(pl.col("weight").sum())
        .group_by("theme")
        .agg(people=pl.len().cast(pl.Int64), most=pl.col("weight").max())
    )
    themes = pl.DataFrame(
        {
            "theme": range(len(found.names)),
            "name": found.names,
            "words": [", ".join(words) for words in found.words],
        },
        schema={"theme": pl.Int64(), "name": pl.String(), "words": pl.String()},
    )
    return (
        themes.join(counts, "theme", how="left" if whole else "inner")
        .join(people, "theme", how="left")
        .with_columns(
            pl.col("passages", "outliers", "people").fill_null(0),
            most=100 * pl.col("most") / pl.col("passages"),
        )
        .sort("passages", "theme", descending=[True, False])
    )


def of_shares(
    rows: pl.DataFrame, names: Sequence[str], chosen: Sequence[int], by: Literal["week", "month"]
) -> pl.DataFrame:
    """Return the shares of themes in each week or month in %, with 95 % intervals over people.

    Args:
        rows: Passages, as `of_passages` returns them.
        names: The names of all themes.
        chosen: The numbers of the themes, in the order of the rows.
        by: 'week' or 'month'.
    """
    every = "1w" if by == "week" else "1mo"
    parts = by_writer(rows).select(
        "theme", "person", "weight", period=pl.col("moment").dt.date().dt.truncate(every)
    )
    shown = pl.DataFrame({"theme": chosen}, schema={"theme": pl.Int64()}).with_row_index("order")
    of_person = (
        parts.group_by("period", "person")
        .agg(whole=pl.col("weight").sum())
        .join(shown, how="cross")
        .join(
            parts.group_by("period", "person", "theme").agg(part=pl.col("weight").sum()),
            ["period", "person", "theme"], how="left", nulls_equal=True,
        )
    )  # fmt: skip
    found = estimate(
        of_person.select(
            "order", "theme", "period", "part", "whole", known=pl.col("person").is_not_null()
        ),
        by=["order", "theme", "period"],
        unit="people",
        statistics={"share": percent("part", "whole")},
    )
    return found.select(
        "period", "theme",
        pl.col("theme").replace_strict(dict(enumerate(names)), return_dtype=pl.String())
        .alias("name"),
        "share", "share_low", "share_high",
        pl.col("whole").round().cast(pl.Int64).alias("n"),
        pl.col("people").cast(pl.Int64),
    )  # fmt: skip


def of_people(
    rows: pl.DataFrame, people: People, chosen: Collection[str], *, top: int, names: bool
) -> pl.DataFrame:
    """Return the passages of people by theme, and the share in % of each in the person's passages.

    Args:
        rows: Passages, as `of_passages` returns them.
        people: The names of people.
        chosen: The ids of the people that may be shown; empty for all.
        top: The maximum number of people, those with the most passages.
        names: Whether people are called by their names rather than pseudonyms.
    """
    parts = by_writer(rows).drop_nulls("person")
    if chosen:
        parts = parts.filter(pl.col("person").is_in(list(chosen)))
    numbers = {one: people.number(one) for one in parts["person"].unique()}
    largest = (
        parts.group_by("person")
        .agg(n=pl.len().cast(pl.Int64))
        .with_columns(number=pl.col("person").replace_strict(numbers, return_dtype=pl.Int64()))
        .sort("n", "number", descending=[True, False])
        .head(top)
    )
    labels = {one: people.label(one, names=names) for one in largest["person"]}
    return (
        parts.group_by("person", "theme", "name")
        .agg(passages=pl.len().cast(pl.Int64))
        .join(largest, "person")
        .sort(["n", "number", "passages", "theme"], descending=[True, False, True, False])
        .select(
            "number", "theme", "name", "passages",
            person=pl.col("person").replace_strict(labels, return_dtype=pl.String()),
            share=100 * pl.col("passages") / pl.col("n"), n="n",
        )
    )  # fmt: skip


def of_neighbours(
    found: Exploration,
    passages: ExploredPassages,
    places: NDArray[np.intp],
    cosines: Vectors,
    zone: str,
) -> pl.DataFrame:
    """Return passages with their cosine, time and theme.

    Args:
        found: The exploration.
        passages: The passages that were compared.
        places: The positions of those to return, in order.
        cosines: Their cosines.
        zone: The time zone.
    """
    themes = dict(found.places.select("segment_id", "theme").iter_rows())
    rows = pl.DataFrame(
        [
            {
                "segment_id": passages.ids[at], "cosine": float(cosine),
                "started": passages.started[at],
                "name": found.names[themes[passages.ids[at]]] if passages.ids[at] in themes
                else None,
                TEXT: passages.texts[at],
            }
            for at, cosine in zip(places.tolist(), cosines.tolist(), strict=True)
        ],
        schema={
            "segment_id": pl.String(), "cosine": pl.Float64(), "started": pl.String(),
            "name": pl.String(), TEXT: pl.String(),
        },
    )  # fmt: skip
    return rows.with_columns(_local("started", zone).dt.strftime("%Y-%m-%d %H:%M"))


def of_duplicates(found: Iterable[Duplicates], passages: ExploredPassages) -> pl.DataFrame:
    """Return groups of duplicates with the text of their first passage."""
    return pl.DataFrame(
        [
            {
                "passages": len(one.passages), "is_exact": one.is_exact, "cosine": one.cosine,
                TEXT: passages.texts[one.passages[0]],
                "segment_ids": [passages.ids[at] for at in one.passages],
            }
            for one in found
        ],
        schema={
            "passages": pl.Int64(), "is_exact": pl.Boolean(), "cosine": pl.Float64(),
            TEXT: pl.String(), "segment_ids": pl.List(pl.String()),
        },
    )  # fmt: skip


def of_changes(names: Sequence[str], drift: PeriodDrift) -> pl.DataFrame:
    """Return the share of each theme before and after in %, the largest growth first.

    `without` is the change without the one person who contributes most to it.
    """
    columns = {
        "before": drift.before, "after": drift.after, "change": drift.after - drift.before,
        "low": drift.low, "high": drift.high, "without": drift.without,
    }  # fmt: skip
    table = pl.DataFrame(
        {"name": names, **{name: 100 * column for name, column in columns.items()}},
    ).with_columns(people=pl.Series(drift.people_of, dtype=pl.Int64))
    clear = (pl.col("low") > 0) | (pl.col("high") < 0)
    return (
        table.with_columns(pl.col("low", "high", "without").fill_nan(None))
        .with_columns(is_clear=clear)
        .sort("change", descending=True)
    )
