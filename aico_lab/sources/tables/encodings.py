"""Read a text in any of the usual encodings as UTF-8 with line feeds, in constant memory."""

from __future__ import annotations

import codecs
import io
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final, cast

from aico_lab.sources.exports.engine.opened import HEAD, Member

if TYPE_CHECKING:
    from collections.abc import Callable

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SHARE: Final = 0.4
"""The share of NUL bytes at every second place from which on a text is UTF-16."""

_PIECE: Final = 1 << 16
WORDS: Final = {"utf-8": "UTF-8", "utf-16-le": "UTF-16 LE", "utf-16-be": "UTF-16 BE"}
FALLBACK: Final = "Windows-1252"


@dataclass(slots=True)
class Decoder:
    """Decodes lines that should be UTF-8, else takes them for Windows-1252.

    Attributes:
        others: The number of lines that are not UTF-8.
        first: The number of the first such line, as `number` was at that time.
        utf8: The number of lines with more than ASCII that are UTF-8.
    """

    others: int = 0
    first: int = 0
    utf8: int = 0

    def decoded(self, line: bytes, number: int) -> str:
        """Return the text of a line.

        Raises:
            UnicodeDecodeError: It has bytes that Windows-1252 does not have either.
        """
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = line.decode("cp1252")
            self.others += 1
            self.first = self.first or number
            return text
        self.utf8 += len(text) < len(line)
        return text

    @property
    def note(self) -> str | None:
        """A sentence about lines in another encoding than the rest, or None."""
        return self.sentence() if self.others and self.utf8 else None

    def sentence(self) -> str:
        """Return the sentence about those lines."""
        return (
            f"{self.others:,} {'line is' if self.others == 1 else 'lines are'} not UTF-8, as the "
            f"rest is, and read as {FALLBACK}; the first is line {self.first:,}."
        )


def encoding_of(head: bytes) -> tuple[str, int]:
    """Return the encoding of a text by its first bytes, and the length of its byte order mark."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark)
    sample = head[: len(head) // 2 * 2]
    if sample:
        for name, place in (("utf-16-le", 1), ("utf-16-be", 0)):
            if sample[place::2].count(0) > _SHARE * len(sample) / 2:
                return name, 0
    return "utf-8", 0


def as_utf8(member: Member) -> tuple[Member, str]:
    """Return a file whose stream is UTF-8 with line feeds, and the name of its encoding.

    Invalid UTF-8 stays as it is; half a character of UTF-16 becomes U+FFFD.
    """
    with member.open() as stream:
        head = stream.read(HEAD)
    name, mark = encoding_of(head)
    is_old = b"\r" in head and b"\n" not in head  # line ends of old Macs
    if name == "utf-8" and not is_old:
        return member, name
    return Member(member.name, member.size, _opener(member, name, mark, is_old=is_old)), name


def _opener(member: Member, name: str, mark: int, *, is_old: bool) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        stream = member._open()  # noqa: SLF001 the same class
        stream.read(mark)
        return cast("IO[bytes]", io.BufferedReader(_Recoded(stream, name, is_old=is_old), _PIECE))

    return opened


class _Recoded(io.RawIOBase):
    """A stream in another encoding, as UTF-8."""

    def __init__(self, stream: IO[bytes], name: str, *, is_old: bool) -> None:
        self._stream = stream
        self._is_old = is_old
        self._decode = (
            None if name == "utf-8" else codecs.getincrementaldecoder(name)("replace").decode
        )
        self._left = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._left and not self._ended:
            data = self._stream.read(_PIECE)
            self._ended = not data
            if self._decode is not None:
                data = self._decode(data, not data).encode("utf-8", "replace")
            self._left = data.replace(b"\r", b"\n") if self._is_old else data
        taken, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        self._stream.close()
        super().close()
