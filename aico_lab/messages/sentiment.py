"""Score the sentiment of messages that were imported without a score.

The scores are the compound values of VADER (Hutto, C.J. & Gilbert, E.E. (2014). VADER: A
Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text. Eighth International
Conference on Weblogs and Social Media): a lexicon and rules for English, between -1 and 1.

A message in another language has no score, and its `sentiment_source` gives the reason, such as
`language:de`.

A single process is used: two were 1.5 times as fast if forked, but no faster if spawned, as on
Windows, on macOS and in notebooks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aico_lab.messages.conversation_language import ENGLISH, languages_of
from aico_lab.messages.records import MessageRecord
from aico_lab.messages.vader import scorer, source

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER_LANGUAGE: Final = "language:"
"""Prefix of `sentiment_source` for messages without a score because of their language."""

_SCORE: Final = MessageRecord._fields.index("sentiment_score")
_REST: Final = MessageRecord._fields.index("sentiment_source") + 1


def score(
    batch: list[MessageRecord], earlier: Callable[[MessageRecord], list[str]] = lambda _: []
) -> list[MessageRecord]:
    """Return the messages with `sentiment_score` and `sentiment_source` filled in if missing.

    Blank texts get neither.

    Args:
        batch: Messages of any conversations, in order within each conversation.
        earlier: Returns other texts of a message's conversation, such as stored ones.
    """
    compound, vader = scorer(), source()
    scores: dict[str, float] = {}
    scored = list(batch)
    for place, language in languages_of(batch, earlier):
        message = batch[place]
        text = message.content
        if language != ENGLISH:
            reason = f"{OTHER_LANGUAGE}{language}"
            scored[place] = message._replace(sentiment_source=reason)
            continue
        value = scores.get(text)
        if value is None:
            value = scores[text] = compound(text)
        # Like `_replace`, in a third of the time.
        scored[place] = MessageRecord._make((*message[:_SCORE], value, vader, *message[_REST:]))
    return scored
