"""The ids, names and parts of texts by which stores are searched for what was erased."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aico_lab.messages.rules import ROLES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

IDS: Final = 50
"""The most ids of each kind that stores besides the rows of the primary database are searched for.
"""

SHORTEST: Final = 6
"""The fewest characters of an id that is looked for between other bytes: shorter ones are there by
chance. In columns and parameters ids of any length are compared."""

SHORTEST_WORD: Final = 3
"""The fewest characters of a name that is looked for as a word of a file."""

_LONG: Final = 8
_LONG_NUMBER: Final = 15
_WORD: Final = rb"(?<!\w)%b(?!\w)"
_WHOLE: Final = rb"(?<!\w)(?<!\w-)%b(?!-?\w)"
_VALUE: Final = rb"(?:(?<=[\"'>])(?<!=[\"'])|(?<=&quot;))%b(?=\\?[\"'<]|&quot;)(?![\\\"']*\s*:)"
"""An id as a whole value: between quotes or tags, but neither a key nor an attribute."""

SAME: Final = {"other": "user_id", "reply_to": "message_id"}
"""Columns that have the ids of another one."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """The ids, names and parts of texts that stores are searched for.

    Attributes:
        ids: Ids of people, channels, conversations and messages, by column.
        names: Names of people.
        sentences: Parts of some texts.
        texts: Whole texts, which events may quote.
        turns: The channel, conversation and time of each message that an answer may follow.
        alone: The channel and id of each conversation that was erased with the person.
        last_id: The highest `id` of messages when they were erased.
    """

    ids: dict[str, tuple[str, ...]]
    names: tuple[str, ...]
    sentences: tuple[str, ...]
    texts: tuple[str, ...] = ()
    turns: tuple[list[str], ...] = ()
    alone: tuple[list[str], ...] = ()
    last_id: int = 0

    @classmethod
    def of(cls, wanted: dict[str, Any]) -> Patterns:
        """Return the patterns of an erasure that is not finished."""
        ids = {column: tuple(some) for column, some in wanted["ids"].items()}
        sentences = tuple(wanted["sentences"])
        # An earlier version kept less.
        return cls(
            ids,
            tuple(wanted["names"]),
            sentences,
            tuple(wanted.get("texts", sentences)),
            tuple(wanted.get("turns", ())),
            tuple(wanted.get("alone", ())),
            wanted.get("last_id", 0),
        )

    @property
    def some_ids(self) -> tuple[str, ...]:
        """Some ids of each column."""
        return tuple(dict.fromkeys(one for some in self.ids.values() for one in some[:IDS]))

    def of_column(self, column: str) -> tuple[str, ...]:
        """Return the ids that a column of this name may have."""
        return self.ids.get(SAME.get(column, column), ())

    def in_bytes(self) -> dict[str, bytes]:
        """Return the bytes that are looked for anywhere, by pattern."""
        long = [one for one in self.some_ids if len(one) >= SHORTEST]
        return {one: one.encode(errors="surrogateescape") for one in (*long, *self.sentences)}

    def _is_telling(self, one: str) -> bool:
        """Return whether a word identifies somebody wherever it is, as `p-0012` and `Ada` do.

        Numbers and words such as `400` and `data` are in all pages.
        """
        if one.isdigit():
            return len(one) >= _LONG_NUMBER
        is_word = one.isalpha() and one.islower()
        return len(one) >= (_LONG if is_word else SHORTEST_WORD)

    def _words(self) -> dict[str, bool]:
        """Return the names and ids that files are searched for, and whether they are words.

        The others are looked for as whole values; ids of messages, which are often numbers, not.
        """
        people = [*self.names, *self.of_column("user_id")[:IDS]]
        words = {one: self._is_telling(one) for one in people if one not in ROLES}
        for column, some in self.ids.items():
            if column != "user_id":
                words |= {
                    one: True
                    for one in some[:IDS]
                    if len(one) >= _LONG and self._is_telling(one) and not one.isalpha()
                }
        for one in self.of_column("channel_id")[:IDS]:
            words.setdefault(one, False)
        return words

    def names_it(self, texts: Iterable[str | None]) -> bool:
        """Return whether JSON texts have an id as a value, or an id, name or part as words."""
        return any(
            text is not None and (self._has_value(text) or self.word().search(text.encode()))
            for text in texts
        )

    def _has_value(self, text: str) -> bool:
        known = {
            one for column, some in self.ids.items() if column != "message_id" for one in some[:IDS]
        }
        try:
            values = [json.loads(text)]
        except ValueError:
            return False
        while values:
            value = values.pop()
            if isinstance(value, dict):
                values += [one for key, one in value.items() if key != "role"]
            elif isinstance(value, list):
                values += value
            elif value in known:
                return True
        return False

    def word(self, *, values: bool = True) -> re.Pattern[bytes]:
        """Return an expression for an id or name as a word of a file, or a part of a text.

        Files may escape characters as JSON or as HTML does.

        Args:
            values: Look also for those that tell nothing as words, as whole values.
        """
        found: dict[bytes, None] = {}
        for one, is_word in self._words().items():
            for form in _forms(one):
                if is_word:
                    found[_WORD % form] = None
                elif values:
                    found[_VALUE % form] = None
        for one in self.sentences:
            found |= dict.fromkeys(_forms(one))
        return re.compile(b"|".join(found) or b"(?!)")

    def named_by(self, file: Path) -> bool:
        """Return whether a file has an id or name as a word, or a part of a text."""
        try:
            content = file.read_bytes()
        except OSError:
            return False
        return self.word().search(content) is not None


def has_word(content: bytes, one: str) -> bool:
    """Return whether a text has an id as a whole word: `user-1` is not in `user-1-admin failed`."""
    return any(re.search(_WHOLE % form, content) for form in _forms(one))


def _forms(text: str) -> list[bytes]:
    """Return a text as it is, and as JSON and HTML escape it, for regular expressions."""
    return [
        re.escape(form.encode(errors="surrogateescape"))
        for form in (
            text,
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
            html.escape(text),
        )
    ]
