"""Decide which author of an export is the companion, and whose conversation each one is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aico_lab.errors import InvalidValue, WhoIsWho
from aico_lab.sources.exports.engine.conversation import Kept, Learned, Unreadable, folded_name
from aico_lab.sources.exports.engine.names import may_be_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aico_lab.sources.exports.engine.conversation import ExportedConversation, Options, Said

ASSUMED: Final = "me"
"""The user id of the person of an export that names nobody, unless `Options.me` does."""

_SHOWN: Final = 12
_MANY, _TIMES = 50, 2
"""More authors than the first, with fewer messages each than the second, may be no authors."""


@dataclass(slots=True)
class Authors:
    """The authors of one conversation whose role its format leaves open.

    Attributes:
        counts: Messages by author.
        names: Names by author, and of companions that the format knows.
        known: Messages by companions that the format knows.
    """

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, str] = field(default_factory=dict)
    known: Counter[str] = field(default_factory=Counter)

    def add(self, said: Said) -> None:
        """Count a message."""
        if said.author is not None and said.role is not None:
            if said.role == "assistant":
                self.known[said.author] += 1
                self.names[said.author] = said.author_name or said.author
        elif said.author is not None:
            self.counts[said.author] += 1
            if said.author_name:
                self.names[said.author] = said.author_name


class Roles:
    """The role of every author of an export.

    An author is known by id or name, in any case of letters. In a conversation of two in which one
    is named by `Options.me`, the other one is the companion.
    """

    def __init__(self, options: Options, authors: dict[str, Authors]) -> None:
        """Decide the roles.

        Args:
            options: The answers of the user.
            authors: The authors whose role is open, by conversation.

        Raises:
            InvalidValue: Everybody is named as the companion.
            WhoIsWho: The companion of a conversation is not known.
        """
        self._companions = {folded_name(name) for name in options.companion}
        self._me = None if options.me is None else folded_name(options.me)
        self._authors = authors
        self._others: dict[str, str] = {}
        everybody: Counter[str] = Counter()
        found = open_question = False
        for conversation_id, those in authors.items():
            for author, count in (those.counts + those.known).items():
                everybody[those.names.get(author, author)] += count
                found |= self._is(author, those.names.get(author), self._companions)
            if self._companions:
                continue
            others = [
                author
                for author in those.counts
                if not self._is(author, those.names.get(author), {self._me})
            ]
            if self._me is not None and len(others) == 1:
                self._others[conversation_id] = others[0]
            elif others:
                open_question = True
        every = {author for those in authors.values() for author in those.counts + those.known}
        if len(options.companion) > 1 and len(every) > 1 and self._are_all(authors):
            raise InvalidValue(
                "Everybody who wrote is named as the companion: name only the companion with "
                "--companion, so that the others are people."
            )
        if open_question or (everybody and self._companions and not found):
            is_there = any(
                self._is(author, those.names.get(author), {self._me})
                for those in authors.values()
                for author in those.counts + those.known
            )
            raise _question(everybody, options, is_there=is_there)

    def _are_all(self, authors: dict[str, Authors]) -> bool:
        return all(
            self._is(author, those.names.get(author), self._companions)
            for those in authors.values()
            for author in those.counts + those.known
        )

    def of(self, conversation_id: str, said: Said) -> str:
        """Return the role of a message whose format leaves it open."""
        if said.author is not None and (
            said.author == self._others.get(conversation_id)
            or self._is(said.author, said.author_name, self._companions)
        ):
            return "assistant"
        return "user"

    @staticmethod
    def _is(author: str, name: str | None, names: set[str] | set[str | None]) -> bool:
        return folded_name(author) in names or (name is not None and folded_name(name) in names)


def count_authors(
    conversations: Iterable[ExportedConversation | Kept | Learned | Unreadable],
) -> dict[str, Authors]:
    """Return the authors by conversation, after reading what is needed for it once."""
    authors: dict[str, Authors] = {}
    for conversation in conversations:
        if isinstance(conversation, Kept | Learned | Unreadable):
            continue
        if conversation.authors is not None:
            authors.setdefault(conversation.conversation_id, Authors()).counts.update(
                conversation.authors
            )
            continue
        for said in conversation.messages:
            authors.setdefault(conversation.conversation_id, Authors()).add(said)
    return authors


def _question(everybody: Counter[str], options: Options, *, is_there: bool) -> WhoIsWho:
    names = Counter({name: count for name, count in everybody.items() if may_be_name(name)})
    if len(everybody) > _MANY and everybody.total() < _TIMES * len(everybody):
        names.clear()  # a column of texts may have been taken for that of the authors
    shown = [f"{name} ({count:,})" for name, count in names.most_common(_SHOWN)]
    left = len(everybody) - len(shown)
    listed = ", ".join(shown) or f"{left:,} names or texts, which are not shown"
    more = f" and {left:,} more" if shown and left else ""
    begin = "The file does not say who the companion is"
    if options.companion:
        begin = f"Nobody in the file is called {' or '.join(options.companion)}"
    elif options.me is not None and not is_there:
        begin = f"Nobody in the file is called {options.me}, as --me says"
    return WhoIsWho(
        f"{begin}: name the companion with --companion NAME, one of {listed}{more}.",
        authors=[name for name, _ in names.most_common()],
    )
