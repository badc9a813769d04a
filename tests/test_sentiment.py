"""Sentiment scores are VADER's own, for messages that have none, and never take forever."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from aico_lab.messages.context import Context
from aico_lab.messages.rules import to_record
from aico_lab.messages.sentiment import score
from aico_lab.messages.vader import MAX_SCORED, scorer
from aico_lab.sources import read
from tests.chat_lines import LINES, lines_of
from tests.costs import takes_about

VADER = SentimentIntensityAnalyzer()
# Words that meet in VADER's rules: negation, boosters, idioms, "least", "but", capitals, emoji.
WORDS = [
    *("good", "BAD", "great", "shit", "the", "bomb", "yeah", "right", "not", "never", "so", "this"),
    *("without", "doubt", "isn't", "very", "kind", "of", "sort", "least", "at", "but", "no", "or"),
    *("x", "tree", "ass", "😁", "💔", ":)", "!!!", "??"),
]


def message(text, **fields):
    fields |= {"content": text, "timestamp": "2024-05-01T12:00:00Z"}
    return to_record(fields, Context(names_users=False))


def compound(text):
    return VADER.polarity_scores(text)["compound"]


def plain(text):
    """With the apostrophes that the library knows, and without the sign after a heart."""
    for apostrophe in "’‘ʼ＇":  # noqa: RUF001
        text = text.replace(apostrophe, "'")
    return text.replace("\ufe0f", "")


def test_missing_scores_are_filled_in_with_their_source():
    """The scores are the library's, and say so."""
    texts = ["I love this!", "I hate this.", "The table is made of wood.", "I love this!"]
    scored = score([message(text) for text in texts])
    assert [item.sentiment_score for item in scored] == [compound(text) for text in texts]
    assert {item.sentiment_source for item in scored} == {"vader-3.3.2-2"}
    assert [item.content for item in scored] == texts


def test_what_tells_no_language_has_that_of_what_follows():
    """A thousand letters that are no words, and then German: "die" is not English there either."""
    german = "Die Hunde sind da, und morgen gehen wir alle zusammen an den See."
    scored = score([message(text) for text in ["die", "1 2 3 4 5 6 " * 90, german]])
    assert [item.sentiment_source for item in scored] == ["language:de"] * 3


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


@pytest.mark.slow
@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
@example("so good")
@example("it was never this good but the least bad")
@example("not kind of good, never so bad without doubt")
def test_texts_are_scored_exactly_as_by_the_library(text):
    """Our shorter way through VADER's rules changes no score."""
    assert scorer()(text) == compound(text)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_is_scored_as_by_the_library(text):
    """No text breaks it."""
    assert scorer()(text) == compound(plain(text))


@given(
    st.lists(st.sampled_from([*WORDS, "don’t", "isnʼt", "❤", "\ufe0f", "’"]), max_size=20)  # noqa: RUF001
    .map(" ".join)
)  # fmt: skip
@example("I don’t like this.")  # noqa: RUF001
@example("I love you ❤\ufe0f")
def test_texts_of_phones_are_scored_as_plain_ones(text):
    """Whichever apostrophe, and however a heart is written."""
    assert scorer()(text) == compound(plain(text))


@pytest.mark.parametrize("apostrophe", "’‘ʼ＇")  # noqa: RUF001
def test_a_typographic_negation_is_one(apostrophe):
    """Phones write it by default."""
    assert scorer()(f"I don{apostrophe}t like this.") == compound("I don't like this.") < 0
    assert scorer()("❤\ufe0f") == compound("❤") > 0.6


@pytest.mark.slow
def test_real_conversations_are_scored_exactly_as_by_the_library():
    """20,000 real messages; one in 500 at most is taken for another language."""
    texts = [item for batch in read("chitchat", limit=20_000) for item in batch.messages]
    unscored = 0
    for item in score(texts):
        if item.sentiment_source and item.sentiment_score is None:
            unscored += 1
        elif item.content.strip():
            assert item.sentiment_score == compound(plain(item.content))
    assert unscored < 0.002 * len(texts)


def talk(texts, conversation="c"):
    return [message(text, conversation_id=conversation) for text in texts]


@pytest.mark.parametrize("language", LINES)
def test_a_conversation_in_another_language_has_no_scores(language):
    """Not even its short messages, nor where they come one by one; their source says why."""
    lines = lines_of(language)
    scored = score(talk(lines))
    assert [item.content for item in scored if item.sentiment_score is not None] == []
    assert Counter(item.sentiment_source for item in scored)[f"language:{language}"] >= 19
    singly = [score(talk([line]), lambda _, n=n: lines[:n]) for n, line in enumerate(lines)]
    assert sum(item.sentiment_score is not None for (item,) in singly) <= 1


def test_english_in_another_conversation_is_scored_and_the_other_way_round():
    """What is told by the message itself; only what cannot be told follows."""
    mixed = "Gestern habe ich the Witcher gespielt, das macht Laune."
    german, english = "Die Hunde sind da, und es regnet.", "I love that you are here with them!"
    texts = [*lines_of("de"), english, "ok", "Die!"]
    scored = score(talk(texts))
    assert [item.content for item in scored if item.sentiment_score is not None] == [english]
    texts = [*["What did you think about that? It was great!"] * 9, german, mixed, "ok", "Good!"]
    scored = {item.content: item for item in score(talk(texts))}
    assert scored[german].sentiment_source == "language:de"
    assert scored[mixed].sentiment_source == "language:de"
    assert scored["ok"].sentiment_score == compound("ok")
    assert scored["Good!"].sentiment_score == compound("Good!")


def test_a_prompt_of_the_system_decides_nothing():
    """It is in English where the talk is in German; and has its own score."""
    prompt = message("You are a friend who likes to talk with them about what they did. " * 9,
                     conversation_id="c", role="system")  # fmt: skip
    scored = score([prompt, *talk(lines_of("de")[:8])])
    assert [item.sentiment_score is None for item in scored] == [False, *[True] * 8]


def test_conversations_of_one_batch_do_not_mix():
    """Their messages may come in turns."""
    pairs = zip(talk(lines_of("de"), "d"), talk(["Good morning!", "ok"] * 10, "e"), strict=True)
    scored = score([item for pair in pairs for item in pair])
    assert {item.conversation_id for item in scored if item.sentiment_score is not None} == {"e"}
    assert sum(item.sentiment_score is not None for item in scored) == 20


def test_where_nothing_tells_a_message_is_scored_as_english():
    """As "ok" alone."""
    assert [item.sentiment_score for item in score(talk(["ok", "good"]))] == [
        compound("ok"), compound("good"),
    ]  # fmt: skip


def test_a_language_follows_long_passages_and_changes_with_them():
    """Thousands of characters of one, and of another."""
    texts = [*lines_of("de") * 5, *["I really think that you should know this."] * 60, "ok"]
    scored = score(talk(texts))
    short = [item for item in scored if item.content == "ok"]
    assert [item.sentiment_source for item in short[:3]] == ["language:de"] * 3
    assert scored[-1].sentiment_score == compound("ok")


@pytest.mark.slow
@pytest.mark.parametrize("words", ["good x but not ", "😁", "bad "])
def test_one_long_message_does_not_hang_an_import(words):
    """Only the beginning of a very long text is scored."""
    text = (words * 1_000_000)[:1_000_000]
    with takes_about(1):
        (item,) = score([message(text)])
    (beginning,) = score([message(text[:MAX_SCORED])])
    assert item.sentiment_score == beginning.sentiment_score


def test_vader_is_loaded_only_when_it_is_needed():
    """Importing the module costs nothing, and scoring does not bring a network library."""
    code = (
        "import sys\n"
        "from aico_lab.messages.sentiment import score\n"
        "print('vaderSentiment' in sys.modules)\n"
        "score([])\n"
        "print('vaderSentiment' in sys.modules, 'requests' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]


def test_a_text_alone_in_another_language_has_no_score():
    """Though `die` is a bad word in English."""
    alone = message("Die Hunde sind da.", conversation_id="alone")
    (scored,) = score([alone])
    assert (scored.sentiment_score, scored.sentiment_source) == (None, "language:de")
    for text in ("die die die!", "good morning", "ok cool", "sounds fun"):
        (scored,) = score([message(text, conversation_id=text)])
        assert scored.sentiment_score is not None


def test_lines_of_dashes_are_told_in_no_time():
    texts = [sign * 990 for sign in ("-", "=", "a-", "Zm9v/", "x@", "://")]
    many = [
        message(f"{text[:990]} {n}", conversation_id=f"{text[:2]}{n}")
        for text in texts
        for n in range(50)
    ]
    with takes_about(1):
        score(many)
