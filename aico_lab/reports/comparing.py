"""Compare the figures of two reports, and tell which differ by more than their intervals allow.

The 95 % interval of a difference is made of the intervals of both values by MOVER, the method of
variance estimates recovery (Zou and Donner, "Construction of confidence limits about effect
measures", 2008), which needs neither their variances nor that they are symmetric::

    difference - sqrt((second - second_low)**2 + (first_high - first)**2)
    difference + sqrt((second_high - second)**2 + (first - first_low)**2)

It assumes independent values. So nothing is claimed of reports that share messages, or may do so;
nor of figures that grow with the length of a period, if the periods are not equally long.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Any, Final, Literal

from aico_lab.errors import WrongUse
from aico_lab.metrics.engine.claims import counted, with_minus, written
from aico_lab.metrics.engine.durations import duration
from aico_lab.metrics.engine.intervals import FEWEST
from aico_lab.zones import get_zone, midnight

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Verdict = Literal["more than the intervals allow", "within the intervals", "not judged"]

MORE: Final = "more than the intervals allow"
_WITHIN: Final = "within the intervals"
_NOT_JUDGED: Final = "not judged"

_RULE: Final = (
    f"“{MORE[0].upper()}{MORE[1:]}” means that the 95 % interval of the difference, made of both "
    "intervals (MOVER), does not contain 0. It takes the reports as independent: people who are in "
    "both mostly make it wider than it should be."
)
_TOO_FEW: Final = (
    "A difference is judged if both values have an interval, for which "
    f"{FEWEST} people or conversations are needed."
)
_SHARED: Final = (
    "The periods overlap, so that the reports may share messages and are not taken as independent: "
    "no difference is called more than the intervals allow."
)
_UNKNOWN: Final = (
    "The reports may share messages, since the period of one is not known: no difference is called "
    "more than the intervals allow."
)
_NO_CLAIM: Final = "No difference is called more than the intervals allow."
_CHOSEN: Final = {
    "user": "The reports are about different people: a difference is not a change.",
    "channel": "The reports are about different channels: a difference is not a change.",
}
_LENGTHS: Final = (
    "From the first to the last message, the reports have {} and {}: figures that grow with the "
    "length of a period, such as counts and streaks, are not judged."
)

_SAME_MEANING: Final = (
    "since", "until", "generation", "names", "user", "channel", "min_cell", "min_people",
)  # fmt: skip
"""Parameters that choose messages, rows and names, but do not change the meaning of a figure."""

_GROWING: Final = ("streaks", "preference_changes", "burstiness")
"""The findings with intervals that depend on the length of the period."""

_TILE_OF: Final = {
    "reply_latency: p50 of user": "median_time_until_people_reply",
    "reply_latency: p50 of assistant": "median_time_until_the_companion_replies",
}
"""The estimates that are tiles, too, by key."""

_LISTED: Final = 8
"""The most findings of one report only that are listed."""

_HOURS: Final = 48
"""The length in hours from which lengths are told in days, which clock changes do not alter."""

_DASH: Final = "–"  # noqa: RUF001


@dataclass(frozen=True)
class FigureChange:
    """The values of one figure in two reports.

    Attributes:
        key: The figure: the key of a tile; or of a finding, followed by the name of the estimate
            and what it is of.
        headline: Whether it is a tile.
        unit: The unit of the values.
        first: The value in the first report; None if it is missing or no number.
        second: The value in the second report.
        texts: Both values as the reports show them; None for a missing one.
        difference: The second value minus the first.
        interval: The 95 % interval of the difference; None without both intervals, if the reports
            are not independent, or if the figure grows with the length of unlike periods.
        verdict: Whether the difference is more than the intervals allow.
    """

    key: str
    headline: bool
    unit: str
    first: float | None
    second: float | None
    texts: tuple[str | None, str | None]
    difference: float | None
    interval: tuple[float, float] | None
    verdict: Verdict


@dataclass(frozen=True, repr=False)
class ReportDiff:
    """The differences between two reports, which a notebook shows as a table.

    Attributes:
        runs: The ids of the two runs.
        about: Whose conversations the reports are about, and on which days.
        comparable: Whether their figures have the same meaning.
        notes: Sentences on how far the reports can be compared, the most important first.
        differs: Parameters, filters and versions that differ, with both values.
        changes: The figures that both reports have, tiles first.
        only_first: The keys of figures that only the first report has.
        only_second: The keys of figures that only the second report has.
    """

    runs: tuple[str, str]
    about: tuple[str, str]
    comparable: bool
    notes: tuple[str, ...]
    differs: Mapping[str, tuple[object, object]]
    changes: Sequence[FigureChange]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def finding(self) -> str:
        """The result in one sentence."""
        judged = [one for one in self.changes if one.verdict != _NOT_JUDGED]
        if not judged:
            return "No difference can be judged by intervals."
        more = sum(one.verdict == MORE for one in judged)
        return (
            f"{counted(more, 'figures') if more else 'No figure'} of {len(judged):,} with "
            f"intervals {'differs' if more <= 1 else 'differ'} by more than the intervals allow. "
            "If nothing changed, about one figure in 80 does so by chance, and one in 30 if the "
            "people are others."
        )

    @property
    def shown(self) -> list[FigureChange]:
        """The tiles, and the other figures that differ by more than the intervals allow."""
        return [one for one in self.changes if one.headline or one.verdict == MORE]

    def __repr__(self) -> str:
        rows = [_HEADS, *map(_cells, self.shown)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(
                cell.rjust(width) if 0 < place < len(row) - 1 else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )
        table = ["", *lines, ""] if self.shown else [""]
        return "\n".join([*self._above(), *table, *self._below()])

    def _repr_html_(self) -> str:
        above = "".join(f"<p>{escape(one)}</p>" for one in self._above())
        below = "".join(f"<p>{escape(one)}</p>" for one in self._below())
        heads = "".join(f"<th>{escape(one)}</th>" for one in _HEADS)
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(one))}</tr>"
            for one in self.shown
        )
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        return f'<div class="mathjax_ignore">{above}{table if rows else ""}{below}</div>'

    def _above(self) -> list[str]:
        first = [] if self.comparable else [self.notes[0]]
        named = [
            f"{place}: {run}{f', {about}' if about else ''}."
            for place, run, about in zip(("First", "Second"), self.runs, self.about, strict=True)
        ]
        return [*first, *named, self.finding]

    def _below(self) -> list[str]:
        hidden = Counter(one.verdict for one in self.changes if one not in self.shown)
        lines = list(self.notes if self.comparable else self.notes[1:])
        if hidden:
            told = (f"{counted(n, 'figures')} {verdict}" for verdict, n in hidden.items())
            lines.append(f"Not shown: {', '.join(told)}; `--json` and `.changes` have them.")
        for place, keys in (("first", self.only_first), ("second", self.only_second)):
            if keys:
                # Of a finding with other rows, such as those of other months, one line is enough.
                numbers = Counter(key.partition(": ")[0].replace("_", " ") for key in keys)
                listed = [
                    f"{one} ({counted(number, 'figures')})" for one, number in numbers.items()
                ]
                more = f" and {len(listed) - _LISTED:,} more" if len(listed) > _LISTED else ""
                lines.append(f"Only in the {place}: {'; '.join(listed[:_LISTED])}{more}.")
        for name, (one, other) in self.differs.items():
            lines.append(f"Differs: {name}: {_told(one)}; {_told(other)}.")
        return lines


_HEADS: Final = ("figure", "first", "second", "difference", "95 % interval", "the difference is")


def _cells(change: FigureChange) -> tuple[str, ...]:
    texts = (text or _DASH for text in change.texts)
    difference = change.difference
    ends = change.interval
    return (
        change.key.replace("_", " "),
        *texts,
        _DASH if difference is None else _written(difference, change.unit),
        _DASH if ends is None else " to ".join(_written(end, change.unit) for end in ends),
        change.verdict,
    )


def _written(value: float, unit: str) -> str:
    """Return a difference with its sign and its unit."""
    if unit == "s":
        return with_minus(f"{'-' if value < 0 else '+'}{duration(abs(value))}")
    unit = "points" if unit == "%" else unit  # which are not percent of the first value
    return with_minus(f"{written(value, signed=True)}{f' {unit}' if unit else ''}")


def _value(value: float | None, unit: str) -> str | None:
    if value is None:
        return None
    if unit == "s":
        return duration(value)
    return with_minus(f"{written(value)}{f' {unit}' if unit else ''}")


def _told(value: object) -> str:
    return "none" if value is None or value == "" else str(value)


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> ReportDiff:
    """Return the differences between two reports.

    Args:
        first: The content of a `report.json`.
        second: The content of another one.

    Raises:
        WrongUse: One of them lacks something that the format has.
    """
    try:
        diff = _compare(first, second)
        repr(diff)  # texts and numbers of a damaged file may be of another type
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as damaged:
        raise WrongUse(
            "The reports cannot be compared, since a report.json is damaged: run `aico-lab report "
            "rerun` for its run."
        ) from damaged
    return diff


def _compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> ReportDiff:
    differs = dict(_differences(first, second))
    figures, others = dict(_figures(first)), dict(_figures(second))
    # The unit of a figure may depend on a parameter; values of different units have no difference.
    both = [key for key in figures if key in others and figures[key].unit == others[key].unit]
    repeated = {key for key in both if all(_is_tile_again(key, one) for one in (figures, others))}
    other = [name for name in differs if name == "report" or _changes_meaning(name)]
    overlap = _overlap(first, second)
    independent = not other and overlap is False
    lengths = [_length(report) for report in (first, second)]
    alike = lengths[0] == lengths[1]
    changes = [
        _change(
            key, figures[key], others[key], independent=independent and (alike or not _grows(key))
        )
        for key in both
        if key not in repeated
    ]
    notes = []
    if other:
        notes.append(
            f"The reports are not comparable, since they differ in {', '.join(other)}: figures "
            "of the same name may mean different things."
        )
        notes.append(_NO_CLAIM)
    elif not independent:
        notes.append(_UNKNOWN if overlap is None else _SHARED)
    elif any(one.verdict != _NOT_JUDGED for one in changes):
        notes.append(_RULE)
    else:
        notes.append(_TOO_FEW)
    notes += [note for name, note in _CHOSEN.items() if f"parameter {name}" in differs]
    if not alike and None not in lengths:
        notes.append(_LENGTHS.format(*lengths))
    for report, place in ((first, "first"), (second, "second")):
        if report["run"]["status"] != "succeeded":
            notes.append(f"The {place} report failed: figures after its error are missing.")
    return ReportDiff(
        runs=(first["run"]["id"], second["run"]["id"]),
        about=(_about(first), _about(second)),
        comparable=not other,
        notes=tuple(notes),
        differs=differs,
        changes=changes,
        only_first=tuple(key for key in figures if key not in both),
        only_second=tuple(key for key in others if key not in both),
    )


def _is_tile_again(key: str, figures: Mapping[str, _Figure]) -> bool:
    """Return whether an estimate is a tile of its report, too, and was asked of the same."""
    tile = figures.get(_TILE_OF.get(key, ""))
    return tile is not None and tile.value == figures[key].value


def _grows(key: str) -> bool:
    """Return whether a figure depends on the length of the period."""
    return re.split(r"\W", key, maxsplit=1)[0] in _GROWING


def _about(report: Mapping[str, Any]) -> str:
    return "" if report["data"] is None else report["data"]["about"].rstrip(".")


def _changes_meaning(name: str) -> bool:
    """Return whether a difference is that of a parameter that changes the meaning of figures."""
    parameter = name.removeprefix("parameter ")
    return parameter not in (name, *_SAME_MEANING)


def _differences(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[object, object]]]:
    """Yield the facts about two reports that differ, with both values."""
    facts: list[dict[str, object]] = [
        {"report": report["run"]["report"]}
        | {f"parameter {one}": value for one, value in report["parameters"]["resolved"].items()}
        | {"snapshot": report["snapshot"], "notebook": report["notebook"]["sha256"][:12]}
        | {f"version of {one}": value for one, value in report["versions"].items()}
        for report in (first, second)
    ]
    for name in dict.fromkeys([*facts[0], *facts[1]]):
        one, other = facts[0].get(name), facts[1].get(name)
        if one != other and name != "parameter generation":  # the same as the snapshot
            yield name, (one, other)


@dataclass(frozen=True)
class _Figure:
    value: float | None
    unit: str
    text: str | None
    interval: tuple[float, float] | None
    headline: bool


def _figures(report: Mapping[str, Any]) -> Iterator[tuple[str, _Figure]]:
    """Yield the tiles and the estimates of a report, by key."""
    for tile in report["tiles"]:
        ends = tile["interval"]
        yield (
            tile["key"],
            _Figure(
                tile["value"], tile["unit"], tile["text"], None if ends is None else (*ends,), True
            ),
        )
    for finding in report["findings"]:
        for one in finding["estimates"]:
            of = ", ".join(str(part) for part in one["of"].values())
            key = f"{finding['key']}: {one['name']}{f' of {of}' if of else ''}"
            ends, unit = one["interval"], one["unit"]
            yield (
                key,
                _Figure(
                    one["value"],
                    unit,
                    _value(one["value"], unit),
                    None if ends is None else (*ends,),
                    False,
                ),
            )


def _change(key: str, first: _Figure, second: _Figure, *, independent: bool) -> FigureChange:
    difference, interval = None, None
    verdict: Verdict = _NOT_JUDGED
    if first.value is not None and second.value is not None:
        difference = second.value - first.value
        if first.interval and second.interval and independent:
            interval = _interval(first.value, first.interval, second.value, second.interval)
            verdict = _WITHIN if interval[0] <= 0 <= interval[1] else MORE
    return FigureChange(
        key=key,
        headline=first.headline,
        unit=first.unit,
        first=first.value,
        second=second.value,
        texts=(first.text, second.text),
        difference=difference,
        interval=interval,
        verdict=verdict,
    )


def _interval(
    first: float, of_first: tuple[float, float], second: float, of_second: tuple[float, float]
) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two independent values."""
    difference = second - first
    below = math.hypot(second - of_second[0], of_first[1] - first)
    above = math.hypot(of_second[1] - second, first - of_first[0])
    return difference - below, difference + above


def _overlap(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool | None:
    """Return whether the periods of two reports overlap; None if a period is not known."""
    periods = [_period(report["data"]) for report in (first, second)]
    if periods[0] is None or periods[1] is None:
        return None
    (begins, ends), (other_begins, other_ends) = periods[0], periods[1]
    return begins < other_ends and other_begins < ends


def _length(report: Mapping[str, Any]) -> str | None:
    """Return the length of a report's period in words; None if the period is not known."""
    period = _period(report["data"])
    if period is None:
        return None
    hours = round((period[1] - period[0]) / 3600)
    return counted(hours, "hours") if hours < _HOURS else counted(round(hours / 24), "days")


def _period(data: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """Return the first and the last moment of a report's messages, as seconds since 1970."""
    if data is None:
        return None
    period, zone = data["period"], get_zone(data["timezone"]).key
    if period["first_day"] is None or period["last_day"] is None:
        return None
    after = date.fromisoformat(period["last_day"]) + timedelta(days=1)
    begins = midnight(date.fromisoformat(period["first_day"]), zone) / 1000
    ends = midnight(after, zone) / 1000
    if period["since"] is not None:
        begins = max(begins, datetime.fromisoformat(period["since"]).timestamp())
    if period["until"] is not None:
        ends = min(ends, datetime.fromisoformat(period["until"]).timestamp())
    return begins, ends
