"""SQL as text: its tokens, one form for what is written in many, and names of any kind."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<nothing>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
    |'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]
    |(?P<word>[\w$]+)|.""",
    re.VERBOSE | re.DOTALL,
)


def tokens(sql: str) -> Iterator[str]:
    """Give the tokens of a statement without blanks and comments, words in lower case."""
    for token in _TOKEN.finditer(sql):
        if token.lastgroup == "word":
            yield token[0].lower()
        elif token.lastgroup != "nothing":
            yield token[0]


@functools.lru_cache(maxsize=1024)
def normalised(sql: str) -> str:
    """Give a definition in one form, however it was written."""
    return " ".join(tokens(sql))


def quoted(name: str) -> str:
    """Give a name as SQL takes any name."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def named(token: str) -> str:
    """Give the name that a token stands for, in lower case: SQLite does not tell cases apart."""
    for mark in "\"'`":
        if token.startswith(mark):
            return token[1:-1].replace(mark * 2, mark).lower()
    return token.strip("[]").lower()
