"""How much a sentence may claim: that depends on how many people or conversations it rests on.

The title of a chart is what people remember. So one rule holds for all estimates: a value that
rests on `FEW` units or more is stated, one that rests on `FEWEST` or more, or mainly on one of
them, is called uncertain, and below that a sentence says that there is too little data, and
describes at most what was observed. Plain counts, such as those of `overview`, the activity metrics
and `sessions`, are stated whatever their number.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from aico_lab.metrics.engine.intervals import FEW, FEWEST, MIXED, MOST, UNIT, UNITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Row = Mapping[str, Any]

_SINGULAR: Final = {"people": "person", MIXED: "person or unnamed conversation"}
_NAMED: Final = 3

_NOTHING: Final = 1e-9
"""A smaller number is what the rounding of sums leaves of 0."""

DOMINANT: Final = 25.0
"""Above such a share of one person, in percent, a number is mainly that person's."""


def counted(number: int, plural: str) -> str:
    """Return a number with its noun: '1 person', '2 people'.

    Args:
        number: How many.
        plural: The noun, in the plural.
    """
    singular = _SINGULAR.get(plural) or plural.removesuffix("s")
    return f"{number:,} {singular if number == 1 else plural}"


def written(value: float, *, signed: bool = False) -> str:
    """Return a number with three digits that count, or all before the point; never as 1e+03.

    Args:
        value: The number.
        signed: Whether one above 0 has its sign.
    """
    if abs(value) < _NOTHING:
        return "+0" if signed else "0"
    rounded = Decimal(f"{value:.2e}")
    if abs(rounded) >= 1000:  # noqa: PLR2004
        rounded = Decimal(round(value))
    text = f"{rounded:{'+' if signed else ''},f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def too_little(number: int, plural: str, needed: int = FEWEST) -> str:
    """Return the sentence that stands where a finding would claim too much."""
    return f"Too little data: {counted(number, plural)}, where {needed} are needed"


def each(rows: pl.DataFrame, say: Callable[[Row], str | None]) -> str:
    """Return one sentence about all rows, each as sure as its number of units allows.

    Args:
        rows: Of an answer, with the columns `_units` and `_unit`.
        say: Returns what a row says, or None where it says nothing.

    Returns:
        What the rows say, separated by semicolons; empty where they say nothing.
    """
    sure, thin = [], []
    for row in rows.iter_rows(named=True):
        text = say(row)
        if text is None:
            continue
        units = counted(row[UNITS], row[UNIT])
        if not row[UNITS]:  # that there is nothing is a fact
            sure.append(text)
        elif row[UNITS] < FEWEST:
            thin.append((row[UNITS], text, units))
        else:
            sure.append(text + doubt(row[UNITS], row[UNIT], row.get(MOST)))
    if sure:
        return "; ".join(
            [*sure, *(f"{text} (too little data: {units})" for _n, text, units in thin)]
        )
    if not thin:
        return ""
    fewest = min(thin)[2]
    return f"Too little data ({fewest}) for more than a description: " + "; ".join(
        text for _n, text, _units in thin
    )


def described(text: str, units: int, unit: str, most: float | None = None) -> str:
    """Return one sentence, as sure as the number of its units allows.

    Args:
        text: What was found, with a small letter at the beginning.
        units: How many people or conversations it rests on.
        unit: What they are, in the plural.
        most: The share of the largest of them, in percent.
    """
    if units < FEWEST:
        return f"Too little data ({counted(units, unit)}) for more than a description: {text}"
    return f"{text[:1].upper()}{text[1:]}{doubt(units, unit, most)}"


def doubt(units: int, unit: str, most: float | None = None) -> str:
    """Return what follows a claim that rests on too little; empty where it is enough.

    Args:
        units: How many people or conversations it rests on.
        unit: What they are, in the plural.
        most: The share of the largest of them, in percent.
    """
    if units < FEW:
        return f" (uncertain: {counted(units, unit)})"
    if most is not None and most > DOMINANT:
        return f" (uncertain: one of {counted(units, unit)} has {most:.0f} % of it)"
    return ""


def dominated(most: float | None, what: str) -> str:
    """Return what follows a claim about periods that is mainly about one person; else nothing.

    Args:
        most: The largest share of one person, in percent.
        what: What it is a share of.
    """
    if most is None or most <= DOMINANT:
        return ""
    return f"; one person has {most:.0f} % of the {what}"


def leading(rows: pl.DataFrame, value: str, name: str) -> str:
    """Return the name of the row with the largest value; the names of all, where several tie.

    Args:
        rows: At least one, with a value.
        value: The column of the values.
        name: The column of the names.
    """
    top = rows.filter(pl.col(value) == pl.col(value).max())
    names = [str(one) for one in top[name].to_list()]
    if len(names) == 1:
        return names[0]
    if len(names) <= _NAMED:
        return f"{', '.join(names[:-1])} and {names[-1]} alike"
    return f"{names[0]} and {len(names) - 1:,} others alike"
