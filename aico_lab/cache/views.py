"""Charts with findings of an inspection of the cache, for notebooks and reports."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aico_lab import charts
from aico_lab.cache.inspection import EXPIRED_CLASS, LONGER, SPANS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aico_lab.cache.inspection import Inspection

_NONE: Final = "There is none"
_MOST_KEYS: Final = 15
_FEW: Final = 5


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

    def _repr_markdown_(self) -> str:
        return f"{self.question} {self.finding}."


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
        f"{_counted(sum(row['entries'] for row in rows), 'entry', 'entries')} of {whole:,.2f} MB, "
        f"{most['MB'] / whole:.0%} of it in {most['namespace']}"
    )  # fmt: skip
    return CacheView("What is in the cache?", finding, rows, _bars("MB", "namespace"))


def ages(found: Inspection) -> CacheView:
    """Return the number of entries by the time since they were written."""
    rows = _classes(found, "ages")
    young = sum(row["entries"] for row in rows if row["time"] in ("1 min", "1 h"))
    whole = sum(row["entries"] for row in rows)
    finding = f"{young / whole:.0%} of the entries were written in the last hour" if rows else _NONE
    return CacheView("How old are the entries?", finding, rows, _stacked("less than … ago"))


def left(found: Inspection) -> CacheView:
    """Return the number of entries by the time until they expire."""
    rows = _classes(found, "left")
    gone = sum(row["entries"] for row in rows if row["time"] == EXPIRED_CLASS)
    whole = sum(row["entries"] for row in rows)
    waits = "waits" if gone == 1 else "wait"
    finding = f"{gone:,} of {whole:,} entries expired, and {waits} for a sweep" if rows else _NONE
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
    reads = _counted(hit + miss, "read", "reads")
    finding = (
        f"{hit / (hit + miss):.0%} of {reads} found a value" if rows else "Nothing was read yet"
    )

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
    finding = "Nothing was read or written yet" if slowest is None else (
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
    """Return the keys that were hit most, and the largest ones; the same number is the same key.

    Args:
        found: The inspection.
        content: Whether keys are shown beside their numbers; they contain ids of people.
    """
    numbers: dict[str, str] = {}
    for one in found.namespaces:
        for number, key in enumerate(dict.fromkeys([*one.hottest, *one.largest]), 1):
            numbers[key] = f"{one.name} {number}"

    def most(unit: str, named: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
        rows = sorted(named, key=lambda item: -item[1])[:_MOST_KEYS]
        return [
            {"entry": numbers[key], unit: value} | ({"key": key} if content else {})
            for key, value in rows
        ]

    hot = most("hits", (item for one in found.namespaces for item in one.hottest.items()))
    large = most(
        "KB",
        ((key, size / 1_000) for one in found.namespaces for key, size in one.largest.items()),
    )

    def first(rows: list[dict[str, Any]], unit: str, one: str, several: str) -> str:
        is_alone = len(rows) == 1 or rows[0][unit] > rows[1][unit]
        return f"{rows[0].get('key', rows[0]['entry'])} {one}" if is_alone else several

    return (
        CacheView(
            "Which keys are read most?",
            first(
                hot, "hits", f"was read most: {_counted(hot[0]['hits'], 'time', 'times')}",
                f"Several keys were read most: {_counted(hot[0]['hits'], 'time', 'times')} each",
            ) if hot else _NONE,
            hot,
            _bars("hits", "entry", counts=True),
        ),
        CacheView(
            "Which entries are largest?",
            first(
                large, "KB", f"is the largest: {large[0]['KB']:,.1f} KB",
                f"Several entries are the largest: {large[0]['KB']:,.1f} KB each",
            ) if large else _NONE,
            large,
            _bars("KB", "entry"),
        ),
    )  # fmt: skip


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
    finding = "; ".join(said) or "nothing is measured yet"
    finding = finding[0].upper() + finding[1:]
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
    number = _counted(len(kept), "answer is", "answers are")
    finding = f"{number} kept, which took {whole:,.1f} s to compute" if rows else _NONE
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


def _counted(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _counts(most: float) -> Any:
    """Return the axis of a count, whose ticks are whole numbers."""
    import altair as alt

    if most <= _FEW:  # Vega has ticks at 0.5 here, in spite of the step
        return alt.Axis(values=list(range(int(most) + 1)), format="d")
    return alt.Axis(tickMinStep=1, format=",d")


def _bars(value: str, name: str, *, counts: bool = False) -> Callable[[Any], Any]:
    def draw(chart: Any) -> Any:
        import altair as alt

        x = alt.X(f"{value}:Q")
        shown = [f"{column}:N" for column in ("key",) if column in chart.data.columns]
        return chart.mark_bar().encode(
            x=x.axis(_counts(chart.data[value].max())) if counts else x,
            y=alt.Y(f"{name}:N", sort="-x", title=None),
            tooltip=[f"{name}:N", *shown, f"{value}:Q"],
        )

    return draw


def _stacked(title: str) -> Callable[[Any], Any]:
    def draw(chart: Any) -> Any:
        import altair as alt

        order = [EXPIRED_CLASS, *SPANS, LONGER]
        most = chart.data.select("time", "entries").group_by("time").sum()["entries"].max()
        return chart.mark_bar().encode(
            x=alt.X("entries:Q", axis=_counts(most)),
            y=alt.Y("time:N", sort=order, title=title),
            color="namespace:N",
            tooltip=["namespace:N", "time:N", "entries:Q"],
        )

    return draw
