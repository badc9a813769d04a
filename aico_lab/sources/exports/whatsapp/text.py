"""Separate the text of a WhatsApp message from placeholders and marks of WhatsApp itself."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from aico_lab.sources.exports.whatsapp.dates import MARKS
from aico_lab.sources.exports.whatsapp.words import (
    ATTACHED,
    DELETED,
    EDITED,
    KINDS,
    MEDIA_OR_OMITTED,
    NOTICE,
    OMITTED,
    WAITING,
)

DELETED_ONE: Final = "deleted message"
"""The reason why the notice in the place of a deleted message is no message."""

_MARK: Final = "\u200e"
_AT_EDGES: Final = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_WRAPPED: Final = re.compile(
    "^[\\s\u200e\u200f]*[\u202a\u202b\u202d\u202e]([^\u202a-\u202e]*)\u202c"
)

_EDIT_MARK: Final = re.compile(rf"{_MARK}?<([^<>\n]{{4,60}})>[{MARKS}]{{0,3}}$")
_IN_ANGLES: Final = re.compile(r"<([^<>\n]{3,60})>")
_LEFT_OUT: Final = re.compile(rf"(?:^|(?<=\s)){_MARK}([^{_MARK}\n]{{3,60}})$")
_PAGES: Final = re.compile(rf"^[^\n]*\.\w{{2,5}}(?: \u2022 {_MARK}?[^\n]*)?$")
_FILE: Final = re.compile(
    rf"{_MARK}?(?P<name>[^\n]{{1,255}}?\.\w{{2,5}}) [(<](?P<word>[^()<>\n]{{2,40}})[)>]"
    rf"[ {MARKS}]{{0,3}}(?:\n|$)"
)
_ATTACHMENT: Final = re.compile(
    rf"{_MARK}<[^<>\n:]{{2,40}}: ?(?P<name>[^<>\n]{{1,255}}\.\w{{2,5}})>"
)
_NAMED_BY_WHATSAPP: Final = re.compile(r"[A-Z]{3}-\d{8}-WA\d{4}\.\w{2,5}|\d{8}-[A-Z]+-")
_NAMED_KINDS: Final = (
    ("sticker", re.compile(r"STK-|STICKER|\.webp$", re.IGNORECASE)),
    ("animation", re.compile(r"-GIF-|\.gif$", re.IGNORECASE)),
    ("image", re.compile(r"^IMG-|-PHOTO-|\.(?:jpe?g|png|heic)$", re.IGNORECASE)),
    ("video", re.compile(r"^VID-|-VIDEO-|\.(?:mp4|mov|3gp|mkv)$", re.IGNORECASE)),
    ("audio", re.compile(r"^(?:AUD|PTT)-|-AUDIO-|\.(?:opus|mp3|m4a|ogg|aac|wav)$", re.IGNORECASE)),
    ("contact", re.compile(r"\.vcf$", re.IGNORECASE)),
)
_PLACE: Final = re.compile(r"https?://(?:maps\.|www\.google\.[a-z.]+/maps|foursquare)")
_VOTES: Final = r"[^\n(]{1,300}\([^\n()]{1,30}\)"
_POLL: Final = re.compile(
    rf"{_MARK}?(?P<word>[^\W\d_]{{3,12}}) ?: ?\n?(?P<question>[^\n]{{1,300}})"
    rf"\n{_MARK}?(?P<option>[^\W\d_]{{3,12}}) ?: {_VOTES}"
    rf"(?:\n{_MARK}?(?P=option) ?: {_VOTES})++"
)
_QUOTES: Final = (("“", "”"), ("„", "“"), ("«", "»"), ("「", "」"))
_LONGEST_MARK: Final = 100
"""Characters of a text within which a placeholder or the mark of an edit lies."""


class Text(NamedTuple):
    """The text of a message, after its placeholders and marks were removed.

    Attributes:
        content: The text that somebody wrote.
        media: The attachments of the message.
        is_edited: Whether the message was edited.
        reason: The reason why the text is no message; None for a message.
    """

    content: str
    media: list[dict[str, str]]
    is_edited: bool = False
    reason: str | None = None


def text_of(raw: str) -> Text:
    """Return the text and the attachments of a message.

    Args:
        raw: The text after the author, with all its lines.
    """
    raw = raw.strip()
    is_marked = raw.startswith(_MARK)
    bare = _bare(raw)
    if len(bare) < _LONGEST_MARK:
        key = " ".join(bare.split()).rstrip(".。").casefold()
        if key in DELETED:
            return Text("", [], reason=DELETED_ONE)
        if key in WAITING:
            return Text("", [], reason="message that never arrived")
        if bare == "null":  # Android writes it for attachments of unknown kinds
            return Text("", [{"kind": "unknown"}])
    is_edited = False
    if raw.rstrip(_AT_EDGES).endswith(">"):
        found = _EDIT_MARK.search(raw, max(0, len(raw) - _LONGEST_MARK))
        if found is not None and _is_edit_mark(found[1]):
            is_edited, raw = True, raw[: found.start()].rstrip()
    words, media = _without_media(raw)
    poll = _POLL.fullmatch(words)
    if poll is not None and all(poll[name] == poll[name].upper() for name in ("word", "option")):
        return Text(_bare(poll["question"]), [*media, {"kind": "poll"}], is_edited)
    is_said = bool(media) or is_edited or "\n" in words or _PLACE.search(words) is not None
    if is_marked and not is_said:
        return Text("", [], reason="notice")
    return Text(_bare(words), media, is_edited)


def _is_edit_mark(words: str) -> bool:
    has_several = " " in words.strip() or not words.isascii()
    return has_several and EDITED.search(words) is not None


def _bare(text: str) -> str:
    """Return a text without blanks and marks of direction at its edges and round its beginning."""
    text = text.strip()
    if text[:1] not in _AT_EDGES and text[-1:] not in _AT_EDGES:
        return text
    text = _WRAPPED.sub(r"\1", text)
    while (bare := text.strip().strip(_AT_EDGES)) != text:
        text = bare
    return text


def _without_media(raw: str) -> tuple[str, list[dict[str, str]]]:
    """Return a text without the placeholders of attachments, and the attachments."""
    first, _, caption = raw.partition("\n")
    found = _IN_ANGLES.fullmatch(_bare(first)) if "<" in first[:_LONGEST_MARK] else None
    if found is not None and MEDIA_OR_OMITTED.search(found[1]):
        return caption, [{"kind": _kind_of_words(found[1])}]
    found = _LEFT_OUT.search(raw) if _MARK in raw else None
    if found is not None and OMITTED.search(found[1]):
        before = raw[: found.start()].strip()
        is_file_name = _PAGES.match(before) is not None
        return "" if is_file_name else before, [{"kind": _kind_of_words(found[1])}]
    found = _LEFT_OUT.match(first) if caption else None
    if found is not None and OMITTED.search(found[1]):
        return caption, [{"kind": _kind_of_words(found[1])}]
    found = _FILE.match(raw)
    if found is not None and (
        _NAMED_BY_WHATSAPP.match(found["name"]) or ATTACHED.search(found["word"])
    ):
        return raw[found.end() :], [{"kind": _kind_of_name(found["name"])}]
    media = [{"kind": _kind_of_name(one["name"])} for one in _ATTACHMENT.finditer(raw)]
    return (_ATTACHMENT.sub("", raw) if media else raw), media


def _kind_of_words(words: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if pattern.search(words)), "unknown")


def _kind_of_name(name: str) -> str:
    return next((kind for kind, pattern in _NAMED_KINDS if pattern.search(name)), "file")


@lru_cache(maxsize=4_096)
def is_of_a_notice(author: str) -> bool:
    """Return whether the text before a colon is the beginning of a notice, not an author."""
    pairs = _QUOTES[1:] if "„" in author else _QUOTES
    opened = any(author.count(begin) > author.count(end) for begin, end in pairs)
    return opened or author.count('"') % 2 == 1 or NOTICE.search(author) is not None
