"""Read the items of a JSON document one by one, in little memory, also from a damaged file.

`ijson` streams sound documents. It stops at the first fault. If the fault is a byte that is not
UTF-8, or a number such as NaN, that is replaced and counted. The text after any other fault is
searched for objects that have the keys of an item; each such object that parses is an item.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from typing import IO, TYPE_CHECKING, Any, Final

import ijson

from aico_lab.sources.exports.engine.conversation import Unreadable
from aico_lab.sources.exports.engine.json_nesting import Shallow, TooDeep, deep_items
from aico_lab.sources.exports.engine.replaced import (
    Replaced,
    SoundStream,
    TolerantDecoder,
    Utf8,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from aico_lab.sources.exports.engine.json_nesting import Stream
    from aico_lab.sources.exports.engine.opened import Member

_PIECE: Final = 1 << 20
LONGEST: Final = 64 << 20
"""Bytes of the longest item that is searched for in a damaged file."""

_EVENTS: Final = 4_000
"""Events of the parser after which the shape of a document is clear."""

_DEEPEST: Final = 64
"""Objects and lists in each other, after which the shape of a document is clear."""

NEAR: Final = 1_000
"""Characters at the end of the text read so far: a fault there may only be the cut of the text."""

OPENING: Final = r'\{\s*+"(?:[^"\\]|\\.)*+"\s*+:'
"""The beginning of an object. In the text of a message its quotation marks are escaped."""

_OPENING: Final = re.compile(OPENING)
_MANY: Final = re.compile(r'(?:[\[{]\s*+(?:"(?:[^"\\]|\\.)*+"\s*+:\s*+)?+){500}')
_LOST: Final = "the JSON is damaged here, or items without the usual keys are"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def items(
    member: Member,
    prefix: str,
    *,
    needs: Collection[str],
    repair: Callable[[bytes], bytes] | None = None,
    what: str = "conversation",
) -> Iterator[dict[str, Any] | Unreadable]:
    """Yield the objects of an array, and an `Unreadable` for each part that is no such object.

    Args:
        member: The file.
        prefix: Where the array's items are, in ijson's notation: 'item' in a list at the top,
            'chats.list.item' in the object's list.
        needs: Keys that every item has; objects found after a fault without them are passed over.
            A sound document without anything at the prefix is searched for such objects too.
        repair: Mends pieces of the file, each cut at the end of a line.
        what: The noun of an item, for `Unreadable.where`.
    """
    number = known = 0
    wanted = frozenset(needs)
    reason = None
    try:
        for item in _values(member, prefix, repair):
            number += 1
            if isinstance(item, dict):
                known += wanted <= item.keys()
                yield item
            else:
                yield Unreadable(f"{what} {number}", "it is not an object")
    except (ijson.JSONError, ValueError) as error:
        reason = _reason(error)
    if reason is not None:
        yield Unreadable(f"{what} {number + 1}", reason)
    elif number:
        return
    gaps = 0
    for item in _search(member, repair, wanted):
        if known:  # read above
            known -= item is not None
        elif item is not None:
            number += 1
            yield item
        else:
            gaps += 1
            if gaps > 1 and reason is not None:  # the first one is reported above
                yield Unreadable(f"{what} {number + gaps}", _LOST)


def _values(
    member: Member, prefix: str, repair: Callable[[bytes], bytes] | None
) -> Iterator[object]:
    """Yield the values at a prefix; if a parser stops, what no parser takes is replaced.

    Raises:
        ijson.JSONError: The document is damaged.
    """
    number = 0
    try:
        for value in _parsed(member, prefix, repair, is_mended=False):
            number += 1
            yield value
    except (ijson.JSONError, ValueError) as error:
        if not _is_replaceable(error):
            raise
    else:
        return
    yield from itertools.islice(_parsed(member, prefix, repair, is_mended=True), number, None)


def _parsed(
    member: Member, prefix: str, repair: Callable[[bytes], bytes] | None, *, is_mended: bool
) -> Iterator[object]:
    """Yield the values at a prefix, as one parser reads them.

    Args:
        member: The file.
        prefix: The prefix.
        repair: Mends pieces of the file.
        is_mended: Whether to replace what no parser takes, which takes time.

    Raises:
        ijson.JSONError: The document is damaged.
    """

    def begun(stream: IO[bytes]) -> MendedStream | SoundStream:
        mended = MendedStream(stream, repair)
        return SoundStream(mended, replaced) if is_mended else mended

    number = 0
    with member.replacing() as replaced:
        try:
            with member.open() as stream:
                whole = Shallow(begun(stream))
                for item in ijson.items(whole, prefix, use_float=True):
                    number += 1
                    yield item
        except TooDeep:
            replaced.clear()
            with member.open() as stream:
                found = deep_items(begun(stream), prefix)
                yield from itertools.islice(found, number, None)


def shape(member: Member, repair: Callable[[bytes], bytes] | None = None) -> frozenset[str]:
    """Return the paths of the keys at the beginning of a JSON document; empty if it is none.

    A path is in ijson's notation, such as 'item.mapping' or 'messages.item.from_id'. The root of a
    list is 'item', that of an object has the path ''.
    """
    head = member.head()
    if head.lstrip()[:1] not in (b"[", b"{"):
        return frozenset()
    head = head if repair is None else repair(head)
    found: set[str] = set()
    try:
        _note_paths(_Bytes(head), found)
    except (ijson.JSONError, ValueError) as error:  # mostly the cut end of the head
        if _is_replaceable(error):
            with contextlib.suppress(ijson.JSONError, ValueError):
                _note_paths(SoundStream(_Bytes(head), Replaced()), found)
    return frozenset(found)


def _note_paths(stream: Stream, found: set[str]) -> None:
    """Add the paths of the keys at the beginning of a JSON document.

    Raises:
        ijson.JSONError: The document ends or is damaged.
    """
    # ijson.parse names the path of every event, which takes minutes where values nest deeply.
    events = ijson.basic_parse(stream)
    open_paths: list[str] = []
    path = ""
    for event, value in itertools.islice(events, _EVENTS):
        above = open_paths[-1] if open_paths else ""
        if event == "map_key":
            path = f"{above}.{value}" if above else value
            found.add(path)
        elif event in ("start_map", "start_array"):
            if len(open_paths) >= _DEEPEST:
                break
            if event == "start_array":
                path = f"{path}.item" if path else "item"
            open_paths.append(path)
        elif event in ("end_map", "end_array"):
            open_paths.pop()
            path = open_paths[-1] if open_paths else ""


class _Bytes:
    """A stream of bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, count: int = -1) -> bytes:
        taken, self._data = (
            (self._data, b"") if count < 0 else (self._data[:count], self._data[count:])
        )
        return taken


class MendedStream:
    """A stream without its byte order mark, mended piece by piece if needed."""

    def __init__(self, stream: IO[bytes], repair: Callable[[bytes], bytes] | None) -> None:
        self._stream = stream
        self._repair = repair
        self._first = True

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes, not exactly `count`; none at the end."""
        if count == 0:
            return b""
        data = self._stream.read(_PIECE if count < 0 or self._repair else count)
        if self._first:
            data = data.removeprefix(_BYTE_ORDER_MARK)
            self._first = False
        if self._repair is not None and data:
            data = self._repair(data + self._stream.readline(1 << 16))
        return data


def _search(
    member: Member,
    repair: Callable[[bytes], bytes] | None,
    needs: frozenset[str],
) -> Iterator[dict[str, Any] | None]:
    """Yield all sound objects that have the needed keys, by searching for their beginnings.

    None stands for one or more objects in a row that are damaged, or lack those keys.

    Any key may come first: neither is the order of keys fixed, nor has every item all keys.
    """
    decoder = TolerantDecoder()
    is_gap = is_fault = False
    with member.replacing() as replaced, member.open() as stream:
        window = Window(MendedStream(stream, repair), replaced)
        while (begin := window.search(_OPENING)) is not None:
            try:
                item, end = decoder.raw_decode(window.text, begin)
            except json.JSONDecodeError as error:
                cut_off = error.pos >= len(window.text) - NEAR or "Unterminated" in error.msg
                if not (cut_off and len(window.text) - begin < LONGEST and window.grow()):
                    window.leave()
                    is_gap = is_fault = True
                continue
            except (RecursionError, ValueError):
                window.leave()
                is_gap = is_fault = True
                continue
            is_item = isinstance(item, dict) and needs <= item.keys()
            window.at = end if is_item else begin + 1
            if is_item:
                replaced.numbers += decoder.replaced
                if is_gap:
                    yield None
                yield item
                is_fault = False
            is_gap = not is_item
        if is_fault:  # sound objects may also follow the list
            yield None


class Window:
    """The part of a document's text that is being searched.

    Attributes:
        text: The part.
        at: The position in the part at which the search continues.
        begin: The position in the part at which the last find begins.
    """

    def __init__(self, source: MendedStream, replaced: Replaced) -> None:
        """Begin; `replaced` is counted up."""
        self._source = source
        self._utf8 = Utf8(replaced)
        self.text = ""
        self.at = 0
        self.begin = 0

    def search(self, pattern: re.Pattern[str]) -> int | None:
        """Return where the next find begins, or None; text before it is dropped."""
        while True:
            found = pattern.search(self.text, self.at)
            if found is not None:
                self.begin = self.at = found.start()
                return self.begin
            self.at = max(len(self.text) - NEAR, self.at)
            if not self.grow():
                return None

    def leave(self) -> None:
        """Move past the beginning of the last find, which is no sound item.

        Nor are the objects and lists in each other that begin there, if they are many: to try each
        of them takes minutes.
        """
        found = _MANY.match(self.text, self.begin)
        self.at = self.begin + 1 if found is None else found.end()

    def grow(self) -> bool:
        """Read on, and drop the text before `at`; return whether there was more.

        The text after `at`, which may be parsed once more, is doubled up to `LONGEST`.
        """
        left = len(self.text) - self.at
        wanted = max(_PIECE, min(left, LONGEST - left))
        pieces: list[bytes] = []
        while wanted > 0 and (piece := self._source.read(_PIECE)):
            pieces.append(piece)
            wanted -= len(piece)
        text = self._utf8.decoded(b"".join(pieces), final=not pieces)
        self.text = self.text[self.at :] + text
        self.begin -= self.at
        self.at = 0
        return bool(pieces)


def _is_replaceable(error: Exception) -> bool:
    """Return whether replacing bytes or numbers may mend a document."""
    said = str(error).partition("\n")[0]  # the other lines quote the document
    return "lexical error" in said or "malformed number" in said


def _reason(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0].lower()
    if isinstance(error, ijson.IncompleteJSONError) or "premature" in said or "incomplete" in said:
        return "the file ends, or is damaged, before the end of this item"
    return "the JSON is damaged here"
