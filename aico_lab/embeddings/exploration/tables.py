"""The tables of the results of explorations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import polars as pl

from aico_lab import period
from aico_lab.embeddings.exploration.resampling import by_person, interval
from aico_lab.embeddings.exploration.views import TEXT
from aico_lab.errors import UnknownName, did_you_mean
from aico_lab.zones import to_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from aico_lab.embeddings.exploration.clusters import Vectors
    from aico_lab.embeddings.exploration.drift import PeriodDrift
    from aico_lab.embeddings.exploration.duplicates import Duplicates
    from aico_lab.embeddings.exploration.passages import ExploredPassages
    from aico_lab.embeddings.exploration.stored import Exploration
    from aico_lab.period import Moment

MOMENT_MS: Final = pl.col("moment").dt.epoch("ms")
"""The time of a passage in UTC milliseconds; polars compares no times of different zones."""


def of_themes(found: Exploration) -> pl.DataFrame:
    """Return the themes by number, with their words and the numbers of passages and outliers."""
    counts = found.places.group_by("theme").agg(
        passages=pl.len().cast(pl.Int64),
        outliers=pl.col("is_outlier").sum().cast(pl.Int64),
        distance=pl.col("distance").mean(),
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
        themes.join(counts, "theme", how="left")
        .with_columns(pl.col("passages", "outliers").fill_null(0))
        .sort("theme")
    )


def of_passages(
    found: Exploration,
    passages: ExploredPassages,
    zone: str,
    *,
    user: str | None,
    since: Moment | None,
    until: Moment | None,
) -> pl.DataFrame:
    """Return the explored passages that still exist, with `person`, `moment`, `started` and text.

    Args:
        found: The exploration.
        passages: The passages as they are now.
        zone: The time zone of `moment`, and of days.
        user: Only passages of this person, by id.
        since: The first day or moment, or a span back from the last passage; see `period.bounds`.
        until: The last day, which is included, or a moment.

    Raises:
        InvalidValue: A bound is not a time, or the period ends before it begins.
        UnknownName: The person has no passage.
    """
    about = pl.DataFrame(
        {
            "segment_id": passages.ids, "person": passages.people,
            "moment": passages.started, TEXT: passages.texts,
        },
        schema={
            "segment_id": pl.String(), "person": pl.String(), "moment": pl.String(),
            TEXT: pl.String(),
        },
    ).with_columns(
        pl.col("moment")
        .str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", strict=False, time_zone="UTC")
        .dt.convert_time_zone(zone)
    )  # fmt: skip
    rows = (
        found.places.join(about, "segment_id", maintain_order="left")
        .drop_nulls("moment")
        .with_columns(
            name=pl.col("theme").replace_strict(
                dict(enumerate(found.names)), return_dtype=pl.String()
            ),
            started=pl.col("moment").dt.strftime("%Y-%m-%d %H:%M"),
        )
    )
    start, end = period.bounds(since, until, zone, _recent_ms(rows))
    if user is not None:
        rows = rows.filter(pl.col("person") == user)
        if rows.is_empty():
            ids = [one for one in passages.people if one is not None]
            advice = did_you_mean(str(user), ids, ": give the id of a person with a passage.")
            raise UnknownName(f"No explored passage is of a person {user!r}{advice}")
    if start is not None:
        rows = rows.filter(start <= MOMENT_MS)
    if end is not None:
        rows = rows.filter(end > MOMENT_MS)
    return rows


def start_of(given: Moment, rows: pl.DataFrame, zone: str) -> int:
    """Return the start of a period of passages, in UTC milliseconds.

    Args:
        given: The first day or moment, or a span back from the last passage.
        rows: The passages, as `of_passages` returns them.
        zone: The time zone.

    Raises:
        InvalidValue: The start is not a time.
    """
    return period.start_of(given, zone, _recent_ms(rows))


def _recent_ms(rows: pl.DataFrame) -> int:
    """Return the time of the last passage that is not in the future, or else now, in UTC ms."""
    now = to_ms(datetime.now(UTC))
    last: int | None = rows.select(MOMENT_MS.filter(now >= MOMENT_MS).max()).item()
    return now if last is None else last


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
    number, every = len(names), "1w" if by == "week" else "1mo"
    rows = rows.with_columns(period=pl.col("moment").dt.date().dt.truncate(every)).sort("period")
    made: list[dict[str, Any]] = []
    for (begins,), part in rows.group_by("period", maintain_order=True):
        persons = part["person"].fill_null("").rank("dense").to_numpy().astype(np.int64) - 1
        people = int(persons.max()) + 1
        counts = np.zeros((part.height, number + 1))
        counts[np.arange(part.height), part["theme"].to_numpy()] = 1
        counts[:, number] = 1
        sums = by_person(persons, counts, people)
        low, high = interval(sums, lambda s: s[:, :-1] / s[:, -1:])
        made += [
            {
                "period": begins, "theme": theme, "name": names[theme],
                "share": 100 * sums[:, theme].sum() / part.height,
                "share_low": 100 * low[theme], "share_high": 100 * high[theme],
                "n": part.height, "people": people,
            }
            for theme in chosen
        ]  # fmt: skip
    table = pl.DataFrame(
        made,
        schema={
            "period": pl.Date(), "theme": pl.Int64(), "name": pl.String(),
            "share": pl.Float64(), "share_low": pl.Float64(), "share_high": pl.Float64(),
            "n": pl.Int64(), "people": pl.Int64(),
        },
    ).with_columns(pl.col("share_low", "share_high").fill_nan(None))  # fmt: skip
    order = {theme: place for place, theme in enumerate(chosen)}
    return table.sort(pl.col("theme").replace_strict(order, default=0), "period")


def of_neighbours(
    found: Exploration, passages: ExploredPassages, places: NDArray[np.intp], cosines: Vectors
) -> pl.DataFrame:
    """Return passages with their cosine, time and theme.

    Args:
        found: The exploration.
        passages: All passages.
        places: The positions of those to return, in order.
        cosines: Their cosines.
    """
    names = dict(found.places.select("segment_id", "theme").iter_rows())
    return pl.DataFrame(
        [
            {
                "segment_id": passages.ids[at], "cosine": float(cosine),
                "started": passages.started[at][:16].replace("T", " "),
                "name": found.names[names[passages.ids[at]]] if passages.ids[at] in names
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
    """Return the share of each theme before and after in %, the largest growth first."""
    table = pl.DataFrame(
        {
            "name": names, "before": 100 * drift.before, "after": 100 * drift.after,
            "change": 100 * (drift.after - drift.before), "low": 100 * drift.low,
            "high": 100 * drift.high,
        }
    )  # fmt: skip
    return table.with_columns(pl.col("low", "high").fill_nan(None)).sort("change", descending=True)
