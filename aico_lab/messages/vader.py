"""Compute VADER's scores in a fraction of the library's time, and for text typed on phones.

The library does not recognise the typographic apostrophe, as in the negation "don’t", nor the
variation selector that turns a heart into an emoji. Both are replaced before scoring. All other
scores equal the library's.
"""  # noqa: RUF002

from __future__ import annotations

import functools
import re
from bisect import bisect_right as bisect
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SCORED: Final = 20_000
"""The most characters of a text that are scored, since VADER's time grows quadratically."""

MAX_TOKENS: Final = 50_000
LONGEST_TOKEN: Final = 40
"""The most words that are cached, and the most characters of a cached word."""

_NEGATION: Final = re.compile(r"\b(?:no|not|nor|never|none)\b", re.IGNORECASE)
"""Negations of up to two letters keep their punctuation in VADER's tokens, as in 'no,'."""

_PLAIN: Final = str.maketrans({**dict.fromkeys("’‘ʼ＇", "'"), "\ufe0f": None})  # noqa: RUF001


@functools.cache
def source() -> str:
    """Return the `sentiment_source` of scores: the versions of the library and of these rules."""
    return f"vader-{version('vaderSentiment')}-2"


@dataclass(frozen=True, slots=True)
class _Token:
    """The properties of a word that do not depend on its context.

    Attributes:
        lower: The word in lower case, without surrounding punctuation.
        value: The value of the word in the lexicon; None if the word is not there, or only
            modifies other words.
        in_lexicon: Whether it is in the lexicon.
        boost: How much it strengthens (above 0) or weakens the words after it.
        negates: Whether it negates the words after it.
        modifies: Whether it changes the value of one of the next three words in any way.
        in_idiom: Whether it may form an idiom with surrounding words.
        is_upper: Whether it is all capitals.
        matters: Whether a rule may change its value, or that of a nearby word because of it; if
            not, its value is that of the lexicon.
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
    """A cache of tokens by written word; None for words that no rule uses, which most are.

    Most words of most texts are the same few, so each is looked up in the lexicon only once.
    """

    def __init__(self, vader: Any, lexicon: dict[str, float]) -> None:
        self.strip: Callable[[str], str] = vader.SentiText._strip_punc_if_word  # noqa: SLF001
        self._lexicon, self._boosts, self._negate = lexicon, vader.BOOSTER_DICT, {*vader.NEGATE}
        phrases = [phrase.split() for phrase in (*vader.SPECIAL_CASES, *vader.BOOSTER_DICT)]
        # The longest word of each phrase, which is rarely a very frequent one.
        self._of_idioms = {max(words, key=len) for words in phrases if len(words) > 1}
        self._looked_at = {*lexicon, *self._boosts, *self._negate, *self._of_idioms}
        self._looked_at |= _OTHERS_THAT_MODIFY | _LOOKED_AT

    def __missing__(self, written: str) -> _Token | None:
        word = self.strip(written)
        lower = word.lower()
        looked_at = lower in self._looked_at or "n't" in lower
        token = self._token(word, lower) if looked_at else None
        if len(self) >= MAX_TOKENS:  # numbers and names are always new
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
    """Applies VADER's rules to words that have a value; rules use at most five nearby words."""

    def __init__(self) -> None:
        vader: Any = import_module("vaderSentiment.vaderSentiment")
        self._analyzer: Any = vader.SentimentIntensityAnalyzer()
        self._tokens = _Tokens(vader, self._analyzer.lexicon)
        self._negation: float = vader.N_SCALAR
        self._capitals: float = vader.C_INCR
        self._normalize: Callable[[float], float] = vader.normalize

    def tokens(self, text: str) -> list[_Token | None]:
        """Return the properties of the words of a text; None for words that no rule uses."""
        return list(map(self._tokens.__getitem__, self._plain(text).split()))

    def _plain(self, text: str) -> str:
        text = text[:MAX_SCORED]
        if not text.isascii():
            text = _spell_emojis(text.translate(_PLAIN), self._analyzer.emojis)
        return text

    def __call__(self, text: str) -> float:
        """Return the compound value of a text."""
        text = self._plain(text)
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
            else:  # no rule uses more than three words before and two after
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
        """Return the value of a word in its context: the library's `sentiment_valence`."""
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
        """Return the value of a word after modification by up to three words before it."""
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
    """Return whether some words, but not all, are in capitals: only then capitals count."""
    return 0 < sum(map(str.isupper, words)) < len(words)


def _follows_no(before: list[_Token | None]) -> bool:
    """Return whether one of the words before (the nearest first) is a "no" to this word."""
    if any(_says(token, "no") for token in before[:2]):
        return True
    return _says(_at(before, 2), "no") and _says(before[0], "or", "nor")


def _is_stressed(before: list[_Token | None], distance: int) -> bool:
    """Return whether the words before (the nearest first) stress a word, as in "never so good".

    As in the library, at a distance of three words "so" or "this" directly before is enough.
    """
    if distance == 0:
        return False
    never = _says(before[distance], "never") and _says(before[distance - 1], *_STRESS)
    return never or (distance == 2 and _says(before[0], *_STRESS))  # noqa: PLR2004


def _contrast(values: list[float], places: list[int], tokens: list[_Token | None]) -> None:
    """Halve the values before the first "but", and multiply those after it by 1.5.

    As in the library, of equal values the first one is changed, possibly twice.
    """
    but = next((i for i, token in enumerate(tokens) if _says(token, "but")), None)
    if but is None:
        return
    for value in values:
        first = values.index(value)
        if places[first] != but:
            values[first] = value * (0.5 if places[first] < but else 1.5)


@functools.cache
def scorer() -> _Scorer:
    """Return the function that scores a text; the lexicon is loaded once, on first use."""
    return _Scorer()


def is_purely_positive(text: str) -> bool:
    """Return whether a text has a positive word, and neither a negative word nor a negation."""
    found = [token for token in scorer().tokens(text) if token]
    values = [token.value for token in found if token.value is not None]
    negates = _NEGATION.search(text) or any(token.negates for token in found)
    return bool(values) and min(values) > 0 and not negates


def _spell_emojis(text: str, emojis: dict[str, str]) -> str:
    """Replace emojis by their names, as the library does."""
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
