"""Replace what neither UTF-8 nor JSON allows, and count it.

A byte that is not UTF-8, or a bare NaN, makes a whole document invalid, although nothing of it is
lost but this character or this number. Python's JSON writes such numbers itself.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aico_lab.sources.exports.engine.json_nesting import Stream

_UNKNOWN: Final = "\ufffd"
_UNKNOWN_BYTES: Final = _UNKNOWN.encode()
_STRING_END: Final = re.compile(r'(?:[^"\\]|\\.)*+', re.DOTALL)
_CONSTANT: Final = re.compile(r"\bNaN\b|-?\bInfinity\b")
_CUT_WORD: Final = re.compile(r"[-A-Za-z]{1,16}$")


@dataclass(slots=True)
class Replaced:
    """Counts of what was replaced in a file.

    Attributes:
        characters: Places that are not UTF-8, each of which became U+FFFD.
        numbers: Numbers such as NaN, each of which became null.
    """

    characters: int = 0
    numbers: int = 0

    def clear(self) -> None:
        """Count from zero again."""
        self.characters = self.numbers = 0

    def note(self, other: Replaced) -> None:
        """Note what was replaced when the file was read once more, perhaps not to its end."""
        self.characters = max(self.characters, other.characters)
        self.numbers = max(self.numbers, other.numbers)

    def sentences(self, name: str) -> list[str]:
        """Return sentences about what was replaced in the file of that name."""
        found = []
        if self.characters:
            is_one = self.characters == 1
            places = "1 place that is" if is_one else f"{self.characters:,} places that are"
            found.append(f"{name} has {places} not UTF-8, read as the character U+FFFD.")
        if self.numbers:
            values = "1 value" if self.numbers == 1 else f"{self.numbers:,} values"
            found.append(f"{name} has {values} such as NaN, which is no JSON, read as null.")
        return found

    def decoded(self, line: bytes) -> str:
        """Return the text of a line."""
        try:
            return line.decode()
        except UnicodeDecodeError:
            text = line.decode(errors="replace")
            self.characters += text.count(_UNKNOWN) - line.count(_UNKNOWN_BYTES)
            return text


class Utf8:
    """Decodes a stream piece by piece."""

    def __init__(self, replaced: Replaced) -> None:
        """Begin; `replaced` is counted up."""
        self._replaced = replaced
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._end = b""

    def decoded(self, data: bytes, *, final: bool) -> str:
        """Return the text of the next bytes; a character that is cut waits for the rest of it."""
        text = self._decode(data, final)
        if _UNKNOWN in text:
            given = (self._end + data).count(_UNKNOWN_BYTES)  # also one that was cut
            self._replaced.characters += text.count(_UNKNOWN) - given
        self._end = (self._end + data)[-2:]
        return text


class SoundStream:
    """A stream of JSON in which everything is replaced that no parser takes."""

    def __init__(self, stream: Stream, replaced: Replaced) -> None:
        """Begin; `replaced` is counted up."""
        self._stream = stream
        self._replaced = replaced
        self._utf8 = Utf8(replaced)
        self._left = ""
        self._is_in_string = False

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes, not exactly `count`; none at the end."""
        if count == 0:
            return b""
        while data := self._stream.read(count):
            if mended := self._mended(self._utf8.decoded(data, final=False)):
                return mended.encode()
        left = self._left + self._utf8.decoded(b"", final=True)
        self._left = ""
        return (left if self._is_in_string else self._without_constants(left)).encode()

    def _mended(self, text: str) -> str:
        """Return text with null for constants outside strings; its end may wait for the rest."""
        text, self._left = self._left + text, ""
        parts = []
        at = 0
        while at < len(text):
            if self._is_in_string:
                found = _STRING_END.match(text, at)
                end = at if found is None else found.end()
                self._is_in_string = text[end : end + 1] != '"'
                if self._is_in_string:  # a backslash may wait for what it escapes
                    self._left = text[end:]
                    parts.append(text[at:end])
                    break
                parts.append(text[at : end + 1])
            else:
                end = text.find('"', at)
                if end < 0:
                    cut = _CUT_WORD.search(text, at)
                    end = len(text) if cut is None else cut.start()
                    self._left = text[end:]
                    parts.append(self._without_constants(text[at:end]))
                    break
                self._is_in_string = True
                parts.append(self._without_constants(text[at:end]) + '"')
            at = end + 1
        return "".join(parts)

    def _without_constants(self, text: str) -> str:
        if "N" not in text and "I" not in text:
            return text
        mended, count = _CONSTANT.subn("null", text)
        self._replaced.numbers += count
        return mended


class TolerantDecoder:
    """Decodes JSON with constants such as NaN, which become null, and control characters.

    Attributes:
        replaced: Constants in the last value.
    """

    def __init__(self) -> None:
        self.replaced = 0
        self._decoder = json.JSONDecoder(strict=False, parse_constant=self._null)

    def raw_decode(self, text: str, at: int) -> tuple[Any, int]:
        """Return the value at a place, and its end.

        Raises:
            ValueError: There is no sound value.
            RecursionError: It is nested too deeply.
        """
        self.replaced = 0
        return self._decoder.raw_decode(text, at)

    def _null(self, name: str) -> None:
        del name
        self.replaced += 1
