"""Read the rows of a table that hold two messages each: what a person asked, and the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aico_lab.sources.tables.layout import TableRow

TEXT: Final = "\0text"
ROLE: Final = "\0role"
"""Columns of the two messages, under names that no table has."""

ANSWER: Final = ":answer"
"""The end of an answer's id, after the id of its row."""

NO_TEXT: Final = "question or answer without text"
"""The reason for which one of the two messages is left out."""

_OF_ANSWERS: Final = frozenset({"answer_time", "response_time", "sentiment_score"})
_OF_QUESTIONS: Final = frozenset({"author", "reply_to"})


class Pairs:
    """The two columns, and the two messages of a row.

    Attributes:
        columns: The columns of each field of one message.
    """

    def __init__(self, columns: Mapping[str, tuple[str, ...]]) -> None:
        """Split the columns of a table into those of questions and those of answers.

        Args:
            columns: The columns of each field, `question` and `answer` among them.
        """
        self._question, self._answer = columns["question"], columns["answer"]
        kept = {
            name: found
            for name, found in columns.items()
            if name not in ("question", "answer", "content", "role")
        }
        self.columns = kept | {"content": (TEXT,), "role": (ROLE,)}
        self._only = {
            "user": [one for name in _OF_ANSWERS for one in kept.get(name, ())],
            "assistant": [one for name in _OF_QUESTIONS for one in kept.get(name, ())],
        }

    def messages(self, row: TableRow) -> Iterator[TableRow]:
        """Yield the question and the answer of a row; each may be without text."""
        used = {*self._question, *self._answer}
        rest = {name: value for name, value in row.items() if name not in used}
        for columns, role in ((self._question, "user"), (self._answer, "assistant")):
            parts = [part for name in columns if (part := row.get(name)) not in (None, "")]
            text = parts[0] if len(parts) == 1 else "\n\n".join(map(str, parts))
            text = None if isinstance(text, str) and not text.strip() else text
            own = rest | {TEXT: text, ROLE: role}
            for other in self._only[role]:
                own.pop(other, None)
            yield own
