"""Derive the name of a conversation from its file or its people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_SUFFIXES: Final = re.compile(r"\.(jsonl?|csv|txt|tsv|db|zip|no|on|rf)$", re.IGNORECASE)
_LONGEST_NAME: Final = 40
_WORDS_OF_NAME: Final = 4
_COUNTER: Final = re.compile(r"\s*(\(\d{1,3}\)|[-_ ]copy)$", re.IGNORECASE)
_DATE: Final = re.compile(
    r"[-_. ]*(?<!\d)(\d{4}[-_.]?\d\d([-_.]?\d\d)?)([-_. T@]?\d\d[-_.:h]?\d\d([-_.:m]?\d\ds?)?)?$"
)


def with_person(name: str, person: Iterable[str]) -> str:
    """Return the name of a conversation with one person, whose first spelling counts."""
    return next((f"{one} with {name}" for one in person), name)


def may_be_name(text: str) -> bool:
    """Return whether a text is short enough for a name, which errors may quote, unlike messages."""
    return len(text) <= _LONGEST_NAME and len(text.split()) <= _WORDS_OF_NAME


def without_counter(name: str) -> str:
    """Return a file's name without its suffix and the counter of a repeated download, ' (1)'."""
    while True:
        shorter = _COUNTER.sub("", _SUFFIXES.sub("", name))
        if shorter in ("", name):
            return name
        name = shorter


def without_date(name: str) -> str:
    """Return a file's name without suffix, counter, and the date of the export, '-2026-01'.

    If nothing else is left, all files of that kind share the name 'chat'.
    """
    before = None
    while name != before:
        before, name = name, _DATE.sub("", without_counter(name))
    return name or "chat"
