"""Identify a chat by its content, so that the names of its files do not matter.

The text of a chat has no id. A chat of two is known by its authors. A group is known by the name
under which it was created, which stays at the beginning of later exports even if it is renamed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aico_lab.sources.exports.whatsapp.words import COMMUNITY, CREATED, GROUP

if TYPE_CHECKING:
    from collections.abc import Sequence, Sized

_PAIR: Final = 2
_FIRST: Final = 3
"""The authors by whom a group without any name is known: the first ones, whoever comes later."""

_LONGEST_NOTICE: Final = 400

_QUOTED: Final = re.compile(
    '[“„\u00ab\u300c"]\\s*([^“”„\u00ab\u00bb\u300c\u300d"\n]{1,100}?)\\s*[”“\u00bb\u300d"]'
)
_GENERIC: Final = re.compile(
    r"_?(?:whatsapp[ _-]*)?(?:chats?|export|messages|conversation)?[ _-]*(?:\(?\d{0,3}\)?)",
    re.IGNORECASE,
)


@dataclass(slots=True)
class GroupNotices:
    """The facts about a group that its notices show.

    Attributes:
        is_known: Whether a notice shows that the chat is a group.
        name: The first name of the group that a notice has, or None.
    """

    is_known: bool = False
    name: str | None = None

    def add(self, notice: str) -> None:
        """Note what a notice shows."""
        if self.name is not None or len(notice) > _LONGEST_NOTICE:
            return
        quoted = _QUOTED.search(notice)
        words = notice if quoted is None else notice[: quoted.start()] + notice[quoted.end() :]
        if GROUP.search(words) is None or COMMUNITY.search(words) is not None:
            return
        if quoted is not None:
            self.name = quoted[1].strip()
            self.is_known = True
        elif CREATED.search(words) is not None:
            self.is_known = True

    def is_of(self, authors: Sized) -> bool:
        """Return whether a chat with these authors is a group."""
        return self.is_known or len(authors) > _PAIR


def chat_ids(
    authors: Sequence[str], group: GroupNotices, *, noticed: str | None, named_by_file: str | None
) -> list[str]:
    """Return the id of a chat, and then those that other exports of it may have.

    An earlier export may lack the third author or the first notice of a group's name, and a later
    one the beginning of the chat.

    Args:
        authors: Who wrote, in the order of their first messages.
        group: The facts of the notices.
        noticed: The name of the chat that iPhones write before their first notice.
        named_by_file: The name of the chat in that of its file or folder; None if that is generic.
    """
    names = list(filter(None, (group.name, noticed, named_by_file)))
    # While only one has written, the other one's name keeps the chats of that author apart.
    beginnings = [{*authors[:1], name} for name in (noticed or named_by_file, *names) if name]
    beginnings += [set(authors[:count]) for count in (1, _PAIR, _FIRST)]
    joined = [", ".join(sorted(some)) for some in beginnings]
    if group.is_of(authors):
        first = (*names, joined[-1])[0]
    elif len(authors) == _PAIR:
        first = ", ".join(sorted(authors))
    else:
        first = joined[0] or "chat"
    return list(dict.fromkeys([first, *filter(None, [*names, *joined])]))


def is_generic(name: str) -> bool:
    """Return whether a file's name says nothing about its chat, such as '_chat' or 'chat (1)'."""
    return _GENERIC.fullmatch(name) is not None
