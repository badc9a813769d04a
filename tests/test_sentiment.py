"""Sentiment scores are VADER's own, for messages that have none, and never take forever."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from aico_lab.sources import read
from aico_lab.sources.rules import Occurrences, to_record
from aico_lab.sources.sentiment import score
from aico_lab.sources.vader import MAX_SCORED

VADER = SentimentIntensityAnalyzer()
# Words that meet in VADER's rules: negation, boosters, idioms, "least", "but", capitals, emoji.
WORDS = [
    *("good", "BAD", "great", "shit", "the", "bomb", "yeah", "right", "not", "never", "so", "this"),
    *("without", "doubt", "isn't", "very", "kind", "of", "sort", "least", "at", "but", "no", "or"),
    *("x", "tree", "ass", "😁", "💔", ":)", "!!!", "??"),
]


def message(text, **fields):
    fields |= {"content": text, "timestamp": "2024-05-01T12:00:00Z"}
    return to_record(fields, Occurrences())


def compound(text):
    return VADER.polarity_scores(text)["compound"]


def test_missing_scores_are_filled_in_with_their_source():
    """The scores are the library's, and say so."""
    texts = ["I love this!", "I hate this.", "The table is made of wood.", "I love this!"]
    scored = score([message(text) for text in texts])
    assert [item.sentiment_score for item in scored] == [compound(text) for text in texts]
    assert {item.sentiment_source for item in scored} == {"vader-3.3.2"}
    assert [item.content for item in scored] == texts


def test_given_scores_stay():
    """A score of the user's own is never replaced, not even of a text that is scored elsewhere."""
    given_one = message("I love this!", sentiment_score=-0.5)
    scored = score([given_one, message("I love this!")])
    assert scored[0] is given_one
    assert scored[1].sentiment_score == compound("I love this!")


def test_blank_texts_have_no_score():
    """Neither a number nor a source: there is nothing to judge."""
    blanks = [message(text) for text in ("", " ", "\n\t", "\u3000")]
    assert score(blanks) == blanks


def test_an_empty_batch_is_scored():
    """There is nothing to do."""
    assert score([]) == []


def test_zero_has_no_sign():
    """VADER gives -0.0 now and then, which databases write in another way than 0.0."""
    text = "I read the first 6 and then stopped but I want to reread them"
    assert str(compound(text)) == "-0.0"
    (item,) = score([message(text)])
    assert str(item.sentiment_score) == "0.0"


@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
@example("so good")
@example("it was never this good but the least bad")
def test_long_texts_are_scored_exactly_as_by_the_library(text):
    """Our shorter way through VADER's rules changes no score."""
    (item,) = score([message(text)])
    assert (item.sentiment_score or 0.0) == compound(text)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_is_scored_as_by_the_library(text):
    """No text breaks it."""
    (item,) = score([message(text)])
    assert (item.sentiment_score or 0.0) == compound(text)
    assert (item.sentiment_score is None) == (not text.strip())


@pytest.mark.slow
def test_real_conversations_are_scored_exactly_as_by_the_library():
    """20,000 real messages."""
    texts = [item for batch in read("chitchat", limit=20_000) for item in batch.messages]
    for item in score(texts):
        assert item.sentiment_score == (compound(item.content) if item.content.strip() else None)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["good x but not ", "😁", "bad "])
def test_one_long_message_does_not_hang_an_import(words):
    """Only the beginning of a very long text is scored."""
    text = (words * 1_000_000)[:1_000_000]
    start = time.monotonic()
    (item,) = score([message(text)])
    assert time.monotonic() - start < 10
    (beginning,) = score([message(text[:MAX_SCORED])])
    assert item.sentiment_score == beginning.sentiment_score


def test_vader_is_loaded_only_when_it_is_needed():
    """Importing the module costs nothing, and scoring does not bring a network library."""
    code = (
        "import sys\n"
        "from aico_lab.sources.sentiment import score\n"
        "print('vaderSentiment' in sys.modules)\n"
        "score([])\n"
        "print('vaderSentiment' in sys.modules, 'requests' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]
