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

SHORTEST: Final = 6
"""The fewest characters of an id that is looked for between other bytes: shorter ones are there by
chance. In columns and parameters ids of any length are compared."""

SHORTEST_WORD: Final = 3
"""The fewest characters of an id or name that is looked for as a word of a file."""

_SAME: Final = {"other": "user_id", "reply_to": "message_id"}
"""Columns that have the ids of another one."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """The ids, names and parts of texts that stores are searched for.

    Attributes:
        ids: Ids of people, channels, conversations and some messages, by column.
        names: Names of people.
        sentences: Parts of texts.
    """

    ids: dict[str, tuple[str, ...]]
    names: tuple[str, ...]
    sentences: tuple[str, ...]

    @classmethod
    def of(cls, wanted: dict[str, Any]) -> Patterns:
        """Return the patterns of an erasure that is not finished."""
        ids = {column: tuple(some) for column, some in wanted["ids"].items()}
        return cls(ids, tuple(wanted["names"]), tuple(wanted["sentences"]))

    @property
    def all_ids(self) -> tuple[str, ...]:
        """The ids of all columns."""
        return tuple(dict.fromkeys(one for some in self.ids.values() for one in some))

    def of_column(self, column: str) -> tuple[str, ...]:
        """Return the ids that a column of this name may have."""
        return self.ids.get(_SAME.get(column, column), ())

    def in_bytes(self) -> dict[str, bytes]:
        """Return the bytes that are looked for anywhere, by pattern."""
        long = [one for one in self.all_ids if len(one) >= SHORTEST]
        return {one: one.encode(errors="surrogateescape") for one in (*long, *self.sentences)}

    def names_it(self, texts: Iterable[str | None]) -> bool:
        """Return whether JSON texts have an id as a value, or an id, name or part as words."""
        return any(
            text is not None and (self._has_value(text) or self.word().search(text.encode()))
            for text in texts
        )

    def _has_value(self, text: str) -> bool:
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
            elif value in self.all_ids:
                return True
        return False

    def word(self) -> re.Pattern[bytes]:
        """Return an expression for an id or name as a word of a file, or a part of a text.

        Files may escape characters as JSON or as HTML does.
        """
        words = [
            one
            for one in (*self.all_ids, *self.names)
            if len(one) >= SHORTEST_WORD and one not in ROLES
        ]
        found = {
            re.escape(form.encode(errors="surrogateescape")): is_word
            for one, is_word in [*((w, True) for w in words), *((s, False) for s in self.sentences)]
            for form in (
                one,
                json.dumps(one)[1:-1],
                json.dumps(one, ensure_ascii=False)[1:-1],
                html.escape(one),
            )
        }
        if not found:
            return re.compile(b"(?!)")
        bounded = [rb"(?<![\w])" + one + rb"(?![\w])" if w else one for one, w in found.items()]
        return re.compile(b"|".join(bounded))

    def named_by(self, file: Path) -> bool:
        """Return whether a file has an id or name as a word, or a part of a text."""
        try:
            content = file.read_bytes()
        except OSError:
            return False
        return self.word().search(content) is not None
