"""In which language a text is written, as far as it can be told.

The guesses are those of py3langid (Lui, M. & Baldwin, T. (2012). langid.py: An Off-the-shelf
Language Identification Tool), without what is no language: addresses, code, hashes, laughter and
repeated letters. Where little is left, or the guess is unsure, the language is unknown.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

CHARACTERS: Final = 1000
"""How much of a text is looked at."""

ENOUGH: Final = 20
"""Bytes of letters below which guesses are often wrong: 7 Chinese characters, 10 Cyrillic ones."""

ENOUGH_ALONE: Final = 10
"""The same, for a text without frequent words of English that is all that there is."""

SURE: Final = 0.5
"""The probability from which a guess counts. Of 20,000 chat messages in English, 19 were taken for
another language at this one, and 44 at 0.2."""

UNKNOWN: Final = "unknown"
_NO_LANGUAGE: Final = "zxx"  # ISO 639: no linguistic content
_KINDS_OF_ENGLISH: Final = {"pcm": "en", "sco": "en"}
"""Nigerian Pidgin and Scots, which a line of English with "Nigeria" in it is taken for."""

_NO_WORDS: Final = re.compile(
    r"""```.*?(?:```|\Z) | `[^`\n]*`              # code
    # Each begins where a word does, so that a long one is looked at once and not from each place.
    | (?<!\S)\S+?://\S+ | www\.\S+ | (?<!\S)\S+?@\S+ | @\w+   # addresses and names
    | (?<![A-Za-z0-9_+/=-])[A-Za-z_+/=-]*+[0-9][A-Za-z0-9_+/=-]*+  # hashes, names with numbers
    | [A-Za-z]{40,}
    | \b\w*(\w)\1\1\w*                            # aaaah, hmmm, wwww
    | \b\w{0,2}?(\w{1,3}?)\2{2,}\w{0,2}\b         # hahaha, jajaja, kkkk
    | \b(?:a?(?:ha)+h?|ahah|hehe?h?|hihi|jaja|lo+l|lmf?ao|rofl|mdr|xd+)\b""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


@functools.lru_cache(maxsize=1024)  # a text is looked at alone, and as a part of its passage
def language_of(text: str, enough: int = ENOUGH) -> str:
    """Return the ISO 639 code of a text's language, or 'unknown'.

    Args:
        text: As it was written.
        enough: Bytes of letters below which the language is unknown.
    """
    if len(text) < enough and len(text.encode()) < enough:
        return UNKNOWN
    words = _NO_WORDS.sub(" ", text[:CHARACTERS])
    if len("".join(filter(str.isalpha, words)).encode()) < enough:
        return UNKNOWN
    code, probability = _identifier().classify(words)
    if probability < SURE or code == _NO_LANGUAGE:
        return UNKNOWN
    return _KINDS_OF_ENGLISH.get(code, str(code))


def is_foreign_script(text: str) -> bool:
    """Return whether most letters of a text are not Latin ones."""
    if text.isascii():
        return False
    letters = [character for character in text if character.isalpha()]
    return 2 * sum(not _is_latin(letter) for letter in letters) > len(letters)


def _is_latin(letter: str) -> bool:
    return letter < "\u0250" or "\u1e00" <= letter < "\u1f00"  # the latter are Vietnamese's


@functools.cache
def _identifier() -> Any:
    """Load the model, which takes almost a second and comes in the package."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
