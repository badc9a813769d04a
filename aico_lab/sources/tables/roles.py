"""Decide the roles of the messages of a table, by a column of roles or of authors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from aico_lab.errors import InvalidValue, SourceUnreadable
from aico_lab.sources.exports.engine.conversation import Said, folded_name
from aico_lab.sources.exports.engine.names import may_be_name
from aico_lab.sources.exports.engine.people import Authors, Roles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aico_lab.sources.exports.engine.conversation import Options

ROLES: Final = ("user", "assistant", "system")
SKIPPED: Final = "tool"
"""The role of messages that nobody said, in `WORDS` only."""

_SAID: Final = {
    "user": (
        *("user", "human", "me", "person", "customer", "client", "prompter", "i", "you"),
        *("nutzer", "benutzer", "mensch", "ich", "kunde", "utilisateur", "humain", "moi"),
        *("usuario", "humano", "yo"),
    ),
    "assistant": (
        *("assistant", "ai", "bot", "model", "companion", "chatbot", "chatgpt", "gpt", "agent"),
        *("robot", "llm", "assistent", "ki", "ia", "asistente", "char", "character"),
    ),
    "system": ("system", "developer", "systeme", "sistema"),
    SKIPPED: ("tool", "function", "tool_call", "tool_result", "function_call"),
}
WORDS: Final = {word: role for role, words in _SAID.items() for word in words}
"""Words that are roles, in lower case."""

_SELF: Final = frozenset({"me", "i", "you", "ich", "moi", "yo"})
"""Words by which a program calls the person whose table it is."""

_MOST: Final = 1_000
_MOST_UNKNOWN: Final = 50
_SHOWN: Final = 12


def check_roles(given: Mapping[str, str]) -> dict[str, str]:
    """Return roles by value in lower case.

    Raises:
        InvalidValue: A role is not one of `ROLES`.
    """
    found = {}
    for value, role in given.items():
        if role.strip().casefold() not in ROLES:
            raise InvalidValue(
                f"{role!r} is no role: --role-map {value}=ROLE takes one of {', '.join(ROLES)}."
            )
        found[folded_name(value)] = role.strip().casefold()
    return found


@dataclass(slots=True)
class Cast:
    """Collects roles and authors of a table, and decides the role of each author.

    Attributes:
        options: The answers of the user.
        values: Rows by value of the column of roles.
        by_conversation: The authors by conversation, of rows without a role.
        named: Whether any row names an author.
        people: Authors of rows whose role is that of a user.
        speakers: Authors of rows whose role is that of the companion.
    """

    options: Options
    values: Counter[str] = field(default_factory=Counter)
    by_conversation: dict[str, Authors] = field(default_factory=dict)
    named: bool = False
    people: set[str] = field(default_factory=set)
    speakers: set[str] = field(default_factory=set)
    _given: dict[str, str] = field(default_factory=dict)
    _roles: Roles | None = None
    _by_author: dict[str, str] = field(default_factory=dict)
    _spellings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._given = check_roles(self.options.role_map)

    def add(self, conversation: str, role: str | None, author: str | None) -> None:
        """Note the role and the author of a row."""
        if role is not None:
            if role in self.values or len(self.values) < _MOST:
                self.values[role] += 1
            if author is not None:
                self._add_author(author, self._role(role))
        elif author is not None:
            authors = self.by_conversation.setdefault(conversation, Authors())
            if author in authors.counts or len(authors.counts) < _MOST:
                authors.counts[author] += 1
        if author is not None:
            self.named = True
            if self._role(author) is not None:
                folded = folded_name(author)
                self._spellings[folded] = min(author, self._spellings.get(folded, author))

    def spelled(self, author: str) -> str:
        """Return an author in one spelling if the name is a word for a role, else unchanged.

        A program may write `Human` and `human`; names that differ so may be two people's.
        """
        return self._spellings.get(folded_name(author), author) if self._spellings else author

    def _add_author(self, author: str, role: str | None) -> None:
        if role == "user" and len(self.people) < _MOST:
            self.people.add(author)
        if role == "assistant" and len(self.speakers) < _MOST:
            self.speakers.add(author)

    def decide(self, column: str | None) -> None:
        """Decide all roles, after all rows were added.

        Args:
            column: The column of roles, or None.

        Raises:
            SourceUnreadable: Values are no known roles.
            WhoIsWho: The companion among the authors is not known.
        """
        unknown = Counter(
            {value: count for value, count in self.values.items() if self._role(value) is None}
        )
        longest = max(map(len, unknown), default=0)
        if len(unknown) > _MOST_UNKNOWN or not all(map(may_be_name, unknown)):
            # They may be texts of messages.
            raise SourceUnreadable(
                f"The column {column} has {len(unknown):,} values that are no known roles, of up "
                f"to {longest:,} characters, so it is hardly one of roles: name that with --map "
                "role=COLUMN."
            )
        if unknown:
            shown = ", ".join(
                f"{value} ({count:,})" for value, count in unknown.most_common(_SHOWN)
            )
            example = unknown.most_common(1)[0][0]
            raise SourceUnreadable(
                f"The column {column} has values that are no known roles: {shown}. Say which role "
                f"each of them is, such as --role-map {example!r}=assistant (or user, system)."
            )
        if self.by_conversation and not self.values:
            self._decide_authors()

    def _decide_authors(self) -> None:
        everybody: Counter[str] = Counter()
        for authors in self.by_conversation.values():
            everybody.update(authors.counts)
        options = self.options
        if not options.companion and options.me is None:
            known = {author: self._role(author) for author in everybody}
            if "assistant" in known.values() or all(role is not None for role in known.values()):
                self._by_author = {author: role or "user" for author, role in known.items()}
                return
            own = [author for author in everybody if folded_name(author) in _SELF]
            if len(own) == 1:
                options = replace(options, me=own[0])
        elif self._given:
            self._by_author = {
                author: self._given[folded_name(author)]
                for author in everybody
                if folded_name(author) in self._given
            }
        self._roles = Roles(options, self.by_conversation)

    def role(self, conversation: str, role: str | None, author: str | None) -> str:
        """Return the role of a row; `SKIPPED` if nobody said it."""
        if role is not None:
            return self._role(role) or "user"
        if author is None or self.values:
            return "user"
        if author in self._by_author:
            return self._by_author[author]
        if self._roles is None:
            return "user"
        return self._roles.of(conversation, Said("", None, author=author))

    def authors(self) -> set[str]:
        """Return the authors, or some of them if they are many."""
        named = {author for one in self.by_conversation.values() for author in one.counts}
        return self.people | self.speakers | named

    def companions(self) -> list[str]:
        """Return the authors who are companions, each in one spelling."""
        found = self.speakers | {
            author
            for conversation, authors in self.by_conversation.items()
            for author in authors.counts
            if self.role(conversation, None, author) == "assistant"
        }
        by_name = {folded_name(author): author for author in sorted(found, reverse=True)}
        return list(by_name.values())[::-1]

    def only_person(self) -> str | None:
        """Return the only author who is no companion, or None."""
        people = self.everybody()
        return next(iter(people)) if len(people) == 1 else None

    def everybody(self) -> set[str]:
        """Return the authors who are no companions, or some of them if they are many."""
        people = self.people | {
            author
            for conversation, authors in self.by_conversation.items()
            for author in authors.counts
            if self.role(conversation, None, author) == "user"
        }
        return {self.spelled(author) for author in people}

    def _role(self, value: str) -> str | None:
        folded = folded_name(value)
        return self._given.get(folded) or WORDS.get(folded)
