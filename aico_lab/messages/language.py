"""Guess the language of a text.

Guesses are made by py3langid (Lui, M. & Baldwin, T. (2012). langid.py: An Off-the-shelf Language
Identification Tool), after addresses, code, hashes, laughter and repeated letters are removed. If
little text is left, or the guess is uncertain, the language is unknown.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

CHARACTERS: Final = 1000
"""The number of characters of a text that are examined."""

ENOUGH: Final = 20
"""The fewest bytes of letters for a guess: 7 Chinese characters or 10 Cyrillic ones."""

ENOUGH_ALONE: Final = 10
"""The same for a text without frequent English words, if the conversation has no other text."""

SURE: Final = 0.5
"""The least probability of an accepted guess. Of 20,000 chat messages in English, 19 were taken for
another language with this threshold, and 44 with 0.2."""

UNKNOWN: Final = "unknown"
_NO_LANGUAGE: Final = "zxx"  # ISO 639: no linguistic content
_KINDS_OF_ENGLISH: Final = {"pcm": "en", "sco": "en"}
"""Nigerian Pidgin and Scots, which English text that mentions "Nigeria" is mistaken for."""

_NO_WORDS: Final = re.compile(
    r"""```.*?(?:```|\Z) | `[^`\n]*`              # code
    # Each pattern begins at the start of a word, so a long one is not tried from every position.
    | (?<!\S)\S+?://\S+ | www\.\S+ | (?<!\S)\S+?@\S+ | @\w+   # addresses and names
    | (?<![A-Za-z0-9_+/=-])[A-Za-z_+/=-]*+[0-9][A-Za-z0-9_+/=-]*+  # hashes, names with numbers
    | [A-Za-z]{40,}
    | \b\w*(\w)\1\1\w*                            # aaaah, hmmm, wwww
    | \b\w{0,2}?(\w{1,3}?)\2{2,}\w{0,2}\b         # hahaha, jajaja, kkkk
    | \b(?:a?(?:ha)+h?|ahah|hehe?h?|hihi|jaja|lo+l|lmf?ao|rofl|mdr|xd+)\b""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


@functools.lru_cache(maxsize=1024)  # a text may be guessed alone, and again as its passage
def language_of(text: str, enough: int = ENOUGH) -> str:
    """Return the ISO 639 code of a text's language, or 'unknown'.

    Args:
        text: The text as written.
        enough: The fewest bytes of letters for a guess.
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
    """Return whether most letters of a text are not Latin."""
    if text.isascii():
        return False
    letters = [character for character in text if character.isalpha()]
    return 2 * sum(not _is_latin(letter) for letter in letters) > len(letters)


def _is_latin(letter: str) -> bool:
    return letter < "\u0250" or "\u1e00" <= letter < "\u1f00"  # the latter as in Vietnamese


@functools.cache
def _identifier() -> Any:
    """Load the model shipped with py3langid, which takes almost a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
