"""Analyse the text of a statement: its kind and its parameters.

The driver silently runs only the first of several statements, and binds NULL to named parameters;
such texts are refused here. Results are cached by text.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final, Literal

from aico_lab.adapters.sql_text import TOKEN
from aico_lab.errors import InvalidStatement

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["read", "write", "control", "setting", "other"]

REMEMBERED: Final = 512  # texts

_FIRST_WORD: Final = re.compile(r"[\s;]*(\w+)")
_TRIGGER: Final = re.compile(
    r"[\s;]*(explain\s+(query\s+plan\s+)?)?create\s+(temp(orary)?\s+)?trigger\b", re.IGNORECASE
)
_SETTING: Final = re.compile(  # the settings that `Connection` makes and all its users rely on
    r"""[\s;]*pragma\b\s*(["'`\[]?\w+["'`\]]?\s*\.\s*)?["'`\[]?
    (busy_timeout|cache_size|foreign_keys|journal_mode|recursive_triggers|temp_store
    |wal_autocheckpoint)["'`\]]?\s*[=(]""",
    re.IGNORECASE | re.VERBOSE,
)
_KINDS: Final[dict[str, Kind]] = {
    **dict.fromkeys(("select", "values", "explain", "pragma"), "read"),
    **dict.fromkeys(("insert", "update", "delete", "replace", "create", "drop", "alter"), "write"),
    **dict.fromkeys(("begin", "commit", "end", "rollback", "savepoint", "release"), "control"),
}


@functools.lru_cache(maxsize=REMEMBERED)
def kind_of(sql: str) -> Kind:
    """Return the kind of a statement.

    Returns:
        'read' or 'write'; 'control' if it opens or ends a transaction; 'setting' for a PRAGMA that
        changes a setting of `Connection`; 'other' for the rest, such as VACUUM.
    """
    bare = _without_comments(sql)
    if _SETTING.match(bare):
        return "setting"
    word = _FIRST_WORD.match(bare)
    first = word[1].lower() if word else ""
    if first == "with":  # the main verb follows the common table expressions in parentheses
        first = next((found for found in _outer_words(sql) if found in _KINDS), "")
    return _KINDS.get(first, "other")


@functools.lru_cache(maxsize=REMEMBERED)
def parameters_of(sql: str) -> int:
    """Return the number of values that a statement needs.

    Raises:
        InvalidStatement: The text has more than one statement, or a named parameter.
    """
    if _without_comments(sql[_end_of(sql) :]).strip("; \t\r\n\f"):
        raise InvalidStatement("There is text after the statement's end: run one at a time.")
    if any(token["named"] for token in TOKEN.finditer(sql)):
        raise InvalidStatement("Named parameters are not supported: use ? for each value.")
    return max((position + 1 for _, _, position in _placeholders(sql)), default=0)


def cast_wide(sql: str, positions: tuple[int, ...]) -> str:
    """Wrap the placeholders at these positions in CAST(? AS INTEGER)."""
    if not positions:
        return sql
    parts, copied = [], 0
    for start, end, position in _placeholders(sql):
        if position in positions:
            parts += [sql[copied:start], f"CAST({sql[start:end]} AS INTEGER)"]
            copied = end
    return "".join([*parts, sql[copied:]])


@functools.lru_cache(maxsize=REMEMBERED)
def _placeholders(sql: str) -> tuple[tuple[int, int, int], ...]:
    """Find `?` and `?7` outside strings, names and comments: start, end, index of the value."""
    found: list[tuple[int, int, int]] = []
    largest = 0
    for token in TOKEN.finditer(sql):
        text = token["value"]
        if text:
            number = int(text[1:]) if len(text) > 1 else largest + 1
            largest = max(largest, number)
            found.append((token.start(), token.end(), number - 1))
    return tuple(found)


def _end_of(sql: str) -> int:
    """Return the position of the semicolon that ends the statement, outside a trigger's body."""
    ending = [";", "end", ";"] if _TRIGGER.match(_without_comments(sql)) else [";"]
    last: list[str] = []
    for token in TOKEN.finditer(sql):
        if token.lastgroup not in ("blank", "comment"):
            last = [*last, token[0].lower()][-len(ending) :]
            if last == ending:
                return token.start()
    return len(sql)


def _outer_words(sql: str) -> Iterator[str]:
    depth = 0
    for token in TOKEN.finditer(sql):
        depth += (token[0] == "(") - (token[0] == ")")
        if token["word"] and depth == 0:
            yield token[0].lower()


def _without_comments(sql: str) -> str:
    return TOKEN.sub(lambda token: " " if token["comment"] else token[0], sql)
