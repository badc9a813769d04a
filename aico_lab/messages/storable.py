"""Remove characters from texts that a database cannot store."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def storable(text: str) -> str:
    """Return a text without NUL, and with U+FFFD for each half of a surrogate pair."""
    if "\0" in text:
        text = text.replace("\0", "")
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def with_texts(value: object, change: Callable[[str], str]) -> object:
    """Return a JSON value in which each text and each name is changed by a function."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): with_texts(one, change) for name, one in value.items()}
    return [with_texts(one, change) for one in value] if isinstance(value, list) else value
