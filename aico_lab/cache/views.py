"""Charts with findings of an inspection of the cache, for notebooks and reports."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aico_lab import charts
from aico_lab.cache.inspection import EXPIRED_CLASS, LONGER, SPANS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aico_lab.cache.inspection import Inspection


@dataclass(frozen=True)
class CacheView:
    """A table with a finding and a chart.

    Attributes:
        question: The question that it answers.
        finding: The answer in one sentence.
        rows: The rows, of the same keys.
    """

    question: str
    finding: str
    rows: list[dict[str, Any]]
    _draw: Callable[[Any], Any] = field(repr=False)

    def plot(self) -> Any:
        """Return the chart; None without rows."""
        if not self.rows:
            return None
        import altair as alt
        import polars as pl

        if alt.renderers.active != charts.NAME:
            charts.enable()
        title = alt.Title(textwrap.wrap(self.finding, 75), subtitle=[self.question])
        chart = self._draw(alt.Chart(pl.DataFrame(self.rows), width=charts.WIDTH))
        return chart.properties(title=title)


def contents(found: Inspection) -> CacheView:
    """Return the entries and bytes of each namespace."""
    rows: list[dict[str, Any]] = [
        {"namespace": one.name, "holds": one.holds, "entries": one.entries, "MB": one.bytes / 1e6}
        for one in found.namespaces
        if one.entries
    ]
    whole = sum(row["MB"] for row in rows)
    most = max(rows, key=lambda row: row["MB"], default=None)
    finding = "The cache is empty" if most is None else (
        f"{sum(row['entries'] for row in rows):,} entries of {whole:,.2f} MB, "
        f"{most['MB'] / whole:.0%} of it in {most['namespace']}"
    )  # fmt: skip
    return CacheView("What is in the cache?", finding, rows, _bars("MB", "namespace"))


def ages(found: Inspection) -> CacheView:
    """Return the number of entries by the time since they were written."""
    rows = _classes(found, "ages")
    young = sum(row["entries"] for row in rows if row["time"] in ("1 min", "1 h"))
    whole = sum(row["entries"] for row in rows)
    finding = f"{young / whole:.0%} of the entries were written in the last hour" if rows else ""
    return CacheView("How old are the entries?", finding, rows, _stacked("less than … ago"))


def left(found: Inspection) -> CacheView:
    """Return the number of entries by the time until they expire."""
    rows = _classes(found, "left")
    gone = sum(row["entries"] for row in rows if row["time"] == EXPIRED_CLASS)
    whole = sum(row["entries"] for row in rows)
    finding = f"{gone:,} of {whole:,} entries have expired, and wait for a sweep"
    return CacheView("How long are entries valid?", finding, rows, _stacked("less than … left"))


def hits(found: Inspection) -> CacheView:
    """Return the share of reads that found a value, by hour."""
    rows: list[dict[str, Any]] = [
        {"namespace": one.name, "hour": f"{hour}Z", "hit rate": hit / (hit + miss),
         "reads": hit + miss}
        for one in found.namespaces
        for hour, (hit, miss) in one.hours.items()
    ]  # fmt: skip
    hit, miss = (sum(one.counters[name] for one in found.namespaces) for name in ("hits", "misses"))
    finding = f"{hit / (hit + miss):.0%} of {hit + miss:,} reads found a value" if rows else ""

    def draw(chart: Any) -> Any:
        import altair as alt

        return chart.mark_line(point=True).encode(
            x=alt.X("hour:T", title="hour (UTC)"),
            y=alt.Y("hit rate:Q", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1])),
            color="namespace:N",
            tooltip=["namespace:N", "hour:T", alt.Tooltip("hit rate:Q", format=".0%"), "reads:Q"],
        )

    return CacheView("How often does the cache help?", finding, rows, draw)


def times(found: Inspection) -> CacheView:
    """Return the mean time of reads and writes."""
    rows: list[dict[str, Any]] = [
        {"namespace": one.name, "call": call, "µs": one.counters[f"{call}_ns"] / number / 1_000,
         "longest ms": one.counters[f"{call}_max_ns"] / 1e6, "calls": number}
        for one in found.namespaces
        for call in ("read", "write")
        if (number := one.counters[f"{call}s"])
    ]  # fmt: skip
    slowest = max(rows, key=lambda row: row["µs"], default=None)
    finding = "" if slowest is None else (
        f"A {slowest['call']} in {slowest['namespace']} takes {slowest['µs']:,.0f} µs on average, "
        "the slowest of all"
    )  # fmt: skip

    def draw(chart: Any) -> Any:
        return chart.mark_bar().encode(
            x="µs:Q", y="namespace:N", yOffset="call:N", color="call:N",
            tooltip=["namespace:N", "call:N", "µs:Q", "longest ms:Q", "calls:Q"],
        )  # fmt: skip

    return CacheView("How long do calls take?", finding, rows, draw)


def keys(found: Inspection, *, content: bool) -> tuple[CacheView, CacheView]:
    """Return the keys that were hit most, and the largest ones.

    Args:
        found: The inspection.
        content: Whether keys are shown; they contain ids of people. Otherwise they are numbered.
    """

    def shown(key: str, number: int) -> str:
        return key if content else f"{key.partition(':')[0]} {number}"

    hot: list[dict[str, Any]] = [
        {"key": shown(key, number), "hits": count}
        for one in found.namespaces
        for number, (key, count) in enumerate(one.hottest.items(), 1)
    ]
    hot = sorted(hot, key=lambda row: -row["hits"])[:15]
    large: list[dict[str, Any]] = [
        {"key": shown(key, number), "KB": size / 1_000}
        for one in found.namespaces
        for number, (key, size) in enumerate(one.largest.items(), 1)
    ]
    large = sorted(large, key=lambda row: -row["KB"])[:15]
    return (
        CacheView(
            "Which keys are read most?",
            f"{hot[0]['key']} was read most: {hot[0]['hits']:,} times" if hot else "",
            hot,
            _bars("hits", "key"),
        ),
        CacheView(
            "Which entries are largest?",
            f"{large[0]['key']} is the largest: {large[0]['KB']:,.1f} KB" if large else "",
            large,
            _bars("KB", "key"),
        ),
    )


def levels(found: Inspection) -> CacheView:
    """Return the bytes, entries and marks of removed entries in each level of RocksDB."""
    rows: list[dict[str, Any]] = [
        {"level": f"level {one.level}", "MB": one.bytes / 1e6, "files": one.files,
         "entries": one.entries, "removed": one.tombstones}
        for one in found.levels
    ]  # fmt: skip
    engine = found.engine
    said = [
        f"{name} {ratio:.1f}"
        for name, ratio in (
            ("space amplification", engine.space_amplification),
            ("write amplification", engine.write_amplification),
        )
        if ratio is not None
    ]
    said += [
        f"{share:.0%} of {what}"
        for what, share in (
            ("the Bloom filter's answers were useful", engine.bloom_useful),
            ("the blocks were in memory", engine.block_cache_hit_rate),
        )
        if share is not None
    ]
    finding = "; ".join(said) or "Nothing is measured yet"
    return CacheView("What does RocksDB do?", finding, rows, _bars("MB", "level"))


def answers(kept: Sequence[Any]) -> CacheView:
    """Return the seconds that kept answers of metrics took, by metric.

    Args:
        kept: Objects with `metric`, `seconds` and `bytes`, as `lab.metrics.memo.remembered` has.
    """
    rows: dict[str, dict[str, Any]] = {}
    for one in kept:
        row = rows.setdefault(
            one.metric, {"metric": one.metric, "seconds": 0.0, "answers": 0, "KB": 0.0}
        )
        row["seconds"] += one.seconds
        row["answers"] += 1
        row["KB"] += one.bytes / 1_000
    whole = sum(row["seconds"] for row in rows.values())
    finding = f"{len(kept):,} answers are kept, which took {whole:,.1f} s to compute"
    most = sorted(rows.values(), key=lambda row: -row["seconds"])[:20]
    question = "Which answers of metrics are kept?"
    return CacheView(question, finding, most, _bars("seconds", "metric"))


def _classes(found: Inspection, name: str) -> list[dict[str, Any]]:
    order = [EXPIRED_CLASS, *SPANS, LONGER]
    return [
        {"namespace": one.name, "time": time, "entries": count, "order": order.index(time)}
        for one in found.namespaces
        for time, count in getattr(one, name).items()
        if count
    ]


def _bars(value: str, name: str) -> Callable[[Any], Any]:
    def draw(chart: Any) -> Any:
        import altair as alt

        return chart.mark_bar().encode(
            x=alt.X(f"{value}:Q"),
            y=alt.Y(f"{name}:N", sort="-x", title=None),
            tooltip=[f"{name}:N", f"{value}:Q"],
        )

    return draw


def _stacked(title: str) -> Callable[[Any], Any]:
    def draw(chart: Any) -> Any:
        import altair as alt

        order = [EXPIRED_CLASS, *SPANS, LONGER]
        return chart.mark_bar().encode(
            x=alt.X("entries:Q", title="entries"),
            y=alt.Y("time:N", sort=order, title=title),
            color="namespace:N",
            tooltip=["namespace:N", "time:N", "entries:Q"],
        )

    return draw
