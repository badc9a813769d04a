"""Identify the language of each message of a conversation.

A message is often too short for a guess. So conversations are read in passages of about a thousand
characters. The language of a passage is guessed from all its text; if that is not possible, it is
that of the passage before. A message has its own language if that is clear, otherwise the language
of its passage.

Guessing is slower than scoring. So text with enough of the most frequent English words is taken as
English, and only other text is guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aico_lab.messages.language import (
    CHARACTERS,
    ENOUGH_ALONE,
    UNKNOWN,
    is_foreign_script,
    language_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aico_lab.messages.records import MessageRecord

ENGLISH: Final = "en"
UNDETERMINED: Final = "und"  # ISO 639: undetermined

_ENGLISH_WORDS = (
    "the you your you're and are what what's that that's its it's i'm i've i'll i'd don't didn't "
    "can't doesn't isn't have has had with this they them their there she her his my not but just "
    "like know think would could should really about because how when where who why which from "
    "been were yes yeah if than some any want much very too did does going get got something "
    "people never always most other these those being here"
)
_ENGLISH: Final = frozenset(_ENGLISH_WORDS.split())
"""Frequent English words that are not words of other European languages."""

_AMBIGUOUS_WORDS = (
    "i to it of im thats be for on or he is we do good great nice thanks thank see "
    "can out more well him us our love feel need say way time one lot yea okay sounds "
    "sure pretty hey hello right work cool fun day back school make"
)
_AMBIGUOUS: Final = frozenset(_AMBIGUOUS_WORDS.split())
"""Frequent English words that may be words of other languages too."""


def languages_of(
    batch: list[MessageRecord], earlier: Callable[[MessageRecord], list[str]]
) -> Iterator[tuple[int, str]]:
    """Yield the index and the language of each message that has text but no score.

    Args:
        batch: Messages of any conversations, in order within each conversation.
        earlier: Returns other texts of a message's conversation.
    """
    # Separately for the system, whose texts, such as prompts, are often in another language.
    conversations: dict[tuple[str, bool], list[int]] = {}
    for place, message in enumerate(batch):
        key = (message.conversation_id, message.role == "system")
        conversations.setdefault(key, []).append(place)
    for places in conversations.values():
        if all(batch[place].sentiment_score is not None for place in places):
            continue
        languages = _languages(
            [batch[place].content for place in places], batch[places[0]], earlier
        )
        for place, language in zip(places, languages, strict=True):
            text = batch[place].content
            if batch[place].sentiment_score is None and text and not text.isspace():
                yield place, language


def _languages(
    texts: list[str], message: MessageRecord, earlier: Callable[[MessageRecord], list[str]]
) -> list[str]:
    """Return the language of each text of a conversation."""
    passages = [[_Text(text) for text in passage] for passage in _passages(texts)]
    guesses = [_guess(passage) for passage in passages]
    if guesses[0] == UNKNOWN:
        passage = [_Text(text) for text in earlier(message)] + passages[0]
        guesses[0] = _guess(passage)
        if guesses[0] == UNKNOWN and not any(text.may_be_english() for text in passage):
            # There are no more words than these: a less certain guess is better than none.
            guesses[0] = language_of("\n".join(text.text for text in passage), ENOUGH_ALONE)
    last = next((guess for guess in guesses if guess != UNKNOWN), UNKNOWN)
    languages = []
    for passage, guess in zip(passages, guesses, strict=True):
        last = last if guess == UNKNOWN else guess
        languages += [text.language_within(last) for text in passage]
    return languages


def _passages(texts: list[str]) -> list[list[str]]:
    passages: list[list[str]] = []
    length = CHARACTERS
    for text in texts:
        if length >= CHARACTERS:
            passages.append([])
            length = 0
        passages[-1].append(text)
        length += len(text)
    return passages


class _Text:
    """A text with cheap features: its script, its words, and the number of English words."""

    __slots__ = ("english", "is_english", "is_foreign", "text", "words")

    def __init__(self, text: str) -> None:
        self.text = text[:CHARACTERS]
        lower = self.text.lower()
        self.is_foreign = False
        if not self.text.isascii():
            self.is_foreign = is_foreign_script(self.text)
            lower = lower.replace("’", "'")  # noqa: RUF001
        self.words = lower.split()
        self.english = sum(map(_ENGLISH.__contains__, self.words))
        self.is_english = self.english > 1 and 3 * self.english >= len(self.words)

    def language_within(self, passage: str) -> str:
        """Return the language of the text, given the language of its passage."""
        if self.is_english:
            return ENGLISH
        if self.is_foreign and passage in {ENGLISH, UNKNOWN}:
            own = language_of(self.text)
            return UNDETERMINED if own in {ENGLISH, UNKNOWN} else own
        own = UNKNOWN if passage == ENGLISH and self.may_be_english() else language_of(self.text)
        if own == UNKNOWN:
            return ENGLISH if passage == UNKNOWN else passage
        return own

    def may_be_english(self) -> bool:
        """Return whether enough words of the text are frequent English words."""
        frequent = self.english + sum(map(_AMBIGUOUS.__contains__, self.words))
        return (self.english > 0 or frequent > 1) and 6 * frequent >= len(self.words)


def _guess(passage: list[_Text]) -> str:
    """Return the language of a passage; English if at least every fifth word is English."""
    english = sum(text.english for text in passage)
    if english > 2 and 5 * english >= sum(len(text.words) for text in passage):  # noqa: PLR2004
        return ENGLISH
    return language_of("\n".join(text.text for text in passage))
