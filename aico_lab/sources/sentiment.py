"""How positive a message is, for those that bring no score of their own.

The scores are the compound values of VADER (Hutto, C.J. & Gilbert, E.E. (2014). VADER: A
Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text. Eighth International
Conference on Weblogs and Social Media): a lexicon and rules for English, between -1 and 1.

One process does it: two were 1.5 times as fast where they can be forked, and no faster where they
have to be started anew, as on Windows, on macOS and in notebooks.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from aico_lab.sources.records import MessageRecord

MAX_SCORED: Final = 20_000
"""Of a longer text only so many characters are scored: what VADER needs grows with their square."""


def score(batch: list[MessageRecord]) -> list[MessageRecord]:
    """Fill in `sentiment_score` and `sentiment_source` where there is no score.

    Blank texts stay without one: there is nothing in them to judge.
    """
    compound, source = _vader()
    scores = {
        text: compound(text[:MAX_SCORED])
        for text in {message.content for message in batch if message.sentiment_score is None}
        if text and not text.isspace()
    }
    return [
        message._replace(sentiment_score=scores[message.content], sentiment_source=source)
        if message.sentiment_score is None and message.content in scores
        else message
        for message in batch
    ]


@cache
def _vader() -> tuple[Callable[[str], float], str]:
    """Return the scorer and its name; VADER and its lexicon are loaded once, when first needed."""
    base: Any = import_module("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer

    class Windowed(base):  # type: ignore[misc]
        """VADER with the same scores and less work on long texts.

        These two rules look at three words before the present one and two after it, but copy the
        whole text each time.
        """

        def _negation_check(self, valence: float, words: list[str], place: int, i: int) -> float:
            first = max(0, i - 3)
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

    def compound(text: str) -> float:
        # -0.0 becomes 0.0: they are equal, but databases write and sort them differently.
        return float(analyzer.polarity_scores(text)["compound"]) + 0.0

    return compound, f"vader-{version('vaderSentiment')}"
