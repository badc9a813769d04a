"""Turn HTML into the text that a person sees."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Final

_LINES: Final = frozenset(
    {"p", "div", "br", "li", "ul", "ol", "tr", "table", "pre", "blockquote", "hr", "section"}
    | {"h1", "h2", "h3", "h4", "h5", "h6"}
)
_CELLS: Final = frozenset({"td", "th"})
_UNSEEN: Final = frozenset({"script", "style", "template"})
_TAG: Final = re.compile(r"<[^>]*>")
_BLANKS: Final = re.compile(r"[ \t\r\n]+")


class _Text(HTMLParser):
    """Gathers text; lines end where blocks begin and end."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.images = 0
        self._unseen = 0
        self._code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self._unseen += tag in _UNSEEN
        self._code += tag == "pre"
        self.images += tag == "img"
        self._end_line(tag)

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(self._unseen - (tag in _UNSEEN), 0)
        self._code = max(self._code - (tag == "pre"), 0)
        self._end_line(tag)

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if not self._code:
            data = _BLANKS.sub(" ", data)
            if not self.pieces or self.pieces[-1].endswith((" ", "\n")):
                data = data.lstrip(" ")
        if data:
            self.pieces.append(data)

    def _end_line(self, tag: str) -> None:
        if not self.pieces:
            return
        if tag in _LINES:
            last = self.pieces[-1].rstrip(" ")
            self.pieces[-1] = last if last.endswith("\n") else f"{last}\n"
        elif tag in _CELLS and not self.pieces[-1].endswith((" ", "\n")):
            self.pieces.append(" ")


def to_plain(source: str) -> tuple[str, int]:
    """Return the text of an HTML document, and the number of its pictures."""
    parser = _Text()
    try:
        parser.feed(source)
        parser.close()
    except AssertionError:  # raised by the parser at some malformed declarations
        return html.unescape(_TAG.sub(" ", source)).strip(), 0
    return "".join(parser.pieces).strip(), parser.images
