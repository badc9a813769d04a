"""VADER's scores, for texts as phones write them, in a fraction of its time.

The library knows neither the typographic apostrophe, without which "don’t" is no negation, nor the
sign that makes a heart an emoji: both are taken for the plain ones before. Everything else is as
the library scores it.
"""  # noqa: RUF002

from __future__ import annotations

import functools
from bisect import bisect_right as bisect
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SCORED: Final = 20_000
"""Of a longer text only so many characters are scored: what VADER needs grows with their square."""

MAX_TOKENS: Final = 50_000
LONGEST_TOKEN: Final = 40
"""How many words are remembered, and how long these are at most."""

_PLAIN: Final = str.maketrans({**dict.fromkeys("’‘ʼ＇", "'"), "\ufe0f": None})  # noqa: RUF001


@functools.cache
def source() -> str:
    """Return the name of the scores: the library's version, and how often our rules changed."""
    return f"vader-{version('vaderSentiment')}-2"


@dataclass(frozen=True, slots=True)
class _Token:
    """What the rules need to know of a word as it was written, wherever it stands.

    Attributes:
        lower: In small letters, without the punctuation around it.
        value: Its value in the lexicon; None where it has none, or is there only to modify others.
        in_lexicon: Whether it is in the lexicon at all.
        boost: How much it strengthens the words behind it, or weakens them.
        negates: Whether it negates them.
        modifies: Whether it changes the value of one of the next three words in any way.
        in_idiom: Whether it may make an idiom with the words around it.
        is_upper: Whether it is all capitals.
        matters: Whether a rule may change its value, or for it that of a word near it; else a word
            counts with the value that it has in the lexicon.
    """

    lower: str
    value: float | None
    in_lexicon: bool
    boost: float
    negates: bool
    modifies: bool
    in_idiom: bool
    is_upper: bool
    matters: bool


_STRESS: Final = {"so", "this"}
_OTHERS_THAT_MODIFY: Final = {"no", "or", "least", "doubt"} | _STRESS
_LOOKED_AT: Final = {"at", "but", "of"}


class _Tokens(dict[str, "_Token | None"]):
    """Words by how they were written; None for one that no rule looks at, as most are.

    Most words of most texts are the same few, so each is looked up in the lexicon once.
    """

    def __init__(self, vader: Any, lexicon: dict[str, float]) -> None:
        self.strip: Callable[[str], str] = vader.SentiText._strip_punc_if_word  # noqa: SLF001
        self._lexicon, self._boosts, self._negate = lexicon, vader.BOOSTER_DICT, {*vader.NEGATE}
        phrases = [phrase.split() for phrase in (*vader.SPECIAL_CASES, *vader.BOOSTER_DICT)]
        # Of each phrase one word, the longest, so that it is none that is everywhere.
        self._of_idioms = {max(words, key=len) for words in phrases if len(words) > 1}
        self._looked_at = {*lexicon, *self._boosts, *self._negate, *self._of_idioms}
        self._looked_at |= _OTHERS_THAT_MODIFY | _LOOKED_AT

    def __missing__(self, written: str) -> _Token | None:
        word = self.strip(written)
        lower = word.lower()
        looked_at = lower in self._looked_at or "n't" in lower
        token = self._token(word, lower) if looked_at else None
        if len(self) >= MAX_TOKENS:  # such as numbers and names, which are ever new
            self.clear()
        if len(written) <= LONGEST_TOKEN:
            self[written] = token
        return token

    def _token(self, word: str, lower: str) -> _Token:
        boost = self._boosts.get(lower, 0.0)
        negates = lower in self._negate or "n't" in lower
        modifies = bool(negates or boost or lower in _OTHERS_THAT_MODIFY)
        in_idiom = lower in self._of_idioms
        return _Token(
            lower,
            None if boost else self._lexicon.get(lower),
            lower in self._lexicon,
            boost,
            negates,
            modifies,
            in_idiom,
            word.isupper(),
            modifies or in_idiom or word.isupper(),
        )


class _Scorer:
    """VADER's rules, asked only of words that have a value; each looks at five words around it."""

    def __init__(self) -> None:
        vader: Any = import_module("vaderSentiment.vaderSentiment")
        self._analyzer: Any = vader.SentimentIntensityAnalyzer()
        self._tokens = _Tokens(vader, self._analyzer.lexicon)
        self._negation: float = vader.N_SCALAR
        self._capitals: float = vader.C_INCR
        self._normalize: Callable[[float], float] = vader.normalize

    def __call__(self, text: str) -> float:
        """Return the compound value of a text."""
        text = text[:MAX_SCORED]
        if not text.isascii():
            text = _spell_emojis(text.translate(_PLAIN), self._analyzer.emojis)
        words = text.split()
        tokens = list(map(self._tokens.__getitem__, words))
        if not any(tokens):
            return 0.0
        mattering = [i for i, token in enumerate(tokens) if token and token.matters]
        places, values = [], []
        for i, token in enumerate(tokens):
            if token is None or token.value is None:
                continue
            if token.lower == "kind" and _says(_at(tokens, i + 1), "of"):
                continue
            places.append(i)
            if mattering and bisect(mattering, i - 4) < bisect(mattering, i + 2):
                values.append(self._value(tokens, words, i))
            else:  # no rule looks at more than three words before and two behind
                values.append(token.value)
        if not places:
            return 0.0
        _contrast(values, places, tokens)
        total = float(sum(values))
        if total and ("!" in text or "?" in text):
            emphasis = self._analyzer._punctuation_emphasis(text)  # noqa: SLF001
            total += emphasis if total > 0 else -emphasis
        # -0.0 becomes 0.0: they are equal, but databases write and sort them differently.
        return float(round(self._normalize(total), 4)) + 0.0

    def _value(self, tokens: list[_Token | None], words: list[str], i: int) -> float:
        """Return the value of a word in its place: the library's `sentiment_valence`."""
        token = tokens[i]
        if token is None or token.value is None:
            return 0.0
        value = token.value
        before = tokens[max(0, i - 3) : i]
        before.reverse()
        if token.lower == "no" and (following := _at(tokens, i + 1)) and following.in_lexicon:
            value = 0.0
        if any(before) and _follows_no(before):
            value = token.value * self._negation
        if token.is_upper and _is_mixed(words):
            value += self._capitals if value > 0 else -self._capitals
        if any(before):
            value = self._modified(value, before, words)
        if i > 2 and not (before[2] and before[2].in_lexicon):  # noqa: PLR2004 - three words before
            value = self._in_idiom(value, tokens, words, i)
        if before and before[0] and before[0].lower == "least" and not before[0].in_lexicon:
            value *= 1 if _says(_at(before, 1), "at", "very") else self._negation
        return value

    def _modified(self, value: float, before: list[_Token | None], words: list[str]) -> float:
        """Return the value of a word, as up to three words before it change it."""
        for distance, token in enumerate(before):
            if token is not None and token.in_lexicon:
                continue
            if token is not None and token.boost:
                boost = -token.boost if value < 0 else token.boost
                if token.is_upper and _is_mixed(words):
                    boost += self._capitals if value > 0 else -self._capitals
                value += boost * (1, 0.95, 0.9)[distance]
            if _is_stressed(before, distance):
                value *= 1.25
            elif token is not None and token.negates:
                doubted = any(_says(nearer, "doubt") for nearer in before[:distance])
                if not (token.lower == "without" and doubted):
                    value *= self._negation
        return value

    def _in_idiom(
        self, value: float, tokens: list[_Token | None], words: list[str], i: int
    ) -> float:
        if any(token.in_idiom for token in tokens[i - 3 : i + 3] if token):
            written = [self._tokens.strip(word) for word in words[i - 3 : i + 3]]
            value = self._analyzer._special_idioms_check(value, written, 3)  # noqa: SLF001
        return value


def _at(tokens: list[_Token | None], i: int) -> _Token | None:
    return tokens[i] if i < len(tokens) else None


def _says(token: _Token | None, *words: str) -> bool:
    return token is not None and token.lower in words


def _is_mixed(words: list[str]) -> bool:
    """Whether some words are all capitals and others are not: then capitals count."""
    return 0 < sum(map(str.isupper, words)) < len(words)


def _follows_no(before: list[_Token | None]) -> bool:
    """Whether one of the words before, the nearest one first, says no to this one."""
    if any(_says(token, "no") for token in before[:2]):
        return True
    return _says(_at(before, 2), "no") and _says(before[0], "or", "nor")


def _is_stressed(before: list[_Token | None], distance: int) -> bool:
    """Whether it is "never so" good, as the library sees it: three words before, "so" is enough."""
    if distance == 0:
        return False
    never = _says(before[distance], "never") and _says(before[distance - 1], *_STRESS)
    return never or (distance == 2 and _says(before[0], *_STRESS))  # noqa: PLR2004


def _contrast(values: list[float], places: list[int], tokens: list[_Token | None]) -> None:
    """Halve what is said before the first "but", and raise what is said behind it.

    As the library does it: of equal values the first one is changed, and perhaps twice.
    """
    but = next((i for i, token in enumerate(tokens) if _says(token, "but")), None)
    if but is None:
        return
    for value in values:
        first = values.index(value)
        if places[first] != but:
            values[first] = value * (0.5 if places[first] < but else 1.5)


@functools.cache
def scorer() -> Callable[[str], float]:
    """Return the function that scores a text; the lexicon is loaded once, when first needed."""
    return _Scorer()


def _spell_emojis(text: str, emojis: dict[str, str]) -> str:
    """Put the names of emojis into a text as the library does."""
    spelt = ""
    after_space = True
    for character in text:
        if name := emojis.get(character):
            spelt += name if after_space else f" {name}"
            after_space = False
        else:
            spelt += character
            after_space = character == " "
    return spelt
