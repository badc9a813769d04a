"""Word findings so that a sentence claims no more than its number of people supports.

People remember the title of a chart, so one rule holds for all estimates. The units are people or
conversations. A value that rests on at least `FEW` units is stated. One that rests on at least
`FEWEST`, or mainly on a single unit, is called uncertain. Below `FEWEST` the sentence says that
there is too little data, and at most describes what was observed. Plain counts, such as those of
`overview`, the activity metrics and `sessions`, are stated whatever their number.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from aico_lab.metrics.engine.intervals import (
    COUNTED,
    FEW,
    FEWEST,
    MIXED,
    MOST,
    NORMAL_95,
    UNIT,
    UNITS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Row = Mapping[str, Any]

_SINGULAR: Final = {
    "people": "person",
    "people who wrote": "person who wrote",
    "days with messages": "day with messages",
    "replies": "reply",
    MIXED: "person or unnamed conversation",
    "people and conversations": "person or conversation",
}
"""The singulars of plurals that are not made by an s at the end."""

_NAMED: Final = 3

_COUNTED: Final = "observations"
"""The noun of an amount whose noun is unknown, in the plural."""

_NOTHING: Final = 1e-9
"""Numbers with a smaller absolute value are rounding errors of sums, and written as 0."""

DOMINANT: Final = 25.0
"""A number rests mainly on one person if that person's share, in percent, is above this."""


SIDES: Final = {"user": "people", "assistant": "the companion"}
"""The names of the sides in sentences and charts."""

DIRECTION_MARKS: Final = "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
"""The characters that change the direction of the text after them."""

_LEFTWARD: Final = re.compile(
    r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff]+"
    r"(?: +[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff]+)*"
)
"""Words of scripts that are written from right to left."""


MINUS: Final = "\u2212"

_NEGATIVE: Final = re.compile(r"(?<![\w.,:/-])-(?=\d)")
"""The hyphen before a negative number, not that of a date or a name."""


def with_minus(text: str) -> str:
    """Return a sentence whose negative numbers have a minus sign instead of a hyphen."""
    return _NEGATIVE.sub(MINUS, text)


def isolated(text: str) -> str:
    """Return a sentence whose words from right to left do not turn the numbers around them.

    Such words are put between U+2068 and U+2069. Other marks of direction are removed, since those
    in a name would turn the rest of the sentence.
    """
    return _LEFTWARD.sub("\u2068\\g<0>\u2069", re.sub(DIRECTION_MARKS, "", text))


def counted(number: int, plural: str) -> str:
    """Return a number with its noun, given in the plural: '1 person', '2 people'."""
    singular = _SINGULAR.get(plural) or plural.removesuffix("s")
    return f"{number:,} {singular if number == 1 else plural}"


def written(value: float, *, signed: bool = False) -> str:
    """Return a number with three significant digits, or all integer digits; never as 1e+03.

    Args:
        value: The number.
        signed: Whether numbers from 0 on have a plus sign.
    """
    if abs(value) < _NOTHING:
        return "+0" if signed else "0"
    rounded = Decimal(f"{value:.2e}")
    if abs(rounded) >= 1000:  # noqa: PLR2004
        rounded = Decimal(round(value))
    text = f"{rounded:{'+' if signed else ''},f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def too_little(number: int, plural: str, needed: int = FEWEST) -> str:
    """Return the sentence that replaces a finding with too few units."""
    return f"Too little data: {counted(number, plural)}, where {needed} are needed"


def side(row: Row) -> str:
    """Return what sentences and charts call the side of a row: 'people' or 'the companion'."""
    return SIDES[row["role"]]


def each(rows: pl.DataFrame, say: Callable[[Row], str | None]) -> str:
    """Return one sentence about all rows, each row worded as its number of units allows.

    Args:
        rows: The rows of an answer, with the columns `_units` and `_unit`, and perhaps `_most` and
            `_counted`.
        say: Returns the text of a row, or None if the row has none.

    Returns:
        The texts of the rows, separated by semicolons; empty if there are none.
    """
    sure, thin = [], []
    for row in rows.iter_rows(named=True):
        text = say(row)
        if text is None:
            continue
        units = counted(row[UNITS], row[UNIT])
        if not row[UNITS]:  # the absence of data needs no caveat
            sure.append(text)
        elif row[UNITS] < FEWEST:
            thin.append((row[UNITS], text, units))
        else:
            sure.append(
                text + doubt(row[UNITS], row[UNIT], row.get(MOST), row.get(COUNTED, _COUNTED))
            )
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


def described(
    text: str, units: int, unit: str, most: float | None = None, of: str = _COUNTED
) -> str:
    """Return one sentence, worded as the number of its units allows.

    Args:
        text: The finding, beginning with a lower-case letter.
        units: The number of units that the finding rests on.
        unit: The noun of the units, in the plural.
        most: The share of the largest unit, in percent.
        of: The noun of the amount that is shared, in the plural.
    """
    if units < FEWEST:
        return f"Too little data ({counted(units, unit)}) for more than a description: {text}"
    return f"{text[:1].upper()}{text[1:]}{doubt(units, unit, most, of)}"


def doubt(units: int, unit: str, most: float | None = None, of: str = _COUNTED) -> str:
    """Return the caveat of a claim that rests on few units or mainly on one; empty if it does not.

    Args:
        units: The number of units that the claim rests on.
        unit: The noun of the units, in the plural.
        most: The share of the largest unit, in percent.
        of: The noun of the amount that is shared, in the plural.
    """
    if units < FEW:
        return f" (uncertain: {counted(units, unit)})"
    if most is not None and most > DOMINANT:
        return f" (uncertain: one of {counted(units, unit)} has {most:.0f} % of the {of})"
    return ""


def plural(when: str) -> str:
    """Return a phrase such as 'in the week from' for several weeks or months."""
    return when.replace("week ", "weeks ").replace("month ", "months ")


def extremes_differ(
    low: tuple[float | None, float | None],
    high: tuple[float | None, float | None],
    *,
    units: int,
    groups: int,
    log: bool = False,
) -> bool:
    """Return whether the least and the greatest of several values differ beyond chance.

    Of many groups some differ by chance, hence Bonferroni's correction for all pairs of groups. The
    groups are treated as independent; that is cautious where they share people.

    Args:
        low: The ends of the 95 % interval of the least value.
        high: The ends of that of the greatest value.
        units: The smaller number of units of the two.
        groups: The number of groups compared.
        log: Whether the intervals are symmetric on the logarithmic scale.
    """
    from scipy import special

    ends = [end for end in (*low, *high) if end is not None and (end > 0 or not log)]
    if len(ends) < 4:  # noqa: PLR2004 - an interval is missing, or ends at 0
        return False
    a, b, c, d = (math.log(end) if log else end for end in ends)
    error = math.hypot(b - a, d - c) / 2 / NORMAL_95
    pairs = max(groups * (groups - 1) // 2, 1)
    quantile = float(special.stdtrit(max(units - 1, 1), 1 - 0.025 / pairs))
    return (c + d - a - b) / 2 > quantile * error


def dominated(most: float | None, what: str) -> str:
    """Return the caveat of a claim about periods that rests mainly on one person; else "".

    Args:
        most: The largest share of one person, in percent.
        what: The noun of the amount that is shared, in the plural.
    """
    if most is None or most <= DOMINANT:
        return ""
    return f"; one person has {most:.0f} % of the {what}"


def leading(
    rows: pl.DataFrame,
    value: str,
    name: str,
    alike: int = 0,
    called: Callable[[Any], str] = str,
) -> str:
    """Return the name of the row with the largest value, or the names of all rows that tie.

    Args:
        rows: At least one row, with a value.
        value: The column of values.
        name: The column of names.
        alike: How many tie if some of them have no row; else 0.
        called: Returns a name in words.
    """
    top = rows.filter(pl.col(value) == pl.col(value).max())
    names = [called(one) for one in top[name].to_list()]
    if len(names) > _NAMED or alike > len(names):
        return f"{names[0]} and {counted(max(alike, len(names)) - 1, 'others')} alike"
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]} alike"
