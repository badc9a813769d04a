"""Tokenise SQLite's SQL, normalise statements, and quote and unquote names."""

from __future__ import annotations

import functools
import itertools
import re
import string
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


_SHOWN: Final = 60
"""The maximum number of characters shown of a name."""

_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def folded(name: str) -> str:
    """Return a name with ASCII letters in lower case.

    SQLite and DuckDB ignore the case of these letters in names, and of no others.
    """
    return name.translate(_LOWER)


def tokens(sql: str) -> Iterator[str]:
    """Yield the tokens of a statement without blanks and comments, words folded."""
    return _tokens(sql, folded)


def _tokens(sql: str, fold: Callable[[str], str]) -> Iterator[str]:
    for token in TOKEN.finditer(sql):
        if token.lastgroup == "word":
            yield fold(token[0])
        elif token.lastgroup not in ("blank", "comment"):
            yield token[0]


@functools.lru_cache(maxsize=1024)
def normalised(sql: str) -> str:
    """Return a statement without comments, with single spaces and with words in lower case.

    Databases hold checksums of such texts, so that this function never changes.
    """
    return " ".join(_tokens(sql, str.lower))


def quoted(name: str) -> str:
    """Return a name in double quotes, escaped for SQL."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def shown(name: str) -> str:
    """Return a name of another program for a sentence: on one line, without escape sequences."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def named(token: str) -> str:
    """Return the unquoted and folded name of a token."""
    for mark in "\"'`":
        if token.startswith(mark):
            return folded(token[1:-1].replace(mark * 2, mark))
    return folded(token.strip("[]"))


@functools.lru_cache(maxsize=1024)
def updated_columns(definition: str) -> frozenset[str]:
    """Return the folded columns in a trigger's UPDATE OF, whose names SQLite does not check.

    A migration asks for each trigger of the feed many times, and a sync once.
    """
    words = list(tokens(definition))
    for at, pair in enumerate(itertools.pairwise(words)):
        if pair == ("update", "of"):
            names = itertools.takewhile(lambda word: word != "on", words[at + 2 :])
            return frozenset(named(name) for name in names if name != ",")
        if pair[0] in ("begin", "when"):
            break
    return frozenset()
