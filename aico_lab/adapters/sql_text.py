"""Tokenise SQLite's SQL, normalise statements, and quote and unquote names."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN: Final = re.compile(
    r"""(?P<blank> \s+ )
    | (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<quoted> '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] )
    | (?P<value> \?\d* )
    | (?P<named> [:@$]\w+ )
    | (?P<word> [\w$]+ )
    | (?P<mark> . )""",
    re.VERBOSE | re.DOTALL,
)
"""Matches any token of a text. `value` and `named` are parameters; a number is a `word`."""


def tokens(sql: str) -> Iterator[str]:
    """Yield the tokens of a statement without blanks and comments, words in lower case."""
    for token in TOKEN.finditer(sql):
        if token.lastgroup == "word":
            yield token[0].lower()
        elif token.lastgroup not in ("blank", "comment"):
            yield token[0]


@functools.lru_cache(maxsize=1024)
def normalised(sql: str) -> str:
    """Return a statement without comments, with single spaces and with words in lower case."""
    return " ".join(tokens(sql))


def quoted(name: str) -> str:
    """Return a name in double quotes, escaped for SQL."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def named(token: str) -> str:
    """Return the unquoted name of a token, in lower case because SQLite ignores case in names."""
    for mark in "\"'`":
        if token.startswith(mark):
            return token[1:-1].replace(mark * 2, mark).lower()
    return token.strip("[]").lower()
