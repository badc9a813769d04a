"""A chat of WhatsApp, exported on Android or iPhone as text, alone or in a zip.

The text has no ids, and is in the language and the form of dates of the phone. It is first read for
the form of its dates and for who takes part.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from aico_lab.messages.metadata import ATTACHMENTS
from aico_lab.sources.exports.engine.conversation import (
    EDITED,
    ExportedConversation,
    Said,
    Traits,
    Unreadable,
)
from aico_lab.sources.exports.engine.names import without_date
from aico_lab.sources.exports.whatsapp.dates import MARKS, Form, head, time_of
from aico_lab.sources.exports.whatsapp.identity import GroupNotices, chat_ids, is_generic
from aico_lab.sources.exports.whatsapp.text import DELETED_ONE, is_of_a_notice, text_of
from aico_lab.sources.exports.whatsapp.words import ENCRYPTED, NAME, NOTICE_ABOUT

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from datetime import datetime

    from aico_lab.sources.exports.engine.conversation import Options
    from aico_lab.sources.exports.engine.opened import Member, Opened
    from aico_lab.sources.exports.whatsapp.dates import Head, Order

TRAITS: Final = Traits(leaves_roles_open=True, damage_is_near=True)

_LONGEST_LINE: Final = 4_000_001
"""The most bytes of a line: a message with a longer one is too long to be stored."""

_LONGEST: Final = 1_000_001
"""Characters of a message that are kept: one more than allowed, so that a longer one is refused."""

_NEAR_BEGINNING: Final = 30
"""Lines of a file of which one must begin a message, so that the file is a chat."""

_LONGEST_NOTICE: Final = 400

_EDITABLE: Final = timedelta(minutes=15)
"""The time for which WhatsApp lets messages be edited."""

_LAST: Final = 1_000
"""The most lines at the end of a file that are looked at for messages that may still be edited."""

_MARK: Final = "\u200e"
"""The invisible character with which WhatsApp for iPhone begins its own words."""

_CALLED_SO: Final = "~ "
"""The mark that WhatsApp writes before names that people gave themselves."""

_MOST: Final = 10_000
"""Authors that are counted."""

_SHOWN: Final = 8
"""Authors in the name of a chat that has no other name."""

_UNDECIDED: Final = (
    "its dates may have the day or the month first, as no number in them is above 12: say which "
    "with --day-first or --month-first"
)

_AUTHOR: Final = re.compile(r"([^\n]{1,150}?):(?: |$)")
_MARKED_AUTHOR: Final = re.compile("([^\n]{1,150}?): \u200e")
_BLANKS_AND_MARKS: Final = re.compile(f"[\\s{MARKS}]+")


def recognise(export: Opened) -> str | None:
    """Return the reason why an export is a WhatsApp chat, or None."""
    member = next((one for one in _members(export) if _is_bracketed(one) is not None), None)
    if member is None:
        return None
    return f"{member.name} has lines that begin with date and time as in a WhatsApp chat"


def conversations(export: Opened, options: Options) -> Generator[ExportedConversation | Unreadable]:
    """Yield the chats of an export, mostly one."""
    for member in _members(export):
        bracketed = _is_bracketed(member)
        if bracketed is None:
            if len(export.members) == 1:
                yield Unreadable(member.name, "no line begins with a date, a time and an author")
            continue
        chat = _survey(member, bracketed=bracketed)
        order = chat.form.order(day_first=options.day_first)
        reason = _reason(chat.form)
        if order is None or reason is not None:
            yield Unreadable(member.name, reason or _UNDECIDED)
            continue
        if chat.form.is_guess(day_first=options.day_first):
            other = "month" if order == "day" else "day"
            export.remarks[
                f"No number in the dates of {member.name} is above 12. By the way they change, the "
                f"{order} comes first; if that is wrong, import it again with --{other}-first."
            ] = None
        faults: list[Unreadable] = []
        skipped: Counter[str] = Counter()
        named_by_file = _name(export, member)
        name = _author(
            chat.group.name
            or named_by_file
            or chat.name
            or ", ".join(sorted(chat.authors)[:_SHOWN])
        )
        noticed = None if chat.name is None else _author(chat.name)
        identity, *others = map(
            _author,
            chat_ids(list(chat.authors), chat.group, noticed=noticed, named_by_file=named_by_file),
        )
        yield ExportedConversation(
            identity,
            _messages(member, chat, (order, _known_order(order, options)), skipped, faults),
            title=name,
            is_group=chat.group.is_of(chat.authors),
            other_ids=tuple(others),
            authors=chat.authors,
            skipped=skipped,
        )
        yield from faults


@dataclass(slots=True)
class _Chat:
    """The facts about a chat after reading it once.

    Attributes:
        bracketed: Whether dates are in brackets.
        form: The form of dates and times.
        name: The name of the chat as its first notice has it.
        authors: Messages by author, roughly.
        group: The facts about a group that its notices show.
        last: The last messages.
    """

    bracketed: bool
    form: Form = field(default_factory=Form)
    name: str | None = None
    authors: Counter[str] = field(default_factory=Counter)
    group: GroupNotices = field(default_factory=GroupNotices)
    last: deque[Head] = field(default_factory=lambda: deque(maxlen=_LAST))

    def split(self, one: Head, *, is_first: bool) -> tuple[str | None, str]:
        """Return the author and the text of a message; no author if it is a notice."""
        rest = one.rest
        if self.name is not None and ":" in self.name and rest.startswith(f"{self.name}: "):
            return _author(self.name), rest[len(self.name) + 2 :]
        found = _AUTHOR.match(rest)
        if (
            found is None
            or is_of_a_notice(found[1])
            or NOTICE_ABOUT.fullmatch(rest[:_LONGEST_NOTICE])
        ):
            return None, rest
        text = rest[found.end() :]
        if is_first and self.bracketed and ENCRYPTED.search(text):
            return None, rest
        return _author(found[1]), text

    def settled_before(self, order: Order) -> datetime | None:
        """Return the time before which messages can no longer be edited; None if that is all.

        If a message near the end was deleted, another text in its place is no version of it.
        """
        end = time_of(self.last[-1], order) if self.last else None
        if end is None:
            return None
        for one in self.last:
            time = time_of(one, order)
            is_near = time is not None and end - time <= _EDITABLE
            if is_near and text_of(self.split(one, is_first=False)[1]).reason == DELETED_ONE:
                return None
        return end - _EDITABLE


def _reason(form: Form) -> str | None:
    """Return the reason why the dates and times of a chat cannot be read, or None."""
    if (contradiction := form.contradiction()) is not None:
        return contradiction
    if form.unknown_halves():
        return "its times have 12 hours, and unknown words for before and after noon"
    return None


def _members(export: Opened) -> list[Member]:
    if len(export.members) == 1:
        return list(export.members)
    return export.with_suffix(".txt")


def _is_bracketed(member: Member) -> bool | None:
    """Return whether a chat has its dates in brackets; None if it is no chat."""
    lines = member.head().decode("utf-8", errors="replace").split("\n")
    counts = {
        bracketed: [number for number, line in enumerate(lines) if head(line, bracketed=bracketed)]
        for bracketed in (False, True)
    }
    if not any(found and found[0] < _NEAR_BEGINNING for found in counts.values()):
        return None
    return len(counts[True]) > len(counts[False])


def _lines(member: Member) -> Iterator[tuple[int, str]]:
    """Yield the numbers and texts of lines; only LF ends a line, as texts have other separators."""
    number = 0
    with member.replacing() as replaced, member.open() as stream:
        while data := stream.readline(_LONGEST_LINE):
            number += 1
            rest = data
            while len(rest) == _LONGEST_LINE and not rest.endswith(b"\n"):
                rest = stream.readline(_LONGEST_LINE)
            text = replaced.decoded(data).rstrip("\r\n")
            yield number, text.removeprefix("\ufeff") if number == 1 else text


def _survey(member: Member, *, bracketed: bool) -> _Chat:
    """Return the facts that the beginnings of all messages show."""
    chat = _Chat(bracketed)
    is_first = True
    for number, line in _lines(member):
        one = head(line, bracketed=bracketed)
        if one is None:
            continue
        chat.form.add(number, one)
        chat.last.append(one)
        marked = _MARKED_AUTHOR.match(one.rest) if is_first else None
        if marked is not None and text_of(one.rest[marked.end() - 1 :]).reason == "notice":
            chat.name = marked[1]
        author, text = chat.split(one, is_first=is_first)
        is_first = False
        if author is None:
            chat.group.add(text)
            continue
        reason = text_of(text).reason if author not in chat.authors or text[:1] == _MARK else None
        if reason == "notice":
            chat.group.add(text)
        if author in chat.authors or (len(chat.authors) < _MOST and reason is None):
            chat.authors[author] += 1
    return chat


def _messages(
    member: Member,
    chat: _Chat,
    orders: tuple[Order, Order],
    skipped: Counter[str],
    faults: list[Unreadable],
) -> Iterator[Said]:
    """Yield the messages of a chat.

    Args:
        member: The file.
        chat: The facts about it.
        orders: The order of its dates, and that by which ids know them.
        skipped: Counts what is no message.
        faults: Grows by the lines that cannot be read.
    """
    message: _Message | None = None
    is_first = True
    settled = chat.settled_before(orders[0])
    for number, line in _lines(member):
        one = head(line, bracketed=chat.bracketed)
        if one is None:
            if message is not None:
                message.add(line)
            elif line.strip() and not faults:
                faults.append(
                    Unreadable(f"line {number:,}", "the line stands before the first message")
                )
            continue
        if message is not None and (said := message.said(orders, skipped, settled)) is not None:
            yield said
        message = _Message(one, *chat.split(one, is_first=is_first))
        is_first = False
    if message is not None and (said := message.said(orders, skipped, settled)) is not None:
        yield said


class _Message:
    """A message whose lines are being read."""

    def __init__(self, one: Head, author: str | None, text: str) -> None:
        self._head = one
        self._author = author
        self._lines = [text]
        self._characters = len(text)

    def add(self, line: str) -> None:
        """Add a line of the message."""
        if self._characters < _LONGEST:
            self._lines.append(line)
            self._characters += len(line) + 1

    def said(
        self, orders: tuple[Order, Order], skipped: Counter[str], settled: datetime | None
    ) -> Said | None:
        """Return the message; if nobody wrote it, count the reason and return None.

        Args:
            orders: The order of its date, and that by which its id knows it.
            skipped: Counts what is no message.
            settled: The time before which messages can no longer be edited; None if that is all.
        """
        text = text_of("\n".join(self._lines))
        reason = "notice" if self._author is None else text.reason
        if reason is not None:
            skipped[reason] += 1
            return None
        kept: dict[str, object] = {}
        if text.media:
            kept[ATTACHMENTS] = text.media
        if text.is_edited:
            kept[EDITED] = True
        order, known = orders
        known_time = None if known == order else time_of(self._head, known)
        time = time_of(self._head, order)
        return Said(
            text.content,
            time,
            author=self._author,
            author_name=self._author and self._author.removeprefix(_CALLED_SO),
            metadata=kept,
            first=None if known_time is None else (known_time, text.content),
            is_settled=settled is None or (time is not None and time < settled),
        )


def _known_order(order: Order, options: Options) -> Order:
    """Return the order of dates by which ids know messages."""
    if options.known_day_first is None or order == "year":
        return order
    return "day" if options.known_day_first else "month"


@lru_cache(maxsize=4_096)
def _author(name: str) -> str:
    """Return a name without marks of direction, and with simple blanks."""
    return _BLANKS_AND_MARKS.sub(" ", name).strip()


def _name(export: Opened, member: Member) -> str | None:
    """Return the name of the chat from names of files and folders, without a counter.

    The file of an iPhone is always `_chat.txt`, in a zip or folder that is named after the chat.
    """
    if not is_generic(member.stem):
        return _without_template(member.stem)
    folder = member.name.rpartition("/")[0].rpartition("/")[2]
    path = export.path.absolute()
    own = path.name if path.is_dir() else path.stem
    for name in (folder, own, path.parent.name):
        named = _without_template(name)
        if name and named != _author(without_date(name)):
            return named
    return None


def _without_template(name: str) -> str:
    """Return the chat's name from that of a file such as 'WhatsApp Chat with X (1)'."""
    name = _author(without_date(name))
    found = NAME.fullmatch(name)
    return name if found is None else next(filter(None, found.groups()))
