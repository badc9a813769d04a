"""Read JSON documents whose chats are objects that end in an array of messages.

Telegram Desktop and DiscordChatExporter write such files. One array may be larger than the memory,
so neither the array nor its chat is ever built whole; the keys before the array identify the chat.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from aico_lab.sources.exports.engine.conversation import Unreadable
from aico_lab.sources.exports.engine.json_items import (
    LONGEST,
    NEAR,
    OPENING,
    MendedStream,
    Window,
)
from aico_lab.sources.exports.engine.replaced import TolerantDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator

    from aico_lab.sources.exports.engine.opened import Member
    from aico_lab.sources.exports.engine.replaced import Replaced

_STRING: Final = r'"(?:[^"\\]|\\.)*+"'
_ARRAY: Final = r'"messages"\s*+:\s*+\['
_TOKENS: Final = 400
"""The most strings and gaps between them in the keys of a chat before its messages."""

_CHAT: Final = rf'(?P<chat>\{{(?:[^"\[\]]++|{_STRING}){{0,{_TOKENS}}}?{_ARRAY})'
_NEXT: Final = re.compile(rf'{_CHAT}|(?P<array>{_ARRAY})|(?P<message>\{{\s*+"id"\s*+:)', re.DOTALL)
_NEXT_MESSAGE: Final = re.compile(rf"{_CHAT}|{_ARRAY}|(?P<message>{OPENING})", re.DOTALL)
_GAP: Final = re.compile(r"[\s,]*+")

_CUT_OFF: Final = "the file ends, or is damaged, before the end of this chat"
_LOST: Final = "the name and id of the chat are damaged, so its messages cannot be told from others"


def chats(
    member: Member, needs: Collection[str], repair: Callable[[bytes], bytes] | None = None
) -> Generator[tuple[dict[str, Any], Iterator[dict[str, Any] | Unreadable]] | Unreadable]:
    """Yield the chats of a document: the keys before the messages, and the messages.

    The messages are read from the file as they are iterated; messages that were not iterated are
    skipped when the next chat is requested. After a damaged message, the next object that has the
    needed keys is a message again.

    Args:
        member: The file.
        needs: Keys that every message has.
        repair: Mends pieces of the file, each cut at the end of a line.
    """
    wanted = frozenset(needs)
    with member.replacing() as replaced, member.open() as stream:
        window = Window(MendedStream(stream, repair), replaced)
        is_lost = False
        while (begin := window.search(_NEXT)) is not None:
            found = _NEXT.match(window.text, begin)
            if found is None:
                return
            keys = _keys(found["chat"])
            if keys is None:
                if not is_lost and (found["message"] is None or _is_message(window, wanted)):
                    yield Unreadable("a chat", _LOST)
                    is_lost = True
                window.at = window.begin + len(found[0])
                continue
            window.at, is_lost = found.end(), False
            messages = _messages(window, wanted, replaced)
            yield keys, messages
            for _ in messages:
                pass


def _keys(begin: str | None) -> dict[str, Any] | None:
    try:
        keys = None if begin is None else json.loads(f"{begin}]}}", strict=False)
    except (ValueError, RecursionError):
        return None
    return keys if isinstance(keys, dict) else None


def _messages(
    window: Window, needs: frozenset[str], replaced: Replaced
) -> Iterator[dict[str, Any] | Unreadable]:
    """Yield the messages of an array, from its beginning at `window.at`."""
    decoder = TolerantDecoder()
    number = 0
    while _more(window):
        if window.text[window.at] == "]":
            window.at += 1
            if not (_more(window) and window.text[window.at] == "{"):
                return
        number += 1
        item = _decoded(window, decoder)
        if isinstance(item, dict):
            replaced.numbers += decoder.replaced
            yield item
            continue
        yield Unreadable(f"message {number:,}", "it is damaged")
        if item is not None:  # a sound value that is no message
            continue
        if not _find_message(window, needs):
            return
    yield Unreadable(f"message {number + 1:,}", _CUT_OFF)


def _more(window: Window) -> bool:
    """Move past blanks and commas; return whether anything follows."""
    while True:
        gap = _GAP.match(window.text, window.at)
        window.at = window.at if gap is None else gap.end()
        if window.at < len(window.text):
            return True
        if not window.grow():
            return False


def _decoded(window: Window, decoder: TolerantDecoder) -> object | None:
    """Return the value at `window.at` and move past it; None, without moving, if it is damaged."""
    while True:
        window.begin = window.at
        try:
            item, end = decoder.raw_decode(window.text, window.at)
        except json.JSONDecodeError as error:
            cut_off = error.pos >= len(window.text) - NEAR or "Unterminated" in error.msg
            too_long = len(window.text) - window.at >= LONGEST
            if cut_off and not too_long and window.grow():
                continue
            return None
        except (RecursionError, ValueError):
            return None
        window.at = end
        return False if item is None else item


def _find_message(window: Window, needs: frozenset[str]) -> bool:
    """Move to the next message; return False, at the next chat, if this one has no more."""
    window.leave()
    while (begin := window.search(_NEXT_MESSAGE)) is not None:
        found = _NEXT_MESSAGE.match(window.text, begin)
        if found is None or found["message"] is None:
            return False
        if _is_message(window, needs):
            window.at = window.begin
            return True
        window.leave()
    return False


def _is_message(window: Window, needs: frozenset[str]) -> bool:
    item = _decoded(window, TolerantDecoder())
    return isinstance(item, dict) and needs <= item.keys()
