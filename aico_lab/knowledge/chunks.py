"""Cut documents into chunks, each with its place: the headings above the chunk, or its page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST: Final = 1_000
"""The maximum number of characters of a chunk."""

_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})")
# No pattern has two parts that match the same spaces, which would take quadratic time.
_HEADING: Final = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_UNDERLINE: Final = re.compile(r" {0,3}(=+|-+)$")
_PARAGRAPHS: Final = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE_ENDS: Final = re.compile(r"(?<=[.!?…\u3002\uff01\uff1f])\s+|\n")


class Chunk(NamedTuple):
    """A chunk of a document; `place` is None if the document has no headings and no pages."""

    place: str | None
    content: str


def of_text(text: str, place: str | None = None) -> Iterator[Chunk]:
    """Yield the chunks of a text: as many paragraphs as fit, or sentences of long paragraphs."""
    yield from (Chunk(place, content) for content in _packed(_paragraphs(text), "\n\n"))


def of_markdown(text: str) -> Iterator[Chunk]:
    """Yield the chunks of a Markdown text; a heading always begins another chunk."""
    headings: list[tuple[int, str]] = []
    lines: list[str] = []
    fence: str | None = None
    for line in [*text.split("\n"), "# "]:
        marked = _FENCE.match(line)
        if fence is not None or marked:
            if fence is None and marked:
                fence = marked[1]
            elif (
                fence
                and marked
                and marked[1].startswith(fence)
                and not line.strip().strip(fence[0])
            ):
                fence = None
            lines.append(line)
            continue
        heading, above = _heading(line, lines)
        if heading is None:
            lines.append(line)
            continue
        place = " > ".join(title for _, title in headings) or None
        yield from of_text("\n".join(above), place)
        lines = []
        headings = [one for one in headings if one[0] < heading[0]]
        if heading[1]:
            headings.append(heading)
    if fence is not None:  # never closed, so the line appended above is in it
        place = " > ".join(title for _, title in headings) or None
        yield from of_text("\n".join(lines[:-1]), place)


def _heading(line: str, lines: list[str]) -> tuple[tuple[int, str] | None, list[str]]:
    """Return the level and title of a heading that ends with a line, and the lines before it."""
    if found := _HEADING.match(line):
        return (len(found[1]), _title(line[found.end() :])), lines
    if (
        (found := _UNDERLINE.match(line.rstrip(" \t")))
        and lines
        and lines[-1].strip()
        and (len(lines) == 1 or not lines[-2].strip())
    ):
        return (1 if found[1][0] == "=" else 2, lines[-1].strip()), lines[:-1]
    return None, lines


def _title(rest: str) -> str:
    """Return the text of a heading without the number signs that may close it."""
    title = rest.strip(" \t")
    unclosed = title.rstrip("#")
    return (unclosed if unclosed[-1:] in ("", " ", "\t") else title).strip()


def _paragraphs(text: str) -> Iterator[str]:
    """Yield paragraphs; one that is too long is cut between sentences."""
    for paragraph in _PARAGRAPHS.split(text.strip()):
        if len(paragraph) <= LONGEST:
            yield paragraph
        else:
            yield from _packed(_sentences(paragraph), " ")


def _sentences(paragraph: str) -> Iterator[str]:
    """Yield sentences; one that is too long is cut, at white space if possible."""
    for sentence in _SENTENCE_ENDS.split(paragraph):
        whole, start = sentence.strip(), 0
        while len(whole) - start > LONGEST:
            at = whole.rfind(" ", start + LONGEST // 2, start + LONGEST + 1)
            at = start + LONGEST if at < 0 else at
            yield whole[start:at].strip()
            start = at
        yield whole[start:].strip()


def _packed(parts: Iterator[str], between: str) -> Iterator[str]:
    """Yield parts joined as long as they fit into a chunk, without blank ones."""
    joined = ""
    for part in parts:
        if not part.strip():
            continue
        if joined and len(joined) + len(between) + len(part) > LONGEST:
            yield joined
            joined = part
        else:
            joined = f"{joined}{between}{part}" if joined else part
    if joined:
        yield joined
