"""VADER's scores, for texts as phones write them, in half of the library's time.

The library knows neither the typographic apostrophe, without which "don’t" is no negation, nor the
sign that makes a heart an emoji: both are taken for the plain ones before. Everything else is as
the library scores it.
"""  # noqa: RUF002

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SCORED: Final = 20_000
"""Of a longer text only so many characters are scored: what VADER needs grows with their square."""

_PLAIN: Final = str.maketrans({**dict.fromkeys("’‘ʼ＇", "'"), "\ufe0f": None})  # noqa: RUF001


@functools.cache
def source() -> str:
    """Return the name of the scores: the library's version, and how often our rules changed."""
    return f"vader-{version('vaderSentiment')}-2"


@dataclass(frozen=True, slots=True)
class _Words:
    """The attributes of the library's `SentiText` that its rules read."""

    words_and_emoticons: list[str]
    is_cap_diff: bool


@functools.cache
def scorer() -> Callable[[str], float]:
    """Return the function that scores a text; the lexicon is loaded once, when first needed."""
    vader: Any = import_module("vaderSentiment.vaderSentiment")
    base: Any = vader.SentimentIntensityAnalyzer

    changing = {*vader.NEGATE, "so", "this"}

    class Windowed(base):  # type: ignore[misc]
        """VADER with the same scores and less work.

        These two rules look at three words before the present one and two after it, but copy the
        whole text each time.
        """

        def _negation_check(self, valence: float, words: list[str], place: int, i: int) -> float:
            first = max(0, i - 3)
            before = [word.lower() for word in words[first:i]]
            if not any(word in changing or "n't" in word for word in before):
                return valence
            checked: float = base._negation_check(  # noqa: SLF001
                valence, words[first : i + 1], place, i - first
            )
            return checked

        def _special_idioms_check(self, valence: float, words: list[str], i: int) -> float:
            first = max(0, i - 3)
            checked: float = base._special_idioms_check(  # noqa: SLF001
                valence, words[first : i + 3], i - first
            )
            return checked

    analyzer = Windowed()
    lexicon, boosters = analyzer.lexicon, vader.BOOSTER_DICT
    emojis = functools.partial(_spell_emojis, emojis=analyzer.emojis)
    strip = vader.SentiText._strip_punc_if_word  # noqa: SLF001

    def compound(text: str) -> float:
        text = text[:MAX_SCORED]
        if not text.isascii():
            text = emojis(text.translate(_PLAIN))
        text = text.strip()
        words = list(map(strip, text.split()))
        lowered = [word.lower() for word in words]
        # Most words, and most texts, have no value: only for the others the rules are asked.
        valued = [
            i
            for i, word in enumerate(lowered)
            if word in lexicon
            and word not in boosters
            and not (word == "kind" and lowered[i + 1 : i + 2] == ["of"])
        ]
        if not valued:
            return 0.0
        told = _Words(words, vader.allcap_differential(words))
        values: list[float] = [0] * len(words)
        for i in valued:
            (values[i],) = analyzer.sentiment_valence(0, told, words[i], i, [])
        if "but" in lowered:
            values = analyzer._but_check(words, values)  # noqa: SLF001
        total = float(sum(values))
        emphasis = analyzer._punctuation_emphasis(text) if total else 0  # noqa: SLF001
        total += emphasis if total > 0 else -emphasis
        # -0.0 becomes 0.0: they are equal, but databases write and sort them differently.
        return float(round(vader.normalize(total), 4)) + 0.0

    return compound


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
