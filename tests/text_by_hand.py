"""Find words and questions as `aico_lab.mart.text` defines them, character by character."""

from __future__ import annotations

import re
import unicodedata

APOSTROPHES = "'‘’＇"  # noqa: RUF001
_JOINERS = APOSTROPHES + "\u200c\u200d"
_NO_SPACES = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")

_LETTER = "A-Za-z\u00c0-\u1fff\u2c00-\u2dff\u3041-\ud7ff"
_CHARACTER = f"0-9{_LETTER}"
_HOST = rf"[{_CHARACTER}](?:[{_CHARACTER}-]*[{_CHARACTER}])?"
_HOSTS = rf"{_HOST}(?:\.{_HOST})*"
_REST = rf"[{_CHARACTER}!#$%&'()*+,./:;=?@\[\]_~-]*[{_CHARACTER}#%&+/=_~-]"
_ADDRESS = re.compile(
    rf"\b[A-Za-z][A-Za-z0-9+.-]*://(?:{_REST})?"
    rf"|\b[Ww][Ww][Ww]\.{_REST}"
    rf"|[{_CHARACTER}._%+-]+@{_HOST}(?:\.{_HOST})+"
    rf"|{_HOSTS}\.[{_LETTER}]{{2,}}(?:/{_REST}|/)"
    rf"|{_HOSTS}\.(?i:com|edu|gov|net|org)\b(?:[:?#]{_REST})?",
    re.ASCII,
)


def has_no_spaces(text: str) -> bool:
    """Return whether a text has characters of a script without spaces between words."""
    return not text.isascii() and any(
        unicodedata.name(character, "").startswith(_NO_SPACES) for character in text
    )


def words_of(text: str) -> list[str] | None:
    """Return the words of a text as written, or None if its script has no spaces between words."""
    if has_no_spaces(text):
        return None
    text = f"\n{_bare(text)}\n"
    found: list[str] = []
    inside = False
    base = ""  # the kind of the character that marks belong to
    for place, character in enumerate(text[1:-1], 1):
        kind = _kind(character)
        joins = (character in _JOINERS and _kind(text[place + 1]) in "LN") or (
            character in ".," and _kind(text[place - 1]) == _kind(text[place + 1]) == "N"
        )
        if kind in "LN" and not inside:
            found.append(character)
            inside = True
        elif inside and (kind in "LN" or joins or (kind == "M" and base in "LN")):
            found[-1] += character
        else:
            inside = False
        base = base if kind == "M" else kind
    return found


def small_words_of(text: str) -> list[str]:
    """Return the words of a text as `mart.words` has them: lower case, one kind of apostrophe."""
    lower = unicodedata.normalize("NFC", text).lower()
    plain = str.maketrans(dict.fromkeys(APOSTROPHES, "'"))
    return [word.translate(plain) for word in words_of(lower) or []]


def is_question(text: str) -> bool:
    """Return whether a question mark ends a sentence of a text."""
    text = _bare(text) + "\n"
    return any(
        character in "？؟" or (character == "?" and _ends(text[place + 1]))  # noqa: RUF001
        for place, character in enumerate(text[:-1])
    )


def _bare(text: str) -> str:
    return _ADDRESS.sub(" ", unicodedata.normalize("NFC", text))


def _kind(character: str) -> str:
    return unicodedata.category(character)[0]


def _ends(following: str) -> bool:
    category = unicodedata.category(following)
    return (
        following in "\t\n\f\r !?\"'.,;:…*_~|`"
        or category[0] in "ZM"
        or category in {"Pe", "Ps", "Pi", "Pf", "Pd", "So", "Sk", "Cf"}
        or has_no_spaces(following)
    )
