"""Shorten the labels of a chart where Vega would cut them within a character.

Vega cuts long labels by units of UTF-16. A half of an emoji cannot be drawn, so labels with such
characters are shortened before, between characters as people see them.
"""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ROOM: Final = 150
"""The most pixels of a shortened label: Vega cuts labels of legends at 160, of axes at 180."""

_WIDE, _CAPITAL, _USUAL = 17.0, 11.5, 7.6
"""Upper bounds of the width of characters at 12 pixels."""

_TWO_LINES: Final = 34
"""A row of at least this height, in pixels, has labels of two lines."""

_LAST_OF_ONE_UNIT: Final = 0xFFFF
_JOINER: Final = "\u200d"
_GUIDES: Final = {
    **dict.fromkeys(("x", "y"), "axis"),
    **dict.fromkeys(("row", "column", "facet"), "header"),
    **dict.fromkeys(("color", "fill", "stroke", "shape", "strokeDash", "opacity"), "legend"),
}
PARTS: Final = ("layer", "hconcat", "vconcat", "concat")


def drawable(specification: dict[str, Any]) -> dict[str, Any]:
    """Return a Vega-Lite specification whose long labels with emoji are shortened."""
    values = list(_texts(specification))
    return _with_labels(specification, values) if values else specification


def in_lines(specification: dict[str, Any], room: float) -> dict[str, Any]:
    """Return a Vega-Lite specification whose high rows have labels of two lines, as in `draw.js`.

    Args:
        specification: The specification.
        room: The pixels of a line.
    """
    heights = [view["height"] for view in _views(specification) if _is_number(view.get("height"))]
    rows = [row for rows in specification.get("datasets", {}).values() for row in rows]
    return _with_lines(specification, rows, max(heights, default=0), room)


def _with_lines(
    view: dict[str, Any], rows: list[dict[str, Any]], height: float, room: float
) -> dict[str, Any]:
    own = dict(view)
    for part in PARTS:
        if part in own:
            own[part] = [_with_lines(child, rows, height, room) for child in own[part]]
    y = own.get("encoding", {}).get("y")
    if not isinstance(y, dict) or y.get("type") not in ("nominal", "ordinal"):
        return own
    told, field = y.get("axis", {}), str(y.get("field"))
    names = {str(row[field]) for row in rows if row.get(field) is not None}
    if told is None or "labelExpr" in told or not names or height / len(names) < _TWO_LINES:
        return own
    lines = {name: wrapped(name, room) for name in names}
    table = {name: [of[0], " ".join(of[1:])] for name, of in lines.items() if len(of) > 1}
    if table:
        expression = f"({json.dumps(table, ensure_ascii=False)})[datum.label] || datum.label"
        y = {**y, "axis": {**told, "labelExpr": expression}}
        own["encoding"] = {**own["encoding"], "y": y}
    return own


def _views(view: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield view
    for part in PARTS:
        for child in view.get(part, ()):
            yield from _views(child)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def shortened(text: str, room: float = _ROOM) -> str:
    """Return a text that is at most about `room` pixels wide, cut between visible characters."""
    if sum(map(_width, text)) <= room:
        return text
    kept, width = "", _WIDE  # the ellipsis
    for character in _visible(text):
        width += sum(map(_width, character))
        if width > room:
            break
        kept += character
    return f"{kept.rstrip()}…"


def wrapped(text: str, room: float) -> list[str]:
    """Return a text as lines of at most about `room` pixels, broken at spaces."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and sum(map(_width, longer)) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _visible(text: str) -> Iterator[str]:
    """Yield the characters of a text as people see them: an emoji with its modifiers is one."""
    one = ""
    for character in text:
        flags = [_is_flag(each) for each in one]
        joins = (
            unicodedata.category(character).startswith("M")
            or character == _JOINER
            or one.endswith(_JOINER)
            or "\U0001f3fb" <= character <= "\U0001f3ff"
            or (_is_flag(character) and flags == [True])
        )
        if one and not joins:
            yield one
            one = ""
        one += character
    if one:
        yield one


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _width(character: str) -> float:
    if ord(character) > _LAST_OF_ONE_UNIT or unicodedata.east_asian_width(character) in "WF":
        return _WIDE
    return _CAPITAL if character.isupper() or character in "mw@%&" else _USUAL


def _may_be_halved(text: str) -> bool:
    return any(ord(character) > _LAST_OF_ONE_UNIT for character in text)


def _texts(specification: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields and the values of a specification's data that Vega would cut wrongly."""
    sets = list(specification.get("datasets", {}).values())
    data = specification.get("data")
    if isinstance(data, dict) and isinstance(data.get("values"), list):
        sets.append(data["values"])
    for rows in sets:
        for row in rows if isinstance(rows, list) else ():
            for name, value in row.items() if isinstance(row, dict) else ():
                if isinstance(value, str) and _may_be_halved(value) and shortened(value) != value:
                    yield name, value


def _with_labels(view: dict[str, Any], values: list[tuple[str, str]]) -> dict[str, Any]:
    own = dict(view)
    for part in PARTS:
        if part in own:
            own[part] = [_with_labels(child, values) for child in own[part]]
    if "spec" in own:
        own["spec"] = _with_labels(own["spec"], values)
    encoding = dict(own.get("encoding", {}))
    for channel, guide in _GUIDES.items():
        asked = encoding.get(channel)
        if not isinstance(asked, dict) or asked.get(guide, {}) is None:
            continue
        labels = {value: shortened(value) for name, value in values if name == asked.get("field")}
        told = asked.get(guide, {})
        if labels and "labelExpr" not in told:
            table = json.dumps(labels, ensure_ascii=False)
            expression = f"({table})[datum.label] || datum.label"
            encoding[channel] = {**asked, guide: {**told, "labelExpr": expression}}
    if encoding:
        own["encoding"] = encoding
    return own
